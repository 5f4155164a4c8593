"""Features in place of the examples they were computed of: their form, and batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tflearn.data.examples import Examples
from tflearn.data.spec import Batch, TensorSpec

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One array of features.

    Args:
        name: Its name among the outputs of the prefix.
        shape: Shape of an example's part; of a token's, if `by_token`.
        dtype: Type that the prefix gives.
        stored: Type that it is kept in.
        by_token: Whether it has a row for each token of each text, padding left out.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: str
    by_token: bool

    def rows(self, examples: Examples) -> int:
        """Returns how many rows the features of some examples have."""
        if not self.by_token or examples.lengths is None:
            return len(examples)
        return int(np.sum(examples.lengths))

    def num_bytes(self, examples: Examples) -> int:
        """Returns how much the features of some examples take."""
        size = as_dtype(self.stored).itemsize * int(np.prod(self.shape))
        return size * self.rows(examples)


def as_dtype(name: str) -> np.dtype:
    """Returns a NumPy type by name, `bfloat16` included."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


class FeatureExamples(Examples):
    """Features in place of the examples that they were computed of.

    Args:
        examples: The examples.
        fields: What the arrays are.
        arrays: The features by name.
        names: Names of the model's inputs in order.
        takes: Which of them the suffix needs itself.
        mapped: Whether the arrays are files.
    """

    def __init__(
        self,
        examples: Examples,
        fields: Sequence[Field],
        arrays: Arrays,
        *,
        names: Sequence[str],
        takes: Sequence[str],
        mapped: bool,
    ) -> None:
        self._examples = examples
        self.fields = tuple(fields)
        self.arrays = arrays
        self._names = tuple(names)
        self.takes = tuple(takes)
        self.kind = examples.kind
        # Reading a file waits; threads wait together.
        self.lazy = mapped
        self._offsets = np.zeros(1, np.int64)
        varies = any(field.by_token for field in fields) or bool(takes)
        if varies and examples.lengths is not None:
            self.lengths = examples.lengths
            self.padded_lengths = examples.padded_lengths
            self._offsets = offsets(examples)
        one = self.batch(np.zeros(1, np.int64))
        self.inputs = {
            name: TensorSpec(
                shape=self._open(name, array.shape[1:]), dtype=str(array.dtype)
            )
            for name, array in one.items()
        }

    def __len__(self) -> int:
        return len(self._examples)

    def batch(
        self, indices: np.ndarray, *, length: int | None = None
    ) -> dict[str, np.ndarray]:
        """Returns what the suffix takes for some examples.

        Args:
            indices: Which examples, `(batch,)`.
            length: Length to pad to; None: the smallest that holds all of them.

        Returns:
            Arrays `(batch, ...)` by name; features of padding are zero.
        """
        indices = np.asarray(indices)
        if length is None and self.lengths is not None:
            longest = int(np.max(self.lengths[indices]))
            length = next(fit for fit in self.padded_lengths if fit >= longest)
        found = {x.name: self._feature(x, indices, length) for x in self.fields}
        if self.takes:
            raw = by_name(self._examples.batch(indices, length=length), self._names)
            found |= {name: raw[name] for name in self.takes}
        return found

    def _feature(
        self, field: Field, indices: np.ndarray, length: int | None
    ) -> np.ndarray:
        stored, dtype = self.arrays[field.name], as_dtype(field.dtype)
        if not field.by_token or self.lengths is None or length is None:
            return np.asarray(stored[indices]).astype(dtype, copy=False)
        place, source = tokens(self.lengths, self._offsets, indices, length)
        result = np.zeros((*place.shape, *field.shape), dtype)
        result[place] = stored[source]
        return result

    def _open(self, name: str, shape: tuple[int, ...]) -> tuple[int | None, ...]:
        fixed = {field.name for field in self.fields if not field.by_token}
        if self.lengths is None or name in fixed:
            return shape
        return (None, *shape[1:])


def by_name(batch: Batch, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns a batch by the names of the model's inputs."""
    return batch if isinstance(batch, dict) else {names[0]: batch}


def offsets(examples: Examples) -> np.ndarray:
    """Returns the first row of each text, `(n,)`, where each token has one."""
    if examples.lengths is None:
        return np.zeros(1, np.int64)
    return np.concatenate([[0], np.cumsum(examples.lengths)[:-1]]).astype(np.int64)


def tokens(
    lengths: np.ndarray, starts: np.ndarray, indices: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the tokens of texts lie, in a batch and among all rows.

    Args:
        lengths: Tokens of each text, `(n,)`.
        starts: First row of each text, `(n,)`.
        indices: The texts of the batch, `(batch,)`.
        length: Length of the batch.

    Returns:
        bool `(batch, length)`, and the rows `(tokens of the batch,)`.

    Example:

    >>> place, rows = tokens(np.array([2, 1]), np.array([0, 2]), np.array([1, 0]), 3)
    >>> place.tolist(), rows.tolist()
    ([[True, False, False], [True, True, False]], [2, 0, 1])
    """
    positions = np.arange(length)[None, :]
    place = positions < lengths[indices][:, None]
    return place, (starts[indices][:, None] + positions)[place]
