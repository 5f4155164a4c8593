"""Rows of one length for language models: packed documents, and windows of a stream.

A row predicts `length` tokens. A document of n tokens takes n - 1 places: each token
but the first is predicted from those before it.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np

from tflearn.backbones.text import TextEncoder
from tflearn.data.examples import Examples, TextExamples
from tflearn.data.spec import TensorSpec
from tflearn.support.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a language model.

    Args:
        inputs: Token ids by place, int32 `(batch, length)`.
        targets: The token behind each, int32 `(batch, length)`.
        documents: 1, 2, ... for the documents of a row, 0 where nothing is predicted,
            int32 `(batch, length)`.
    """

    inputs: np.ndarray
    targets: np.ndarray
    documents: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a document that fits into a row.

    Args:
        document: Which document.
        start: Its first token.
        size: How many tokens it predicts: it spans one token more.
    """

    document: int
    start: int
    size: int


def divide(lengths: Sequence[int], length: int) -> list[Piece]:
    """Cuts documents into pieces that predict at most `length` tokens each.

    Every token but the first of each document is predicted exactly once.

    Args:
        lengths: Tokens of each document.
        length: Places of a row.

    Returns:
        The pieces in order.

    Example:

    >>> [(p.start, p.size) for p in divide([6, 1], length=3)]
    [(0, 3), (3, 2)]
    """
    return [
        Piece(document=number, start=start, size=min(length, count - 1 - start))
        for number, count in enumerate(lengths)
        for start in range(0, count - 1, length)
    ]


def fill(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Puts things into as few bins as best-fit decreasing finds.

    Args:
        sizes: Size of each, from 1 to the capacity.
        capacity: Size of a bin.

    Returns:
        The bins by their first thing, the things of a bin in order. So where nothing
        shares a bin, all stay in order.

    Example:

    >>> fill([3, 2, 4, 1], capacity=5)
    [[0, 1], [2, 3]]
    """
    bins: list[list[int]] = []
    free: list[int] = []  # The different amounts of space that bins have, ascending.
    having: dict[int, list[int]] = {}
    for thing in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        place = bisect.bisect_left(free, sizes[thing])
        if place == len(free):
            number, space = len(bins), capacity
            bins.append([])
        else:
            space = free[place]
            number = having[space].pop()
            if not having[space]:
                del having[space], free[place]
        bins[number].append(thing)
        space -= sizes[thing]
        if space:
            if space not in having:
                bisect.insort(free, space)
            having.setdefault(space, []).append(number)
    return sorted(sorted(things) for things in bins)


class LanguageRows(Examples):
    """Rows of one length that a language model is trained on.

    Args:
        source: The tokenized texts they are made of.
        encoder: Names the inputs of the model.
        length: Places of a row.
    """

    kind = "text"

    def __init__(
        self, source: TextExamples, encoder: TextEncoder, *, length: int
    ) -> None:
        self.length = length
        self.pad = encoder.packing.pad
        self._input_names = encoder.input_names
        self.inputs = {
            name: TensorSpec(shape=(length,), dtype="int32")
            for name in self._input_names.values()
        }

    def rows(self, indices: np.ndarray, rng: np.random.Generator) -> Rows:
        """Returns rows; `rng` decides what is random about them."""
        raise NotImplementedError

    def batch(
        self, indices: np.ndarray, *, length: int | None = None
    ) -> dict[str, np.ndarray]:
        """Returns what the model takes for some rows, `(batch, length)` by name."""
        return self.named(self.rows(indices, np.random.default_rng(0)))

    def named(self, rows: Rows, *, isolated: bool = False) -> dict[str, np.ndarray]:
        """Returns rows by the names of the model's inputs.

        Args:
            rows: What `rows` returned.
            isolated: Whether the padding mask holds the numbers of documents, for a
                model that `isolation.isolate` made, or 1 at each of them.
        """
        mask = rows.documents if isolated else np.minimum(rows.documents, 1)
        arrays = {
            "token_ids": rows.inputs,
            "padding_mask": mask,
            "segment_ids": np.zeros_like(rows.inputs),
        }
        return {name: arrays[role] for role, name in self._input_names.items()}


