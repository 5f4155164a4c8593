"""What an arm may spend, and what its runs have spent, in the unit of the budget."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from tflearn.reports.report import Report, StageReport
from tflearn.support.errors import ConfigError
from tflearn.training import budgets
from tflearn.training.budgets import Budget

_MONEY = re.compile(r"\s*([0-9.e+]+)\s*money\s*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Allowance:
    """What an arm may spend for one number of labels.

    Args:
        unit: `steps`, `epochs`, `examples`, `flops` or `seconds`.
        total: All of it.
        tuning: What its search may spend.
        each: What is left for every seed.
        declared: The budget of a seed as it was declared, where nothing of it goes
            into a search and it is that of the stage.
    """

    unit: str
    total: float
    tuning: float
    each: float
    declared: str | None = None

    @property
    def text(self) -> str:
        """The whole as a person reads it."""
        return text(self.total, self.unit)


def allowance(declared: str, price_per_hour: float | None) -> Budget:
    """Reads a budget of a comparison; money and all units of time become seconds.

    Args:
        declared: Such as `600 steps`, `1e15 flops`, `20 minutes`, `0.50 money`.
        price_per_hour: What an hour costs, for money.

    Returns:
        The budget.

    Raises:
        ConfigError: It cannot be read, or a price is missing.

    Example:

    >>> allowance("0.50 money", 2.0)
    Budget(amount=900.0, unit='seconds')
    """
    money = _MONEY.fullmatch(declared)
    if money is None:
        budget = budgets.parse(declared)
        if budget.seconds is None:
            return budget
        return Budget(amount=budget.seconds, unit="seconds")
    if price_per_hour is None or price_per_hour <= 0:
        raise ConfigError(
            "a budget of money needs what an hour costs",
            received=price_per_hour,
            expected="Comparison.price_per_hour above 0; prices are yours to fill in",
        )
    hours = budgets.parse(f"{money[1]} hours").amount / price_per_hour
    return Budget(amount=hours * 3600, unit="seconds")


def divide(
    whole: Budget, *, share: float, seeds: int, declared: str | None
) -> Allowance:
    """Divides what an arm may spend into its search and its seeds.

    Args:
        whole: All of it.
        share: Part of the search.
        seeds: How many runs share the rest.
        declared: What the stage of a seed declares, if that is where it comes from.

    Example:

    >>> whole = Budget(amount=600, unit="steps")
    >>> divide(whole, share=0.25, seeds=3, declared=None).each
    150.0
    """
    tuning = whole.amount * share
    return Allowance(
        unit=whole.unit,
        total=whole.amount,
        tuning=tuning,
        each=(whole.amount - tuning) / seeds,
        declared=None if share else declared,
    )


def text(amount: float, unit: str) -> str:
    """Writes an amount as a stage's budget.

    Raises:
        ConfigError: It is too little to train anything.

    Example:

    >>> text(12.0, "steps"), text(1e15, "flops")
    ('12 steps', '1e+15 flops')
    """
    least = {"steps": 1.0, "examples": 1.0}.get(unit, 1e-3)
    # What is left of a division such as 3 * 0.7 / 3 is no missing step.
    if amount < least * (1 - 1e-9):
        raise ConfigError(
            "the budget of an arm does not go round",
            received=f"{amount:.3g} {unit} for one run",
            expected=f"at least {least:g} {unit}",
            fix="a larger Comparison.budget, fewer candidates or fewer seeds",
        )
    return f"{amount:.12g} {unit}"


def spent(report: Report, unit: str, *, own: Sequence[str]) -> float | None:
    """Returns what a run has spent.

    Args:
        report: Its report.
        unit: What is counted.
        own: Names of the stages that the arm does not share with the others.

    Returns:
        The amount; None where a stage's operations are not known. Time is that of
        training and of features that were computed once.
    """
    amounts = [_of_stage(stage, unit) for stage in report.stages if stage.name in own]
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def _of_stage(stage: StageReport, unit: str) -> float | None:
    if unit == "seconds":
        return sum(stage.seconds.get(name, 0.0) for name in ("train", "cache"))
    amounts = {
        "steps": float(stage.steps),
        "epochs": stage.epochs,
        "examples": float(stage.examples_seen),
        "flops": stage.flops,
    }
    return amounts[unit]
