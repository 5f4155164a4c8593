"""Cosine logits: a classifier that looks at directions only."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tflearn.support.errors import ConfigError

Shape = tuple[int | None, ...]
_START_SCALE = 16.0


@keras.saving.register_keras_serializable(package="tflearn")
class CosineLogits(keras.Layer):
    """Scaled cosines between features and one learned direction per unit.

    `z_k = scale * <x, w_k> / (|x| |w_k|) + b_k`. The length of a feature vector no
    longer matters, which helps with few labels and with classes of unequal size.
    Norms are computed in float32; a vector of zeros gives zeros.

    Args:
        units: Number of outputs.
        scale: The fixed scale, positive; None learns it, starting at 16.
        use_bias: Whether to add a bias.
        name: Name of the layer.
        trainable: Whether its weights are trained.
        dtype: Dtype or dtype policy; None takes the global policy.

    Raises:
        ConfigError: `units` or `scale` is not positive.

    Example:

    >>> import numpy as np
    >>> logits = CosineLogits(3, scale=10.0)(np.ones((2, 8), "float32"))
    >>> float(abs(np.array(logits)).max()) <= 10.0
    True

    References:
        Gidaris and Komodakis 2018, https://arxiv.org/abs/1804.09458
    """

    def __init__(
        self,
        units: int,
        *,
        scale: float | None = None,
        use_bias: bool = False,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        if units < 1:
            raise ConfigError("units is a positive integer", received=units)
        if scale is not None and scale <= 0:
            raise ConfigError("the scale must be positive", received=scale)
        self.units = units
        self.scale = scale
        self.use_bias = use_bias
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        """Creates the directions, and the scale and the bias if they are learned."""
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer="glorot_uniform",
            name="kernel",
            autocast=False,
        )
        if self.scale is None:
            self.log_scale = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(math.log(_START_SCALE)),
                name="log_scale",
                autocast=False,
            )
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.units,), initializer="zeros", name="bias", autocast=False
            )

    def call(self, inputs: Any) -> Any:
        """Computes the logits, `(..., units)`, of inputs, `(..., dim)`."""
        wide = keras.backend.result_type(self.compute_dtype, "float32")
        directions = _unit_length(ops.cast(self.kernel, wide), axis=0)
        unit_inputs = _unit_length(ops.cast(inputs, wide), axis=-1)
        cosines: Any = ops.matmul(unit_inputs, directions)
        if self.scale is None:
            logits = cosines * ops.exp(ops.cast(self.log_scale, wide))
        else:
            logits = cosines * self.scale
        if self.use_bias:
            logits = logits + ops.cast(self.bias, wide)
        return ops.cast(logits, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the input's shape with `units` in the last place."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {
            "units": self.units,
            "scale": self.scale,
            "use_bias": self.use_bias,
        }


def _unit_length(values: Any, *, axis: int) -> Any:
    # The floor bounds the gradient at zero, so that it stays finite in float16 too.
    squares = ops.sum(ops.square(values), axis=axis, keepdims=True)
    return values * ops.rsqrt(ops.maximum(squares, 1e-6))
