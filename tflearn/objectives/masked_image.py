"""Masked autoencoding: a ViT sees a few patches of an image, the rest is predicted."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tflearn.backbones import Backbone
from tflearn.backbones.backbone import NAME
from tflearn.data.examples import ImageExamples
from tflearn.objectives import masked_decoder
from tflearn.objectives.pretext import Batch, Pretext, SelfSupervised
from tflearn.objectives.views import Views, image_shape
from tflearn.support.errors import BackboneError, ConfigError

# The paper finds that crops and flips are enough; changes of colour do harm.
_VIEWS = Views(min_area=0.2, jitter=0.0, grayscale=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Patches:
    """How a ViT divides its images.

    Args:
        size: Height and width of a patch in pixels.
        count: Patches of an image, row by row.
        visible: How many of them the encoder sees.
        extra: Tokens in front of the patches, such as the class token.
    """

    size: tuple[int, int]
    count: int
    visible: int
    extra: int


def masked_image(
    *,
    ratio: float = 0.75,
    decoder_width: int = 128,
    decoder_depth: int = 2,
    decoder_heads: int = 4,
    normalize: bool = True,
    views: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
) -> SelfSupervised:
    """Masked autoencoding (MAE) for the vision transformers of KerasHub.

    The encoder computes the visible patches alone: at a ratio of 0.75 a quarter of
    the tokens. A light decoder, dropped after pretraining, predicts the pixels of the
    masked ones; the loss is their mean squared error. With `normalize` the pixels of
    each patch have mean 0 and variance 1, and predicting the mean costs 1.

    Args:
        ratio: Share of the patches that is masked.
        decoder_width: Size of the decoder's tokens; a multiple of 4.
        decoder_depth: Number of its transformer blocks.
        decoder_heads: Number of its attention heads; divides the width.
        normalize: Whether the pixels of each patch are normalised.
        views: From uint8 images and a generator to such images, applied before
            masking; None for crops of at least a fifth, and flips.

    Returns:
        The objective.

    Raises:
        ConfigError: A value is out of its range.

    References:
        He et al. 2022, https://arxiv.org/abs/2111.06377
    """
    if not 0 < ratio < 1:
        raise ConfigError(
            "masked_image.ratio is a share", received=ratio, expected="0 < ratio < 1"
        )
    decoder = functools.partial(
        masked_decoder.MaskedDecoder,
        width=decoder_width,
        depth=decoder_depth,
        num_heads=decoder_heads,
    )
    return SelfSupervised(
        name="masked_image",
        inputs=("image",),
        bind=functools.partial(_bind, ratio, decoder, normalize, views or _VIEWS),
        headline="loss",
    )


def _bind(
    ratio: float,
    decoder: Callable[..., keras.Layer],
    normalize: bool,
    views: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    backbone: Backbone,
) -> Pretext:
    shape = image_shape(backbone)
    embedding, encoder = _parts(backbone)
    patches = _divide(embedding, ratio)
    images = keras.Input(shape, name="images")
    visible = keras.Input((patches.visible,), dtype="int32", name="visible")
    masked = keras.Input(
        (patches.count - patches.visible,), dtype="int32", name="masked"
    )
    seen = masked_decoder.VisibleTokens(patches.extra, name="visible_tokens")
    encoded = _first(encoder(seen(embedding(images), visible)))
    model = keras.Model({"images": images, "visible": visible}, encoded, name=NAME)
    pixels = patches.size[0] * patches.size[1] * shape[-1]
    head = decoder(
        grid=(shape[0] // patches.size[0], shape[1] // patches.size[1]),
        outputs=pixels,
        extra=patches.extra,
        name="decoder",
    )
    outputs = head(model({"images": images, "visible": visible}), visible, masked)
    inputs = {"images": images, "visible": visible, "masked": masked}
    return Pretext(
        model=keras.Model(inputs, outputs, name="masked_image"),
        deployed=_whole(backbone),
        make_batch=functools.partial(_make_batch, patches, normalize, views),
        loss=keras.losses.MeanSquaredError,
        statistics=_statistics,
        summarize=_summarize,
    )


def _parts(backbone: Backbone) -> tuple[Any, keras.Layer]:
    """Returns the layer that makes tokens of an image, and the one that encodes them.

    Raises:
        BackboneError: The backbone is not made of these two.
    """
    inner = [
        layer
        for layer in backbone.model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    known = ("patch_size", "num_patches", "num_positions")
    if len(inner) != 2 or not all(hasattr(inner[0], name) for name in known):
        raise BackboneError(
            "masked_image leaves tokens out, which this backbone cannot",
            received=f"{backbone.origin}: {', '.join(x.name for x in inner[:4])}, ...",
            expected="a ViT of KerasHub (ViTBackbone, DeiTBackbone): a layer that "
            "makes patches, and an encoder",
            fix="take objectives.simclr, which works with any image backbone",
        )
    return inner[0], inner[1]


def _whole(backbone: Backbone) -> keras.Model:
    """Returns the backbone as it is without masks, for who takes the run's model.

    KerasHub's ViT can be loaded again, its layers in another model cannot: the
    configuration of its patches holds what their constructor refuses.
    """
    images = backbone.new_inputs()
    return keras.Model(images, backbone.outputs(images), name="encoder")


def _divide(embedding: Any, ratio: float) -> _Patches:
    count = int(embedding.num_patches)
    visible = count - round(ratio * count)
    if not 0 < visible < count:
        raise ConfigError(
            "masked_image.ratio leaves nothing to see or nothing to predict",
            received=f"{ratio} of {count} patches",
            expected=f"{1 / count:.3f} to {1 - 1 / count:.3f}",
        )
    size = embedding.patch_size
    return _Patches(
        size=(size, size) if isinstance(size, int) else tuple(size),
        count=count,
        visible=visible,
        extra=int(embedding.num_positions) - count,
    )


def _first(encoded: Any) -> Any:
    """Returns the tokens of an encoder that gives more than them, as DeiT's does."""
    return encoded[0] if isinstance(encoded, (list, tuple)) else encoded


def _make_batch(
    patches: _Patches,
    normalize: bool,
    views: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    examples: ImageExamples,
    indices: np.ndarray,
    rng: np.random.Generator,
) -> Batch:
    images = examples.scale(views(examples.pixels(indices), rng))
    order = rng.random((len(images), patches.count)).argsort(axis=1).astype("int32")
    visible = np.sort(order[:, : patches.visible], axis=1)
    masked = np.sort(order[:, patches.visible :], axis=1)
    targets = _patched(images, patches.size)
    targets = np.take_along_axis(targets, masked[:, :, None], axis=1)
    if normalize:
        mean = targets.mean(axis=-1, keepdims=True)
        variance = targets.var(axis=-1, keepdims=True)
        # As in the paper; a patch of one colour becomes zero.
        targets = (targets - mean) / np.sqrt(variance + 1e-6)
    return {"images": images, "visible": visible, "masked": masked}, targets


def _patched(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the pixels of each patch, `(batch, patches, pixels)`, row by row."""
    count, height, width, channels = images.shape
    rows, columns = height // size[0], width // size[1]
    grid = images.reshape(count, rows, size[0], columns, size[1], channels)
    return grid.swapaxes(2, 3).reshape(count, rows * columns, -1)


def _statistics(outputs: Any, targets: Any, weights: Any) -> dict[str, Any]:
    del weights
    error = keras.ops.cast(outputs, "float32") - keras.ops.cast(targets, "float32")
    return {"squared_error": keras.ops.mean(keras.ops.square(error), axis=(1, 2))}


def _summarize(mean: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"loss": mean["squared_error"]}
