"""In which of its phases a stage is: at the start, at a checkpoint, later."""

from __future__ import annotations

from collections.abc import Sequence

from tflearn.training import course
from tflearn.training.checkpoints import Checkpoints, Content
from tflearn.training.stage import Prepared


class Track:
    """The phases of a stage, one of which is entered.

    The optimizer of a phase has the state of what moves in it, so a checkpoint can be
    read only in the phase that it was saved in. Which one that is shows when it is
    known which checkpoint is whole.

    Args:
        prepared: The stage.
        legs: Its phases in order.
        hold: Its anchor, if it has one.
        total_steps: Its length, for the schedule.
    """

    def __init__(
        self,
        prepared: Prepared,
        legs: Sequence[course.Leg],
        hold: course.Hold | None,
        *,
        total_steps: int,
    ) -> None:
        """Enters nothing yet."""
        self._prepared, self._legs = prepared, legs
        self._hold, self._total_steps = hold, total_steps
        self._number: int | None = None

    @property
    def leg(self) -> course.Leg:
        """The phase that is entered."""
        return self._legs[self._number or 0]

    @property
    def is_first(self) -> bool:
        """Whether it is the one that the stage begins with."""
        return self.leg is self._legs[0]

    @property
    def is_last(self) -> bool:
        """Whether no other phase follows."""
        return self.leg is self._legs[-1]

    def enter(self, step: int) -> None:
        """Enters the phase in which a checkpoint of a step is saved."""
        number = course.leg_at(self._legs, step)
        if number != self._number:
            leg, total = self._legs[number], self._total_steps
            course.enter(self._prepared, leg, self._hold, total_steps=total)
            self._number = number

    def go_on(self) -> None:
        """Enters the next phase, with the state of the optimizer."""
        self._number = (self._number or 0) + 1
        total = self._total_steps
        course.go_on(self._prepared, self.leg, self._hold, total_steps=total)

    def restore(self, saved: Checkpoints) -> Content:
        """Reads the newest whole checkpoint into the stage, in the phase it is of."""
        model = self._prepared.network.model

        def load(step: int) -> Content:
            self.enter(step)
            return saved.load(step, model, optimizer=model.optimizer)

        return saved.newest(load)
