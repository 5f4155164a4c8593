"""What the heads over feature vectors share: hidden layers, dropout, dtypes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from tflearn.support.errors import ConfigError

Shape = tuple[int | None, ...]
Activation = str | Callable[[Any], Any] | None


class DenseHead(keras.Layer):
    """Base of the heads: dropout, then hidden layers with dropout, then the output.

    A subclass sets `self.output_layer` in its constructor. Its last dimension is
    what the head maps; dimensions before it are kept, and so is an implicit mask.

    Args:
        hidden: Sizes of the hidden layers, none by default.
        activation: Activation of the hidden layers.
        dropout: Share of features dropped before each dense layer, in `[0, 1)`.
        name: Name of the layer.
        trainable: Whether its weights are trained.
        dtype: Dtype or dtype policy; None takes the global policy.

    Raises:
        ConfigError: A size or the share is out of its range.
    """

    output_layer: keras.Layer

    def __init__(
        self,
        *,
        hidden: Sequence[int] = (),
        activation: Activation = "gelu",
        dropout: float = 0.0,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        if any(units < 1 for units in hidden):
            raise ConfigError("hidden sizes must be positive", received=tuple(hidden))
        if not 0 <= dropout < 1:
            raise ConfigError(
                "dropout is a share", received=dropout, expected="0 <= dropout < 1"
            )
        self.hidden = tuple(hidden)
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.supports_masking = True
        self.hidden_layers = [
            keras.layers.Dense(
                units,
                activation=self.activation,
                dtype=self.dtype_policy,
                name=f"hidden_{index}",
            )
            for index, units in enumerate(self.hidden)
        ]
        self.dropout_layer = keras.layers.Dropout(
            dropout, dtype=self.dtype_policy, name="dropout"
        )

    def build(self, input_shape: Shape) -> None:
        """Creates the weights of every layer."""
        if input_shape[-1] is None:
            raise ConfigError(
                f"{type(self).__name__} needs a known number of features",
                received=f"inputs of shape {tuple(input_shape)}",
            )
        for layer in (*self.hidden_layers, self.output_layer):
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Computes the outputs.

        Args:
            inputs: Features, `(batch, dim)`, or any `(..., dim)`.
            training: Whether to drop features; Keras sets it.

        Returns:
            Outputs, `(batch, outputs)`, float32 under a mixed dtype policy.
        """
        values = self.dropout_layer(inputs, training=training)
        for layer in self.hidden_layers:
            values = self.dropout_layer(layer(values), training=training)
        return self.output_layer(values)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the input's shape with the number of outputs in the last place."""
        return tuple(self.output_layer.compute_output_shape(tuple(input_shape)))

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns shape and dtype; the dtype is the output layer's."""
        return keras.KerasTensor(
            self.compute_output_shape(inputs.shape),
            dtype=self.output_layer.compute_dtype,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {
            "hidden": self.hidden,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
        }


def output_policy(policy: Any) -> Any:
    """Returns the dtype policy of a head's last layer.

    Under mixed precision outputs are float32, as Keras advises, since a softmax over
    bfloat16 logits loses two of three digits. A policy that is not mixed is kept:
    who declares pure float16 gets it.

    Args:
        policy: The head's policy.

    Returns:
        A policy or the name of one.
    """
    return "float32" if policy.compute_dtype != policy.variable_dtype else policy
