"""The search of an arm for its rate, within its own share of the budget."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any

from tflearn.comparison import spending
from tflearn.comparison.points import Point
from tflearn.comparison.runs import run
from tflearn.reports import Report
from tflearn.reports.report import headline
from tflearn.support import files
from tflearn.support.console import say
from tflearn.support.errors import ConfigError, RunError
from tflearn.training import interruption
from tflearn.training.features.grid import Candidate

FILE = "tuning.json"
_FAULT = "fault.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """Runs of equal length in a search.

    Args:
        count: How many candidates.
        budget: Of each.
    """

    count: int
    budget: str


def rounds(allowed: spending.Allowance, *, count: int, method: str) -> list[Round]:
    """Divides what a search may spend into rounds.

    Args:
        allowed: What the arm may spend.
        count: How many candidates there are.
        method: `halving` or `grid`.

    Returns:
        The rounds; all of them cost the same.

    Example:

    >>> allowed = spending.Allowance(unit="steps", total=90, tuning=60, each=10)
    >>> [(x.count, x.budget) for x in rounds(allowed, count=4, method="halving")]
    [(4, '7.5 steps'), (2, '15 steps')]
    """
    counts = [count]
    while method == "halving" and counts[-1] > 2:
        counts.append(math.ceil(counts[-1] / 2))
    each = allowed.tuning / len(counts)
    return [
        Round(count=number, budget=spending.text(each / number, allowed.unit))
        for number in counts
    ]


def tune(point: Point) -> Candidate | None:
    """Searches for what the runs of a point are to use, or reads what was found.

    Args:
        point: The point.

    Returns:
        The choice; None where nothing is tuned.

    Raises:
        ConfigError: There is no validation split to choose by.
        RunError: The loss of all candidates went wrong.
    """
    tuning = point.comparison.tuning
    if tuning is None:
        return None
    path = point.home / FILE
    if path.is_file():
        return Candidate(**files.read_json(path)["chosen"])
    left = list(tuning.candidates(point.arm.rates))
    tried: list[dict[str, Any]] = []
    planned = rounds(point.allowance, count=len(left), method=tuning.method)
    for number, part in enumerate(planned):
        scores = [_try(point, x, part, number, tried) for x in left]
        # The earlier one of two equals: the order of declaration.
        order = sorted(range(len(left)), key=lambda i: (-scores[i], i))  # noqa: B023
        following = planned[number + 1].count if number + 1 < len(planned) else 1
        left = [left[i] for i in order[:following] if scores[i] > -math.inf]
        if not left:
            raise RunError(
                f"no candidate of {point.name} could be trained",
                received="; ".join(str(row["candidate"]) for row in tried),
                fix="declare lower rates in Tuning.rates or Arm.rates",
            )
    say(f"{point.name}: {left[0]} chosen of {len(tried)} trials")
    found = {"chosen": dataclasses.asdict(left[0]), "trials": tried}
    files.write_json(path, found)
    return left[0]


def trials(point: Point) -> list[Report]:
    """Returns the reports of the trials of a point."""
    found = sorted((point.home / "tuning").glob("*/*/report.json"))
    return [Report.from_json(files.read_json(path)) for path in found]


def _try(
    point: Point, candidate: Candidate, part: Round, number: int, tried: list[Any]
) -> float:
    """Runs a candidate and returns its score; higher is better."""
    folder = point.home / "tuning" / f"round{number}" / _folder(candidate)
    seed = point.comparison.seeds[0]
    score, wrong = -math.inf, None
    try:
        report = run(
            point,
            folder,
            seed=seed,
            budget=part.budget,
            candidate=candidate,
            is_trial=True,
        )
        score = _score(report, point)
    except RunError as error:
        # A rate may be too high, which is an answer; anything else is a mistake. One
        # that went wrong in an earlier process can be asked to end while it does again.
        asked = isinstance(error, interruption.Stopped)
        if asked or not _went_wrong(folder, point):
            raise
        wrong = str(error).splitlines()[0]
        say(f"{point.name}: {candidate} is left out, its loss went wrong")
    row = {"candidate": dataclasses.asdict(candidate), "round": number}
    row |= {"budget": part.budget, "error": wrong}
    tried.append(row | {"score": score if math.isfinite(score) else None})
    return score


def _went_wrong(folder: pathlib.Path, point: Point) -> bool:
    return (folder / "stages" / point.last.name / _FAULT).exists()


def _score(report: Report, point: Point) -> float:
    evaluation = report.stages[-1].evaluations.get("validation")
    found = headline(evaluation) if evaluation else None
    if evaluation is None or found is None:
        raise ConfigError(
            f"{point.name} is tuned by the validation split, and there is none",
            received="splits " + ", ".join(report.stages[-1].evaluations),
            fix="declare one in data.Data.splits",
        )
    value = found[1].get("value")
    if value is None:
        return -math.inf
    return -value if evaluation.get("lower_is_better") else value


def _folder(candidate: Candidate) -> str:
    return str(candidate).replace(", ", "_").replace(" ", "")
