"""The layers of masked autoencoding: leaving tokens out, and predicting them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from tflearn.backbones import import_keras_hub
from tflearn.support.errors import ConfigError

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="tflearn")
class VisibleTokens(keras.Layer):
    """Keeps the tokens of some patches.

    Args:
        extra: Number of tokens in front of the patches, which are all kept.
        name: Name of the layer.
        dtype: Dtype or dtype policy; None takes the global policy.

    Example:

    >>> tokens = np.arange(4.0).reshape(1, 4, 1)
    >>> kept = VisibleTokens(1)(tokens, np.array([[0, 2]]))
    >>> np.asarray(kept)[0, :, 0].tolist()
    [0.0, 1.0, 3.0]
    """

    def __init__(
        self, extra: int, *, name: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.extra = extra

    def call(self, tokens: Any, visible: Any) -> Any:
        """Keeps tokens.

        Args:
            tokens: `(batch, extra + patches, dim)`.
            visible: Numbers of patches, `(batch, kept)`.

        Returns:
            `(batch, extra + kept, dim)`.
        """
        places = ops.cast(visible, "int32")[:, :, None]
        kept = ops.take_along_axis(tokens[:, self.extra :], places, axis=1)
        return ops.concatenate([tokens[:, : self.extra], kept], axis=1)

    def compute_output_shape(self, tokens_shape: Shape, visible_shape: Shape) -> Shape:
        """Returns the shape with the number of kept tokens."""
        kept = visible_shape[1]
        length = None if kept is None else self.extra + kept
        return (tokens_shape[0], length, tokens_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"extra": self.extra}


@keras.saving.register_keras_serializable(package="tflearn")
class MaskedDecoder(keras.Layer):
    """Predicts the pixels of masked patches from the tokens of visible ones.

    Tokens are brought to a smaller width, a learned token stands for every masked
    patch, both are told their place by fixed sines and cosines, and transformer
    blocks (KerasHub's, normalising first) run over all of them.

    Args:
        grid: Rows and columns of patches.
        outputs: Numbers to predict a patch.
        extra: Number of tokens in front of the patches.
        width: Size of the tokens; a multiple of 4.
        depth: Number of blocks.
        num_heads: Number of attention heads; divides the width.
        name: Name of the layer.
        trainable: Whether its weights are trained.
        dtype: Dtype or dtype policy; None takes the global policy.

    Raises:
        ConfigError: A size does not fit.

    References:
        He et al. 2022, https://arxiv.org/abs/2111.06377
    """

    def __init__(
        self,
        *,
        grid: tuple[int, int],
        outputs: int,
        extra: int,
        width: int = 128,
        depth: int = 2,
        num_heads: int = 4,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        if width < 4 or width % 4 or num_heads < 1 or width % num_heads or depth < 1:
            raise ConfigError(
                "the sizes of the decoder do not fit",
                received=f"width {width}, depth {depth}, {num_heads} heads",
                expected="a width that 4 and the number of heads divide, depth >= 1",
            )
        self.grid, self.outputs, self.extra = tuple(grid), outputs, extra
        self.width, self.depth, self.num_heads = width, depth, num_heads
        policy = self.dtype_policy
        self.embedding = keras.layers.Dense(width, dtype=policy, name="embedding")
        self.blocks = [
            import_keras_hub().layers.TransformerEncoder(
                intermediate_dim=4 * width,
                num_heads=num_heads,
                activation="gelu",
                normalize_first=True,
                dtype=policy,
                name=f"block_{index}",
            )
            for index in range(depth)
        ]
        self.norm = keras.layers.LayerNormalization(
            epsilon=1e-6, dtype=policy, name="norm"
        )
        self.pixels = keras.layers.Dense(outputs, dtype="float32", name="pixels")

    def build(self, encoded_shape: Shape, *_: Shape) -> None:
        """Creates the weights."""
        tokens = (encoded_shape[0], None, self.width)
        self.mask_token = self.add_weight(
            shape=(self.width,),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="mask_token",
        )
        self.embedding.build(encoded_shape)
        for layer in (*self.blocks, self.norm, self.pixels):
            layer.build(tokens)

    def call(self, encoded: Any, visible: Any, masked: Any) -> Any:
        """Predicts masked patches.

        Args:
            encoded: Tokens of the encoder, `(batch, extra + visible, dim)`.
            visible: Numbers of the visible patches, `(batch, visible)`.
            masked: Numbers of the masked patches, `(batch, masked)`.

        Returns:
            `(batch, masked, outputs)`, float32.
        """
        tokens = self.embedding(encoded)
        places = ops.cast(_places(self.grid, self.width), tokens.dtype)
        seen = tokens[:, self.extra :] + _rows(places, visible)
        gaps = ops.cast(self.mask_token, tokens.dtype) + _rows(places, masked)
        # Attention does not care about the order, so nothing is put back in its place.
        values = ops.concatenate([tokens[:, : self.extra], seen, gaps], axis=1)
        for block in self.blocks:
            values = block(values)
        # `fit` may not know the lengths before it runs.
        length: Any = ops.shape(tokens)
        return self.pixels(self.norm(values[:, length[1] :]))

    def compute_output_shape(
        self, encoded_shape: Shape, visible_shape: Shape, masked_shape: Shape
    ) -> Shape:
        """Returns `(batch, masked, outputs)`."""
        return (encoded_shape[0], masked_shape[1], self.outputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        own = ("grid", "outputs", "extra", "width", "depth", "num_heads")
        return super().get_config() | {name: getattr(self, name) for name in own}


def _rows(places: Any, chosen: Any) -> Any:
    return ops.take(places, ops.cast(chosen, "int32"), axis=0)


def _places(grid: tuple[int, ...], width: int) -> np.ndarray:
    """Returns sines and cosines of row and column, float32 `(patches, width)`."""
    row, column = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    frequency = 10000.0 ** -(np.arange(width // 4) / (width // 4))
    angles = [axis[:, None] * frequency for axis in (row, column)]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype("float32")
