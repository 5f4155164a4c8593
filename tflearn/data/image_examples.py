"""Images of one size, kept in memory or in a mapped file."""

from __future__ import annotations

import os
from concurrent import futures

import numpy as np

from tflearn.data.dataset import Split
from tflearn.data.encoded import Examples
from tflearn.data.spec import Batch, ImageEncoder, TensorSpec
from tflearn.support.errors import DataError


class ImageExamples(Examples):
    """Images of the size the backbone takes, kept in memory if they fit.

    Args:
        split: The images.
        encoder: Resizes and scales.
        cache_bytes: Memory for the images of this split.
    """

    kind = "image"

    def __init__(
        self, split: Split, encoder: ImageEncoder, *, cache_bytes: int
    ) -> None:
        self._encoder = encoder
        self._images = split.inputs
        self.image_shape = (*encoder.image_size, encoder.channels)
        self.inputs = {"image": TensorSpec(shape=self.image_shape, dtype="float32")}
        needed = len(split) * int(np.prod(self.image_shape))
        self.lazy = needed > cache_bytes
        self._resized = None if self.lazy else self._resize_all()
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

    def _resize_all(self) -> np.ndarray:
        resized = np.empty((len(self), *self.image_shape), dtype=np.uint8)

        def fill(index: int) -> None:
            resized[index] = self._resize(index)

        # Decoding and resizing run outside the interpreter lock.
        with futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for _ in pool.map(fill, range(len(self))):
                pass
        return resized
