"""The range of values that a backbone wants of pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tflearn.support.errors import BackboneError, nearest

# Mean and standard deviation of ImageNet in [0, 1], and the mean in 0-255 that Caffe's
# models subtract, both in the order red, green, blue.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_CAFFE_MEAN = (123.68, 116.779, 103.939)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling:
    """The range of values a backbone wants: `pixel * factor + offset`.

    Args:
        factor: One number, or one a channel.
        offset: One number, or one a channel.
        bgr: Whether the backbone takes blue before green before red; factor and
            offset are in the order that the backbone takes.
    """

    factor: tuple[float, ...] = (1 / 255,)
    offset: tuple[float, ...] = (0.0,)
    bgr: bool = False


def normalized(
    mean: tuple[float, ...] = _IMAGENET_MEAN, std: tuple[float, ...] = _IMAGENET_STD
) -> Scaling:
    """Subtracts a mean and divides by a standard deviation.

    Args:
        mean: Mean of pixels in `[0, 1]`, one a channel, red first.
        std: Standard deviation of pixels in `[0, 1]`.

    Returns:
        The scaling.

    Example:

    >>> normalized(mean=(0.5,), std=(0.5,)).offset
    (-1.0,)
    """
    return Scaling(
        factor=tuple(1 / (255 * s) for s in std),
        offset=tuple(-m / s for m, s in zip(mean, std, strict=True)),
    )


#: Scalings by name: pixels as they are, [0, 1], [-1, 1], ImageNet's mean and standard
#: deviation, and Caffe's blue-green-red minus the mean.
SCALINGS: dict[str, Scaling] = {
    "none": Scaling(factor=(1.0,)),
    "unit": Scaling(),
    "tf": Scaling(factor=(1 / 127.5,), offset=(-1.0,)),
    "torch": normalized(),
    "caffe": Scaling(
        factor=(1.0,), offset=tuple(-m for m in reversed(_CAFFE_MEAN)), bgr=True
    ),
}


def chosen_scaling(choice: str | Callable[[], Scaling] | Scaling) -> Scaling:
    """Returns a scaling by name, from a factory, or as it is.

    Args:
        choice: A name in `SCALINGS`, or a function such as `normalized`.

    Raises:
        BackboneError: There is no such scaling.
    """
    if isinstance(choice, Scaling):
        return choice
    if isinstance(choice, str):
        if choice in SCALINGS:
            return SCALINGS[choice]
        raise BackboneError(
            "unknown scaling of images",
            received=choice,
            expected=", ".join(SCALINGS),
            nearest=nearest(choice, SCALINGS),
        )
    return choice()


def measured_scaling(
    converter: Any, image_size: tuple[int, int], channels: int
) -> Scaling:
    """Measures the scaling of a KerasHub image converter on the converter itself.

    Args:
        converter: A `keras_hub.layers.ImageConverter`.
        image_size: Height and width that the model takes.
        channels: Number of channels that the model takes.

    Raises:
        BackboneError: The converter is not linear in the pixels.
    """

    def convert(value: int) -> np.ndarray:
        pixels = np.full((1, *image_size, channels), value, "float32")
        return np.asarray(converter(pixels), "float64")[0, 0, 0]

    black, grey, white = convert(0), convert(128), convert(255)
    factor = (white - black) / 255
    if not np.allclose(grey, black + 128 * factor, atol=1e-3):
        raise BackboneError(
            "the preset's image converter does more than scale pixels",
            received=type(converter).__name__,
        )
    return Scaling(factor=tuple(factor.tolist()), offset=tuple(black.tolist()))
