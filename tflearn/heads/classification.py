"""Heads that give logits: one class of several, or any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tflearn.heads.cosine import CosineLogits
from tflearn.heads.dense import Activation, DenseHead, output_policy
from tflearn.support.errors import ConfigError


@keras.saving.register_keras_serializable(package="tflearn")
class ClassificationHead(DenseHead):
    """Maps features to one logit per class; softmax makes them probabilities.

    Train it with `keras.losses.SparseCategoricalCrossentropy(from_logits=True)`.
    Under a mixed dtype policy the logits are float32.

    Args:
        num_classes: Number of classes, at least 2.
        hidden: Sizes of hidden layers before the logits.
        activation: Activation of the hidden layers.
        dropout: Share of features dropped before each dense layer, in `[0, 1)`.
        cosine: Whether logits are scaled cosines (see `CosineLogits`).
        scale: Fixed scale of the cosines; None learns it.
        name: Name of the layer.
        trainable: Whether its weights are trained.
        dtype: Dtype or dtype policy; None takes the global policy.

    Raises:
        ConfigError: An argument is out of its range, or `scale` has no use.

    Example:

    >>> import numpy as np
    >>> head = ClassificationHead(5, hidden=(32,), dropout=0.1)
    >>> head(np.ones((2, 16), "float32")).shape == (2, 5)
    True
    """

    def __init__(
        self,
        num_classes: int,
        *,
        hidden: Sequence[int] = (),
        activation: Activation = "gelu",
        dropout: float = 0.0,
        cosine: bool = False,
        scale: float | None = None,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            hidden=hidden,
            activation=activation,
            dropout=dropout,
            name=name,
            trainable=trainable,
            dtype=dtype,
        )
        if num_classes < 2:
            raise ConfigError(
                "a classification needs at least 2 classes", received=num_classes
            )
        self.num_classes = num_classes
        self.cosine = cosine
        self.scale = scale
        self.output_layer = _logits_layer(self, num_classes, use_bias=False)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {
            "num_classes": self.num_classes,
            "cosine": self.cosine,
            "scale": self.scale,
        }


@keras.saving.register_keras_serializable(package="tflearn")
class MultiLabelHead(DenseHead):
    """Maps features to one logit per label; a sigmoid makes each a probability.

    Train it with `keras.losses.BinaryCrossentropy(from_logits=True)`. Under a mixed
    dtype policy the logits are float32. Cosine logits have a bias here, for a label's
    probability must be free to be small everywhere.

    Args:
        num_labels: Number of labels, at least 1.
        hidden: Sizes of hidden layers before the logits.
        activation: Activation of the hidden layers.
        dropout: Share of features dropped before each dense layer, in `[0, 1)`.
        cosine: Whether logits are scaled cosines (see `CosineLogits`).
        scale: Fixed scale of the cosines; None learns it.
        name: Name of the layer.
        trainable: Whether its weights are trained.
        dtype: Dtype or dtype policy; None takes the global policy.

    Raises:
        ConfigError: An argument is out of its range, or `scale` has no use.

    Example:

    >>> import numpy as np
    >>> MultiLabelHead(5)(np.ones((2, 16), "float32")).shape == (2, 5)
    True
    """

    def __init__(
        self,
        num_labels: int,
        *,
        hidden: Sequence[int] = (),
        activation: Activation = "gelu",
        dropout: float = 0.0,
        cosine: bool = False,
        scale: float | None = None,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            hidden=hidden,
            activation=activation,
            dropout=dropout,
            name=name,
            trainable=trainable,
            dtype=dtype,
        )
        if num_labels < 1:
            raise ConfigError("num_labels is a positive integer", received=num_labels)
        self.num_labels = num_labels
        self.cosine = cosine
        self.scale = scale
        self.output_layer = _logits_layer(self, num_labels, use_bias=True)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {
            "num_labels": self.num_labels,
            "cosine": self.cosine,
            "scale": self.scale,
        }


def _logits_layer(
    head: ClassificationHead | MultiLabelHead, units: int, *, use_bias: bool
) -> keras.Layer:
    policy = output_policy(head.dtype_policy)
    if head.cosine:
        return CosineLogits(
            units, scale=head.scale, use_bias=use_bias, dtype=policy, name="logits"
        )
    if head.scale is not None:
        raise ConfigError(
            "a scale is for cosine logits",
            received=f"scale={head.scale} with cosine=False",
            fix="set cosine=True or leave the scale out",
        )
    return keras.layers.Dense(units, dtype=policy, name="logits")
