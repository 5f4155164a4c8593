"""What more budget would likely change, from the end of the validation curves.

Nothing is extrapolated. A rate that decays to nothing flattens a curve by itself, so
that a flat end does not prove that a longer schedule would be of no use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tflearn.evaluation import changes, significance
from tflearn.evaluation.bootstrap import LEVEL
from tflearn.evaluation.changes import Change
from tflearn.reports.arms import ArmResult
from tflearn.reports.claims import Claim, listed


def of_budget(arms: Sequence[ArmResult]) -> list[Claim]:
    """Says which arms were still improving at the end of their budget.

    Args:
        arms: The arms, the best first.

    Returns:
        A claim; none where nothing was validated on the way.
    """
    if not any(any(curve) for arm in arms for curve in arm.curves):
        return []
    rises = {arm.name: x for arm in arms if (x := _rise(arm)) is not None}
    figures = {f"{x}: last quarter": dataclasses.asdict(rises[x]) for x in rises}
    return [
        Claim(
            sentence=_sentence(rises, best=arms[0].name),
            rests_on="Arms and their curves",
            figures=figures,
        )
    ]


def _rise(arm: ArmResult) -> Change | None:
    sign = -1.0 if arm.lower_is_better else 1.0
    found = [changes.last_quarter(curve) for curve in arm.curves]
    known = [sign * x for x in found if x is not None]
    return changes.change(known) if known and len(known) == len(found) else None


def _sentence(rises: Mapping[str, Change], *, best: str) -> str:
    if not rises:
        return (
            "Fewer than four validations a run do not tell what more budget would "
            "change."
        )
    told = [f"{x.value:+.3f} ({name})" for name, x in rises.items()]
    if any(x.p_value is None for x in rises.values()):
        return (
            f"In the last quarter of the steps validation improved by {listed(told)}; "
            "one seed does not tell whether that is more than chance."
        )
    rising = _rising(rises)
    if not rising:
        return (
            "In the last quarter of the steps validation did not improve beyond what "
            f"seeds explain ({listed(told)}): that more budget would help is not shown."
        )
    told = [f"{rises[name].value:.3f} ({name})" for name in rising]
    order = "" if best in rising else ", which may change the order"
    return (
        "In the last quarter of the steps validation still improved by "
        f"{listed(told)}, so more budget would likely help {listed(rising)}{order}."
    )


def _rising(rises: Mapping[str, Change]) -> list[str]:
    """Returns who improves beyond chance, and by what three digits show."""
    p_values = significance.holm([x.p_value or 0.0 for x in rises.values()])
    return [
        name
        for (name, x), p in zip(rises.items(), p_values, strict=True)
        if round(x.value, 3) > 0 and p < 1 - LEVEL
    ]
