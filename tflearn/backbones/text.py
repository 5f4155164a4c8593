"""Texts to arrays: tokens, special tokens, truncation, padding."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tflearn.support.errors import BackboneError, DataError

# Tokenizing a list at a time keeps the overhead of a call away from single texts; the
# size bounds what the tokenizer's own intermediate lists take.
_CHUNK = 4096

Text = str | tuple[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokenized texts with their special tokens, not truncated.

    Args:
        ids: One int32 array a text.
        segments: The part of a pair that each token belongs to, 0 or 1, in one int32
            array a text; None where no text is a pair.
    """

    ids: list[np.ndarray]
    segments: list[np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packing:
    """Which special tokens a backbone expects, and where.

    Args:
        start: Put before a text.
        separator: Put between the texts of a pair.
        end: Put behind the last text.
        pad: Fills a text up to the length of its batch.
        pad_left: Whether to fill up on the left.
        pairs: Whether the backbone takes pairs of texts.
        waterfall: How a pair is cut: the first text keeps all it can; otherwise both
            are cut in turn.
    """

    start: tuple[int, ...] = ()
    separator: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    pad: int = 0
    pad_left: bool = False
    pairs: bool = False
    waterfall: bool = False

    def pack(
        self, first: Sequence[int], second: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Puts special tokens around a text or a pair.

        Args:
            first: Token ids.
            second: Token ids of the second text of a pair.

        Returns:
            Token ids and segments, int32 `(length,)` each.

        Example:

        >>> ids, segments = Packing(start=(1,), separator=(2,), end=(2,)).pack([7], [8])
        >>> ids.tolist(), segments.tolist()
        ([1, 7, 2, 8, 2], [0, 0, 0, 1, 1])
        """
        head = [*self.start, *first]
        tail: list[int] = list(self.end)
        if second is not None:
            head += self.separator
            tail = [*second, *self.end]
        ids = np.array(head + tail, "int32")
        segments = np.zeros(len(ids), "int32")
        if second is not None:
            segments[len(head) :] = 1
        return ids, segments

    def cut(
        self, ids: np.ndarray, segments: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Shortens a packed text to a length; the special tokens stay.

        Args:
            ids: Packed token ids.
            segments: Their segments.
            length: How many tokens remain at most.

        Returns:
            Token ids and segments.
        """
        if len(ids) <= length:
            return ids, segments
        if segments.any():
            keep = self._keep_of_pair(segments, length)
        else:
            position = np.arange(len(ids))
            kept = max(0, length - len(self.end))
            keep = (position < kept) | (position >= len(ids) - len(self.end))
        return ids[keep], segments[keep]

    def _keep_of_pair(self, segments: np.ndarray, length: int) -> np.ndarray:
        special = len(self.start) + len(self.separator) + len(self.end)
        total = len(segments)
        in_first = int((segments == 0).sum()) - len(self.start) - len(self.separator)
        in_second = total - special - in_first
        space = max(0, length - special)
        # In turn: token by token from both while there is space, the first one first.
        share = space if self.waterfall else max(space - space // 2, space - in_second)
        first = min(in_first, share)
        second = min(in_second, space - first)
        position = np.arange(total)
        middle = len(self.start) + in_first
        behind = middle + len(self.separator)
        return (
            (position < len(self.start) + first)
            | ((position >= middle) & (position < behind + second))
            | (position >= total - len(self.end))
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """Turns texts into the arrays a backbone takes.

    Args:
        tokenizer: A KerasHub tokenizer or a `TrainedTokenizer`: a list of texts to
            lists of token ids.
        packing: Special tokens.
        max_length: Most tokens that the backbone takes, special ones included.
        input_names: The model's input for each of `token_ids`, `padding_mask` and
            `segment_ids` that it has.
    """

    tokenizer: Any
    packing: Packing
    max_length: int
    input_names: Mapping[str, str]

    def tokenize(self, texts: Sequence[Text]) -> Tokens:
        """Tokenizes texts, or pairs of texts.

        Args:
            texts: Strings, or tuples of two strings.

        Returns:
            Tokens with special tokens, one entry a text.

        Raises:
            DataError: A text is no string, or a pair where the backbone takes none.
        """
        pairs = [isinstance(text, tuple) for text in texts]
        if any(pairs) and not self.packing.pairs:
            raise DataError(
                "this backbone does not take pairs of texts",
                received=texts[pairs.index(True)],
                fix="join the two columns into one text, or take a BERT-like backbone",
            )
        firsts = [x[0] if pair else x for x, pair in zip(texts, pairs, strict=True)]
        seconds = [x[1] for x, pair in zip(texts, pairs, strict=True) if pair]
        rest = self._tokenize(seconds)
        packed = [
            self.packing.pack(first, next(rest) if pair else None)
            for first, pair in zip(self._tokenize(firsts), pairs, strict=True)
        ]
        return Tokens(
            ids=[ids for ids, _ in packed],
            segments=[segments for _, segments in packed] if any(pairs) else None,
        )

    def collate(self, tokens: Tokens, length: int) -> dict[str, np.ndarray]:
        """Makes a batch of one length.

        Args:
            tokens: What `tokenize` returned, or a choice from it.
            length: Length of the arrays; longer texts are cut, special tokens stay.

        Returns:
            Arrays `(batch, length)` by the names of the model's inputs: int32 token
            ids and segments, and a mask that is 1 at tokens and 0 at padding.
        """
        segments = tokens.segments or [
            np.zeros(len(ids), "int32") for ids in tokens.ids
        ]
        rows = [
            self.packing.cut(ids, part, length)
            for ids, part in zip(tokens.ids, segments, strict=True)
        ]
        place = self._place([len(ids) for ids, _ in rows], length)
        ids = np.full(place.shape, self.packing.pad, "int32")
        if rows:
            ids[place] = np.concatenate([row for row, _ in rows])
        arrays = {"token_ids": ids, "padding_mask": self._mask(ids, place)}
        if "segment_ids" in self.input_names:
            arrays["segment_ids"] = np.zeros(place.shape, "int32")
            if rows:
                arrays["segment_ids"][place] = np.concatenate([x for _, x in rows])
        return {name: arrays[role] for role, name in self.input_names.items()}

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Makes a text of token ids.

        Args:
            ids: Token ids of one text; special tokens are left out.

        Returns:
            The text, as near to the original as the tokenizer can come.
        """
        special = set(getattr(self.tokenizer, "special_token_ids", ()))
        special.discard(getattr(self.tokenizer, "unk_token_id", None))
        text = self.tokenizer.detokenize([int(i) for i in ids if int(i) not in special])
        return text.decode() if isinstance(text, bytes) else str(text)

    def count_unknown(self, tokens: Tokens) -> int:
        """Counts the tokens that stand for what the vocabulary lacks.

        Args:
            tokens: What `tokenize` returned.

        Returns:
            Their number; 0 for a vocabulary that knows every text.
        """
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        if unknown is None:
            return 0
        return sum(int((ids == unknown).sum()) for ids in tokens.ids)

    def _tokenize(self, texts: Sequence[Any]) -> Iterator[Sequence[int]]:
        for start in range(0, len(texts), _CHUNK):
            chunk = list(texts[start : start + _CHUNK])
            wrong = [text for text in chunk if not isinstance(text, str)]
            if wrong:
                raise DataError("an input is not a text", received=wrong[0])
            for row in self.tokenizer(chunk):
                yield _as_ids(row)

    def _place(self, lengths: Sequence[int], length: int) -> np.ndarray:
        """Returns where tokens lie, bool `(batch, length)`."""
        counts = np.array(lengths, "int64")[:, None]
        positions = np.arange(length)[None, :]
        if self.packing.pad_left:
            return positions >= length - counts
        return positions < counts

    def _mask(self, ids: np.ndarray, place: np.ndarray) -> np.ndarray:
        # BERT-like preprocessors of KerasHub mask by value, the others by position.
        mask = ids != self.packing.pad if self.packing.pairs else place
        return mask.astype("int32")


def _as_ids(row: Any) -> Sequence[int]:
    ids = row.tolist() if hasattr(row, "tolist") else list(row)
    if ids and not isinstance(ids[0], (int, np.integer)):
        raise BackboneError(
            "the tokenizer does not give numbers",
            received=ids[:5],
            expected="token ids",
            fix="make the tokenizer with dtype='int32'",
        )
    return ids
