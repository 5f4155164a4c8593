"""Encoded examples of a split, and batches of them by index."""

from __future__ import annotations

import copy

import numpy as np

from tflearn.data.dataset import Split
from tflearn.data.encoded import Examples
from tflearn.data.image_examples import ImageExamples
from tflearn.data.spec import Batch, TensorSpec, VectorEncoder
from tflearn.data.text_examples import TextExamples
from tflearn.support.errors import DataError

__all__ = ["Examples", "ImageExamples", "TextExamples", "VectorExamples"]


class VectorExamples(Examples):
    """Rows of numbers.

    Args:
        split: The rows.
        encoder: Scales them.

    Raises:
        DataError: The rows have another size than the backbone takes.
    """

    kind = "vector"

    def __init__(self, split: Split, encoder: VectorEncoder) -> None:
        matrix = np.asarray(split.inputs, dtype=np.float32)
        if matrix.shape[1] != encoder.size:
            raise DataError(
                f"the rows of '{split.name}' have another size than the backbone takes",
                received=f"{matrix.shape[1]} numbers",
                expected=f"{encoder.size} numbers",
            )
        self._matrix = np.asarray(encoder(matrix), dtype=np.float32)
        self.inputs = {"vector": TensorSpec(shape=(encoder.size,), dtype="float32")}

    def __len__(self) -> int:
        return len(self._matrix)

    def batch(self, indices: np.ndarray, *, length: int | None = None) -> Batch:
        """Returns float32 rows `(batch, size)`.

        Args:
            indices: Which examples, `(batch,)`.
            length: Not used.
        """
        return self._matrix[indices]

    def followed_by(self, other: VectorExamples) -> VectorExamples:
        """Returns these rows with others behind them, of one encoder."""
        joined = copy.copy(self)
        joined._matrix = np.concatenate([self._matrix, other._matrix])
        return joined
