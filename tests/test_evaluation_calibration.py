"""Calibration error, reliability bins and temperature scaling."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from tflearn import evaluation
from tflearn.evaluation import calibration


def calibrated(examples: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits and targets that were drawn from their very probabilities."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(examples, 3)) * 2
    p = scipy.special.softmax(logits, axis=1)
    targets = (p.cumsum(axis=1) < rng.random((examples, 1))).sum(axis=1)
    return logits, np.minimum(targets, 2)


def test_error_is_its_definition() -> None:
    logits, targets = calibrated(500)
    p = scipy.special.softmax(logits, axis=1)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == targets
    expected = 0.0
    for low in np.arange(10) / 10:
        rows = (confidence > low) & (confidence <= low + 0.1)
        if rows.any():
            gap = abs(right[rows].mean() - confidence[rows].mean())
            expected += rows.mean() * gap
    found = evaluation.expected_calibration_error(p, targets, bins=10)
    assert found == pytest.approx(expected)


def test_error_of_labels_counts_every_probability() -> None:
    p = np.array([[0.2, 0.8], [0.2, 0.8]])
    labels = np.array([[0.0, 1.0], [1.0, 1.0]])
    # Twice 0.2 for a share of 0.5, and twice 0.8 for a share of 1.
    assert evaluation.expected_calibration_error(p, labels) == pytest.approx(0.25)


def test_error_is_small_for_true_probabilities_and_large_for_sharpened() -> None:
    logits, targets = calibrated()
    true, sharp = (
        evaluation.expected_calibration_error(
            calibration.probabilities(scale * logits), targets
        )
        for scale in (1, 5)
    )
    assert true < 0.01 < 0.15 < sharp


def test_reliability_bins_hold_everything_once() -> None:
    logits, targets = calibrated(300)
    p = calibration.probabilities(logits)
    bins = calibration.reliability(p, targets, bins=5)
    assert sum(found["count"] for found in bins) == 300
    assert [found["high"] for found in bins[:-1]] == [b["low"] for b in bins[1:]]
    error = sum(
        found["count"] / 300 * abs(found["accuracy"] - found["confidence"])
        for found in bins
        if found["count"]
    )
    assert error == pytest.approx(
        evaluation.expected_calibration_error(p, targets, bins=5)
    )
    # The largest of three probabilities is never in the lowest fifth.
    assert bins[0] == {
        "low": 0.0,
        "high": 0.2,
        "count": 0,
        "confidence": None,
        "accuracy": None,
    }


@pytest.mark.parametrize("edge, place", [(0.0, 0), (0.5, 0), (1.0, 1)])
def test_bins_are_closed_on_the_right(edge: float, place: int) -> None:
    p, labels = np.array([[edge]]), np.array([[1.0]])
    bins = calibration.reliability(p, labels, bins=2)
    assert [found["count"] for found in bins] == [int(place == 0), int(place == 1)]


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_temperature_undoes_a_scale(scale: float) -> None:
    logits, targets = calibrated()
    found = evaluation.fit_temperature((scale * logits).astype("float32"), targets)
    assert found == pytest.approx(scale, rel=0.03)


def test_temperature_of_labels() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 2)) * 2
    labels = (rng.random(logits.shape) < scipy.special.expit(logits)).astype("float32")
    found = evaluation.fit_temperature(3 * logits, labels)
    assert found == pytest.approx(3.0, rel=0.03)


def test_temperature_stays_finite_where_all_is_right() -> None:
    targets = np.array([0, 1, 2])
    assert evaluation.fit_temperature(np.eye(3), targets) == pytest.approx(
        0.05, rel=0.01
    )


def test_cross_entropy_is_exact_for_tiny_probabilities() -> None:
    logits = np.array([[0.0, 2000.0]])
    assert calibration.cross_entropy(logits, np.array([0])) == [2000.0]
    assert calibration.cross_entropy(logits, np.array([[1.0, 0.0]])) == pytest.approx(
        (np.log(2) + 2000) / 2
    )
