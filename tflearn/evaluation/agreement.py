"""Metrics of decisions: how predicted classes agree with the true ones.

Everything here follows from three counts per class: how often it is true, predicted,
and both. Averages over classes ("macro") go over the classes that occur in targets
or predictions, as in scikit-learn; a ratio with an empty denominator is 0 there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tflearn.evaluation.bootstrap import Measure, Values

if TYPE_CHECKING:
    import scipy.sparse


def single_label(
    targets: np.ndarray, predictions: np.ndarray, *, num_classes: int
) -> Measure:
    """Makes the measure of accuracy, precision, recall, F1 and Matthews correlation.

    `MCC = (c s - sum_k t_k p_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2))` with
    `s` examples, `c` of them right, class `k` true `t_k` and predicted `p_k` times.

    Args:
        targets: True classes, `(examples,)`, integers in `[0, num_classes)`.
        predictions: Predicted classes, `(examples,)`.
        num_classes: Number of classes.

    Returns:
        The measure; it takes weights of the examples.

    References:
        Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006
    """
    true = _one_hot(targets, num_classes)
    predicted = _one_hot(predictions, num_classes)
    both = true.multiply(predicted)

    def measure(weights: np.ndarray) -> Values:
        counts = [_weighted(table, weights) for table in (true, predicted, both)]
        values = _precision_recall_f1(*counts)
        extra = {
            "accuracy": counts[2].sum(axis=0) / counts[0].sum(axis=0),
            "mcc": _matthews(*counts),
        }
        return Values({**extra, **values.overall}, values.per_class)

    return measure


def multi_label(targets: np.ndarray, predictions: np.ndarray) -> Measure:
    """Makes the measure of precision, recall and F1 of sets of labels.

    Args:
        targets: True where a label applies, `(examples, labels)`.
        predictions: True where it is predicted, `(examples, labels)`.

    Returns:
        The measure; it takes weights of the examples.
    """
    import scipy.sparse

    tables = [
        scipy.sparse.csr_array(table.T.astype("float32"))
        for table in (targets, predictions, targets & predictions)
    ]

    def measure(weights: np.ndarray) -> Values:
        return _precision_recall_f1(*(_weighted(table, weights) for table in tables))

    return measure


def confusion(
    targets: np.ndarray, predictions: np.ndarray, *, num_classes: int
) -> np.ndarray:
    """Counts how often each class was taken for each.

    Args:
        targets: True classes, `(examples,)`.
        predictions: Predicted classes, `(examples,)`.
        num_classes: Number of classes.

    Returns:
        `(classes, classes)` integers; row: the true class, column: the predicted.

    Example:

    >>> confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), num_classes=2).tolist()
    [[1, 0], [1, 1]]
    """
    cells = np.bincount(targets * num_classes + predictions, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def macro(rows: np.ndarray) -> np.ndarray:
    """Averages over classes where they are defined.

    Args:
        rows: `(classes, weightings)`, NaN where undefined.

    Returns:
        `(weightings,)`; NaN where no class is defined.
    """
    defined = ~np.isnan(rows)
    return _ratio(np.where(defined, rows, 0).sum(axis=0), defined.sum(axis=0), np.nan)


def _precision_recall_f1(
    true: np.ndarray, predicted: np.ndarray, both: np.ndarray
) -> Values:
    def ratios(true: np.ndarray, predicted: np.ndarray, both: np.ndarray):
        return {
            "precision": _ratio(both, predicted),
            "recall": _ratio(both, true),
            "f1": _ratio(2 * both, true + predicted),
        }

    micro = ratios(true.sum(axis=0), predicted.sum(axis=0), both.sum(axis=0))
    occurs = true + predicted > 0
    per_class = {
        name: np.where(occurs, rows, np.nan)
        for name, rows in ratios(true, predicted, both).items()
    }
    overall = {f"{name}_macro": macro(rows) for name, rows in per_class.items()}
    return Values(
        overall | {f"{name}_micro": row for name, row in micro.items()}, per_class
    )


def _matthews(true: np.ndarray, predicted: np.ndarray, both: np.ndarray) -> np.ndarray:
    total = true.sum(axis=0)
    covariance = both.sum(axis=0) * total - (true * predicted).sum(axis=0)
    spread = (total**2 - (true**2).sum(axis=0)) * (
        total**2 - (predicted**2).sum(axis=0)
    )
    return _ratio(covariance, np.sqrt(spread))


def _one_hot(classes: np.ndarray, num_classes: int) -> scipy.sparse.csr_array:
    import scipy.sparse

    examples = np.arange(len(classes))
    ones = np.ones(len(classes), "float32")
    return scipy.sparse.csr_array(
        (ones, (classes, examples)), shape=(num_classes, len(classes))
    )


def _weighted(table: scipy.sparse.csr_array, weights: np.ndarray) -> np.ndarray:
    # Counts stay exact in float32; their products would not.
    return np.asarray(table @ weights).astype("float64")


def _ratio(
    numerator: np.ndarray, denominator: np.ndarray, empty: float = 0.0
) -> np.ndarray:
    result = np.full(np.shape(numerator), empty, "float64")
    return np.divide(numerator, denominator, out=result, where=denominator > 0)
