"""Phases of a stage: which layers move until when.

Phases come first; the stage's own regime holds from the end of the last one. At a
boundary the optimizer goes on: its step count and the slots of weights that were
already moving are kept, weights that begin to move get slots of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tflearn.regimes import rules
from tflearn.support.errors import ConfigError
from tflearn.training import budgets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a stage with a regime of its own.

    Args:
        until: Where it ends, counted from the start of the stage: `"100 steps"`,
            `"1 epoch"` or `"5000 examples"`.
        regime: Ordered rules over layers, as in `Stage.regime`.
    """

    until: str
    regime: Sequence[rules.Rule]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A phase in steps.

    Args:
        start: Its first step.
        end: The step behind its last one.
        regime: Ordered rules over layers.
    """

    start: int
    end: int
    regime: Sequence[rules.Rule]


def gradual(
    *, num_phases: int = 3, blocks_per_phase: int = 1, each: str = "1 epoch"
) -> tuple[Phase, ...]:
    """Unfreezes the backbone from the top: first the head alone, then block by block.

    Args:
        num_phases: How many phases; the first one trains the head alone.
        blocks_per_phase: Blocks of the backbone that each later phase adds.
        each: Length of a phase.

    Returns:
        The phases; what the stage's regime says, such as `regimes.full()`, follows.

    Example:

    >>> for phase in gradual(num_phases=2, each="100 steps"):
    ...     print(phase.until, [str(rule) for rule in phase.regime])
    100 steps ["freeze('backbone/*')", "train('*')"]
    200 steps ['train_last(1)', "freeze('backbone/*')", "train('*')"]

    References:
        Howard and Ruder 2018, https://arxiv.org/abs/1801.06146
    """
    for name, value in (
        ("num_phases", num_phases),
        ("blocks_per_phase", blocks_per_phase),
    ):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1", received=value)
    length = budgets.parse(each)
    regimes = [
        rules.partial(last=index * blocks_per_phase) if index else rules.frozen()
        for index in range(num_phases)
    ]
    return tuple(
        Phase(until=f"{(index + 1) * length.amount:.12g} {length.unit}", regime=regime)
        for index, regime in enumerate(regimes)
    )


def head_first(*, until: str = "1 epoch") -> tuple[Phase, ...]:
    """Warms the head up on a frozen backbone before anything else moves (LP-FT).

    Args:
        until: How long.

    Returns:
        The phase; what the stage's regime says, such as `regimes.full()`, follows.

    References:
        Kumar et al. 2022, https://arxiv.org/abs/2202.10054
    """
    return (Phase(until=until, regime=rules.frozen()),)


def spans(
    phases: Sequence[Phase],
    regime: Sequence[rules.Rule],
    *,
    total_steps: int,
    num_examples: int,
    batch_size: int,
) -> tuple[Span, ...]:
    """Turns the phases of a stage into steps.

    Args:
        phases: The phases in order.
        regime: The regime behind the last one.
        total_steps: Length of the stage.
        num_examples: Training examples an epoch.
        batch_size: Examples a step.

    Returns:
        Spans without a gap from step 0 to `total_steps`; a phase that would begin
        behind the end of the stage is not among them.

    Raises:
        ConfigError: A phase does not end behind the one before it, or after a time.

    Example:

    >>> made = spans(
    ...     gradual(num_phases=2), (), total_steps=25, num_examples=80, batch_size=8
    ... )
    >>> [(span.start, span.end) for span in made]
    [(0, 10), (10, 20), (20, 25)]
    """
    found: list[Span] = []
    start = 0
    for phase in phases:
        length = budgets.parse(phase.until)
        if length.seconds is not None:
            raise ConfigError(
                "a phase must end at the same step on every machine",
                received=phase.until,
                expected="steps, epochs or examples",
            )
        end = budgets.total_steps(
            length, num_examples=num_examples, batch_size=batch_size
        )
        if end <= start:
            raise ConfigError(
                "a phase must end behind the one before it",
                received=f"until='{phase.until}', step {end}, after step {start}",
                fix="count `until` from the start of the stage",
            )
        found.append(Span(start=start, end=end, regime=phase.regime))
        start = end
    found.append(Span(start=start, end=max(total_steps, start + 1), regime=regime))
    return tuple(
        dataclasses.replace(span, end=min(span.end, total_steps))
        for span in found
        if span.start < total_steps
    )
