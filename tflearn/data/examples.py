"""Encoded examples of a split, and batches of them by index."""

from __future__ import annotations

import abc
import copy
import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any, Self

import numpy as np

from tflearn.data.dataset import Split
from tflearn.data.spec import (
    Batch,
    ImageEncoder,
    TensorSpec,
    TextEncoder,
    VectorEncoder,
)
from tflearn.data.validation import some
from tflearn.support.errors import DataError

#: Shares of the texts that fit into each of the lengths they are padded to.
_QUANTILES = (0.5, 0.8, 0.95, 1.0)
_LENGTH_MULTIPLE = 8


class Examples(abc.ABC):
    """Random access to the encoded examples of a split.

    Attributes:
        kind: `text`, `image` or `vector`.
        lengths: Tokens of each example, `(n,)`; None where all have one shape.
        padded_lengths: The lengths that batches are padded to, ascending.
        inputs: The arrays of an example by name.
        notes: Lines for the user about what was done to the examples.
        lazy: Whether making a batch costs so much that it is worth a process.
        compared: Whether the examples of a batch are compared with each other, so
            that rows sorted by class would be measured against their like alone.
    """

    kind: str
    inputs: Mapping[str, TensorSpec]
    lengths: np.ndarray | None = None
    padded_lengths: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    lazy: bool = False
    compared: bool = False

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of examples."""

    @abc.abstractmethod
    def batch(self, indices: np.ndarray, *, length: int | None = None) -> Batch:
        """Returns what a model takes for some examples."""

    def as_compared(self) -> Self:
        """Returns these examples marked as compared with each other in a batch."""
        marked = copy.copy(self)
        marked.compared = True
        return marked


class TextExamples(Examples):
    """Tokenized texts.

    Args:
        split: The texts.
        encoder: Tokenizes and pads.
        max_length: Longest text in tokens; None: what the encoder takes.
        truncate: Whether longer texts are cut.
        any_length: Whether texts of any length are taken as they are, because
            whoever uses `ids` divides them; `batch` still cuts.

    Attributes:
        split_name: Name of the split.
        ids: int32 token ids of each text, special tokens included, not cut.

    Raises:
        DataError: Texts are too long and not to be cut.
    """

    kind = "text"

    def __init__(
        self,
        split: Split,
        encoder: TextEncoder,
        *,
        max_length: int | None,
        truncate: bool,
        any_length: bool = False,
    ) -> None:
        self._encoder = encoder
        self._tokens = encoder.tokenize(list(split.inputs))
        self.split_name = split.name
        limit = self._limit = _limit(encoder, max_length)
        lengths = np.fromiter(map(len, self._tokens.ids), np.int64, len(split))
        if not any_length:
            self.notes = _check_lengths(split, lengths, limit, truncate=truncate)
        self.notes = (
            *self.notes,
            *_note_unknown(split, encoder, self._tokens, int(lengths.sum())),
        )
        self.lengths = np.minimum(lengths, limit)
        self.padded_lengths = fitting_lengths(self.lengths, limit)
        one = self.batch(np.zeros(1, dtype=np.int64))
        self.inputs = {
            name: TensorSpec(shape=(None, *array.shape[2:]), dtype=str(array.dtype))
            for name, array in _named(one, "token_ids").items()
        }

    def __len__(self) -> int:
        return len(self._tokens.ids)

    @property
    def ids(self) -> Sequence[np.ndarray]:
        """int32 token ids of each text, special tokens included, not cut."""
        return self._tokens.ids

    def batch(self, indices: np.ndarray, *, length: int | None = None) -> Batch:
        """Returns padded tokens.

        Args:
            indices: Which examples, `(batch,)`.
            length: Length to pad to; None: the smallest of `padded_lengths` that
                holds all of them.

        Returns:
            Arrays `(batch, length)` by name.
        """
        chosen = np.asarray(indices).tolist()
        segments = self._tokens.segments
        tokens = dataclasses.replace(
            self._tokens,
            ids=[self._tokens.ids[i] for i in chosen],
            segments=None if segments is None else [segments[i] for i in chosen],
        )
        return self._encoder.collate(tokens, length or self._fitting(indices))

    def followed_by(self, other: TextExamples) -> TextExamples:
        """Returns these texts with others behind them, of one encoder and limit."""
        segments = None
        if self._tokens.segments is not None or other._tokens.segments is not None:
            segments = [*_segments(self._tokens), *_segments(other._tokens)]
        joined = copy.copy(self)
        joined._tokens = dataclasses.replace(
            self._tokens, ids=[*self.ids, *other.ids], segments=segments
        )
        joined.notes = (*self.notes, *other.notes)
        lengths = [np.minimum(len(ids), self._limit) for ids in joined.ids]
        joined.lengths = np.asarray(lengths, np.int64)
        joined.padded_lengths = fitting_lengths(joined.lengths, self._limit)
        return joined

    def _fitting(self, indices: np.ndarray) -> int:
        longest = int(np.max(self.lengths[indices])) if self.lengths is not None else 0
        return next(fit for fit in self.padded_lengths if fit >= longest)


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


def _segments(tokens: Any) -> list[np.ndarray]:
    return tokens.segments or [np.zeros(len(ids), np.int32) for ids in tokens.ids]


def _limit(encoder: TextEncoder, max_length: int | None) -> int:
    if max_length is not None and max_length > encoder.max_length:
        raise DataError(
            "data.Data.max_length is more than the backbone takes",
            received=max_length,
            expected=f"at most {encoder.max_length} tokens",
        )
    return max_length or encoder.max_length


def _check_lengths(
    split: Split, lengths: np.ndarray, limit: int, *, truncate: bool
) -> tuple[str, ...]:
    long = np.flatnonzero(lengths > limit)
    if not len(long):
        return ()
    line = f"{len(long):,} of {len(split):,} texts of '{split.name}' are longer than "
    places = some(f"{split.locate(i)} with {lengths[i]}" for i in long.tolist())
    if not truncate:
        raise DataError(
            f"{line}the {limit} tokens that are taken",
            received=places,
            expected=f"at most {limit} tokens, special ones included",
            fix="declare data.Data.truncate = True to cut them, or raise "
            "data.Data.max_length if the backbone takes more",
        )
    return (f"{line}{limit} tokens and are cut: {places}",)


def _note_unknown(
    split: Split, encoder: TextEncoder, tokens: Any, total: int
) -> tuple[str, ...]:
    # Not every encoder has a vocabulary that could lack something.
    count = getattr(encoder, "count_unknown", None)
    unknown = count(tokens) if count else 0
    if not unknown:
        return ()
    return (
        f"{unknown:,} of {total:,} tokens of '{split.name}' are unknown to the "
        "vocabulary",
    )


def fitting_lengths(lengths: np.ndarray, limit: int) -> tuple[int, ...]:
    """Returns the few lengths that texts are padded to.

    Args:
        lengths: Tokens of each text, `(n,)`.
        limit: The longest that is taken.

    Returns:
        Ascending lengths; the last one holds every text.
    """
    quantiles: Any = np.quantile(lengths, _QUANTILES, method="higher")
    rounded = (-(-int(q) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE for q in quantiles)
    return tuple(sorted({min(max(length, 1), limit) for length in rounded}))


def _named(batch: Batch, name: str) -> dict[str, np.ndarray]:
    return batch if isinstance(batch, dict) else {name: batch}
