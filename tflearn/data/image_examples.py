"""Images of one size, kept in memory or in a mapped file."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pathlib
from concurrent import futures

import numpy as np

from tflearn.data.dataset import Split
from tflearn.data.encoded import Examples
from tflearn.data.spec import Batch, ImageEncoder, TensorSpec
from tflearn.support import cache, files
from tflearn.support.console import say
from tflearn.support.errors import DataError
from tflearn.support.safety.arrays import map_npy

_FILE = "images.npy"
# Another one when images are made or written in another way.
_FORMAT = "1"


class ImageExamples(Examples):
    """Images of the size the backbone takes, kept in memory if they fit.

    Args:
        split: The images.
        encoder: Resizes and scales.
        cache_bytes: Memory for the images of this split.
        disk_bytes: Room for them in a file, if they take more than that.
    """

    kind = "image"

    def __init__(
        self,
        split: Split,
        encoder: ImageEncoder,
        *,
        cache_bytes: int,
        disk_bytes: int = 0,
    ) -> None:
        self._encoder = encoder
        self._images = split.inputs
        self.image_shape = (*encoder.image_size, encoder.channels)
        self.inputs = {"image": TensorSpec(shape=self.image_shape, dtype="float32")}
        needed = len(split) * int(np.prod(self.image_shape))
        self._resized = None
        if needed <= cache_bytes:
            self._resized = np.empty((len(self), *self.image_shape), np.uint8)
            self._resize_all(self._resized)
        elif needed <= disk_bytes:
            self._resized = self._mapped(split, disk_bytes)
        self.lazy = self._resized is None
        if self.lazy:
            self.notes = (f"{split.name}: images are decoded anew every epoch",)

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: np.ndarray, *, length: int | None = None) -> Batch:
        """Returns float32 images `(batch, height, width, channels)`.

        Args:
            indices: Which examples, `(batch,)`.
            length: Not used.
        """
        return self.scale(self.pixels(indices))

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Returns uint8 images `(batch, height, width, channels)`."""
        if self._resized is not None:
            return self._resized[indices]
        return np.stack([self._resize(int(index)) for index in indices])

    def scale(self, pixels: np.ndarray) -> np.ndarray:
        """Returns what the model takes for uint8 images."""
        return self._encoder.scale(pixels)

    def _resize(self, index: int) -> np.ndarray:
        resized = self._encoder.resize(self._images[index])
        if resized.shape != self.image_shape:
            raise DataError(
                "the backbone's converter gives images of another shape",
                received=resized.shape,
                expected=self.image_shape,
            )
        return resized

    def _resize_all(self, resized: np.ndarray) -> None:
        def fill(index: int) -> None:
            resized[index] = self._resize(index)

        # Decoding and resizing run outside the interpreter lock.
        with futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for _ in pool.map(fill, range(len(self))):
                pass

    def _mapped(self, split: Split, limit: int) -> np.ndarray | None:
        """Returns the images in a file, which an earlier start may have written."""
        if not split.digest or not dataclasses.is_dataclass(self._encoder):
            # Nothing says what they are made of, or how.
            return None
        made_by = (repr(self._encoder), importlib.metadata.version("pillow"))
        key = files.digest(_FORMAT, split.digest, split.rows.tobytes(), *made_by)
        try:
            return cache.reuse_files(
                "images", key, write=self._write, read=_read, limit_bytes=limit
            )
        except OSError as error:
            say(f"note: the images of '{split.name}' are not kept in a file ({error})")
            return None

    def _write(self, folder: pathlib.Path) -> None:
        shape = (len(self), *self.image_shape)
        images = np.lib.format.open_memmap(
            folder / _FILE, mode="w+", dtype=np.uint8, shape=shape
        )
        # A mapped file that finds no room on the way ends the process.
        with (folder / _FILE).open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        self._resize_all(images)
        images.flush()


def _read(folder: pathlib.Path) -> np.ndarray:
    return map_npy(folder / _FILE)
