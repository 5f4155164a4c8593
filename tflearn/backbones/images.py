"""Images to arrays: size, channels, range of values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflearn.backbones.scalings import (
    SCALINGS,
    Scaling,
    chosen_scaling,
    measured_scaling,
    normalized,
)
from tflearn.support.errors import BackboneError, DataError, nearest

__all__ = [
    "SCALINGS",
    "ImageEncoder",
    "Scaling",
    "chosen_scaling",
    "from_converter",
    "from_hugging_face",
    "hugging_face_size",
    "normalized",
]

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
_ASPECTS = ("crop", "pad", "stretch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageEncoder:
    """Turns images of any size into the arrays a backbone takes.

    Args:
        image_size: Height and width in pixels.
        channels: 1 for grey, 3 for colour.
        scaling: Range and order of the channels.
        interpolation: `nearest`, `bilinear`, `bicubic`, `lanczos3` or `lanczos5`.
        antialias: Whether to average over source pixels when an image shrinks.
        aspect: What to do with another shape: `crop`, `pad` with black, or `stretch`.

    Example:

    >>> encoder = ImageEncoder(image_size=(4, 4), channels=1)
    >>> image = encoder.resize(np.full((8, 6, 3), 255, "uint8"))
    >>> image.shape, float(encoder.scale(image[None]).max())
    ((4, 4, 1), 1.0)
    """

    image_size: tuple[int, int]
    channels: int
    scaling: Scaling = SCALINGS["unit"]
    interpolation: str = "bilinear"
    antialias: bool = True
    aspect: str = "crop"

    def __post_init__(self) -> None:
        """Checks the choices."""
        for field, choices in (
            ("interpolation", _INTERPOLATIONS),
            ("aspect", _ASPECTS),
        ):
            value = getattr(self, field)
            if value not in choices:
                raise BackboneError(
                    f"unknown {field} of images",
                    received=value,
                    expected=", ".join(choices),
                    nearest=nearest(str(value), choices),
                )
        for value in (self.scaling.factor, self.scaling.offset):
            if len(value) not in (1, self.channels):
                raise BackboneError(
                    "the scaling has another number of channels than the backbone",
                    received=value,
                    expected=f"1 or {self.channels} numbers",
                )

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Brings one image to the backbone's size and number of channels.

        Args:
            image: uint8 `(height, width, channels)` or `(height, width)`; grey, colour,
                or colour with transparency, which is dropped.

        Returns:
            uint8 `(height, width, channels)`.

        Raises:
            DataError: The image is not of this kind.
        """
        image = _checked(image)
        image = _with_channels(image, self.channels)
        if image.shape[:2] == self.image_size:
            return image
        if self.aspect == "pad":
            image = _padded(image, self.image_size)
        if self.aspect == "crop":
            image = _cropped(image, self.image_size)
        bands = [self._resize(band) for band in _bands(image)]
        return np.concatenate(bands, axis=-1)

    def scale(self, batch: np.ndarray) -> np.ndarray:
        """Brings pixels to the range and order the backbone takes.

        Args:
            batch: uint8 `(batch, height, width, channels)`, red first.

        Returns:
            float32 of the same shape.
        """
        pixels = batch[..., ::-1] if self.scaling.bgr else batch
        factor = np.array(self.scaling.factor, "float32")
        scaled = np.multiply(pixels, factor, dtype="float32")
        scaled += np.array(self.scaling.offset, "float32")
        return scaled

    def _resize(self, pixels: np.ndarray) -> np.ndarray:
        from PIL import Image

        picture = Image.fromarray(pixels)
        size = (self.image_size[1], self.image_size[0])
        filters = {
            "nearest": Image.Resampling.NEAREST,
            "bilinear": Image.Resampling.BILINEAR,
            "bicubic": Image.Resampling.BICUBIC,
        }
        chosen = filters.get(self.interpolation, Image.Resampling.LANCZOS)
        if self.antialias or chosen is Image.Resampling.LANCZOS:
            resized = picture.resize(size, chosen)
        else:
            # `resize` of Pillow always averages when it shrinks; `transform` never.
            whole = (0, 0, *picture.size)
            extent = Image.Transform.EXTENT
            resized = picture.transform(size, extent, whole, resample=chosen)
        return np.asarray(resized).reshape(*self.image_size, -1)


