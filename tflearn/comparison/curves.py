"""Numbers of labels: which points a learning curve has, and the stage at one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from tflearn.comparison.declaration import Comparison
from tflearn.data import Data
from tflearn.experiment import Stage
from tflearn.support.console import say
from tflearn.support.errors import ConfigError
from tflearn.training import budgets

# Validations in a run, where the stage leaves them to its epochs: an epoch of few
# labels would be a step or two.
_VALIDATIONS = 10
# Under a budget of time or FLOPs `training.length` takes a twentieth of the steps, or
# the stage's interval if that is shorter.
_LONG = 10**9


def counts(comparison: Comparison, *, rows: int, classes: int) -> tuple[int, ...]:
    """Returns the numbers of labels of a comparison.

    Args:
        comparison: The comparison.
        rows: Training rows there are.
        classes: Classes, of each of which one row is needed.

    Returns:
        Ascending, without repetition; empty: all rows, and no curve.

    Raises:
        ConfigError: A number is larger than there are rows, or leaves out a class.
    """
    found = [*comparison.labels]
    found += [round(fraction * rows) for fraction in comparison.fractions]
    wrong = [x for x in found if not max(1, classes) <= x <= rows]
    if wrong:
        raise ConfigError(
            "there are not so many labels, or not one for every class",
            received=f"{', '.join(map(str, wrong))} of {rows:,} rows",
            expected=f"{max(1, classes)} to {rows}",
            fix="other Comparison.fractions or Comparison.labels",
        )
    points = tuple(sorted(set(found)))
    if len(points) < len(found):
        say(f"note: {len(found) - len(points)} numbers of labels are equal to others")
    return points


def at(stage: Stage, labels: int | None, *, seed: int) -> Stage:
    """Returns a stage with some of its labels.

    Args:
        stage: The stage.
        labels: How many; None: all.
        seed: Chooses the rows: the same for every arm.
    """
    if labels is None:
        return stage
    return dataclasses.replace(
        stage, data=_with_labels(stage.data, labels, seed), interval=_interval(stage)
    )


def _with_labels(data: Callable[[], Data], labels: int, seed: int):
    def make() -> Data:
        return dataclasses.replace(data(), labels=labels, labels_seed=seed)

    return make


def _interval(stage: Stage) -> int | None:
    budget = budgets.parse(stage.budget)
    if stage.interval is None and budget.is_measured:
        return _LONG
    if stage.interval is not None or budget.unit == "epochs":
        return stage.interval
    steps = budgets.total_steps(budget, num_examples=1, batch_size=stage.new_per_step)
    return max(1, steps // _VALIDATIONS)


def points(labels: Sequence[int]) -> tuple[int | None, ...]:
    """Returns the points that an arm runs at; None where there is no curve."""
    return tuple(labels) or (None,)
