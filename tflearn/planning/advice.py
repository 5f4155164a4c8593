"""Which arms are worth running? What is known, and what others found, before training.

Arms are ordered by what speaks for them in `tflearn.planning.priors`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tflearn.planning import priors
from tflearn.planning.situation import Situation
from tflearn.reports.advice import Advice, Reason
from tflearn.reports.claims import listed

# At equal weight the one that costs less comes first.
_KNOWN = ("frozen", "lora", "partial", "full", "hybrid", "scratch")


def advise(situation: Situation) -> Advice:
    """Reads a situation.

    Args:
        situation: What is known.

    Returns:
        The arms worth running in order, those that can wait, and why. An arm can wait
        where more speaks against it than for it; at equal weight the cheaper comes
        first. Arms that the prior does not know are named as such.

    Example:

    >>> found = advise(Situation(arms=("scratch", "frozen", "full"), rows=40,
    ...     classes=2, fewest=20, is_pretrained=True))
    >>> found.arms[0], list(found.waiting)
    ('frozen', ['full', 'scratch'])
    """
    reasons = [_limited(x, situation) for rule in priors.RULES for x in rule(situation)]
    names = [name for name in _KNOWN if name in situation.arms]
    weight = {name: _weight(name, reasons) for name in names}
    # Whatever else speaks for what has no room.
    weight |= dict.fromkeys(priors.not_fitting(situation), -math.inf)
    ordered = sorted(names, key=lambda name: -weight[name])
    strange = [name for name in situation.arms if name not in _KNOWN]
    unknown = [f"the prior has no opinion on {listed(strange)}"] if strange else []
    return Advice(
        arms=tuple(x for x in ordered if weight[x] >= 0),
        waiting=tuple(x for x in ordered if weight[x] < 0),
        reasons=tuple(reasons),
        unknown=(*situation.unknown, *unknown),
    )


def _limited(reason: Reason, situation: Situation) -> Reason:
    """Leaves the arms out that are not there."""
    return dataclasses.replace(
        reason,
        speaks_for=[x for x in reason.speaks_for if x in situation.arms],
        speaks_against=[x for x in reason.speaks_against if x in situation.arms],
    )


def _weight(name: str, reasons: Sequence[Reason]) -> float:
    return sum((name in x.speaks_for) - (name in x.speaks_against) for x in reasons)
