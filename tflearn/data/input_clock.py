"""How long training waits for its batches, and in which shapes they come."""

from __future__ import annotations

import time
from typing import Any

import keras

# Asked for sooner than that, a batch is not made ahead: somebody is waiting.
_AT_ONCE_SECONDS = 1e-3


class Clock:
    """Adds up the time in which nothing is computed because a batch is missing.

    It reads the clock and never the device. Told of steps (`begun`, `ended`), it counts
    a batch from when it was asked for or the step before had ended, whichever was
    later: what is made while the device still computes is waited for by nobody. Not
    told, it counts from when a batch was asked for, which is a bound from above.

    Attributes:
        ahead: Whether batches are asked for by something that keeps a few in store, as
            `tf.data` does. Then one that is asked for some time after the last was
            done was asked for by a full store, and nobody waits for it.
        waited_seconds: Time that training waited.
        seconds: Time of training, validation and the like not included.
        shapes: The shapes that batches had; a program is compiled for each.
    """

    def __init__(self) -> None:
        self.ahead = False
        self.waited_seconds = 0.0
        self.seconds = 0.0
        self.shapes: set[tuple[tuple[int, ...], ...]] = set()
        self._since: float | None = None
        self._done = 0.0
        self._begun, self._ended, self._idle_since = 0, -1, 0.0

    def begin(self) -> None:
        """Starts the clock; one that runs starts anew."""
        now = time.perf_counter()
        if self._since is None:
            self._begun, self._ended, self._idle_since = 0, -1, now
        else:
            # The step behind compiled; what it waited belongs to no training.
            self.waited_seconds = 0.0
        self._since = now

    def pause(self) -> None:
        """Stops the clock, as for a validation."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
        self._since = None

    def begun(self, step: int) -> None:
        """Takes note of a step that asks for its batch, counted from `begin`."""
        self._begun = step

    def ended(self, step: int) -> None:
        """Takes note of a computed step; from any thread and in any order."""
        if step > self._ended:
            self._ended, self._idle_since = step, time.perf_counter()

    def add(self, batch: Any, asked: float) -> None:
        """Counts a batch that has just been made.

        Args:
            batch: The batch.
            asked: When it was asked for, by `time.perf_counter`.
        """
        now = time.perf_counter()
        if self._since is not None and self._is_waited_for(asked, now):
            self.waited_seconds += now - max(asked, self._since, self._idle_since)
        self._done = now
        self.shapes.add(tuple(array.shape for array in keras.tree.flatten(batch)))

    def _is_waited_for(self, asked: float, now: float) -> bool:
        if self.ahead:
            return asked - self._done < max(_AT_ONCE_SECONDS, 0.1 * (now - asked))
        return self._ended >= self._begun - 1

    @property
    def share(self) -> float | None:
        """Waited share of training; None where no batch was asked for."""
        if not self.shapes or self.seconds <= 0:
            return None
        return min(1.0, self.waited_seconds / self.seconds)
