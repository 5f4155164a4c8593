"""How long a stage runs: `"3 epochs"`, `"5 minutes"`, `"1e15 flops"`."""

from __future__ import annotations

import dataclasses
import math
import re

from tflearn.support.errors import ConfigError, nearest

_SECONDS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}
UNITS = ("steps", "epochs", "examples", "flops", *_SECONDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """An amount of training.

    Args:
        amount: How much, above 0.
        unit: `steps`, `epochs`, `examples`, `flops`, `seconds`, `minutes` or `hours`.
    """

    amount: float
    unit: str

    @property
    def is_measured(self) -> bool:
        """Whether its steps are known only once one of them was timed or counted."""
        return self.seconds is not None or self.unit == "flops"

    @property
    def seconds(self) -> float | None:
        """The wall-clock limit, or None for a budget that counts work."""
        return self.amount * _SECONDS[self.unit] if self.unit in _SECONDS else None


def parse(text: str) -> Budget:
    """Reads a budget.

    Args:
        text: An amount and a unit; the unit may be singular.

    Returns:
        The budget.

    Raises:
        ConfigError: The text has another form, or an amount that is not above 0.

    Example:

    >>> parse("3 epochs")
    Budget(amount=3.0, unit='epochs')
    """
    expected = f"'AMOUNT UNIT' with a unit of {', '.join(UNITS)}"
    form = re.fullmatch(r"\s*([0-9.e+]+)\s*([a-z]+)\s*", str(text).lower())
    if form is None:
        raise ConfigError("a budget cannot be read", received=text, expected=expected)
    unit = form[2] if form[2] in UNITS else f"{form[2]}s"
    if unit not in UNITS:
        raise ConfigError(
            "unknown unit of a budget",
            received=text,
            expected=expected,
            nearest=nearest(form[2], UNITS),
        )
    try:
        amount = float(form[1])
    except ValueError:
        amount = 0.0
    if not 0 < amount < math.inf:
        raise ConfigError(
            "the amount of a budget must be a number above 0",
            received=text,
            expected=expected,
        )
    return Budget(amount=amount, unit=unit)


def total_steps(
    budget: Budget,
    *,
    num_examples: int,
    batch_size: int,
    step_seconds: float | None = None,
    step_flops: float | None = None,
) -> int:
    """Turns a budget into optimizer steps, rounded up.

    An epoch is `ceil(num_examples / batch_size)` steps, so that a number of epochs
    covers every example at least so many times.

    Args:
        budget: The budget.
        num_examples: Training examples an epoch.
        batch_size: Examples a step, over all devices.
        step_seconds: Measured duration of a step, for a budget of time.
        step_flops: Operations of a step, for a budget of FLOPs.

    Returns:
        Number of steps, at least 1.

    Example:

    >>> total_steps(parse("2 epochs"), num_examples=100, batch_size=32)
    8
    """
    amount = budget.amount
    if budget.seconds is not None:
        if step_seconds is None:
            raise ValueError("a budget of time needs step_seconds")
        return max(1, math.ceil(budget.seconds / step_seconds))
    if budget.unit == "flops":
        if step_flops is None:
            raise ValueError("a budget of FLOPs needs step_flops")
        return max(1, math.ceil(amount / step_flops))
    if budget.unit == "epochs":
        return math.ceil(amount * steps_per_epoch(num_examples, batch_size))
    if budget.unit == "examples":
        return math.ceil(amount / batch_size)
    return math.ceil(amount)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Returns the steps that cover every example once.

    Example:

    >>> steps_per_epoch(100, 32)
    4
    """
    return math.ceil(num_examples / batch_size)
