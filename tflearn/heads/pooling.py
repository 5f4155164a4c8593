"""Poolings over tokens: from `(batch, length, dim)` to `(batch, dim)`.

The mask tells real tokens from padding. It comes as `mask=`, `(batch, length)` of
booleans or numbers, or through Keras's implicit masks (`Embedding(mask_zero=True)`);
without one every token is real. What stands at a padded position never matters, not
even NaN, and a row without a real token gives zeros. Sums run in float32 whatever
the dtype policy; the result has the policy's compute dtype.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tflearn.support.errors import ConfigError

Shape = tuple[int | None, ...]


class Pooling(keras.Layer):
    """Base of the poolings: masking, dtypes and shapes in one place.

    A subclass writes `pool(values, real)` only.

    Args:
        name: Name of the layer.
        trainable: Whether its weights, if it has any, are trained.
        dtype: Dtype or dtype policy; None takes the global policy.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        self.supports_masking = True

    def pool(self, values: Any, real: Any) -> Any:
        """Pools the real positions.

        Args:
            values: Features, zero at padded positions, `(batch, length, dim)`,
                float32 or wider.
            real: True at real positions, `(batch, length, 1)`.

        Returns:
            Pooled features, `(batch, dim)`; rows without a real position may hold
            anything finite.
        """
        raise NotImplementedError

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Pools the inputs.

        Args:
            inputs: Features, `(batch, length, dim)`.
            mask: Non-zero at real positions, `(batch, length)`; None: all are real.

        Returns:
            Pooled features, `(batch, dim)`, of the policy's compute dtype.
        """
        if mask is None:
            real = ops.ones_like(inputs[..., :1], dtype="bool")
        else:
            real = ops.expand_dims(ops.cast(mask, "bool"), -1)
        wide = keras.backend.result_type(self.compute_dtype, "float32")
        values = ops.where(real, ops.cast(inputs, wide), 0.0)
        pooled = self.pool(values, real)
        pooled = ops.where(ops.any(real, axis=1), pooled, 0.0)
        return ops.cast(pooled, self.compute_dtype)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Returns None: nothing is left to mask."""
        return None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns `(batch, dim)` for inputs of `(batch, length, dim)`."""
        if len(input_shape) != 3:
            raise ConfigError(
                f"{type(self).__name__} pools over tokens",
                received=f"inputs of shape {tuple(input_shape)}",
                expected="(batch, length, dim)",
            )
        return (input_shape[0], input_shape[2])


@keras.saving.register_keras_serializable(package="tflearn")
class FirstTokenPooling(Pooling):
    """Takes the first real token, such as `[CLS]`; padding may be on either side.

    Example:

    >>> import numpy as np
    >>> tokens = np.array([[[9.0], [1.0], [2.0]]])
    >>> FirstTokenPooling()(tokens, mask=np.array([[0, 1, 1]])).shape == (1, 1)
    True
    """

    def pool(self, values: Any, real: Any) -> Any:
        """Takes the first real position, see `Pooling.pool`."""
        return _take(values, ops.logical_and(real, _position(real) == 1))


@keras.saving.register_keras_serializable(package="tflearn")
class LastTokenPooling(Pooling):
    """Takes the last real token, the summary of a causal model.

    Example:

    >>> import numpy as np
    >>> tokens = np.array([[[1.0], [2.0], [9.0]]])
    >>> pooled = LastTokenPooling()(tokens, mask=np.array([[1, 1, 0]]))
    >>> float(pooled[0, 0])
    2.0
    """

    def pool(self, values: Any, real: Any) -> Any:
        """Takes the last real position, see `Pooling.pool`."""
        position = _position(real)
        return _take(values, ops.logical_and(real, position == position[:, -1:]))


@keras.saving.register_keras_serializable(package="tflearn")
class MeanPooling(Pooling):
    """Averages the real tokens: `sum_i m_i x_i / sum_i m_i`.

    Example:

    >>> import numpy as np
    >>> tokens = np.array([[[1.0], [3.0], [9.0]]])
    >>> float(MeanPooling()(tokens, mask=np.array([[1, 1, 0]]))[0, 0])
    2.0
    """

    def pool(self, values: Any, real: Any) -> Any:
        """Averages the real positions, see `Pooling.pool`."""
        return mean_of_real(values, real)


@keras.saving.register_keras_serializable(package="tflearn")
class MaxPooling(Pooling):
    """Takes the maximum of every feature over the real tokens.

    Example:

    >>> import numpy as np
    >>> tokens = np.array([[[-1.0], [-3.0], [9.0]]])
    >>> float(MaxPooling()(tokens, mask=np.array([[1, 1, 0]]))[0, 0])
    -1.0
    """

    def pool(self, values: Any, real: Any) -> Any:
        """Takes the maximum of the real positions, see `Pooling.pool`."""
        return ops.max(ops.where(real, values, -float("inf")), axis=1)


@keras.saving.register_keras_serializable(package="tflearn")
class AttentionPooling(Pooling):
    """Averages the real tokens with learned weights.

    `a_i = softmax_i(<x_i, q> / sqrt(dim))` over the real tokens, `sum_i a_i x_i`.
    Each of `num_heads` queries `q` weighs its own slice of the features. Queries
    start at zero, so training starts from the mean of the real tokens.

    Args:
        num_heads: Number of queries; divides the number of features.
        name: Name of the layer.
        trainable: Whether the queries are trained.
        dtype: Dtype or dtype policy; None takes the global policy.

    Raises:
        ConfigError: `num_heads` does not divide the number of features.

    Example:

    >>> import numpy as np
    >>> AttentionPooling(num_heads=2)(np.ones((4, 7, 6))).shape == (4, 6)
    True

    References:
        Yang et al. 2016, https://aclanthology.org/N16-1174
    """

    def __init__(
        self,
        num_heads: int = 1,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        if num_heads < 1:
            raise ConfigError("num_heads is a positive integer", received=num_heads)
        self.num_heads = num_heads

    def build(self, input_shape: Shape) -> None:
        """Creates the queries, `(dim, num_heads)`."""
        dim = self.compute_output_shape(input_shape)[-1]
        if dim is None or dim % self.num_heads:
            raise ConfigError(
                "num_heads must divide the number of features",
                received=f"num_heads={self.num_heads} for {dim} features",
            )
        # Not autocast: scores are computed in float32, as the softmax is.
        self.query = self.add_weight(
            shape=(dim, self.num_heads),
            initializer="zeros",
            name="query",
            autocast=False,
        )

    def pool(self, values: Any, real: Any) -> Any:
        """Averages with learned weights, see `Pooling.pool`."""
        dim = values.shape[-1]
        scores = ops.matmul(values, ops.cast(self.query, values.dtype)) / dim**0.5
        # Finite, so that a row without a real token has a gradient of 0, not NaN.
        weights = ops.softmax(ops.where(real, scores, -1e30), axis=1)
        weights = ops.repeat(weights, dim // self.num_heads, axis=-1)
        return ops.sum(weights * values, axis=1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"num_heads": self.num_heads}


def mean_of_real(values: Any, real: Any) -> Any:
    """Averages real positions: `(batch, length, dim)` to `(batch, dim)`.

    Args:
        values: Features, zero at padded positions.
        real: True at real positions, `(batch, length, 1)`.

    Returns:
        The average; zero for a row without real positions.
    """
    count = ops.sum(ops.cast(real, values.dtype), axis=1)
    total: Any = ops.sum(values, axis=1)
    return total / ops.maximum(count, 1.0)


def _position(real: Any) -> Any:
    """Numbers the real positions from 1."""
    return ops.cumsum(ops.cast(real, "int32"), axis=1)


def _take(values: Any, chosen: Any) -> Any:
    # A sum with one term is exact in every dtype and, unlike a gather, shards.
    return ops.sum(ops.where(chosen, values, 0.0), axis=1)
