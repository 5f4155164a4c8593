"""Distillation: a student learns what a teacher gives beside the labels.

With labels `y`, outputs `s` of the student and `t` of the teacher, and features `h`
of the student behind a linear map and `f` of the teacher, an example's loss is

    (1 - alpha) base(y, s) + alpha soft(t, s) + feature_weight distance(f, h)

where `soft` is, by the kind of the targets,

- class: `T^2 KL(softmax(t / T) || softmax(s / T))`;
- multi-label: `T^2` times the mean over labels of the same between Bernoulli
  distributions with logits `t / T` and `s / T`;
- number: `(t - s)^2`.

References:
    Hinton et al. 2015, https://arxiv.org/abs/1503.02531;
    features: Romero et al. 2015 (FitNets), https://arxiv.org/abs/1412.6550
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tflearn.data import Dataset
from tflearn.objectives.objective import Objective
from tflearn.objectives.supervised import classification
from tflearn.objectives.teachers import Teacher
from tflearn.support.errors import ConfigError, nearest

DISTANCES = ("mse", "cosine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """How the parts of the loss are weighed.

    Args:
        temperature: `T`; divides the logits of both.
        alpha: Share of the teacher's outputs against the labels.
        feature_weight: Weight of the distance between the features; 0 for none.
        distance: `mse`, or `cosine` for one minus the cosine.
    """

    temperature: float = 2.0
    alpha: float = 0.5
    feature_weight: float = 0.0
    distance: str = "mse"


def distillation(
    *,
    teacher: Callable[[], Teacher],
    objective: Callable[[], Objective] = classification,
    temperature: float = 2.0,
    alpha: float = 0.5,
    feature_weight: float = 0.0,
    distance: str = "mse",
) -> Objective:
    """A supervised objective whose training targets come from a teacher too.

    The teacher is asked once about every training example, before the stage trains.
    What is measured, reported and exported is the student alone.

    Args:
        teacher: Makes the teacher: a function of `tflearn.objectives.teachers`.
        objective: Makes the objective with the labels: head, pooling, loss, metrics.
        temperature: Divides the logits of teacher and student, above 0; not used for
            numbers.
        alpha: Share of the teacher's outputs against the labels, in `[0, 1]`.
        feature_weight: Weight of the distance between the features that the two heads
            get, the student's mapped linearly to the teacher's size; 0 for none.
        distance: `mse` (mean over the features) or `cosine`.

    Returns:
        The objective.

    Raises:
        ConfigError: A weight is out of its range.
    """
    weights = Weights(
        temperature=temperature,
        alpha=alpha,
        feature_weight=feature_weight,
        distance=distance,
    )
    _check(weights)
    base = objective()
    return dataclasses.replace(
        base,
        name="distillation",
        loss=lambda one_hot: DistillationLoss(
            base.loss(True), kind=base.target_kind, weights=weights
        ),
        metrics=lambda one_hot: [OfOutputs(metric) for metric in base.metrics(True)],
        teach=functools.partial(_teach, teacher, base.target_kind, weights),
    )


def _check(weights: Weights) -> None:
    limits = {
        "temperature": (weights.temperature > 0, "above 0"),
        "alpha": (0 <= weights.alpha <= 1, "0 <= alpha <= 1"),
        "feature_weight": (weights.feature_weight >= 0, "at least 0"),
    }
    for name, (fits, expected) in limits.items():
        if not fits:
            raise ConfigError(
                f"distillation.{name} is out of its range",
                received=getattr(weights, name),
                expected=expected,
            )
    if weights.distance not in DISTANCES:
        raise ConfigError(
            "no such distance between features",
            received=weights.distance,
            expected=", ".join(DISTANCES),
            nearest=nearest(weights.distance, DISTANCES),
        )


def _teach(
    make: Callable[[], Teacher], kind: str, weights: Weights, dataset: Dataset
) -> np.ndarray:
    """Returns labels, the teacher's outputs and its features side by side."""
    _check_data(dataset)
    teacher = make()
    labels = _columns_of(dataset, kind)
    # The three parts are told apart by their widths, so outputs that are not learned
    # from are there as zeros.
    outputs, features = np.zeros_like(labels), np.zeros((len(labels), 0), "float32")
    wanted = [
        *(["outputs"] if weights.alpha else []),
        *(["features"] if weights.feature_weight else []),
    ]
    if weights.alpha:
        _check_task(teacher, kind, dataset)
    answers = teacher.answers(dataset, wanted) if wanted else {}
    return np.concatenate(
        [
            labels,
            answers.get("outputs", outputs),
            answers.get("features", features),
        ],
        axis=1,
    )


def _columns_of(dataset: Dataset, kind: str) -> np.ndarray:
    """Returns the training targets as float32 `(n, outputs)`."""
    targets = dataset.splits["train"].targets
    if targets is None:
        raise ConfigError("training needs targets", fix="declare data.Data.target")
    if kind == "class":
        return np.eye(len(dataset.classes), dtype="float32")[targets]
    return targets.reshape(len(targets), -1).astype("float32")


def _check_data(dataset: Dataset) -> None:
    if dataset.data.balance != "none":
        raise ConfigError(
            "classes cannot be balanced while a teacher is learned from",
            received=f"data.Data.balance = '{dataset.data.balance}'",
            expected="'none'",
        )
    if dataset.data.mixes_labels:
        raise ConfigError(
            "the teacher saw single images, not mixtures of several",
            received="MixUp or CutMix in data.Data.augment",
            fix="leave them out of a stage with distillation",
        )


