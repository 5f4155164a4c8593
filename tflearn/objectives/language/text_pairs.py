"""Texts, each with the tokens of the text that is to be made of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tflearn.backbones.text import TextEncoder
from tflearn.data.examples import Examples, TextExamples
from tflearn.support.errors import ConfigError, DataError

_LENGTH_MULTIPLE = 8


class TextPairs(Examples):
    """Texts, each with the tokens of its target.

    Args:
        sources: The texts.
        targets: One text each, `(n,)`.
        encoder: The backbone's.
        end: Id behind every target.
        max_length: Longest target in tokens, `end` included.
        truncate: Whether longer targets are cut; their end token stays.

    Attributes:
        ids: int32 tokens of each target with its end token, `(length,)` each.

    Raises:
        DataError: Targets are too long and not to be cut.
    """

    kind = "text"

    def __init__(
        self,
        sources: TextExamples,
        targets: np.ndarray,
        encoder: TextEncoder,
        *,
        end: int,
        max_length: int,
        truncate: bool,
    ) -> None:
        self.sources = sources
        self.inputs, self.lengths = sources.inputs, sources.lengths
        self.padded_lengths = sources.padded_lengths
        packing = dataclasses.replace(encoder.packing, start=(), end=(end,))
        tokens = dataclasses.replace(encoder, packing=packing).tokenize(
            [str(target) for target in targets]
        )
        lengths = np.array([len(ids) for ids in tokens.ids])
        self.notes = (
            *sources.notes,
            *_check_lengths(sources.split_name, lengths, max_length, truncate),
            *_note_unknown(sources.split_name, encoder.count_unknown(tokens)),
        )
        self.ids = [packing.cut(x, np.zeros_like(x), max_length)[0] for x in tokens.ids]
        self._widths = self._fitting_widths(np.minimum(lengths, max_length), max_length)

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, indices: np.ndarray, *, length: int | None = None) -> Any:
        """Returns the padded texts alone, arrays `(batch, length)` by name."""
        return self.sources.batch(indices, length=length)

    def width(self, length: int) -> int:
        """Returns how many tokens the targets of texts of a padded length get."""
        return self._widths[length]

    def _fitting_widths(self, targets: np.ndarray, limit: int) -> dict[int, int]:
        # One width for each padded length of the texts: no shapes, thus no
        # compilations, beyond those that the texts need.
        found = {}
        for length in self.padded_lengths:
            longest = int(targets[np.asarray(self.lengths) <= length].max(initial=1))
            rounded = -(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
            found[length] = min(rounded, limit)
        return found


def checked_limit(encoder: TextEncoder, max_length: int | None, prompt: int) -> int:
    """Returns how many tokens a target may have.

    Args:
        encoder: Says how many tokens the decoder takes.
        max_length: What is declared, if anything.
        prompt: Tokens that the decoder is given before its own.

    Raises:
        ConfigError: The declared length is out of its range.
    """
    most = encoder.max_length - prompt
    if max_length is not None and not 1 <= max_length <= most:
        raise ConfigError(
            "seq2seq.max_length is the number of tokens of a target, the end included",
            received=max_length,
            expected=f"1 to {most}: the decoder takes {encoder.max_length}, "
            f"{prompt} of them before the target",
        )
    return max_length or most


def _check_lengths(
    split: str, lengths: np.ndarray, limit: int, truncate: bool
) -> tuple[str, ...]:
    long = int((lengths > limit).sum())
    if not long:
        return ()
    line = (
        f"{long:,} of {len(lengths):,} targets of '{split}' are longer than "
        f"{limit} tokens"
    )
    if not truncate:
        raise DataError(
            line,
            received=f"up to {lengths.max()} tokens, the end token included",
            fix="declare objectives.seq2seq.truncate = True to cut them, or raise "
            "objectives.seq2seq.max_length if the backbone takes more",
        )
    return (f"{line} and are cut",)


def _note_unknown(split: str, unknown: int) -> tuple[str, ...]:
    if not unknown:
        return ()
    return (
        f"{unknown:,} tokens of the targets of '{split}' are unknown to the vocabulary",
    )
