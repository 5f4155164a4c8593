"""Metrics of scores: area under the ROC curve and average precision.

For a class against the rest, over examples in the order of falling score:
`AUC` is the chance that a random example of the class scores above a random other
one, ties counting half; `AP = sum_k (R_k - R_{k-1}) P_k` over the distinct scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tflearn.evaluation.agreement import macro
from tflearn.evaluation.bootstrap import Measure, Values

_Curve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def one_vs_rest(
    positives: np.ndarray, scores: np.ndarray, *, binary: bool = False
) -> Measure:
    """Makes the measure of AUC and average precision.

    Args:
        positives: True where an example belongs to a class, `(examples, classes)`.
        scores: The higher, the likelier, `(examples, classes)`.
        binary: Whether the second of two classes speaks for both; otherwise the
            mean over the classes for which the metric is defined does.

    Returns:
        The measure; it takes weights of the examples.
    """
    curves = [_curve(positives[:, k], scores[:, k]) for k in range(scores.shape[1])]

    def measure(weights: np.ndarray) -> Values:
        areas, precisions = zip(*(curve(weights) for curve in curves), strict=True)
        per_class = {
            "auc": np.stack(areas),
            "average_precision": np.stack(precisions),
        }
        overall = {
            name: rows[1] if binary else macro(rows) for name, rows in per_class.items()
        }
        return Values(overall, per_class)

    return measure


def _curve(positive: np.ndarray, scores: np.ndarray) -> _Curve:
    """Prepares one class: the order is the same for all weightings."""
    order = np.argsort(-scores, kind="stable")
    hits = np.flatnonzero(positive[order])
    starts = _segments(scores[order], hits)
    segment_of_hit = np.searchsorted(starts, hits, side="right") - 1
    segments, first_hits = np.unique(segment_of_hit, return_index=True)

    def curve(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not len(hits):
            undefined = np.full(weights.shape[1], np.nan)
            return undefined, undefined
        every = np.add.reduceat(weights[order], starts, axis=0)
        gains = np.zeros_like(every)
        gains[segments] = np.add.reduceat(weights[order[hits]], first_hits, axis=0)
        return _areas(gains, every)

    return curve


def _segments(scores: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Returns where segments of equal scores start.

    Runs of segments without a positive are one segment: neither metric tells their
    inner order, and rare classes then cost little.
    """
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    has_hit = np.zeros(len(starts), bool)
    has_hit[np.searchsorted(starts, hits, side="right") - 1] = True
    return starts[has_hit | np.r_[True, has_hit[:-1]]]


def _areas(gains: np.ndarray, every: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integrates over segments, `(segments, weightings)`: positives, and all."""
    found = np.cumsum(gains, axis=0)
    seen = np.cumsum(every, axis=0)
    num_positive = found[-1].astype("float64")
    num_negative = seen[-1] - num_positive
    half_way = np.einsum("sw,sw->w", every - gains, found - gains / 2)
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    steps = np.einsum("sw,sw->w", gains, precision)
    with np.errstate(divide="ignore", invalid="ignore"):
        area = half_way / (num_positive * num_negative)
        average_precision = steps / num_positive
    return area, average_precision


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Scores each class against the rest: `log p_k - log (1 - p_k)`.

    It has the order of the probabilities without their ties: two probabilities that
    both round to 1 still differ here.

    Args:
        logits: `(examples, classes)`.

    Returns:
        `(examples, classes)`.
    """
    import scipy.special

    log_p = scipy.special.log_softmax(logits, axis=1)
    best = logits.argmax(axis=1)[:, None]
    # Only the best can be near 1, where `1 - p` loses all digits: sum the others.
    others = logits.copy()
    np.put_along_axis(others, best, -np.inf, axis=1)
    log_rest: Any = scipy.special.logsumexp(others, axis=1, keepdims=True)
    log_all: Any = scipy.special.logsumexp(logits, axis=1, keepdims=True)
    p = np.exp(log_p)
    np.put_along_axis(p, best, 0.0, axis=1)
    log_not = np.log1p(-p)
    np.put_along_axis(log_not, best, log_rest - log_all, axis=1)
    # Equal odds must stay equal: a tie broken by rounding changes the metrics.
    return (log_p - log_not).round(9)
