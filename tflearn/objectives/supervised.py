"""Objectives with labels: classification, multi-label classification, regression."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras

from tflearn import heads
from tflearn.objectives.objective import Objective
from tflearn.support.errors import ConfigError


def classification(
    *,
    head: Callable[..., keras.Layer] = heads.ClassificationHead,
    pooling: Callable[..., keras.Layer] | None = None,
    features: str = "auto",
    label_smoothing: float = 0.0,
    calibrate: bool = False,
) -> Objective:
    """One of several classes, trained by cross-entropy on logits.

    Args:
        head: Called with the number of classes and `name=`.
        pooling: Pooling layer class or factory; None chooses by the features.
        features: Features of the backbone, or `auto`.
        label_smoothing: Share of the target spread over all classes, in `[0, 1)`.
        calibrate: Whether to fit a temperature on the validation split and report
            the calibration error before and after.

    Returns:
        The objective.

    Raises:
        ConfigError: `label_smoothing` is out of its range.
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError(
            "label_smoothing is a share",
            received=label_smoothing,
            expected="0 <= label_smoothing < 1",
        )
    return Objective(
        name="classification",
        target_kind="class",
        head=head,
        pooling=pooling,
        features=features,
        loss=functools.partial(_cross_entropy, label_smoothing),
        metrics=_class_metrics,
        one_hot=label_smoothing > 0,
        calibrate=calibrate,
    )


def multi_label(
    *,
    head: Callable[..., keras.Layer] = heads.MultiLabelHead,
    pooling: Callable[..., keras.Layer] | None = None,
    features: str = "auto",
    label_smoothing: float = 0.0,
) -> Objective:
    """Any number of labels an example, trained by binary cross-entropy on logits.

    Args:
        head: Called with the number of labels and `name=`.
        pooling: Pooling layer class or factory; None chooses by the features.
        features: Features of the backbone, or `auto`.
        label_smoothing: Share by which targets move towards 0.5.

    Returns:
        The objective.
    """
    return Objective(
        name="multi_label",
        target_kind="multi_label",
        head=head,
        pooling=pooling,
        features=features,
        loss=lambda one_hot: keras.losses.BinaryCrossentropy(
            from_logits=True, label_smoothing=label_smoothing
        ),
        metrics=lambda one_hot: [
            keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)
        ],
    )


def regression(
    *,
    head: Callable[..., keras.Layer] = heads.RegressionHead,
    pooling: Callable[..., keras.Layer] | None = None,
    features: str = "auto",
    loss: Callable[[], keras.losses.Loss] = keras.losses.MeanSquaredError,
) -> Objective:
    """A number an example.

    Args:
        head: Called with the number of values and `name=`.
        pooling: Pooling layer class or factory; None chooses by the features.
        features: Features of the backbone, or `auto`.
        loss: Makes the loss.

    Returns:
        The objective.
    """
    return Objective(
        name="regression",
        target_kind="number",
        head=head,
        pooling=pooling,
        features=features,
        loss=lambda one_hot: loss(),
        metrics=lambda one_hot: [keras.metrics.MeanAbsoluteError(name="mae")],
    )


def _cross_entropy(label_smoothing: float, one_hot: bool) -> keras.losses.Loss:
    if one_hot:
        return keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=label_smoothing
        )
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _class_metrics(one_hot: bool) -> list[keras.metrics.Metric]:
    if one_hot:
        return [keras.metrics.CategoricalAccuracy(name="accuracy")]
    return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
