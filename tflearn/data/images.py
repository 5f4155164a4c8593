"""Images that are decoded when they are needed."""

from __future__ import annotations

import dataclasses
import io
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tflearn.support.errors import DataError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
#: The most pixels of an image: a few bytes can claim billions.
MAX_PIXELS = 2**26
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


@dataclasses.dataclass(frozen=True)
class Image:
    """An encoded image, such as a JPEG file, that has not been decoded yet.

    Args:
        read: Returns the encoded bytes.
        location: Where the image is, for messages.
    """

    read: Callable[[], bytes]
    location: str

    def decode(self) -> np.ndarray:
        """Decodes the image.

        Returns:
            uint8 `(height, width, channels)`; 1 channel for greyscale images, else 3.

        Raises:
            DataError: The bytes are not a readable image.
        """
        try:
            return decode(self.read())
        except DataError:
            raise
        except Exception as error:
            # Broken files make Pillow raise nearly anything: SyntaxError for some PNG
            # files, struct.error, EOFError, its own errors of decompression bombs.
            raise DataError(
                f"unreadable image ({_first_line(error)})", received=self.location
            ) from error


@dataclasses.dataclass(frozen=True)
class FileReader:
    """Reads a file; a class and not a closure, so that worker processes get it."""

    path: str

    def __call__(self) -> bytes:
        """Returns the file's bytes."""
        return pathlib.Path(self.path).read_bytes()


@dataclasses.dataclass(frozen=True)
class BytesReader:
    """Gives bytes that are in memory already."""

    content: bytes

    def __call__(self) -> bytes:
        """Returns the bytes."""
        return self.content


def open_image(path: str) -> Image:
    """Returns the image in a file, not decoded yet.

    Args:
        path: The file.
    """
    return Image(FileReader(path), path)


def decode(encoded: bytes) -> np.ndarray:
    """Decodes an image file's bytes.

    The orientation that cameras store beside the pixels is applied. Palettes,
    transparency and CMYK become RGB; the first frame stands for an animation.

    Args:
        encoded: A JPEG, PNG, WebP, GIF, BMP, TIFF or PNM file.

    Returns:
        uint8 `(height, width, 1 or 3)`.

    Raises:
        DataError: The image has more pixels than any photograph.
        Exception: Whatever Pillow says of a broken file; `Image.decode` names it.
    """
    import PIL.Image

    # Only these: Pillow would hand a PostScript file to an interpreter.
    with PIL.Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(
                "an image has too many pixels",
                received=f"{width} x {height}",
                expected=f"at most {MAX_PIXELS:,}",
                fix="make it smaller, unless it was made to exhaust memory",
            )
        image.load()
        return _to_array(image)


def to_array(value: Any) -> np.ndarray:
    """Returns the pixels of a value that holds an image in one of many ways.

    Args:
        value: An `Image`, a uint8 array `(height, width)` or `(height, width,
            channels)`, encoded bytes, a Pillow image, or a dict with `bytes` or
            `path` as Hugging Face stores images.

    Returns:
        uint8 `(height, width, channels)`.

    Raises:
        DataError: It is not an image, or cannot be decoded.
    """
    if isinstance(value, Image):
        return value.decode()
    if isinstance(value, bytes):
        return Image(BytesReader(value), "bytes").decode()
    if isinstance(value, Mapping):
        return _from_mapping(value).decode()
    if not isinstance(value, np.ndarray) and hasattr(value, "getbands"):
        return _to_array(value)
    return _check_pixels(np.asarray(value))


def is_image(value: Any) -> bool:
    """Tells whether a value can be read as an image by `to_array`."""
    if isinstance(value, Mapping):
        return "bytes" in value
    if isinstance(value, (Image, bytes)) or hasattr(value, "getbands"):
        return True
    return isinstance(value, np.ndarray) and value.ndim in (2, 3)


def _from_mapping(value: Mapping[str, Any]) -> Image:
    if value.get("bytes") is not None:
        return Image(BytesReader(value["bytes"]), str(value.get("path") or "bytes"))
    if value.get("path"):
        return open_image(str(value["path"]))
    raise DataError("an image has neither bytes nor a path", received=list(value))


def _check_pixels(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise DataError(
            "an image has a wrong shape",
            received=array.shape,
            expected="(height, width) or (height, width, channels), 1, 3 or 4 channels",
        )
    if array.dtype != np.uint8:
        whole = array.dtype.kind in "iu"
        if not whole or array.min() < 0 or array.max() > 255:
            raise DataError(
                "the pixels of an image are not bytes",
                received=f"{array.dtype} from {array.min()} to {array.max()}",
                expected="uint8 from 0 to 255",
                fix="scale them to 0..255 and convert with .astype('uint8')",
            )
        array = array.astype(np.uint8)
    return array[:, :, :3]


def _to_array(image: Any) -> np.ndarray:
    import PIL.ImageOps

    image = PIL.ImageOps.exif_transpose(image)
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))[:, :, None]
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # Pillow would clip 16 bits to 8 and turn most of the image white.
        wide = np.asarray(image).astype(np.float64)
        top = 65535.0 if image.mode != "F" else 1.0
        return np.clip(wide / top * 255, 0, 255).round().astype(np.uint8)[:, :, None]
    return np.asarray(image.convert("RGB"))


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    # Pillow names the address of its buffer, which differs from run to run.
    return text.split(" <_io")[0] or type(error).__name__
