"""All metrics of a model on a split: with intervals, per class and per slice."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflearn.evaluation import agreement, calibration
from tflearn.evaluation.bootstrap import LEVEL, Estimate
from tflearn.evaluation.measures import Examples, default_top_k
from tflearn.evaluation.slices import groups
from tflearn.support import seeds
from tflearn.support.errors import ConfigError, DataError, RunError, nearest

_HEADLINES = {"class": "accuracy", "multi_label": "f1_macro", "number": "r2"}
# Averages over classes, and what they average.
_MACRO = {
    "precision_macro": "precision",
    "recall_macro": "recall",
    "f1_macro": "f1",
    "auc": "auc",
    "average_precision": "average_precision",
}
_UNDEFINED = {
    "auc": "undefined: needs examples with and without the class",
    "average_precision": "undefined: no example has the class",
    "r2": "undefined: the targets are constant",
    "pearson": "undefined: targets or outputs are constant",
    "spearman": "undefined: targets or outputs are constant",
}
_ABSENT = "undefined: occurs in neither targets nor predictions"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model does on a split.

    Args:
        kind: `class`, `multi_label` or `number`, or the name of an objective.
        classes: Names of the classes or labels; empty for others.
        count: Number of examples.
        headline: Name of the metric that stands for all.
        lower_is_better: Whether a lower headline is better.
        metrics: Estimates by metric.
        per_class: Estimates by class and metric; an estimate's count is the number
            of examples of the class.
        slices: Estimates by column, value of the column, and metric.
        confusion: `(classes, classes)` counts, row the true class, column the
            predicted; None unless each example has one class.
        reliability: Bins of the reliability diagram, see `calibration.reliability`.
        temperature: What logits were divided by for the `_calibrated` metrics.
        bootstrap: Resamples asked for; an estimate names those it rests on.
        seed: Seed of the resampling.
    """

    kind: str
    classes: tuple[str, ...]
    count: int
    headline: str
    metrics: dict[str, Estimate]
    per_class: dict[str, dict[str, Estimate]]
    slices: dict[str, dict[str, dict[str, Estimate]]]
    confusion: np.ndarray | None
    reliability: list[dict[str, Any]]
    temperature: float | None
    bootstrap: int
    seed: int
    lower_is_better: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types, without NaN; `level` is that of the intervals."""
        fields = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }
        return fields | {
            "level": LEVEL,
            "classes": list(self.classes),
            "metrics": _json(self.metrics),
            "per_class": _json(self.per_class),
            "slices": _json(self.slices),
            "confusion": None if self.confusion is None else self.confusion.tolist(),
        }


def headline(kind: str) -> str:
    """Returns the metric that early stopping and comparisons go by; higher is better.

    Args:
        kind: `class`, `multi_label` or `number`.

    Returns:
        Name of the metric.

    Raises:
        ConfigError: There is no such kind.

    Example:

    >>> headline("multi_label")
    'f1_macro'
    """
    if kind not in _HEADLINES:
        raise ConfigError(
            "unknown kind of target",
            received=repr(kind),
            expected=", ".join(_HEADLINES),
            nearest=nearest(kind, _HEADLINES),
        )
    return _HEADLINES[kind]


def evaluate(
    kind: str,
    targets: np.ndarray,
    outputs: np.ndarray,
    *,
    classes: Sequence[str] = (),
    slices: Mapping[str, np.ndarray] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    top_k: Sequence[int] | None = None,
    temperature: float | None = None,
) -> Evaluation:
    """Computes every metric that a kind of target has.

    - `class`: `accuracy`, `top_k_accuracy`, `precision`, `recall` and `f1` (each
      `_micro` and `_macro`), `mcc`, `auc` and `average_precision` (of the second of
      two classes, else the mean of each class against the rest), `cross_entropy`,
      `expected_calibration_error`.
    - `multi_label`: `subset_accuracy`, and the same without accuracies and `mcc`; a
      label is predicted where its logit is positive.
    - `number`: `mae`, `rmse`, `r2`, `pearson`, `spearman`.

    Each comes with a 95 % percentile bootstrap interval over examples. A metric that
    is undefined (AUC with one class) has no value and says why.

    Args:
        kind: `class`, `multi_label` or `number`.
        targets: `(examples,)` integers; `(examples, labels)` of 0 and 1; or
            `(examples,)` numbers.
        outputs: Logits, `(examples, classes)`, or values, `(examples, 1)`.
        classes: Names of the classes or labels.
        slices: By column, one value an example.
        bootstrap: Number of resamples; 0 for values without intervals.
        seed: Seed of the resampling.
        top_k: The k of the top-k accuracies; None is 5 where there are more classes.
        temperature: If given, cross-entropy and calibration error are computed for
            `outputs / temperature` too, as `..._calibrated`.

    Returns:
        The evaluation.

    Raises:
        ConfigError: The kind or a k does not exist.
        DataError: Targets, outputs, classes or slices do not fit together.
        RunError: Outputs are not finite.
    """
    leading = headline(kind)
    examples = Examples(
        kind=kind,
        targets=np.asarray(targets),
        outputs=_checked(kind, np.asarray(targets), np.asarray(outputs), classes),
        top_k=default_top_k(len(classes)) if top_k is None else top_k,
        temperature=temperature,
    )
    metrics, per_class = examples.estimates(resamples=bootstrap, seed=seed)
    return Evaluation(
        kind=kind,
        classes=tuple(classes),
        count=len(examples.targets),
        headline=leading,
        metrics=_explained(metrics, per_class),
        per_class=_by_class(examples, per_class, classes),
        slices={
            column: _slices(examples, column, np.asarray(values), bootstrap, seed)
            for column, values in (slices or {}).items()
        },
        confusion=_confusion(examples) if kind == "class" else None,
        reliability=[] if kind == "number" else _reliability(examples),
        temperature=temperature,
        bootstrap=bootstrap,
        seed=seed,
    )


def _checked(
    kind: str, targets: np.ndarray, outputs: np.ndarray, classes: Sequence[str]
) -> np.ndarray:
    """Returns the outputs as `(examples, outputs)`, float64."""
    columns = 1 if kind == "number" else len(classes)
    matrix = outputs.astype("float64")
    if kind == "number" and matrix.ndim == 1:
        matrix = matrix[:, None]
    wanted = (len(targets), columns)
    target_shape = wanted if kind == "multi_label" else wanted[:1]
    if not len(targets):
        raise DataError("there is no example to evaluate")
    if matrix.shape != wanted or targets.shape != target_shape:
        raise DataError(
            "targets and outputs do not fit together",
            received=f"targets {targets.shape}, outputs {outputs.shape}",
            expected=f"targets {target_shape}, outputs {wanted}",
        )
    if not np.isfinite(matrix).all():
        broken = (~np.isfinite(matrix).all(axis=1)).sum()
        raise RunError(
            "the model's outputs are not finite",
            received=f"{broken} of {len(matrix)} examples with NaN or infinity",
            fix="training has diverged: lower the learning rate or clip gradients",
        )
    _check_targets(kind, targets, columns)
    return matrix


def _check_targets(kind: str, targets: np.ndarray, columns: int) -> None:
    if kind == "class":
        integers = np.issubdtype(targets.dtype, np.integer)
        fits = integers and targets.min() >= 0 and targets.max() < columns
        expected = f"integers from 0 to {columns - 1}"
    elif kind == "multi_label":
        fits = np.isin(targets, (0, 1)).all()
        expected = "0 and 1"
    else:
        fits = np.isfinite(targets).all()
        expected = "finite numbers"
    if not fits:
        raise DataError(
            "targets are out of their range",
            received=f"{targets.dtype} from {targets.min()} to {targets.max()}",
            expected=expected,
        )


def _slices(
    examples: Examples, column: str, values: np.ndarray, resamples: int, seed: int
) -> dict[str, dict[str, Estimate]]:
    if values.shape != examples.targets.shape[:1]:
        raise DataError(
            f"the slice column '{column}' needs one value an example",
            received=values.shape,
            expected=examples.targets.shape[:1],
        )
    return {
        value: _explained(
            *examples.take(rows).estimates(
                resamples=resamples, seed=seeds.derive(seed, column, value)
            )
        )
        for value, rows in groups(values).items()
    }


def _explained(
    metrics: Mapping[str, Estimate], per_class: Mapping[str, Sequence[Estimate]]
) -> dict[str, Estimate]:
    """Adds why a metric has no value, or over which classes it is a mean."""
    return {
        name: dataclasses.replace(
            found, note=_note(name, found, per_class.get(_MACRO.get(name, ""), ()))
        )
        for name, found in metrics.items()
    }


def _note(name: str, found: Estimate, averaged: Sequence[Estimate]) -> str:
    if found.value is None:
        return _UNDEFINED.get(name, _ABSENT)
    defined = sum(row.value is not None for row in averaged)
    # Of two classes, AUC and average precision are the second's, not a mean.
    if defined == len(averaged) or (len(averaged) == 2 and name in _UNDEFINED):
        return ""
    return f"mean over {defined} of {len(averaged)} classes: the others do not occur"


def _by_class(
    examples: Examples,
    per_class: Mapping[str, Sequence[Estimate]],
    classes: Sequence[str],
) -> dict[str, dict[str, Estimate]]:
    if not per_class:
        return {}
    if examples.kind == "multi_label":
        supports = examples.targets.sum(axis=0)
    else:
        supports = np.bincount(examples.targets, minlength=len(classes))
    return {
        name: {
            metric: dataclasses.replace(
                rows[index],
                count=int(supports[index]),
                note=_note(metric, rows[index], ()),
            )
            for metric, rows in per_class.items()
        }
        for index, name in enumerate(classes)
    }


def _confusion(examples: Examples) -> np.ndarray:
    num_classes = examples.outputs.shape[1]
    predictions = examples.outputs.argmax(axis=1)
    return agreement.confusion(examples.targets, predictions, num_classes=num_classes)


def _reliability(examples: Examples) -> list[dict[str, Any]]:
    logits = examples.outputs / (examples.temperature or 1.0)
    probabilities = calibration.probabilities(
        logits, multi_label=examples.kind == "multi_label"
    )
    return calibration.reliability(probabilities, examples.targets)


def _json(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.to_json()
    return {key: _json(inner) for key, inner in value.items()}
