"""A head that gives numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tflearn.heads.dense import Activation, DenseHead, output_policy
from tflearn.support.errors import ConfigError


@keras.saving.register_keras_serializable(package="tflearn")
class RegressionHead(DenseHead):
    """Maps features to numbers, without bounds.

    Train it with `keras.losses.MeanSquaredError()` or alike. Under a mixed dtype
    policy the outputs are float32. Targets far from 0 train slowly: scale them.

    Args:
        num_outputs: How many numbers.
        hidden: Sizes of hidden layers before the output.
        activation: Activation of the hidden layers.
        dropout: Share of features dropped before each dense layer, in `[0, 1)`.
        name: Name of the layer.
        trainable: Whether its weights are trained.
        dtype: Dtype or dtype policy; None takes the global policy.

    Raises:
        ConfigError: An argument is out of its range.

    Example:

    >>> import numpy as np
    >>> RegressionHead()(np.ones((2, 16), "float32")).shape == (2, 1)
    True
    """

    def __init__(
        self,
        num_outputs: int = 1,
        *,
        hidden: Sequence[int] = (),
        activation: Activation = "gelu",
        dropout: float = 0.0,
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
        if num_outputs < 1:
            raise ConfigError("num_outputs is a positive integer", received=num_outputs)
        self.num_outputs = num_outputs
        self.output_layer = keras.layers.Dense(
            num_outputs, dtype=output_policy(self.dtype_policy), name="values"
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"num_outputs": self.num_outputs}