def from_converter(
    converter: Any, *, image_size: tuple[int, int], channels: int
) -> ImageEncoder:
    """Makes the encoder that does what a KerasHub image converter does.

    Args:
        converter: A `keras_hub.layers.ImageConverter`.
        image_size: Height and width that the model takes.
        channels: Number of channels that the model takes.

    Returns:
        The encoder. Factor and offset are measured on the converter itself, whatever
        way it normalises.

    Raises:
        BackboneError: The converter is not linear in the pixels.
    """
    scaling = measured_scaling(converter, image_size, channels)
    aspect = "crop" if converter.crop_to_aspect_ratio else "stretch"
    return ImageEncoder(
        image_size=image_size,
        channels=channels,
        scaling=scaling,
        interpolation=converter.interpolation,
        antialias=converter.antialias,
        aspect="pad" if converter.pad_to_aspect_ratio else aspect,
    )


def from_hugging_face(
    config: Mapping[str, Any], *, image_size: tuple[int, int], channels: int
) -> ImageEncoder:
    """Makes the encoder that a Hugging Face `preprocessor_config.json` describes.

    Args:
        config: Its content.
        image_size: Height and width that the model takes.
        channels: Number of channels that the model takes.

    Returns:
        The encoder.
    """
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", 1) else 1
    mean, std = [0.0] * channels, [1.0] * channels
    if config.get("do_normalize", True):
        mean = config.get("image_mean") or mean
        std = config.get("image_std") or std
    # Pillow's numbers of its filters.
    filters = {0: "nearest", 1: "lanczos3", 2: "bilinear", 3: "bicubic"}
    cropped = config.get("do_center_crop") or "shortest_edge" in str(config.get("size"))
    return ImageEncoder(
        image_size=image_size,
        channels=channels,
        scaling=Scaling(
            factor=tuple(factor / s for s in std),
            offset=tuple(-m / s for m, s in zip(mean, std, strict=True)),
        ),
        interpolation=filters.get(config.get("resample", 2), "bilinear"),
        aspect="crop" if cropped else "stretch",
    )


def hugging_face_size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns height and width of a `preprocessor_config.json`, if it has them."""
    size = config.get("crop_size") or config.get("size")
    if isinstance(size, int):
        return size, size
    if not isinstance(size, dict):
        return None
    if "height" in size and "width" in size:
        return size["height"], size["width"]
    edge = size.get("shortest_edge")
    return (edge, edge) if edge else None


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
        raise DataError(
            "this is not an image",
            received=f"{image.dtype} {image.shape}",
            expected="uint8 (height, width, channels)",
        )
    return image if image.ndim == 3 else image[..., None]


def _with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Makes grey of colour and colour of grey, and drops transparency."""
    if image.shape[-1] == channels:
        return image
    if image.shape[-1] not in (1, 2, 3, 4) or channels not in (1, 3):
        raise DataError(
            "images have another number of channels than the backbone takes",
            received=image.shape[-1],
            expected=channels,
        )
    image = image[..., : 1 if image.shape[-1] < 3 else 3]
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=-1)
    from PIL import Image

    return np.asarray(Image.fromarray(image).convert("L"))[..., None]


def _bands(image: np.ndarray) -> list[np.ndarray]:
    """Splits an image into parts that Pillow takes: colour, or single bands."""
    if image.shape[-1] == 3:
        return [image]
    return [image[..., band] for band in range(image.shape[-1])]


def _cropped(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the largest window in the middle that has a size's shape."""
    height, width = image.shape[:2]
    # Rounded as Keras does it, so that the same pixels are chosen.
    tall = max(1, min(height, int(width * size[0] / size[1])))
    wide = max(1, min(width, int(height * size[1] / size[0])))
    top, left = int((height - tall) / 2), int((width - wide) / 2)
    return image[top : top + tall, left : left + wide]


def _padded(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Puts an image in the middle of a black one that has a size's shape."""
    height, width = image.shape[:2]
    tall = max(height, int(width * size[0] / size[1]))
    wide = max(width, int(height * size[1] / size[0]))
    top, left = int((tall - height) / 2), int((wide - width) / 2)
    # Keras puts equal margins on both sides, so an odd rest stays distorted.
    canvas = np.zeros((height + 2 * top, width + 2 * left, image.shape[-1]), "uint8")
    canvas[top : top + height, left : left + width] = image
    return canvas
