"""Vectors: rows of numbers as they are."""

from __future__ import annotations

import dataclasses

import numpy as np

from tflearn.support.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class VectorEncoder:
    """Turns rows of numbers into a matrix.

    Args:
        size: Numbers in a row.

    Example:

    >>> VectorEncoder(size=2)([[1, 2], [3, 4]]).dtype
    dtype('float32')
    """

    size: int

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows as float32.

        Args:
            rows: Anything of shape `(batch, size)`.

        Returns:
            float32 `(batch, size)`.

        Raises:
            DataError: The rows have another size.
        """
        matrix = np.asarray(rows, "float32")
        if matrix.ndim != 2 or matrix.shape[1] != self.size:
            raise DataError(
                "rows have another size than the backbone takes",
                received=matrix.shape,
                expected=f"(batch, {self.size})",
            )
        return matrix
