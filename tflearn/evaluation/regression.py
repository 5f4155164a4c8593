"""Metrics of predicted numbers: errors and correlations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tflearn.evaluation.bootstrap import Measure, Values

# A variance below this share of the largest square is rounding, not spread.
_ROUNDING = 1e-12


def errors(targets: np.ndarray, outputs: np.ndarray) -> Measure:
    """Makes the measure of MAE, RMSE and R2.

    `R2 = 1 - sum_i (y_i - x_i)^2 / sum_i (y_i - mean y)^2`.

    Args:
        targets: True values, `(examples,)`.
        outputs: Predicted values, `(examples,)`.

    Returns:
        The measure; it takes weights of the examples. R2 is NaN for constant targets.
    """
    gaps = outputs - targets
    centred = _centred(targets)
    table = np.stack([np.abs(gaps), gaps**2, centred, centred**2])

    def measure(weights: np.ndarray) -> Values:
        total = weights.sum(axis=0, dtype="float64")
        mae, mse, mean, square = table @ weights / total
        spread = _positive(square - mean**2, largest=np.max(table[3]))
        return Values({"mae": mae, "rmse": np.sqrt(mse), "r2": 1 - mse / spread})

    return measure


def correlations(targets: np.ndarray, outputs: np.ndarray) -> Measure:
    """Makes the measure of Pearson's and Spearman's correlation.

    Spearman's is Pearson's of the ranks, and a resample has ranks of its own, ties
    at their mean.

    Args:
        targets: True values, `(examples,)`.
        outputs: Predicted values, `(examples,)`.

    Returns:
        The measure; it takes weights of the examples. NaN where either is constant.
    """
    x, y = _centred(targets)[:, None], _centred(outputs)[:, None]
    ranks_of_x, ranks_of_y = _ranking(targets), _ranking(outputs)

    def measure(weights: np.ndarray) -> Values:
        exact = weights.astype("float64")
        ranks = ranks_of_x(exact), ranks_of_y(exact)
        return Values(
            {
                "pearson": _correlation(x, y, exact),
                "spearman": _correlation(ranks[0], ranks[1], exact),
            }
        )

    return measure


def _ranking(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Prepares ranks under weights: centred mean ranks, `(examples, weightings)`."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    group = np.empty(len(values), int)
    group[order] = np.repeat(
        np.arange(len(starts)), np.diff(np.r_[starts, len(values)])
    )

    def ranks(weights: np.ndarray) -> np.ndarray:
        sizes = np.add.reduceat(weights[order], starts, axis=0)
        middle = np.cumsum(sizes, axis=0) - sizes / 2 - weights.sum(axis=0) / 2
        return middle[group]

    return ranks


def _correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=0)

    def mean(values: np.ndarray) -> np.ndarray:
        return (values * weights).sum(axis=0) / total

    mean_x, mean_y = mean(x), mean(y)
    spread_x = _positive(mean(x * x) - mean_x**2, largest=np.max(x * x))
    spread_y = _positive(mean(y * y) - mean_y**2, largest=np.max(y * y))
    covariance = mean(x * y) - mean_x * mean_y
    return np.clip(covariance / np.sqrt(spread_x * spread_y), -1, 1)


def _positive(spread: np.ndarray, *, largest: float) -> np.ndarray:
    return np.where(spread > _ROUNDING * largest, spread, np.nan)


def _centred(values: np.ndarray) -> np.ndarray:
    # Large offsets would drown the variance in rounding.
    constant = len(values) == 0 or values.min() == values.max()
    return np.zeros_like(values) if constant else values - values.mean()
