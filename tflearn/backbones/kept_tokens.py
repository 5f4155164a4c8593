"""Tokens of a large corpus, kept for the next start of a run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tflearn.support import cache, files
from tflearn.support.ragged import Ragged
from tflearn.support.safety.arrays import map_npy

Rows = tuple[Ragged, Ragged | None]

#: Shorter corpora are tokenized in a moment.
WORTH_CHARACTERS = 1_000_000
#: What all kept tokens together may take.
LIMIT_BYTES = 2**33
# Another one when tokens are made or written in another way.
_FORMAT = "1"
_LIBRARIES = ("keras-hub", "tokenizers", "sentencepiece")


def kept(
    tokenize: Callable[[], Rows],
    tokenizer: Any,
    texts: Sequence[str],
    *settings: str | bytes,
) -> Rows:
    """Reads the tokens that an earlier start made of the same texts, or makes them.

    Args:
        tokenize: Makes token ids and segments.
        tokenizer: The tokenizer; one that cannot be saved has no fingerprint, and
            nothing of it is kept.
        texts: The texts.
        *settings: All that tokens depend on besides.

    Returns:
        Token ids and segments; mapped from files if they had been made.
    """
    characters = sum(map(len, texts))
    if characters < WORTH_CHARACTERS or not hasattr(tokenizer, "save_assets"):
        return tokenize()
    whole = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", errors="surrogatepass")
        whole.update(len(encoded).to_bytes(8, "big") + encoded)
    key = files.digest(_FORMAT, *_of_tokenizer(tokenizer), *settings, whole.digest())
    return cache.reuse(
        "tokens", key, make=tokenize, read=_read, write=_write, limit_bytes=LIMIT_BYTES
    )


def _of_tokenizer(tokenizer: Any) -> Iterator[bytes | str]:
    """Gives all that a tokenizer depends on: its files, its settings, its libraries."""
    yield type(tokenizer).__qualname__
    config = tokenizer.get_config() if hasattr(tokenizer, "get_config") else {}
    # Keras counts the names that it gives through the life of a process.
    said = {name: value for name, value in config.items() if name != "name"}
    yield json.dumps(said, sort_keys=True, default=str)
    yield from map(importlib.metadata.version, _LIBRARIES)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_assets(folder)
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.is_file():
                yield path.name
                yield path.read_bytes()


def _write(rows: Rows, folder: pathlib.Path) -> None:
    ids, segments = rows
    np.save(folder / "offsets.npy", ids.offsets)
    np.save(folder / "ids.npy", ids.flat)
    if segments is not None:
        np.save(folder / "segments.npy", segments.flat)


def _read(folder: pathlib.Path) -> Rows:
    offsets = map_npy(folder / "offsets.npy")
    segments = None
    if (folder / "segments.npy").exists():
        segments = Ragged(map_npy(folder / "segments.npy"), offsets)
    return Ragged(map_npy(folder / "ids.npy"), offsets), segments
