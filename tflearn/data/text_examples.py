"""Tokenized texts, and batches of them by index."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflearn.data.dataset import Split
from tflearn.data.encoded import Examples
from tflearn.data.padding import chosen_length, fitting_lengths, padded_length
from tflearn.data.spec import Batch, TensorSpec, TextEncoder
from tflearn.data.validation import some
from tflearn.support.errors import DataError


class TextExamples(Examples):
    """Tokenized texts.

    Args:
        split: The texts.
        encoder: Tokenizes and pads.
        max_length: Longest text in tokens; `auto`: chosen from these texts; None: what
            the encoder takes.
        truncate: Whether longer texts are cut; with `auto` they are.
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
        max_length: int | str | None,
        truncate: bool,
        any_length: bool = False,
    ) -> None:
        self._encoder = encoder
        self._tokens = encoder.tokenize(list(split.inputs))
        self.split_name = split.name
        lengths = np.fromiter(map(len, self._tokens.ids), np.int64, len(split))
        if max_length == "auto":
            # Texts that are divided are not cut, however long they are.
            chosen = None if any_length else chosen_length(lengths, encoder.max_length)
            max_length, truncate = chosen, True
        limit = self._limit = _limit(encoder, max_length)
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
        fitting = length or padded_length(self, indices) or 0
        return self._encoder.collate(tokens, fitting)

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
        lengths = np.fromiter(map(len, joined.ids), np.int64, len(joined.ids))
        joined.lengths = np.minimum(lengths, self._limit)
        joined.padded_lengths = fitting_lengths(joined.lengths, self._limit)
        return joined


def _segments(tokens: Any) -> list[np.ndarray]:
    return tokens.segments or [np.zeros(len(ids), np.int32) for ids in tokens.ids]


def _limit(encoder: TextEncoder, max_length: int | str | None) -> int:
    if isinstance(max_length, int) and max_length > encoder.max_length:
        raise DataError(
            "data.Data.max_length is more than the backbone takes",
            received=max_length,
            expected=f"at most {encoder.max_length} tokens",
        )
    return int(max_length or encoder.max_length)


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


def _named(batch: Batch, name: str) -> dict[str, np.ndarray]:
    return batch if isinstance(batch, dict) else {name: batch}
