"""Random views of images: crop, flip, colour, in NumPy.

Each image is changed by itself and by two small linear maps: cropping, resizing and
flipping by one matrix for its rows and one for its columns, all changes of colour by
one matrix for its channels. So a batch costs a few products of matrices, and its views
are the same for the same generator on every backend and device.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tflearn.backbones import Backbone
from tflearn.backbones.images import ImageEncoder
from tflearn.support.errors import ConfigError

# Shares of red, green and blue in what the eye takes for brightness (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114])
# Brightness and the two axes of colour of the YIQ space; a turn of the last two
# changes the hue and nothing else.
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
    """Makes a random view of each image.

    The values by default are those of SimCLR on CIFAR-10; blur, which it leaves out
    there, does not exist here. Colours change in a fixed order (brightness, contrast,
    saturation, hue), and values are clipped once, at the end.

    Args:
        min_area: Least share of the image's area that a crop holds; 1 for no crop.
        flip: Probability of a horizontal flip.
        jitter: Probability of a change of colours.
        strength: How far colours change: brightness, contrast and saturation by a
            factor of `1 +- 0.8 strength`, the hue by `0.2 strength` of a turn.
        grayscale: Probability of losing all colour.

    Raises:
        ConfigError: A value is out of its range.

    Example:

    >>> pixels = np.zeros((4, 8, 8, 3), "uint8")
    >>> Views()(pixels, np.random.default_rng(0)).shape
    (4, 8, 8, 3)

    References:
        Chen et al. 2020, appendices A and B.9, https://arxiv.org/abs/2002.05709
    """

    min_area: float = 0.08
    flip: float = 0.5
    jitter: float = 0.8
    strength: float = 0.5
    grayscale: float = 0.2

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            most = 1.25 if field.name == "strength" else 1
            least = 1e-3 if field.name == "min_area" else 0
            if not least <= value <= most:
                raise ConfigError(
                    f"Views.{field.name} is out of its range",
                    received=value,
                    expected=f"{least} to {most}",
                )

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Makes one view of each image.

        Args:
            pixels: uint8 `(batch, height, width, channels)`.
            rng: Everything random comes from it.

        Returns:
            uint8 of the same shape.
        """
        views = pixels.astype(np.float32)
        views = self._cropped(views, rng)
        views = self._recoloured(views, rng)
        # Adding a half and cutting off rounds, in one pass less than `rint`.
        return (np.clip(views, 0, 255) + 0.5).astype(np.uint8)

    def _cropped(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count, height, width, channels = images.shape
        area = rng.uniform(self.min_area, 1, count)
        # Shapes from 3:4 to 4:3, but for a crop of the whole.
        aspect = (4 / 3) ** rng.uniform(-1, 1, count) if self.min_area < 1 else 1.0
        rows = np.minimum(1, np.sqrt(area * aspect))
        columns = np.minimum(1, np.sqrt(area / aspect))
        top, left = rng.random((2, count)) * (1 - np.stack([rows, columns]))
        flipped = rng.random(count) < self.flip
        of_rows = _resizing(top, rows, height)
        of_columns = _resizing(left, columns, width)
        of_columns[flipped] = of_columns[flipped, ::-1]
        tall = of_rows @ images.reshape(count, height, -1)
        turned = tall.reshape(images.shape).swapaxes(1, 2).reshape(count, width, -1)
        wide = of_columns @ turned
        return wide.reshape(count, width, height, channels).swapaxes(1, 2)

    def _recoloured(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count, _, _, channels = images.shape
        changed = rng.random(count) < self.jitter
        spread = 0.8 * self.strength * changed
        factors = 1 + spread * rng.uniform(-1, 1, (3, count))
        brightness, contrast, saturation = np.maximum(factors, 0)
        angle = 2 * np.pi * 0.2 * self.strength * changed * rng.uniform(-1, 1, count)
        gray = rng.random(count) < self.grayscale
        luma = _LUMA if channels == 3 else np.full(channels, 1 / channels)
        # Contrast is a distance from the mean grey of the image.
        mean = images.mean(axis=(1, 2)) @ luma
        offset = ((1 - contrast) * brightness * mean).astype(np.float32)
        factor = (brightness * contrast).astype(np.float32)
        flat = images.reshape(count, -1, channels)
        if channels == 3:
            mixing = _turned(angle) @ _saturated(np.where(gray, 0, saturation))
            mixing = (factor[:, None, None] * mixing).astype(np.float32)
            flat = flat @ mixing.swapaxes(1, 2)
        else:
            flat = flat * factor[:, None, None]
        return (flat + offset[:, None, None]).reshape(images.shape)


def image_shape(backbone: Backbone) -> tuple[int, int, int]:
    """Returns height, width and channels of the images that a backbone is given.

    Raises:
        ConfigError: It takes something else than images.
    """
    encoder = backbone.encoder
    if not isinstance(encoder, ImageEncoder):
        raise ConfigError(
            "this objective needs a backbone of images", received=backbone.origin
        )
    # The encoder knows the size where the model leaves it open.
    return (*encoder.image_size, encoder.channels)


def _resizing(start: np.ndarray, share: np.ndarray, size: int) -> np.ndarray:
    """Returns matrices that cut out a part of an axis and stretch it to its length.

    Args:
        start: Where each part starts, as a share of the axis, `(batch,)`.
        share: How long it is, as a share of the axis, `(batch,)`.
        size: Number of pixels of the axis.

    Returns:
        Bilinear weights, float32 `(batch, size, size)`; each row sums to 1.
    """
    places = (np.arange(size) + 0.5) / size
    source = (start[:, None] + share[:, None] * places) * size - 0.5
    source = np.clip(source, 0, size - 1).astype(np.float32)
    distance = np.abs(source[:, :, None] - np.arange(size, dtype=np.float32))
    return np.maximum(0, 1 - distance)


def _saturated(saturation: np.ndarray) -> np.ndarray:
    """Returns `(batch, 3, 3)` matrices from grey (0) to the colours as they are (1)."""
    share = saturation[:, None, None]
    return share * np.eye(3) + (1 - share) * _LUMA


def _turned(angle: np.ndarray) -> np.ndarray:
    """Returns `(batch, 3, 3)` matrices that turn the hue by angles in radians."""
    turn = np.zeros((len(angle), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 2, 1] = np.sin(angle)
    turn[:, 1, 2] = -turn[:, 2, 1]
    return np.linalg.inv(_YIQ) @ turn @ _YIQ
