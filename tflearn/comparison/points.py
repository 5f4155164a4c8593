"""A point of a comparison: an arm at a number of labels, its folders and budgets."""

from __future__ import annotations

import dataclasses
import pathlib

from tflearn.comparison import arms, spending
from tflearn.comparison.declaration import Arm, Comparison
from tflearn.experiment import Experiment, Stage
from tflearn.support.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """An arm at a number of labels.

    Args:
        base: The experiment, the arm's overrides applied.
        arm: The arm, as that declaration has it.
        comparison: What it belongs to.
        folder: The folder of the whole comparison.
        labels: How many labels; None: all, and no learning curve.
    """

    base: Experiment
    arm: Arm
    comparison: Comparison
    folder: pathlib.Path
    labels: int | None

    @property
    def home(self) -> pathlib.Path:
        """The folder of the arm, or of the arm at this number of labels."""
        own = self.folder / "arms" / self.arm.name
        return own if self.labels is None else own / f"labels{self.labels}"

    @property
    def name(self) -> str:
        """What it is called in a line."""
        at = "" if self.labels is None else f", {self.labels:,} labels"
        return f"arm '{self.arm.name}'{at}"

    @property
    def last(self) -> Stage:
        """The last stage of the arm, with all its labels."""
        return arms.last(self.base, self.arm)

    @property
    def allowance(self) -> spending.Allowance:
        """What it may spend."""
        return self.comparison.allowance(self.arm, self.last)

    @property
    def own_stages(self) -> tuple[str, ...]:
        """Names of the stages whose costs are the arm's."""
        return (*(stage.name for stage in self.arm.stages), self.last.name)

    def seed_folder(self, seed: int) -> pathlib.Path:
        """Returns the run directory of a seed."""
        return self.home / f"seed{seed}"

    def seed_budget(self) -> str:
        """Returns the budget of the last stage of a seed: what all others leave.

        Raises:
            ConfigError: The stages of the arm are counted in another unit, or nothing
                is left.
        """
        allowed = self.allowance
        if self.comparison.budget is None and self.comparison.arms:
            # Each stage trains as long as it declares.
            return allowed.declared or spending.text(allowed.each, allowed.unit)
        taken = sum(_amount(stage, allowed.unit) for stage in self.arm.stages)
        if allowed.declared is not None and not taken:
            return allowed.declared
        return spending.text(allowed.each - taken, allowed.unit)


def _amount(stage: Stage, unit: str) -> float:
    budget = spending.allowance(stage.budget, None)
    # An epoch of other data is another amount.
    if budget.unit != unit or unit == "epochs":
        raise ConfigError(
            f"stage '{stage.name}' of an arm is not counted in the budget's unit",
            received=stage.budget,
            expected="steps" if unit == "epochs" else unit,
            fix="count all of an arm in one unit, such as steps",
        )
    return budget.amount
