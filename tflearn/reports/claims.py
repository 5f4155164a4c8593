"""A sentence of a verdict, and the figures that it rests on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tflearn.evaluation.significance import Difference
from tflearn.reports.arms import ArmResult
from tflearn.reports.report import estimate_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence.

    Args:
        sentence: What is said; every number in it is among the figures.
        rests_on: The part of the report that shows the figures, such as "Pairs".
        figures: By what they are, such as "full over frozen": `value` with `low`,
            `high` and `p` where there are any, or `seconds`, `count`, `text`.
    """

    sentence: str
    rests_on: str
    figures: Mapping[str, Mapping[str, Any]]


def reached(arm: ArmResult) -> dict[str, Mapping[str, Any]]:
    """Returns the metric of an arm as a figure."""
    return {f"{arm.name}: {arm.split} {arm.metric}": arm.estimate}


def took(arm: ArmResult) -> dict[str, Mapping[str, Any]]:
    """Returns the time of an arm, and its FLOPs where they are known, as a figure."""
    found: dict[str, Any] = {"seconds": arm.mean_seconds}
    if arm.mean_flops is not None:
        found["flops"] = arm.mean_flops
    return {f"{arm.name}: a seed": found}


def over(pair: Difference, where: str = "") -> dict[str, Mapping[str, Any]]:
    """Returns a difference as a figure; `p` is corrected."""
    figure = {"value": pair.value, "low": pair.low, "high": pair.high}
    name = f"{pair.better} over {pair.worse}{where}"
    return {name: figure | {"p": pair.corrected}}


def gap_text(pair: Difference) -> str:
    """Formats a difference with its interval."""
    return estimate_text({"value": pair.value, "low": pair.low, "high": pair.high})


def value_text(arm: ArmResult) -> str:
    """Formats what an arm reached, with its interval."""
    return estimate_text(arm.estimate)


def listed(names: Sequence[str]) -> str:
    """Joins names as a sentence does.

    Example:

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