def _check_task(teacher: Teacher, kind: str, dataset: Dataset) -> None:
    if "outputs" in teacher.tensors and teacher.task != kind:
        raise ConfigError(
            "the teacher was trained for another kind of targets",
            received=f"'{teacher.task}' ({teacher.origin})",
            expected=f"'{kind}'",
        )
    if "outputs" in teacher.tensors and teacher.classes != dataset.classes:
        raise ConfigError(
            "teacher and data have other classes, or in another order",
            received=f"of the teacher: {', '.join(teacher.classes)}",
            expected=f"those of the data: {', '.join(dataset.classes)}",
            fix="set data.Data.classes to the teacher's, or alpha to 0 to learn from "
            "its features alone",
        )


@keras.saving.register_keras_serializable(package="tflearn")
class DistillationLoss(keras.losses.Loss):
    """The loss of the module, with one value an example.

    Takes targets `(batch, 2 outputs + hints)`: labels, the teacher's outputs, its
    features; and predictions `(batch, outputs + hints)`.

    Args:
        base: Loss of the labels.
        kind: `class`, `multi_label` or `number`.
        weights: How the parts are weighed.

    Example:

    >>> loss = DistillationLoss(keras.losses.MeanSquaredError(), kind="number",
    ...     weights=Weights(alpha=0.5))
    >>> float(loss(np.array([[1.0, 3.0]]), np.array([[2.0]])))
    1.0
    """

    def __init__(
        self, base: keras.losses.Loss, *, kind: str, weights: Weights | None = None
    ) -> None:
        super().__init__(name="distillation")
        self.base = base
        self.kind = kind
        self.weights = weights or Weights()

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the loss of each example, `(batch,)`."""
        weights = self.weights
        (labels, taught, features), (outputs, hints) = parts(y_true, y_pred)
        total = (1 - weights.alpha) * self.base.call(labels, outputs)
        if weights.alpha:
            soft = _SOFT[self.kind](taught, outputs, weights.temperature)
            total = total + weights.alpha * soft
        if weights.feature_weight:
            apart = _distance(features, hints, weights.distance)
            total = total + weights.feature_weight * apart
        return total

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, the base loss serialized."""
        return {
            "base": keras.saving.serialize_keras_object(self.base),
            "kind": self.kind,
            "weights": dataclasses.asdict(self.weights),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DistillationLoss:
        """Makes the loss that gave a configuration."""
        stored = config["base"]
        base: Any = keras.saving.deserialize_keras_object(stored, safe_mode=True)
        return cls(base, kind=config["kind"], weights=Weights(**config["weights"]))


class OfOutputs(keras.metrics.Metric):
    """A metric of the labels, for targets and predictions of `DistillationLoss`.

    Args:
        metric: The metric.
    """

    def __init__(self, metric: keras.metrics.Metric) -> None:
        super().__init__(name=metric.name)
        self._metric = metric

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Updates the metric with labels and the student's outputs."""
        (labels, _, _), (outputs, _) = parts(y_true, y_pred)
        self._metric.update_state(labels, outputs, sample_weight=sample_weight)

    def result(self) -> Any:
        """Returns the metric's result."""
        return self._metric.result()


def parts(y_true: Any, y_pred: Any) -> tuple[tuple[Any, Any, Any], tuple[Any, Any]]:
    """Takes targets and predictions apart.

    Args:
        y_true: `(batch, 2 outputs + hints)`.
        y_pred: `(batch, outputs + hints)`.

    Returns:
        Labels, the teacher's outputs and features; outputs and hints of the student.

    Example:

    >>> targets, predictions = parts(np.zeros((4, 2 * 3 + 5)), np.zeros((4, 3 + 5)))
    >>> [part.shape[1] for part in (*targets, *predictions)]
    [3, 3, 5, 3, 5]
    """
    size = y_true.shape[-1] - y_pred.shape[-1]
    return (
        (y_true[:, :size], y_true[:, size : 2 * size], y_true[:, 2 * size :]),
        (y_pred[:, :size], y_pred[:, size:]),
    )


def _soft_class(taught: Any, outputs: Any, temperature: float) -> Any:
    log_teacher = ops.log_softmax(taught / temperature, axis=-1)
    log_student = ops.log_softmax(outputs / temperature, axis=-1)
    divergence = ops.exp(log_teacher) * (log_teacher - log_student)
    # Gradients shrink with 1 / T^2; the factor keeps the shares what they are.
    return temperature**2 * ops.sum(divergence, axis=-1)


def _soft_labels(taught: Any, outputs: Any, temperature: float) -> Any:
    def side(teacher: Any, student: Any) -> Any:
        difference = ops.log_sigmoid(teacher) - ops.log_sigmoid(student)
        return ops.sigmoid(teacher) * difference

    teacher, student = taught / temperature, outputs / temperature
    divergence = side(teacher, student) + side(-teacher, -student)
    return temperature**2 * ops.mean(divergence, axis=-1)


def _soft_number(taught: Any, outputs: Any, temperature: float) -> Any:
    return ops.mean(ops.square(taught - outputs), axis=-1)


_SOFT = {
    "class": _soft_class,
    "multi_label": _soft_labels,
    "number": _soft_number,
}


def _distance(features: Any, hints: Any, distance: str) -> Any:
    if distance == "cosine":
        product = ops.normalize(features, axis=-1) * ops.normalize(hints, axis=-1)
        return 1 - ops.sum(product, axis=-1)
    return ops.mean(ops.square(features - hints), axis=-1)