class PackedRows(LanguageRows):
    """Several documents a row, each whole if it fits.

    Args:
        source: The documents.
        encoder: Names the inputs of the model.
        length: Places of a row.

    Raises:
        DataError: No document has two tokens.
    """

    def __init__(
        self, source: TextExamples, encoder: TextEncoder, *, length: int
    ) -> None:
        super().__init__(source, encoder, length=length)
        self._ids = source.ids
        self._pieces = divide([len(ids) for ids in source.ids], length)
        if not self._pieces:
            raise _nothing_to_predict(source)
        self._rows = fill([piece.size for piece in self._pieces], length)
        self.notes = (*source.notes, *self._count(source))

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, indices: np.ndarray, rng: np.random.Generator) -> Rows:
        """Returns packed rows, the same ones every time."""
        inputs = np.full((len(indices), self.length), self.pad, "int32")
        targets, documents = inputs.copy(), np.zeros_like(inputs)
        for row, index in enumerate(np.asarray(indices).tolist()):
            place = 0
            for number, part in enumerate(self._rows[index], start=1):
                piece = self._pieces[part]
                ids = self._ids[piece.document][piece.start :][: piece.size + 1]
                places = slice(place, place + piece.size)
                inputs[row, places], targets[row, places] = ids[:-1], ids[1:]
                documents[row, places] = number
                place += piece.size
        return Rows(inputs=inputs, targets=targets, documents=documents)

    def _count(self, source: TextExamples) -> list[str]:
        name, count = source.split_name, len(self._ids)
        used = sum(piece.size for piece in self._pieces)
        share = used / (len(self) * self.length)
        notes = [
            f"{count:,} texts of '{name}' are packed in {len(self):,} rows of "
            f"{self.length} tokens, {share:.1%} of them filled"
        ]
        pieces = np.bincount([x.document for x in self._pieces], minlength=count)
        if (pieces > 1).any():
            notes.append(
                f"{int((pieces > 1).sum()):,} texts of '{name}' are longer than a row "
                f"and divided into {int(pieces[pieces > 1].sum()):,} pieces"
            )
        if (pieces == 0).any():
            notes.append(
                f"{int((pieces == 0).sum()):,} texts of '{name}' have fewer than two "
                "tokens and are left out"
            )
        return notes


class Windows(LanguageRows):
    """Windows of all texts put end to end.

    The windows of the training split begin anywhere: row `i` of a batch is a random
    one, whatever its index. Those of other splits follow each other, so that every
    token but the very first is predicted exactly once.

    Args:
        source: The texts.
        encoder: Names the inputs of the model.
        length: Places of a window.

    Raises:
        DataError: The texts are shorter than a window.
    """

    def __init__(
        self, source: TextExamples, encoder: TextEncoder, *, length: int
    ) -> None:
        super().__init__(source, encoder, length=length)
        self._stream = np.concatenate([np.asarray(ids) for ids in source.ids])
        self._random = source.split_name == "train"
        if len(self._stream) < 2 + (length - 1) * self._random:
            raise _nothing_to_predict(source)
        self.notes = (
            *source.notes,
            f"'{source.split_name}' is a stream of {len(self._stream):,} tokens, seen "
            f"in {'random' if self._random else 'consecutive'} windows of {length}",
        )

    def __len__(self) -> int:
        return -(-(len(self._stream) - 1) // self.length)

    def rows(self, indices: np.ndarray, rng: np.random.Generator) -> Rows:
        """Returns windows."""
        last = len(self._stream) - 1
        if self._random:
            starts = rng.integers(0, last - self.length + 1, size=len(indices))
        else:
            starts = np.asarray(indices) * self.length
        places = starts[:, None] + np.arange(self.length)
        inside = places < last
        places = np.minimum(places, last - 1)
        return Rows(
            inputs=np.where(inside, self._stream[places], self.pad).astype("int32"),
            targets=np.where(inside, self._stream[places + 1], self.pad).astype(
                "int32"
            ),
            documents=inside.astype("int32"),
        )


def weights_of(rows: Rows) -> np.ndarray:
    """Returns 1 where a token is predicted, else 0, float32 `(batch, length)`."""
    return (rows.documents > 0).astype("float32")


def _nothing_to_predict(source: TextExamples) -> DataError:
    return DataError(
        f"the texts of '{source.split_name}' are too short to predict a token of",
        received=f"{sum(map(len, source.ids)):,} tokens in {len(source):,} texts",
        expected="more than a row of the length that is declared",
    )
