"""A tokenizer with special tokens in front of its vocabulary, in memory and on disk."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflearn.backbones.vocabularies.special import ROLES
from tflearn.backbones.vocabularies.subwords import RustUnits, SentencePieces
from tflearn.backbones.vocabularies.units import (
    UNKNOWN,
    Bytes,
    Characters,
    Kmers,
    Units,
)
from tflearn.support import files
from tflearn.support.errors import BackboneError, DataError

_FILE = "vocabulary.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedTokenizer:
    """Texts to ids and back, without TensorFlow on any backend.

    Its methods are called as those of KerasHub's tokenizers.

    Args:
        units: The vocabulary.
        special_tokens: Roles of the special tokens; their ids are 0, 1, ...

    Example:

    >>> tokenizer = TrainedTokenizer(
    ...     units=Characters("abc"), special_tokens=("pad", "unknown")
    ... )
    >>> tokenizer(["cab", "x"])[0].tolist(), tokenizer.unk_token_id
    ([4, 2, 3], 1)
    >>> tokenizer.detokenize([4, 2, 3])
    'cab'
    """

    units: Units
    special_tokens: tuple[str, ...] = ()

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokenizes texts; no special token but `unknown` comes out.

        Args:
            texts: The texts.

        Returns:
            int32 ids `(length,)` of each text.

        Raises:
            DataError: Something is unknown and no such token was declared.
        """
        shift, unknown = len(self.special_tokens), self.unk_token_id
        encoded = self.units.encode(texts)
        if unknown is None:
            self._check_known(texts, encoded)
            unknown = UNKNOWN
        return [np.where(ids < 0, unknown, ids + shift).astype("i4") for ids in encoded]

    def detokenize(self, ids: Sequence[int] | np.ndarray) -> str:
        """Makes a text of ids; special tokens but `unknown` are left out.

        Args:
            ids: Token ids of one text.

        Returns:
            The text; `U+FFFD` stands for what is unknown.

        Raises:
            BackboneError: An id is outside of the vocabulary.
        """
        shift, size = len(self.special_tokens), self.vocabulary_size()
        wrong = [int(i) for i in ids if not 0 <= i < size]
        if wrong:
            raise BackboneError(
                "the vocabulary has no such token",
                received=wrong[0],
                expected=f"ids from 0 to {size - 1}",
            )
        kept = (i for i in map(int, ids) if i >= shift or i == self.unk_token_id)
        return self.units.decode([i - shift if i >= shift else UNKNOWN for i in kept])

    def vocabulary_size(self) -> int:
        """Returns the number of tokens, special ones included."""
        return len(self._vocabulary)

    def get_vocabulary(self) -> list[str]:
        """Returns the text of every token by id."""
        return list(self._vocabulary)

    def id_to_token(self, id: int) -> str:
        """Returns the text of a token."""
        return self._vocabulary[id]

    @property
    def special_token_ids(self) -> list[int]:
        """Ids of all special tokens."""
        return list(range(len(self.special_tokens)))

    @property
    def pad_token_id(self) -> int | None:
        """What fills a text up; None where not declared."""
        return self._special("pad")

    @property
    def unk_token_id(self) -> int | None:
        """What stands for the unknown; None where not declared."""
        return self._special("unknown")

    @property
    def mask_token_id(self) -> int | None:
        """What masked language models put over a token; None where not declared."""
        return self._special("mask")

    @property
    def start_token_id(self) -> int | None:
        """What stands before a text; None where not declared."""
        return self._special("start")

    @property
    def sep_token_id(self) -> int | None:
        """What stands between the texts of a pair: `separator`, else `end`."""
        own = self._special("separator")
        return self._special("end") if own is None else own

    @property
    def end_token_id(self) -> int | None:
        """What stands behind the last text: `end`, else `separator`."""
        own = self._special("end")
        return self._special("separator") if own is None else own

    def save_assets(self, folder: str | os.PathLike[str]) -> None:
        """Writes the tokenizer; `load_tokenizer` reads it."""
        settings = self.units.save(folder)
        whole = {
            "kind": self.units.kind,
            "special_tokens": list(self.special_tokens),
            **settings,
        }
        files.write_json(pathlib.Path(folder) / _FILE, whole)

    @functools.cached_property
    def _vocabulary(self) -> tuple[str, ...]:
        special = (ROLES[role] for role in self.special_tokens)
        return (*special, *self.units.tokens())

    def _special(self, role: str) -> int | None:
        found = role in self.special_tokens
        return self.special_tokens.index(role) if found else None

    def _check_known(self, texts: Sequence[str], encoded: list[np.ndarray]) -> None:
        counts = [int((ids < 0).sum()) for ids in encoded]
        if any(counts):
            worst = int(np.argmax(np.array(counts) > 0))
            raise DataError(
                "the vocabulary lacks some of these texts",
                received=f"{sum(counts):,} unknown of {sum(map(len, encoded)):,} "
                f"tokens, first in {texts[worst][:80]!r}",
                fix="declare the special token 'unknown' for this tokenizer",
            )


def load_tokenizer(folder: str | os.PathLike[str]) -> TrainedTokenizer:
    """Reads what `TrainedTokenizer.save_assets` wrote.

    Args:
        folder: The folder.

    Returns:
        The tokenizer; it gives the same ids as the saved one.

    Raises:
        OSError: A file is absent.
        BackboneError: The tokenizer is of a kind that this version does not know, or
            its files are damaged.
    """
    settings = files.read_json(pathlib.Path(folder) / _FILE)
    try:
        tokenizer = _made(settings, folder)
        # The libraries look at their files when they are asked for the first time.
        tokenizer.vocabulary_size()
        tokenizer(["a"] if tokenizer.unk_token_id is not None else [])
    except (BackboneError, OSError):
        raise
    except Exception as error:
        raise BackboneError(
            "the vocabulary is damaged",
            received=f"{folder} ({type(error).__name__}: {str(error)[:200]})",
            expected="what TrainedTokenizer.save_assets wrote",
        ) from error
    return tokenizer


def _made(settings: Any, folder: str | os.PathLike[str]) -> TrainedTokenizer:
    kind, special = settings.pop("kind"), tuple(settings.pop("special_tokens"))
    unknown_roles = [role for role in special if role not in ROLES]
    if unknown_roles:
        raise BackboneError("unknown special token", received=unknown_roles[0])
    units: Units
    if kind in ("wordpiece", "bpe"):
        units = RustUnits.load(kind, folder)
    elif kind == "unigram":
        units = SentencePieces.load(folder)
    elif kind == "characters":
        units = Characters(str(settings["alphabet"]))
    elif kind == "bytes":
        units = Bytes()
    elif kind == "kmers":
        units = _kmers(settings)
    else:
        raise BackboneError("unknown kind of tokenizer", received=kind)
    return TrainedTokenizer(units=units, special_tokens=special)


def _kmers(settings: Any) -> Kmers:
    words, k, stride = settings["words"], settings["k"], settings["stride"]
    texts = isinstance(words, list) and all(isinstance(word, str) for word in words)
    counts = all(type(number) is int and number > 0 for number in (k, stride))
    if not texts or not counts:
        raise BackboneError(
            "these are no k-mers", received=f"k={k!r}, stride={stride!r}"
        )
    return Kmers(tuple(words), k, stride, bool(settings.get("uppercase", True)))
