"""Poolings over feature maps: from `(batch, *space, channels)` to `(batch, channels)`.

Space has one to three dimensions. A mask, if there is one, is `(batch, *space)`.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tflearn.heads.pooling import Pooling, Shape, mean_of_real
from tflearn.support.errors import ConfigError

_DATA_FORMATS = ("channels_last", "channels_first")


class FeatureMapPooling(Pooling):
    """Base of the poolings over feature maps; a subclass writes `pool` only.

    Args:
        data_format: `channels_last` for `(batch, *space, channels)`, or
            `channels_first` for `(batch, channels, *space)`.
        name: Name of the layer.
        trainable: Whether its weights, if it has any, are trained.
        dtype: Dtype or dtype policy; None takes the global policy.
    """

    def __init__(
        self,
        *,
        data_format: str = "channels_last",
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        if data_format not in _DATA_FORMATS:
            raise ConfigError(
                "unknown data_format",
                received=repr(data_format),
                expected=" or ".join(_DATA_FORMATS),
            )
        self.data_format = data_format

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Pools the inputs over space.

        Args:
            inputs: Feature maps, `(batch, *space, channels)`, or with the channels
                first, as declared.
            mask: Non-zero where a position counts, `(batch, *space)`; None: all do.

        Returns:
            Pooled features, `(batch, channels)`, of the policy's compute dtype.
        """
        if self.data_format == "channels_first":
            inputs = ops.moveaxis(inputs, 1, -1)
        shape: Any = ops.shape(inputs)
        positions = ops.reshape(inputs, (shape[0], -1, shape[-1]))
        if mask is not None:
            mask = ops.reshape(mask, (shape[0], -1))
        return super().call(positions, mask=mask)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns `(batch, channels)`."""
        if not 3 <= len(input_shape) <= 5:
            raise ConfigError(
                f"{type(self).__name__} pools over feature maps",
                received=f"inputs of shape {tuple(input_shape)}",
                expected="(batch, height, width, channels)",
            )
        channels = -1 if self.data_format == "channels_last" else 1
        return (input_shape[0], input_shape[channels])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"data_format": self.data_format}


@keras.saving.register_keras_serializable(package="tflearn")
class GlobalAveragePooling(FeatureMapPooling):
    """Averages feature maps over space.

    Example:

    >>> import numpy as np
    >>> GlobalAveragePooling()(np.ones((2, 7, 7, 16))).shape == (2, 16)
    True
    """

    def pool(self, values: Any, real: Any) -> Any:
        """Averages the positions, see `Pooling.pool`."""
        return mean_of_real(values, real)


@keras.saving.register_keras_serializable(package="tflearn")
class GeneralizedMeanPooling(FeatureMapPooling):
    """Takes the generalised mean of every channel over space.

    `(mean_i x_i^p)^(1/p)`: the mean at `p = 1`, the maximum as `p` grows. Features
    are clipped below at 1e-6 first, for a power of a negative number has no meaning:
    use it on features that end in a ReLU or alike. Computed through logarithms, so
    no power overflows.

    Args:
        p: The exponent, or its start where it is learned; positive.
        learned: Whether `p` is trained, as its logarithm.
        data_format: `channels_last` or `channels_first`.
        name: Name of the layer.
        trainable: Whether the exponent, if it is learned, is trained.
        dtype: Dtype or dtype policy; None takes the global policy.

    Raises:
        ConfigError: `p` is not positive.

    Example:

    >>> import numpy as np
    >>> GeneralizedMeanPooling(p=3.0)(np.ones((2, 7, 7, 16))).shape == (2, 16)
    True

    References:
        Radenovic et al. 2018, https://arxiv.org/abs/1711.02512
    """

    def __init__(
        self,
        p: float = 3.0,
        *,
        learned: bool = True,
        data_format: str = "channels_last",
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            data_format=data_format, name=name, trainable=trainable, dtype=dtype
        )
        if p <= 0:
            raise ConfigError("the exponent p must be positive", received=p)
        self.p = p
        self.learned = learned

    def build(self, input_shape: Shape) -> None:
        """Creates the exponent, if it is learned."""
        self.compute_output_shape(input_shape)
        if self.learned:
            self.log_p = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(math.log(self.p)),
                name="log_p",
                autocast=False,
            )

    def pool(self, values: Any, real: Any) -> Any:
        """Takes the generalised mean, see `Pooling.pool`."""
        p: Any = self.p
        if self.learned:
            p = ops.exp(ops.cast(self.log_p, values.dtype))
        powers = p * ops.log(ops.maximum(values, 1e-6))
        # The largest power is divided out and multiplied back after the root.
        largest: Any = ops.stop_gradient(ops.max(powers, axis=1, keepdims=True))
        terms = ops.where(real, ops.exp(powers - largest), 0.0)
        # A row without real positions has the mean 0, and log(0) no gradient.
        mean = ops.maximum(mean_of_real(terms, real), 1e-30)
        return ops.exp((ops.log(mean) + largest[:, 0]) / p)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"p": self.p, "learned": self.learned}
