"""Whether probabilities can be believed, and one number that mends them.

A model is calibrated if, of the predictions made with confidence 0.8, eight in ten
are right. With one class per example, confidence is the largest probability and the
outcome is whether that class is true; with several labels, every label's probability
counts and the outcome is whether it applies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tflearn.evaluation.bootstrap import Measure, Values

BINS = 15


def expected_calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, bins: int = BINS
) -> float:
    """Computes the expected calibration error.

    `sum_b (n_b / n) |accuracy_b - confidence_b|` over bins of equal width.

    Args:
        probabilities: `(examples, classes)`, in `[0, 1]`.
        targets: Classes, `(examples,)` integers, or labels, `(examples, classes)`
            of 0 and 1.
        bins: Number of bins.

    Returns:
        The error, in `[0, 1]`.

    Example:

    >>> probabilities = np.array([[0.75, 0.25], [0.25, 0.75]])
    >>> expected_calibration_error(probabilities, np.array([0, 0]))
    0.25

    References:
        Guo et al. 2017, https://arxiv.org/abs/1706.04599
    """
    measure = calibration_error("error", probabilities, targets, bins=bins)
    return float(measure(np.ones((len(probabilities), 1))).overall["error"][0])


def calibration_error(
    name: str, probabilities: np.ndarray, targets: np.ndarray, *, bins: int = BINS
) -> Measure:
    """Makes the measure of the expected calibration error.

    The error is biased upwards, the more the fewer the examples, and resampling adds
    to it: the interval may lie above the value.

    Args:
        name: Name of the metric.
        probabilities: `(examples, classes)`.
        targets: Classes or labels, see `expected_calibration_error`.
        bins: Number of bins of equal width.

    Returns:
        The measure; it takes weights of the examples.
    """
    import scipy.sparse

    confidence, outcome = _confidence(probabilities, targets)
    per_example = confidence.size // len(probabilities)
    examples = np.repeat(np.arange(len(probabilities)), per_example)
    gaps = scipy.sparse.csr_array(
        ((outcome - confidence) / per_example, (_bin(confidence, bins), examples)),
        shape=(bins, len(probabilities)),
    )

    def measure(weights: np.ndarray) -> Values:
        total = weights.sum(axis=0, dtype="float64")
        return Values({name: np.abs(gaps @ weights).sum(axis=0) / total})

    return measure


def reliability(
    probabilities: np.ndarray, targets: np.ndarray, *, bins: int = BINS
) -> list[dict[str, Any]]:
    """Computes the bins of a reliability diagram.

    Args:
        probabilities: `(examples, classes)`.
        targets: Classes or labels, see `expected_calibration_error`.
        bins: Number of bins of equal width.

    Returns:
        For every bin `low` and `high` (its limits), `count`, and the mean
        `confidence` and `accuracy` of what lies in it, None where nothing does.
    """
    confidence, outcome = _confidence(probabilities, targets)
    place = _bin(confidence, bins)
    counts, confidences, outcomes = (
        np.bincount(place, weights=weights, minlength=bins).tolist()
        for weights in (np.ones_like(confidence), confidence, outcome)
    )
    return [
        {
            "low": index / bins,
            "high": (index + 1) / bins,
            "count": int(count),
            "confidence": confidences[index] / count if count else None,
            "accuracy": outcomes[index] / count if count else None,
        }
        for index, count in enumerate(counts)
    ]


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Fits the temperature that makes probabilities most likely.

    Minimises the cross-entropy of `logits / T` over `T`. Fit it on validation
    examples, and divide the logits of others by it; decisions do not change.

    Args:
        logits: `(examples, classes)`.
        targets: Classes, `(examples,)` integers, or labels, `(examples, classes)`.

    Returns:
        The temperature, between 0.05 and 20.

    Example:

    >>> logits = np.array([[4.0, 0.0]] * 3 + [[0.0, 4.0]])
    >>> round(fit_temperature(logits, np.array([0, 0, 1, 1])), 2)
    3.64

    References:
        Guo et al. 2017, https://arxiv.org/abs/1706.04599
    """
    import scipy.optimize

    exact = np.asarray(logits, "float64")
    limits = (np.log(0.05), np.log(20.0))
    found = scipy.optimize.minimize_scalar(
        lambda log_t: float(cross_entropy(exact / np.exp(log_t), targets).mean()),
        bounds=limits,
        method="bounded",
    )
    return float(np.exp(found.x))


def probabilities(logits: np.ndarray, *, multi_label: bool = False) -> np.ndarray:
    """Turns logits into probabilities.

    Args:
        logits: `(examples, classes)`.
        multi_label: Whether each class has a probability of its own.

    Returns:
        `(examples, classes)`, float64; rows sum to 1 unless `multi_label`.
    """
    import scipy.special

    exact = np.asarray(logits, "float64")
    return (
        scipy.special.expit(exact) if multi_label else scipy.special.softmax(exact, 1)
    )


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Computes the loss of every example, exact also for very small probabilities.

    Args:
        logits: `(examples, classes)`.
        targets: Classes, `(examples,)` integers; or labels, `(examples, classes)`,
            whose losses are averaged.

    Returns:
        `(examples,)`, in nats.
    """
    import scipy.special

    if targets.ndim == 2:
        return (np.logaddexp(0, logits) - targets * logits).mean(axis=1)
    chosen = logits[np.arange(len(targets)), targets]
    return scipy.special.logsumexp(logits, axis=1) - chosen


def _confidence(
    probabilities: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if targets.ndim == 2:
        return probabilities.ravel(), targets.ravel().astype("float64")
    right = probabilities.argmax(axis=1) == targets
    return probabilities.max(axis=1), right.astype("float64")


def _bin(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
