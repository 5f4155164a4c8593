"""How many labels decide: where arms change places, and who gains from more.

Two arms change places only if one is better with the fewest labels and the other with
the most, both beyond chance. Nothing beyond the labels that were tried is claimed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tflearn.evaluation import changes, significance
from tflearn.evaluation.bootstrap import LEVEL
from tflearn.evaluation.changes import Change, Crossing
from tflearn.reports.arms import ArmResult, LabelPoint
from tflearn.reports.claims import Claim, gap_text, listed, over
from tflearn.support.units import count_text

_SHOWN_ON = "Learning curves"

#: What an arm reached by the number of labels; the arm itself has the most.
Curve = Mapping[int, "LabelPoint | ArmResult"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """Two arms whose means change places as labels grow more.

    Args:
        crossing: Their differences with the fewest and with the most labels.
        fewest: The fewest labels.
        most: The most.
        between: The neighbouring counts between which the means cross last.
    """

    crossing: Crossing
    fewest: int
    most: int
    between: tuple[int, int]


def by_labels(arm: ArmResult) -> Curve:
    """Returns what an arm reached by the number of labels, increasing.

    Args:
        arm: The arm.

    Returns:
        Its points, and the arm itself where its labels are known; empty with fewer than
        two, which are no curve.
    """
    found: dict[int, LabelPoint | ArmResult] = {x.labels: x for x in arm.points}
    if arm.labels is not None:
        found[arm.labels] = arm
    known = {labels: x for labels, x in sorted(found.items()) if x.mean is not None}
    return known if len(known) > 1 else {}


def orders(arms: Sequence[ArmResult]) -> list[Order]:
    """Finds the pairs of arms whose means change places, the surest first.

    Args:
        arms: The arms; those without a curve over labels are left out.

    Returns:
        One a pair, significant or not.
    """
    curves = _curves(arms)
    shared = sorted(set.intersection(*map(set, curves.values()))) if curves else []
    if len(curves) < 2 or len(shared) < 2:
        return []
    fewest, most = (
        significance.comparable(
            {name: curve[labels].scores for name, curve in curves.items()},
            lower_is_better=arms[0].lower_is_better,
        )
        for labels in (shared[0], shared[-1])
    )
    if fewest is None or most is None:
        return []
    return [
        Order(
            crossing=crossing,
            fewest=shared[0],
            most=shared[-1],
            between=_between(
                curves[crossing.first.better], curves[crossing.last.better], shared
            ),
        )
        for crossing in changes.crossings(fewest, most)
    ]


def of_labels(arms: Sequence[ArmResult]) -> list[Claim]:
    """Says where the order changes with labels, and whether more labels would help.

    Args:
        arms: The arms, the best first.

    Returns:
        Claims; none where no curve over labels was measured.
    """
    curves = _curves(arms)
    found = [_order(orders(arms), curves, best=arms[0].name)] if len(curves) > 1 else []
    return found + _gains(arms)


def _curves(arms: Sequence[ArmResult]) -> dict[str, Curve]:
    curves = {arm.name: by_labels(arm) for arm in arms}
    return {name: curve for name, curve in curves.items() if curve}


def _between(early: Curve, late: Curve, shared: Sequence[int]) -> tuple[int, int]:
    """Returns the neighbouring counts between which two means cross last."""
    gaps = [(late[x].mean or 0.0) - (early[x].mean or 0.0) for x in shared]
    # The sign at the end says which is better, whatever the metric.
    place = max(i for i, gap in enumerate(gaps) if gap * gaps[-1] <= 0)
    return shared[place], shared[place + 1]


def _order(found: Sequence[Order], curves: Mapping[str, Curve], *, best: str) -> Claim:
    """Says which arms change places; only what is significant at both ends."""
    shown = [order for order in found if order.crossing.is_significant]
    # Who the best arm was not better than with fewer labels matters most.
    shown.sort(key=lambda order: order.crossing.last.better != best)
    if shown:
        figures = _figures(shown[0])
        sentence = _shown_text(shown[0])
        if len(shown) > 1:
            others = len(shown) - 1
            told = "so does 1 other pair" if others == 1 else f"so do {others} others"
            sentence += f"; {told}"
            figures["other pairs"] = {"count": others}
    elif found:
        figures, sentence = _figures(found[0]), _not_shown_text(found[0])
    else:
        counts = sorted({count for curve in curves.values() for count in curve})
        figures = {"labels": {"count": counts[0], "most": counts[-1]}}
        sentence = (
            f"Between {count_text(counts[0])} and {count_text(counts[-1])} labels no "
            "two arms are shown to change places"
        )
    return Claim(sentence=f"{sentence}.", rests_on=_SHOWN_ON, figures=figures)


def _shown_text(order: Order) -> str:
    first = order.crossing.first
    low, high = map(count_text, order.between)
    return (
        f"With {count_text(order.fewest)} labels {first.better} is better than "
        f"{first.worse} by {gap_text(first)}; they change places between {low} and "
        f"{high} labels (p = {order.crossing.corrected:.2g} after correction)"
    )


def _not_shown_text(order: Order) -> str:
    last = order.crossing.last
    low, high = map(count_text, order.between)
    return (
        f"The means of {last.better} and {last.worse} change places between {low} and "
        f"{high} labels, but that their order changes is not shown: it is not "
        f"significant at both ends (p = {order.crossing.corrected:.2g} after "
        "correction)"
    )


def _figures(order: Order) -> dict[str, Mapping[str, float]]:
    first, last = order.crossing.first, order.crossing.last
    pair = f"{last.better} and {last.worse}"
    low, high = order.between
    return {
        **over(first, f" with {count_text(order.fewest)} labels"),
        **over(last, f" with {count_text(order.most)} labels"),
        f"{pair} change places": {
            "p": order.crossing.corrected,
            "low": low,
            "high": high,
        },
    }


def _gains(arms: Sequence[ArmResult]) -> list[Claim]:
    """Says who gained from the last step to more labels, corrected for the arms."""
    found = {arm.name: x for arm in arms if (x := _gain(arm)) is not None}
    if not found:
        return []
    corrected = significance.holm([x.p_value or 0.0 for x in found.values()])
    p_values = dict(zip(found, corrected, strict=True))
    gained = [
        name
        for name, x in found.items()
        if round(x.value, 3) > 0 and p_values[name] < 1 - LEVEL
    ]
    if gained:
        told = listed([f"{found[name].value:.3f} ({name})" for name in gained])
        sentence = (
            f"The last step to more labels still brought {told}, so further labels "
            f"would likely help {listed(gained)}."
        )
    else:
        told = listed([f"{x.value:+.3f} ({name})" for name, x in found.items()])
        sentence = (
            f"The last step to more labels brought no gain that is shown ({told})."
        )
    figures = {
        f"{name}: last step to more labels": {
            "value": x.value,
            "low": x.low,
            "high": x.high,
            "p": p_values[name],
        }
        for name, x in found.items()
    }
    return [Claim(sentence=sentence, rests_on=_SHOWN_ON, figures=figures)]


def _gain(arm: ArmResult) -> Change | None:
    """Compares an arm's two largest label counts on the test examples they share."""
    last = list(by_labels(arm).values())[-2:]
    if len(last) < 2:
        return None
    scores = significance.comparable(
        {"fewer": last[0].scores, "more": last[1].scores},
        lower_is_better=arm.lower_is_better,
    )
    if scores is None:
        return None
    pair = significance.difference("fewer", scores["fewer"], "more", scores["more"])
    if pair.better == "more":
        return Change(
            value=pair.value, low=pair.low, high=pair.high, p_value=pair.p_value
        )
    return Change(
        value=-pair.value, low=-pair.high, high=-pair.low, p_value=pair.p_value
    )
