"""Percentile bootstrap: how much a metric would vary over test sets like this one.

A resample of `n` examples with replacement is a vector of `n` counts, and a metric
is a function of such counts. So each metric is written once, for many weightings at
a time: on a column of ones it gives the value, on columns of counts the resamples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

LEVEL = 0.95
# Counts held at a time; a resample is never cut.
_CHUNK_CELLS = 1 << 22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric with its interval.

    Args:
        value: The metric; None where it is undefined.
        low: Lower end of the 95 % percentile interval, None without one.
        high: Upper end.
        count: Number of examples.
        resamples: Resamples in which the metric was defined, the interval's basis.
        note: Why there is no value, or what is special about it.
        samples: The metric on each resample; arms of a comparison that share a test
            set share the resamples, too.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    count: int
    resamples: int = 0
    note: str = ""
    samples: np.ndarray | None = dataclasses.field(
        default=None, repr=False, compare=False
    )

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as plain JSON types, without the samples."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "samples"
        }


class Values(NamedTuple):
    """Metrics under several weightings; NaN where a metric is undefined.

    Args:
        overall: By metric, `(weightings,)`.
        per_class: By metric, `(classes, weightings)`.
    """

    overall: Mapping[str, np.ndarray]
    per_class: Mapping[str, np.ndarray] = {}


Measure = Callable[[np.ndarray], Values]
"""From weights, `(examples, weightings)`, to the metrics under each of them."""


def estimate(
    measure: Measure, *, count: int, resamples: int, seed: int
) -> tuple[dict[str, Estimate], dict[str, list[Estimate]]]:
    """Computes metrics and their percentile intervals.

    Args:
        measure: The metrics.
        count: Number of examples.
        resamples: How many; 0 for values without intervals.
        seed: Seed of the resampling.

    Returns:
        Estimates by metric, and by metric for every class.

    Example:

    >>> row = np.array([1.0, 0.0, 1.0, 1.0])
    >>> overall, _ = estimate(means({"accuracy": row}), count=4, resamples=0, seed=0)
    >>> overall["accuracy"].value
    0.75

    References:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13
    """
    point = measure(np.ones((count, 1)))
    # Every resample of one example is that example: an interval would claim certainty.
    chunks = [
        measure(weights)
        for weights in _resamples(count, resamples if count > 1 else 0, seed)
    ]
    overall = {}
    for name, value in point.overall.items():
        samples = _joined([chunk.overall[name] for chunk in chunks])
        found = _estimate(value, samples, count)
        overall[name] = dataclasses.replace(found, samples=samples)
    per_class = {
        name: [
            _estimate(row, samples, count)
            for row, samples in zip(rows, _rows(chunks, name, len(rows)), strict=True)
        ]
        for name, rows in point.per_class.items()
    }
    return overall, per_class


def means(rows: Mapping[str, np.ndarray]) -> Measure:
    """Makes a measure of metrics that are means over examples.

    Args:
        rows: By metric, its value for every example, `(examples,)`.

    Returns:
        The measure.
    """
    names, table = list(rows), np.stack(list(rows.values())).astype("float64")

    def measure(weights: np.ndarray) -> Values:
        values = table @ weights / weights.sum(axis=0, dtype="float64")
        return Values(dict(zip(names, values, strict=True)))

    return measure


def joined(measures: Sequence[Measure]) -> Measure:
    """Makes one measure of several.

    Args:
        measures: Each with its own metrics.

    Returns:
        A measure of all metrics.
    """

    def measure(weights: np.ndarray) -> Values:
        parts = [part(weights) for part in measures]
        return Values(
            {name: row for part in parts for name, row in part.overall.items()},
            {name: rows for part in parts for name, rows in part.per_class.items()},
        )

    return measure


def _resamples(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields counts, `(examples, resamples of a chunk)`, float32 (exact integers)."""
    rng = np.random.default_rng(seed)
    width = max(1, _CHUNK_CELLS // count)
    for start in range(0, resamples, width):
        columns = min(width, resamples - start)
        drawn = rng.integers(0, count, size=(count, columns))
        cells = drawn * columns + np.arange(columns)
        counts = np.bincount(cells.ravel(), minlength=count * columns)
        yield counts.reshape(count, columns).astype("float32")


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)


def _rows(chunks: Sequence[Values], name: str, rows: int) -> np.ndarray:
    parts = [chunk.per_class[name] for chunk in chunks]
    return np.concatenate(parts, axis=1) if parts else np.zeros((rows, 0))


def _estimate(value: np.ndarray, samples: np.ndarray, count: int) -> Estimate:
    point = float(value[0])
    if np.isnan(point):
        return Estimate(value=None, count=count)
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return Estimate(value=point, count=count)
    low, high = np.quantile(defined, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(
        value=point,
        low=float(low),
        high=float(high),
        count=count,
        resamples=len(defined),
    )
