"""What a comparison says in plain words, and which figures each word rests on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tflearn.evaluation import significance
from tflearn.evaluation.significance import Difference
from tflearn.reports import label_claims, outlook
from tflearn.reports.arms import ArmResult
from tflearn.reports.claims import (
    Claim,
    gap_text,
    listed,
    over,
    reached,
    took,
    value_text,
)
from tflearn.reports.report import estimate_text
from tflearn.support.units import duration_text

# Less of a difference in time is as likely due to the machine.
_CHEAPER = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the figures carry.

    Args:
        claims: Sentences with the figures they rest on.
        winner: The arm that is better than every other; None where none is.
        pairs: The differences of all pairs of arms, the largest first.
    """

    claims: Sequence[Claim]
    winner: str | None = None
    pairs: Sequence[Difference] = ()

    @property
    def text(self) -> str:
        """All sentences."""
        return " ".join(claim.sentence for claim in self.claims)


def judge(arms: Sequence[ArmResult]) -> Verdict:
    """Says which arm is best as far as the figures carry it.

    An arm wins if it is better than every other at 5 %, corrected for the number of
    pairs. Where several may be the best, the cheapest of them is named. Then follows
    what fewer labels and more budget change, as far as that was measured.

    Args:
        arms: The arms.

    Returns:
        The verdict.
    """
    measured = [arm for arm in arms if arm.mean is not None]
    if len(measured) < 2:
        return _only(
            "There is nothing to compare: fewer than two arms have a result.", measured
        )
    sign = -1.0 if measured[0].lower_is_better else 1.0
    measured.sort(key=lambda arm: -sign * (arm.mean or 0.0))
    scores = significance.comparable(
        {arm.name: arm.scores for arm in measured}, lower_is_better=sign < 0
    )
    if scores is None:
        return _only(
            f"{measured[0].name} has the best mean ({value_text(measured[0])}); "
            "without resamples of one test set this says nothing about the difference.",
            measured[:1],
        )
    pairs = significance.differences(scores)
    best, *others = measured
    lead = {x.worse: x for x in pairs if x.better == best.name and x.value > 0}
    behind = [x for x in others if x.name in lead and lead[x.name].is_significant]
    close = [arm for arm in others if arm not in behind]
    if close:
        claims = [_tie([best, *close], lead), *_worse(behind, lead)]
    else:
        claims = [_win(best, others, lead), *_cheaper(best, others, lead)]
    claims += [*label_claims.of_labels(measured), *outlook.of_budget(measured)]
    claims += _one_seed(measured)
    return Verdict(claims=claims, winner=None if close else best.name, pairs=pairs)


def _only(sentence: str, arms: Sequence[ArmResult]) -> Verdict:
    figures = {name: x for arm in arms for name, x in reached(arm).items()}
    return Verdict(
        claims=[Claim(sentence=sentence, rests_on="Numbers", figures=figures)]
    )


def _win(
    best: ArmResult, others: Sequence[ArmResult], lead: Mapping[str, Difference]
) -> Claim:
    nearest = min(lead.values(), key=lambda pair: pair.value)
    return Claim(
        sentence=(
            f"{best.name} is best ({value_text(best)}), {gap_text(nearest)} better "
            f"than {nearest.worse}, the next (p = {nearest.corrected:.2g} after "
            "correction)."
        ),
        rests_on="Pairs",
        figures=reached(best) | over(nearest),
    )


def _cheaper(
    best: ArmResult, others: Sequence[ArmResult], lead: Mapping[str, Difference]
) -> list[Claim]:
    """Says what the arm gives up that, of those that cost less, gives up least."""
    cheaper = [x for x in others if x.mean_seconds < _CHEAPER * best.mean_seconds]
    if not cheaper:
        return []
    second = min(cheaper, key=lambda arm: lead[arm.name].value)
    share = second.mean_seconds / best.mean_seconds
    flops = ""
    if second.mean_flops is not None and best.mean_flops:
        flops = f" and {second.mean_flops / best.mean_flops:.0%} of its FLOPs"
    sentence = (
        f"{second.name} takes {share:.0%} of its time "
        f"({duration_text(second.mean_seconds)} for "
        f"{duration_text(best.mean_seconds)}){flops} and gives up "
        f"{gap_text(lead[second.name])}."
    )
    figures = took(second) | took(best) | over(lead[second.name])
    return [Claim(sentence=sentence, rests_on="Cost", figures=figures)]


def _tie(close: Sequence[ArmResult], lead: Mapping[str, Difference]) -> Claim:
    best, *others = close
    cheapest = min(close, key=lambda arm: arm.mean_seconds)
    text = f"Too close to call between {listed([arm.name for arm in close])}"
    figures = reached(best) | took(cheapest)
    pairs = [lead[arm.name] for arm in others if arm.name in lead]
    if pairs:
        widest = max(pairs, key=lambda pair: pair.value)
        figures |= over(widest)
        text += (
            f": {best.name} leads ({value_text(best)}), but by {gap_text(widest)} over "
            f"{widest.worse}, which test examples and seeds explain"
        )
    else:
        text += f": they are equal ({value_text(best)})"
    text += (
        f". The cheapest of them is {cheapest.name} "
        f"({duration_text(cheapest.mean_seconds)} a seed)."
    )
    return Claim(sentence=text, rests_on="Pairs", figures=figures)


def _worse(behind: Sequence[ArmResult], lead: Mapping[str, Difference]) -> list[Claim]:
    """Names the arms that are worse than the best of those that are close."""
    if not behind:
        return []
    are = "is" if len(behind) == 1 else "are"
    values = listed(
        [f"{arm.name} ({estimate_text({'value': arm.mean})})" for arm in behind]
    )
    figures = {k: v for arm in behind for k, v in over(lead[arm.name]).items()}
    figures |= {k: v for arm in behind for k, v in reached(arm).items()}
    sentence = f"{values} {are} worse than the best."
    return [Claim(sentence=sentence, rests_on="Pairs", figures=figures)]


def _one_seed(arms: Sequence[ArmResult]) -> list[Claim]:
    if any(len(arm.seeds) > 1 for arm in arms):
        return []
    sentence = (
        "Each arm ran with one seed: how much training itself varies is not known, so "
        "this holds for these runs alone."
    )
    figures = {f"{arm.name}: seeds": {"count": 1} for arm in arms}
    return [Claim(sentence=sentence, rests_on="Seeds", figures=figures)]
