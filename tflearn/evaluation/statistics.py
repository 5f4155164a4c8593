"""Metrics of objectives without labels: functions of means over examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from tflearn.evaluation.bootstrap import Estimate, Measure, Values, estimate, means
from tflearn.evaluation.metrics import Evaluation
from tflearn.evaluation.slices import groups
from tflearn.support import seeds
from tflearn.support.errors import RunError

Summarize = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


class Scorer(keras.Model):
    """Computes statistics of a batch inside one compiled function.

    The outputs of a language model are a vocabulary wide at every token; only a few
    numbers an example leave the device.

    Args:
        model: The model; its variables are used, not copied.
        statistics: Called with outputs, targets and weights (or None); returns
            tensors `(batch,)` by name.
    """

    def __init__(
        self, model: keras.Model, statistics: Callable[[Any, Any, Any], dict[str, Any]]
    ) -> None:
        super().__init__(name="scorer")
        self._model = model
        self._statistics = statistics
        # Nothing of its own has to be built.
        self.built = True

    def call(self, batch: tuple[Any, ...], training: bool = False) -> dict[str, Any]:
        """Returns the statistics of `(inputs, targets)` or `(..., weights)`."""
        inputs, targets, *weights = batch
        outputs = self._model(inputs, training=False)
        return self._statistics(outputs, targets, weights[0] if weights else None)

    def score(self, batches: Iterable[tuple[Any, ...]]) -> dict[str, np.ndarray]:
        """Computes the statistics of all batches.

        Args:
            batches: Batches as `fit` takes them.

        Returns:
            By name `(examples,)`, float64, in the order of the batches.
        """
        found = [self.predict_on_batch(batch) for batch in batches]
        if not found:
            raise RunError("there is no example to evaluate")
        return {
            name: np.concatenate([np.asarray(part[name], "float64") for part in found])
            for name in found[0]
        }


def evaluate_statistics(
    kind: str,
    rows: Mapping[str, np.ndarray],
    summarize: Summarize,
    *,
    headline: str,
    lower_is_better: bool = True,
    slices: Mapping[str, np.ndarray] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Computes metrics that are functions of means of statistics, with intervals.

    Args:
        kind: Name of the objective.
        rows: Statistics of every example by name, `(examples,)`.
        summarize: From the means by name, arrays of any one shape, to the metrics.
        headline: The metric that stands for all.
        lower_is_better: Whether a lower headline is better.
        slices: By column, one value an example.
        bootstrap: Number of resamples; 0 for values without intervals.
        seed: Seed of the resampling.

    Returns:
        The evaluation.

    Raises:
        RunError: A statistic is not finite, or the headline is not among the metrics.

    Example:

    >>> rows = {"nll": np.array([2.0, 4.0]), "tokens": np.array([1.0, 2.0])}
    >>> found = evaluate_statistics(
    ...     "lm", rows, lambda mean: {"nats": mean["nll"] / mean["tokens"]},
    ...     headline="nats", bootstrap=0)
    >>> found.metrics["nats"].value
    2.0
    """
    _check_finite(rows)
    count = len(next(iter(rows.values())))
    metrics = _estimates(rows, summarize, resamples=bootstrap, seed=seed)
    _check_headline(metrics, headline, count)
    return Evaluation(
        kind=kind,
        classes=(),
        count=count,
        headline=headline,
        lower_is_better=lower_is_better,
        metrics=metrics,
        per_class={},
        slices={
            column: {
                value: _estimates(
                    {name: row[places] for name, row in rows.items()},
                    summarize,
                    resamples=bootstrap,
                    seed=seeds.derive(seed, column, value),
                )
                for value, places in groups(np.asarray(values)).items()
            }
            for column, values in (slices or {}).items()
        },
        confusion=None,
        reliability=[],
        temperature=None,
        bootstrap=bootstrap,
        seed=seed,
    )


def _check_finite(rows: Mapping[str, np.ndarray]) -> None:
    broken = [name for name, row in rows.items() if not np.isfinite(row).all()]
    if broken:
        raise RunError(
            "the model's outputs are not finite",
            received=f"NaN or infinity in {', '.join(broken)}",
            fix="training has diverged: lower the learning rate or clip gradients",
        )


def _check_headline(metrics: Mapping[str, Estimate], headline: str, count: int) -> None:
    if headline not in metrics:
        raise RunError(
            "the objective's headline is not among its metrics",
            received=headline,
            expected=", ".join(metrics),
        )
    if metrics[headline].value is None:
        raise RunError(
            "no example has anything to measure",
            received=f"{headline} of {count} examples is not a number",
            fix="give texts that are longer than the special tokens",
        )


def _estimates(
    rows: Mapping[str, np.ndarray], summarize: Summarize, *, resamples: int, seed: int
) -> dict[str, Estimate]:
    count = len(next(iter(rows.values())))
    overall, _ = estimate(
        _measure(rows, summarize), count=count, resamples=resamples, seed=seed
    )
    return overall


def _measure(rows: Mapping[str, np.ndarray], summarize: Summarize) -> Measure:
    mean_of = means(rows)

    def measure(weights: np.ndarray) -> Values:
        return Values(summarize(mean_of(weights).overall))

    return measure
