"""The errors a person should look at first."""

from __future__ import annotations

import numpy as np

_SMALLEST = 1e-12


def worst_errors(
    targets: np.ndarray, probabilities: np.ndarray, count: int
) -> np.ndarray:
    """Finds the errors with the highest loss.

    Args:
        targets: Classes, `(examples,)` integers; labels, `(examples, classes)` of 0
            and 1; or numbers, `(examples,)` floats.
        probabilities: `(examples, classes)`, in `[0, 1]`; for numbers the predicted
            values, `(examples,)` or `(examples, 1)`.
        count: How many to return at most.

    Returns:
        Indices of examples, the worst first; right decisions are not among them.

    Example:

    >>> probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    >>> worst_errors(np.array([0, 0, 0]), probabilities, 5).tolist()
    [1, 2]
    """
    wrong, loss = _judge(np.asarray(targets), np.asarray(probabilities, "float64"))
    order = np.argsort(-loss, kind="stable")
    return order[wrong[order]][:count]


def _judge(
    targets: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if targets.ndim == 2:
        agreed = np.where(targets > 0.5, probabilities, 1 - probabilities)
        loss = -np.log(np.maximum(agreed, _SMALLEST)).sum(axis=1)
        return ((probabilities > 0.5) != (targets > 0.5)).any(axis=1), loss
    if np.issubdtype(targets.dtype, np.integer):
        chosen = probabilities[np.arange(len(targets)), targets]
        return probabilities.argmax(axis=1) != targets, -np.log(
            np.maximum(chosen, _SMALLEST)
        )
    gaps = np.abs(probabilities.reshape(targets.shape) - targets)
    return gaps > 0, gaps
