"""Numbers of labels: which points a learning curve has, and the stage at one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from tflearn.comparison.declaration import Comparison
from tflearn.data import Data
from tflearn.experiment import Stage
from tflearn.support.console import say
from tflearn.support.errors import ConfigError


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
    return dataclasses.replace(stage, data=_with_labels(stage.data, labels, seed))


def _with_labels(data: Callable[[], Data], labels: int, seed: int):
    def make() -> Data:
        return dataclasses.replace(data(), labels=labels, labels_seed=seed)

    return make


def points(labels: Sequence[int]) -> tuple[int | None, ...]:
    """Returns the points that an arm runs at; None where there is no curve."""
    return tuple(labels) or (None,)
