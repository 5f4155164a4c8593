"""What a comparison says in plain words, and which figures each word rests on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tflearn.evaluation import significance
from tflearn.evaluation.significance import Difference, Scores
from tflearn.reports.compare import ArmResult
from tflearn.reports.report import estimate_text
from tflearn.support.units import duration_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the figures carry.

    Args:
        text: A few sentences.
        winner: The arm that is better than every other; None where none is.
        pairs: The differences of all pairs of arms, the largest first.
    """

    text: str
    winner: str | None = None
    pairs: Sequence[Difference] = ()


def judge(arms: Sequence[ArmResult]) -> Verdict:
    """Says which arm is best as far as the figures carry it.

    An arm wins if it is better than every other at 5 %, corrected for the number of
    pairs. Where several may be the best, the cheapest of them is named.

    Args:
        arms: The arms.

    Returns:
        The verdict.
    """
    measured = [arm for arm in arms if arm.mean is not None]
    if len(measured) < 2:
        return Verdict(
            text="There is nothing to compare: fewer than two arms have a result."
        )
    sign = -1.0 if measured[0].lower_is_better else 1.0
    measured.sort(key=lambda arm: -sign * (arm.mean or 0.0))
    scores = _scores(measured, sign)
    if scores is None:
        return Verdict(
            text=f"{measured[0].name} has the best mean ({_value(measured[0])}); "
            "without resamples of one test set this says nothing about the difference."
        )
    pairs = significance.differences(scores)
    best, *others = measured
    lead = {x.worse: x for x in pairs if x.better == best.name and x.value > 0}
    close = [
        arm
        for arm in others
        if arm.name not in lead or not lead[arm.name].is_significant
    ]
    if close:
        text = _tie([best, *close], [lead[x.name] for x in close if x.name in lead])
    else:
        text = _win(best, others, lead)
    text += _others([arm for arm in others if arm not in close], bool(close))
    if all(len(arm.seeds) == 1 for arm in measured):
        text += (
            " Each arm ran with one seed: how much training itself varies is not "
            "known, so this holds for these runs alone."
        )
    return Verdict(text=text, winner=None if close else best.name, pairs=pairs)


def _scores(arms: Sequence[ArmResult], sign: float) -> dict[str, Scores] | None:
    """Returns the scores so that higher is better; None where they share nothing."""
    found = {arm.name: arm.scores for arm in arms}
    if any(x is None or not x.resampled.size for x in found.values()):
        return None
    known = {name: x for name, x in found.items() if x is not None}
    if len({x.resampled.shape[1] for x in known.values()}) > 1:
        return None
    # A resample that holds one class only has no AUC.
    whole = np.all([~np.isnan(x.resampled).any(axis=0) for x in known.values()], axis=0)
    if whole.sum() < 2:
        return None
    return {
        name: Scores(values=sign * x.values, resampled=sign * x.resampled[:, whole])
        for name, x in known.items()
    }


def _win(
    best: ArmResult, others: Sequence[ArmResult], lead: dict[str, Difference]
) -> str:
    nearest = min(lead.values(), key=lambda pair: pair.value)
    text = (
        f"{best.name} is best ({_value(best)}), {_gap(nearest)} better than "
        f"{nearest.worse}, the next (p = {nearest.corrected:.2g} after correction)."
    )
    cheaper = [arm for arm in others if arm.mean_seconds < best.mean_seconds]
    if not cheaper:
        return text
    # Of those that cost less, the one that gives up least.
    second = min(cheaper, key=lambda arm: lead[arm.name].value)
    share = second.mean_seconds / best.mean_seconds
    return text + (
        f" {second.name} takes {share:.0%} of its time "
        f"({duration_text(second.mean_seconds)} for "
        f"{duration_text(best.mean_seconds)}) and gives up {_gap(lead[second.name])}."
    )


def _tie(close: Sequence[ArmResult], pairs: Sequence[Difference]) -> str:
    best, *_ = close
    cheapest = min(close, key=lambda arm: arm.mean_seconds)
    text = f"Too close to call between {_and([arm.name for arm in close])}"
    if pairs:
        widest = max(pairs, key=lambda pair: pair.value)
        text += (
            f": {best.name} leads ({_value(best)}), but by {_gap(widest)} over "
            f"{widest.worse}, which test examples and seeds explain"
        )
    else:
        text += f": they are equal ({_value(best)})"
    return (
        f"{text}. The cheapest of them is {cheapest.name} "
        f"({duration_text(cheapest.mean_seconds)} a seed)."
    )


def _others(behind: Sequence[ArmResult], told: bool) -> str:
    """Names the arms that are worse than the best; a win has told it already."""
    if not behind or not told:
        return ""
    are = "is" if len(behind) == 1 else "are"
    values = _and([f"{arm.name} ({_value(arm)})" for arm in behind])
    return f" {values} {are} worse than the best."


def _value(arm: ArmResult) -> str:
    return estimate_text(arm.estimate)


def _gap(pair: Difference) -> str:
    return estimate_text({"value": pair.value, "low": pair.low, "high": pair.high})


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
