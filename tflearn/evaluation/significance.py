"""Is one way of training better than another, or was it luck?

Two things vary: which examples the test set happens to hold, and where training ends
from another seed. Arms share the test set, so that the first is paired; seeds are drawn
anew for each arm. A difference is judged against both.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from tflearn.evaluation.bootstrap import LEVEL
from tflearn.support.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """A metric of one arm; higher is better.

    Args:
        values: On the test set, one for each seed, `(seeds,)`.
        resampled: On resamples of the test set that all arms share,
            `(seeds, resamples)`.
    """

    values: np.ndarray
    resampled: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better one arm is than another.

    Args:
        better: The arm with the higher mean.
        worse: The other.
        value: Difference of the means over the seeds; not negative.
        low: Lower end of its 95 % interval.
        high: Upper end.
        test_error: Standard error due to the choice of test examples.
        seed_error: Standard error due to the seeds; None with one seed each.
        p_value: Two-sided, of no difference.
        corrected: The p-value corrected for the number of pairs, after Holm.
    """

    better: str
    worse: str
    value: float
    low: float
    high: float
    test_error: float
    seed_error: float | None
    p_value: float
    corrected: float

    @property
    def is_significant(self) -> bool:
        """Whether the corrected p-value is below 5 %."""
        return self.corrected < 1 - LEVEL


def interval(scores: Scores) -> tuple[float, float]:
    """Returns the 95 % interval of an arm's mean over its seeds.

    Args:
        scores: The arm's.

    Returns:
        Lower and upper end; with one seed they know of the test examples alone.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> resampled = 0.8 + 0.01 * rng.normal(size=(1, 1000))
    >>> low, high = interval(Scores(values=np.array([0.8]), resampled=resampled))
    >>> round(low, 2), round(high, 2)
    (0.78, 0.82)
    """
    reach, _, _ = _judged(scores.resampled.mean(axis=0), [scores.values], 0.0)
    mean = float(scores.values.mean())
    return mean - reach, mean + reach


def differences(arms: Mapping[str, Scores]) -> list[Difference]:
    """Compares every pair of arms.

    The difference of two means over seeds has the variance `t + s_a / n_a + s_b / n_b`:
    `t` of the paired resamples of the test set, `s` that of the metric over `n` seeds.
    It is judged by Student's distribution with the degrees of freedom of Welch and
    Satterthwaite, since a variance from three seeds is itself uncertain.

    Args:
        arms: At least two, by name.

    Returns:
        One a pair, the largest difference first.

    Raises:
        ConfigError: There are fewer than two arms, or they were not measured on the
            same resamples.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> noise = 0.01 * rng.normal(size=(3, 500))
    >>> good = Scores(values=np.array([0.90, 0.91, 0.92]), resampled=0.9 + noise)
    >>> poor = Scores(values=np.array([0.50, 0.52, 0.51]), resampled=0.5 + noise)
    >>> (found,) = differences({"full": good, "frozen": poor})
    >>> found.better, round(found.value, 2), found.is_significant
    ('full', 0.4, True)

    References:
        Welch 1947, https://doi.org/10.1093/biomet/34.1-2.28; Holm 1979,
        https://www.jstor.org/stable/4615733
    """
    if len(arms) < 2 or len({arm.resampled.shape[1] for arm in arms.values()}) > 1:
        raise ConfigError(
            "a comparison needs two arms that were measured on the same resamples",
            received=", ".join(
                f"{name}: {arm.resampled.shape}" for name, arm in arms.items()
            ),
        )
    pairs = [
        difference(one, arms[one], two, arms[two])
        for one, two in itertools.combinations(arms, 2)
    ]
    corrected = holm([pair.p_value for pair in pairs])
    found = [
        dataclasses.replace(pair, corrected=p)
        for pair, p in zip(pairs, corrected, strict=True)
    ]
    return sorted(found, key=lambda pair: -pair.value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number.

    The smallest is multiplied by their number, the next by one less, and so on; none
    gets smaller than one before it.

    Args:
        p_values: Of the single tests.

    Returns:
        Corrected values in the same order, at most 1.

    Example:

    >>> holm([0.5, 0.01, 0.02])
    [0.5, 0.03, 0.04]
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        corrected[index] = min(1.0, largest)
    return corrected


def difference(one: str, first: Scores, two: str, second: Scores) -> Difference:
    """Compares two arms, without a correction.

    Args:
        one: Name of an arm.
        first: Its scores.
        two: Name of the other.
        second: Its scores, on the same resamples.

    Returns:
        The one with the higher mean is the better.
    """
    if first.values.mean() < second.values.mean():
        one, first, two, second = two, second, one, first
    value = float(first.values.mean() - second.values.mean())
    resampled = first.resampled.mean(axis=0) - second.resampled.mean(axis=0)
    reach, p_value, (test, *seeds) = _judged(
        resampled, [first.values, second.values], value
    )
    return Difference(
        better=one,
        worse=two,
        value=value,
        low=value - reach,
        high=value + reach,
        test_error=float(np.sqrt(test)),
        seed_error=float(np.sqrt(sum(seeds))) if seeds else None,
        p_value=p_value,
        corrected=p_value,
    )


def comparable(
    arms: Mapping[str, Scores | None], *, lower_is_better: bool = False
) -> dict[str, Scores] | None:
    """Returns scores that can be compared: higher is better, no resample undefined.

    Args:
        arms: Scores as they were measured, by name; None where none were kept.
        lower_is_better: Whether a lower metric is better.

    Returns:
        The scores of all arms; None where they share no resamples.

    Example:

    >>> scores = Scores(values=np.array([2.0]), resampled=np.array([[1.0, 3, np.nan]]))
    >>> comparable({"full": scores}, lower_is_better=True)["full"].resampled
    array([[-1., -3.]])
    """
    known = {name: x for name, x in arms.items() if x is not None and x.resampled.size}
    if (
        len(known) < len(arms)
        or len({x.resampled.shape[1] for x in known.values()}) != 1
    ):
        return None
    # A resample that holds one class only has no AUC.
    whole = np.all([~np.isnan(x.resampled).any(axis=0) for x in known.values()], axis=0)
    if whole.sum() < 2:
        return None
    sign = -1.0 if lower_is_better else 1.0
    return {
        name: Scores(values=sign * x.values, resampled=sign * x.resampled[:, whole])
        for name, x in known.items()
    }


def _judged(
    resampled: np.ndarray, seeds: Sequence[np.ndarray], value: float
) -> tuple[float, float, list[float]]:
    """Returns half the interval, the p-value of `value`, and the variances."""
    from scipy import stats

    # Of the test examples, with as good as unlimited degrees of freedom; of the seeds.
    parts = [(float(resampled.var(ddof=1)), float(resampled.size))]
    for values in seeds:
        if len(values) > 1:
            parts.append((float(values.var(ddof=1)) / len(values), len(values) - 1))
    variances = [part for part, _ in parts]
    variance = sum(variances)
    if variance == 0:
        return 0.0, float(value == 0), variances
    freedom = variance**2 / sum(part**2 / df for part, df in parts)
    error = float(np.sqrt(variance))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    return reach, float(2 * stats.t.sf(value / error, freedom)), variances
