"""Texts to arrays: tokens, special tokens, truncation, padding."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tflearn.backbones import kept_tokens
from tflearn.backbones.packing import Packing
from tflearn.backbones.word_tokens import quickest
from tflearn.support.errors import BackboneError, DataError
from tflearn.support.ragged import Ragged

__all__ = ["Packing", "Text", "TextEncoder", "Tokens"]

# Tokenizing a list at a time keeps the overhead of a call away from single texts; the
# size bounds what the tokenizer's own intermediate lists take.
_CHUNK = 4096

Text = str | tuple[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokenized texts with their special tokens, not truncated.

    Args:
        ids: One int32 array a text.
        segments: The part of a pair that each token belongs to, 0 or 1, in one array
            a text; None where no text is a pair.
    """

    ids: Sequence[np.ndarray]
    segments: Sequence[np.ndarray] | None = None


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
        pairs = np.array([isinstance(text, tuple) for text in texts], bool)
        if pairs.any() and not self.packing.pairs:
            raise DataError(
                "this backbone does not take pairs of texts",
                received=texts[int(pairs.argmax())],
                fix="join the two columns into one text, or take a BERT-like backbone",
            )
        strings = list(
            itertools.chain.from_iterable(
                text if isinstance(text, tuple) else (text,) for text in texts
            )
        )
        wrong = [text for text in strings if not isinstance(text, str)]
        if wrong:
            raise DataError("an input is not a text", received=wrong[0])

        def tokenize() -> tuple[Ragged, Ragged | None]:
            return self.packing.pack_all(self._tokenize(strings), pairs)

        ids, segments = kept_tokens.kept(
            tokenize, self.tokenizer, strings, repr(self.packing), pairs.tobytes()
        )
        return Tokens(ids=ids, segments=segments)

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
        if isinstance(tokens.ids, Ragged):
            return int((tokens.ids.rows_flat == unknown).sum())
        return sum(int((ids == unknown).sum()) for ids in tokens.ids)

    def _tokenize(self, texts: Sequence[str]) -> Ragged:
        tokenize = quickest(self.tokenizer, texts)
        return Ragged.joined(
            Ragged.of(_as_ids(row) for row in tokenize(chunk))
            for chunk in _chunks(texts)
        )

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


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _CHUNK):
        yield list(texts[start : start + _CHUNK])


def _as_ids(row: Any) -> Sequence[int]:
    ids = row.tolist() if hasattr(row, "tolist") else row
    if len(ids) and not isinstance(ids[0], (int, np.integer)):
        raise BackboneError(
            "the tokenizer does not give numbers",
            received=ids[:5],
            expected="token ids",
            fix="make the tokenizer with dtype='int32'",
        )
    return ids
