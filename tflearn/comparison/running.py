"""The runs of a comparison, one after another in this process."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from tflearn.comparison import declaration, gather, settling, tuning
from tflearn.comparison.declaration import Comparison
from tflearn.comparison.points import Point
from tflearn.comparison.runs import run, run_shared
from tflearn.comparison.settling import Settled
from tflearn.experiment import Experiment
from tflearn.reports import compare, verdict
from tflearn.reports.arms import ArmResult
from tflearn.support import files, storage
from tflearn.support.errors import ConfigError, nearest

SPENT = "spent.json"
SHARED = declaration.SHARED


def run_shared_stages(
    base: Experiment,
    comparison: Comparison,
    folder: pathlib.Path,
    *,
    only: Sequence[str] = (),
) -> Settled:
    """Settles what is compared and runs what the arms share.

    Args:
        base: The experiment.
        comparison: The comparison.
        folder: Its folder.
        only: Names of arms that are to run alone; empty for all.

    Returns:
        Arms and numbers of labels.

    Raises:
        ConfigError: There is no arm of such a name.
    """
    settled = settling.settle(base, comparison, folder)
    check_only(only, settled)
    for point in settling.points(base, comparison, settled, folder):
        shares = not point.arm.is_apart and base.stages[:-1]
        for seed in comparison.seeds if shares else ():
            run_shared(point, seed=seed)
        if shares:
            break
    return settled


def run_arms(points: Sequence[Point]) -> None:
    """Tunes and runs points, or says that they are finished.

    Args:
        points: The points in order.
    """
    for point in points:
        run_point(point)


def run_point(point: Point) -> None:
    """Searches for the rate of a point within its share, then runs its seeds.

    Args:
        point: The point.
    """
    candidate = tuning.tune(point)
    budget = point.seed_budget()
    for seed in point.comparison.seeds:
        folder = point.seed_folder(seed)
        run(point, folder, seed=seed, budget=budget, candidate=candidate)
    allowed = point.allowance
    found = {"unit": allowed.unit, "budget": allowed.total, **gather.spent([point])}
    files.write_json(point.home / SPENT, found)
    storage.push(point.home)


def check_only(only: Sequence[str], settled: Settled) -> None:
    """Checks the names of arms that are to run alone.

    Raises:
        ConfigError: There is no such arm.
    """
    names = [arm.name for arm in settled.arms]
    for name in only:
        if name not in (*names, SHARED):
            raise ConfigError(
                "--only names arms of the comparison",
                received=name,
                expected=", ".join((*names, SHARED)),
                nearest=nearest(name, names),
            )


def results(
    base: Experiment, comparison: Comparison, settled: Settled, folder: pathlib.Path
) -> list[ArmResult]:
    """Gathers what all arms have reached.

    Args:
        base: The experiment.
        comparison: The comparison, all its runs finished.
        settled: What it consists of.
        folder: Its folder.
    """
    points = settling.points(base, comparison, settled, folder)
    by_arm = {
        arm.name: [x for x in points if x.arm.name == arm.name] for arm in settled.arms
    }
    return [gather.result(found) for found in by_arm.values()]


def draw(
    base: Experiment, comparison: Comparison, settled: Settled, folder: pathlib.Path
) -> tuple[list[ArmResult], dict[str, Any]]:
    """Writes the report of a comparison whose runs are all finished.

    Args:
        base: The experiment.
        comparison: The comparison.
        settled: What it consists of.
        folder: Its folder.

    Returns:
        The results by arm, and what `compare.json` holds.
    """
    found = results(base, comparison, settled, folder)
    compare.check(found)
    judged = verdict.judge(found)
    written = compare.write_judged(
        base.name,
        found,
        judged,
        folder=folder,
        notes=(*settled.notes, *_flattery(comparison, found)),
    )
    storage.push(folder)
    return found, written


def _flattery(comparison: Comparison, found: Sequence[ArmResult]) -> list[str]:
    """Says where the metric is of the very rows that rates were chosen by."""
    if comparison.tuning is None or found[0].split != "validation":
        return []
    return [
        "There is no test split: arms are judged on the validation split, by which "
        "their rates were chosen, so that all figures flatter."
    ]


def run_all(
    base: Experiment, comparison: Comparison, *, output_dir: str
) -> dict[str, Any]:
    """Runs a comparison in this process and writes its report; for use in Python.

    Args:
        base: The experiment.
        comparison: The comparison.
        output_dir: Its folder.

    Returns:
        What `compare.json` holds.
    """
    folder = storage.fetched(output_dir)
    settled = run_shared_stages(base, comparison, folder)
    run_arms(settling.points(base, comparison, settled, folder))
    return draw(base, comparison, settled, folder)[1]
