"""Tokens that need no training: characters, bytes, k-mers.

The ids here start at 0 and know nothing of special tokens; -1 is what is not in the
vocabulary. `TrainedTokenizer` puts the special tokens in front.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

UNKNOWN = -1
#: What an unknown token becomes in a text: Unicode's replacement character.
REPLACEMENT = "\ufffd"


class Units(Protocol):
    """What a tokenizer knows besides special tokens."""

    @property
    def kind(self) -> str:
        """The name under which it is saved."""
        ...

    def tokens(self) -> list[str]:
        """Returns the text of every token by id."""
        ...

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns int32 ids `(length,)` of each text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of some ids."""
        ...

    def save(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Writes files if it needs them; returns settings for JSON."""
        ...


@dataclasses.dataclass(frozen=True)
class Characters:
    """One token a character.

    Args:
        alphabet: The characters, sorted.

    Example:

    >>> Characters("abc").encode(["cabx"])[0].tolist()
    [2, 0, 1, -1]
    """

    alphabet: str
    kind: str = dataclasses.field(default="characters", init=False)

    def tokens(self) -> list[str]:
        """Returns the characters."""
        return list(self.alphabet)

    @functools.cached_property
    def _points(self) -> np.ndarray:
        return _code_points(self.alphabet)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns int32 ids `(length,)` of each text."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> np.ndarray:
        points, table = _code_points(text), self._points
        if not len(table):
            return np.full(len(points), UNKNOWN, "int32")
        # A corpus can be one text of many millions of characters.
        place = np.minimum(np.searchsorted(table, points), len(table) - 1)
        return np.where(table[place] == points, place, UNKNOWN).astype("int32")

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of some ids."""
        return "".join(self.alphabet[i] if i >= 0 else REPLACEMENT for i in ids)

    def save(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Returns the alphabet."""
        return {"alphabet": self.alphabet}


@dataclasses.dataclass(frozen=True)
class Bytes:
    """One token a byte of UTF-8.

    Example:

    >>> Bytes().encode(["é"])[0].tolist()
    [195, 169]
    """

    kind: str = dataclasses.field(default="bytes", init=False)

    def tokens(self) -> list[str]:
        """Returns the bytes in hexadecimal."""
        return [f"<0x{byte:02X}>" for byte in range(256)]

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns int32 ids `(bytes,)` of each text."""
        raw = (text.encode("utf-8", errors="surrogatepass") for text in texts)
        return [np.frombuffer(part, "uint8").astype("int32") for part in raw]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of some ids; bytes that are no UTF-8 are replaced."""
        return bytes(i for i in ids if i >= 0).decode("utf-8", errors="replace")

    def save(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Returns nothing: all byte vocabularies are the same."""
        return {}


@dataclasses.dataclass(frozen=True)
class Kmers:
    """One token a window of `k` letters.

    The windows begin at 0, `stride`, 2 `stride`, ...; the letters behind the last
    window are tokens one by one, so that nothing of a sequence is lost.

    Args:
        words: The windows and the single letters, by id.
        k: Letters of a window.
        stride: Letters from one window to the next: 1 for all windows, k for windows
            that do not overlap.
        uppercase: Whether small letters count as capitals.

    Example:

    >>> kmers = Kmers(all_kmers("ACGT", 3), k=3, stride=3)
    >>> [kmers.tokens()[i] for i in kmers.encode(["ACGTAcC"])[0]]
    ['ACG', 'TAC', 'C']
    """

    words: tuple[str, ...]
    k: int
    stride: int
    uppercase: bool = True
    kind: str = dataclasses.field(default="kmers", init=False)

    def tokens(self) -> list[str]:
        """Returns the windows and letters."""
        return list(self.words)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns int32 ids of each text."""
        return [
            np.array([self._ids.get(word, UNKNOWN) for word in self.split(text)], "i4")
            for text in texts
        ]

    def split(self, text: str) -> list[str]:
        """Cuts a sequence into windows and what is left of it."""
        return split_kmers(
            text.upper() if self.uppercase else text, k=self.k, stride=self.stride
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the sequence; an unknown window counts for its new letters."""
        new = REPLACEMENT * self.stride
        parts: list[str] = []
        for i in ids:
            word = self.words[i] if i >= 0 else new
            parts.append(
                word[-self.stride :] if parts and len(word) == self.k else word
            )
        return "".join(parts)

    def save(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Returns all there is to know."""
        return {
            "words": list(self.words),
            "k": self.k,
            "stride": self.stride,
            "uppercase": self.uppercase,
        }


def split_kmers(text: str, *, k: int, stride: int) -> list[str]:
    """Cuts a sequence into windows of k letters and the single letters behind them.

    Example:

    >>> split_kmers("ACGTA", k=3, stride=1)
    ['ACG', 'CGT', 'GTA']
    """
    windows = range(0, len(text) - k + 1, stride)
    end = windows[-1] + k if windows else 0
    return [text[i : i + k] for i in windows] + list(text[end:])


def all_kmers(alphabet: str, k: int) -> tuple[str, ...]:
    """Returns the letters of an alphabet, then all words of k of them, sorted.

    Example:

    >>> all_kmers("AB", 2)
    ('A', 'B', 'AA', 'AB', 'BA', 'BB')
    """
    letters = tuple(sorted(set(alphabet)))
    if k == 1:
        return letters
    return (*letters, *map("".join, itertools.product(letters, repeat=k)))


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), "<u4")
