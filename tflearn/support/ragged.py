"""Rows of different lengths in one array, as it lies in memory or in a mapped file."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged(Sequence[np.ndarray]):
    """A sequence of arrays that are pieces of a single one.

    A million texts as a million arrays take ten times the memory of their tokens, and
    cannot be mapped from a file.

    Args:
        flat: All rows one behind the other, `(total,)`; not to be written to.
        offsets: Where each row begins, and where the last one ends, int64 `(n + 1,)`.

    Example:

    >>> rows = Ragged.of([[1, 2], [], [3]])
    >>> len(rows), rows[0].tolist(), rows.lengths.tolist()
    (3, [1, 2], [2, 0, 1])
    """

    flat: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | np.ndarray]) -> Ragged:
        """Puts rows of int32 one behind the other.

        Args:
            rows: Lists of numbers, or arrays `(length,)`.
        """
        rows = list(rows)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        if any(isinstance(row, np.ndarray) for row in rows):
            flat = np.concatenate([np.asarray(row, np.int32) for row in rows])
        else:
            numbers = itertools.chain.from_iterable(rows)
            flat = np.fromiter(numbers, np.int32, int(lengths.sum()))
        return cls.cut(flat, lengths)

    @classmethod
    def cut(cls, flat: np.ndarray, lengths: np.ndarray) -> Ragged:
        """Cuts an array into rows.

        Args:
            flat: `(total,)`.
            lengths: Lengths of the rows, `(n,)`.
        """
        flat.flags.writeable = False
        return cls(flat, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    @classmethod
    def joined(cls, parts: Iterable[Ragged]) -> Ragged:
        """Puts the rows of several behind each other."""
        parts = list(parts)
        if len(parts) == 1:
            return parts[0]
        flat = [np.zeros(0, np.int32), *(part.rows_flat for part in parts)]
        lengths = [np.zeros(0, np.int64), *(part.lengths for part in parts)]
        return cls.cut(np.concatenate(flat), np.concatenate(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            chosen = range(*index.indices(len(self)))
            return [self[position] for position in chosen]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = index % len(self)
        return self.flat[self.offsets[start] : self.offsets[start + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of the rows, int64 `(n,)`."""
        return np.diff(self.offsets)

    @property
    def rows_flat(self) -> np.ndarray:
        """All rows one behind the other, `(total,)`."""
        return self.flat[self.offsets[0] : self.offsets[-1]]
