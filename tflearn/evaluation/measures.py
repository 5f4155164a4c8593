"""Which metrics a kind of target has, as measures of the bootstrap."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tflearn.evaluation import agreement, calibration, ranking, regression
from tflearn.evaluation.bootstrap import Estimate, Measure, estimate, joined, means
from tflearn.support.errors import ConfigError

# Ranking metrics sort every class anew: beyond so many cells (examples x classes x
# resamples; a few seconds) they get fewer resamples, but never fewer than the least.
_RANKING_CELLS = 1_000_000_000
_FEWEST_RESAMPLES = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """What is measured: targets and outputs of the same examples.

    Args:
        kind: `class`, `multi_label` or `number`.
        targets: See `metrics.evaluate`.
        outputs: Logits or values, float64.
        top_k: The k of top-k accuracies.
        temperature: Divides the logits for further figures of calibration.
    """

    kind: str
    targets: np.ndarray
    outputs: np.ndarray
    top_k: Sequence[int] = ()
    temperature: float | None = None

    def take(self, rows: np.ndarray) -> Examples:
        """Returns some of the examples."""
        return dataclasses.replace(
            self, targets=self.targets[rows], outputs=self.outputs[rows]
        )

    def estimates(
        self, *, resamples: int, seed: int
    ) -> tuple[dict[str, Estimate], dict[str, list[Estimate]]]:
        """Computes every metric with its interval, overall and per class."""
        count, width = self.outputs.shape
        cheap, costly = _MEASURES[self.kind](self)
        overall, per_class = estimate(
            joined(cheap), count=count, resamples=resamples, seed=seed
        )
        if costly is not None:
            affordable = max(_FEWEST_RESAMPLES, _RANKING_CELLS // (count * width))
            ranks, class_ranks = estimate(
                costly, count=count, resamples=min(resamples, affordable), seed=seed
            )
            overall, per_class = overall | ranks, per_class | class_ranks
        return overall, per_class


def default_top_k(num_classes: int) -> tuple[int, ...]:
    """Returns the k that says something: 5, where there are more classes."""
    return (5,) if num_classes > 5 else ()


def _single_label(examples: Examples) -> tuple[list[Measure], Measure]:
    targets, logits = examples.targets, examples.outputs
    num_classes = logits.shape[1]
    rows = {f"top_{k}_accuracy": _in_top(logits, targets, k) for k in examples.top_k}
    measures = [
        agreement.single_label(targets, logits.argmax(axis=1), num_classes=num_classes),
        *([means(rows)] if rows else []),
        *_likelihood(examples),
    ]
    positives = targets[:, None] == np.arange(num_classes)
    scores = ranking.log_odds(logits)
    return measures, ranking.one_vs_rest(positives, scores, binary=num_classes == 2)


def _multi_label(examples: Examples) -> tuple[list[Measure], Measure]:
    truth, decisions = examples.targets > 0.5, examples.outputs > 0
    measures = [
        means({"subset_accuracy": (truth == decisions).all(axis=1)}),
        agreement.multi_label(truth, decisions),
        *_likelihood(examples),
    ]
    return measures, ranking.one_vs_rest(truth, examples.outputs)


def _numbers(examples: Examples) -> tuple[list[Measure], None]:
    pair = examples.targets.astype("float64"), examples.outputs[:, 0]
    return [regression.errors(*pair), regression.correlations(*pair)], None


_MEASURES = {"class": _single_label, "multi_label": _multi_label, "number": _numbers}


def _likelihood(examples: Examples) -> list[Measure]:
    """Cross-entropy and calibration error, and both after scaling."""
    measures = _likelihood_at(examples, 1.0, "")
    if examples.temperature is not None:
        measures += _likelihood_at(examples, examples.temperature, "_calibrated")
    return measures


def _likelihood_at(
    examples: Examples, temperature: float, suffix: str
) -> list[Measure]:
    logits = examples.outputs / temperature
    losses = calibration.cross_entropy(logits, examples.targets)
    probabilities = calibration.probabilities(
        logits, multi_label=examples.kind == "multi_label"
    )
    name = f"expected_calibration_error{suffix}"
    return [
        means({f"cross_entropy{suffix}": losses}),
        calibration.calibration_error(name, probabilities, examples.targets),
    ]


def _in_top(logits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    if not 1 <= k < logits.shape[1]:
        raise ConfigError(
            "top_k must be below the number of classes",
            received=k,
            expected=f"1 <= k < {logits.shape[1]}",
        )
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return (best == targets[:, None]).any(axis=1)
