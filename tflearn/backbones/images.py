"""Images to arrays: size, channels, range of values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tflearn.support.errors import BackboneError, DataError, nearest

# Mean and standard deviation of ImageNet in [0, 1], and the mean in 0-255 that Caffe's
# models subtract, both in the order red, green, blue.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_CAFFE_MEAN = (123.68, 116.779, 103.939)

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
_ASPECTS = ("crop", "pad", "stretch")


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
    scaling = _measured(converter, image_size, channels)
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


def _measured(converter: Any, image_size: tuple[int, int], channels: int) -> Scaling:
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
