"""What changes along the way: the order of two arms, and a metric near its end."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tflearn.evaluation import significance
from tflearn.evaluation.bootstrap import LEVEL
from tflearn.evaluation.significance import Difference, Scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crossing:
    """Two arms that change places between two conditions.

    Args:
        first: Their difference under the first condition.
        last: Their difference under the last; the better of it is the worse of `first`.
        corrected: The p-value of "they do not change places", corrected for the number
            of pairs, after Holm.
    """

    first: Difference
    last: Difference
    corrected: float

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p-value is below 5 %."""
        return self.corrected < 1 - LEVEL


def crossings(
    first: Mapping[str, Scores], last: Mapping[str, Scores]
) -> list[Crossing]:
    """Finds the pairs of arms that change places, and how sure that is.

    That they do is claimed only if the one is better under the first condition and the
    other under the last, so that the p-value of the claim is the larger of the two
    (an intersection-union test). Pairs that keep their order count in the correction.

    Args:
        first: Scores by arm, higher is better, such as with the fewest labels.
        last: Scores of the same arms, such as with the most labels.

    Returns:
        Those whose means change places, the surest first.

    Example:

    >>> def scores(value):
    ...     noise = 0.01 * np.random.default_rng(0).normal(size=(3, 500))
    ...     return Scores(values=value + np.array([0, 0.01, 0.02]),
    ...                   resampled=value + noise)
    >>> few = {"frozen": scores(0.8), "full": scores(0.6)}
    >>> many = {"frozen": scores(0.85), "full": scores(0.95)}
    >>> (found,) = crossings(few, many)
    >>> found.first.better, found.last.better, found.is_significant
    ('frozen', 'full', True)

    References:
        Berger 1982, https://doi.org/10.1080/00401706.1982.10487790
    """
    pairs = [
        (
            significance.difference(one, first[one], two, first[two]),
            significance.difference(one, last[one], two, last[two]),
        )
        for one, two in itertools.combinations(first, 2)
    ]
    changed = [a.better != b.better and a.value > 0 < b.value for a, b in pairs]
    p_values = [
        max(a.p_value, b.p_value) if change else 1.0
        for (a, b), change in zip(pairs, changed, strict=True)
    ]
    found = [
        Crossing(first=a, last=b, corrected=p)
        for (a, b), change, p in zip(
            pairs, changed, significance.holm(p_values), strict=True
        )
        if change
    ]
    return sorted(found, key=lambda crossing: crossing.corrected)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """By how much a metric changes, positive for the better.

    Args:
        value: The mean over the seeds.
        low: Lower end of its 95 % interval; None with one seed.
        high: Upper end; None with one seed.
        p_value: Two-sided, of no change; None with one seed.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


def change(values: Sequence[float]) -> Change:
    """Judges the mean of a change by how much it varies over the seeds.

    Args:
        values: The change of each seed.

    Returns:
        The mean with its interval by Student's distribution.

    Example:

    >>> found = change([0.01, 0.02, 0.03])
    >>> round(found.value, 2), round(found.p_value, 2)
    (0.02, 0.07)
    """
    from scipy import stats

    measured = np.asarray(values, "float64")
    mean, freedom = float(measured.mean()), measured.size - 1
    if freedom == 0:
        return Change(value=mean)
    error = float(measured.std(ddof=1)) / measured.size**0.5
    if error == 0:
        return Change(value=mean, low=mean, high=mean, p_value=float(mean == 0))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    p_value = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Change(value=mean, low=mean - reach, high=mean + reach, p_value=p_value)


def last_quarter(curve: Sequence[tuple[float, float | None]]) -> float | None:
    """Computes by how much a curve rises in the last quarter of its steps.

    It is the slope of the line of least squares through the points of that quarter,
    times its length; one point alone would tell the noise of one validation.

    Args:
        curve: Points `(step, value)` by increasing step; values that are not finite
            are left out.

    Returns:
        The rise; None with fewer than four points.

    Example:

    >>> round(last_quarter([(10, 0.5), (20, 0.6), (30, 0.7), (40, 0.72)]), 3)
    0.02
    """
    known = [(s, v) for s, v in curve if v is not None and np.isfinite(v)]
    if len(known) < 4:
        return None
    steps, values = np.asarray(known, "float64").T
    start = 0.75 * steps[-1]
    late = steps > start
    inside = np.concatenate([[start], steps[late]])
    heights = np.concatenate([[np.interp(start, steps, values)], values[late]])
    return float(np.polyfit(inside, heights, 1)[0] * (steps[-1] - start))
