"""Vocabularies that are trained once and read at every later start of a run."""

from __future__ import annotations

import importlib.metadata
import pathlib
from collections.abc import Callable, Sequence

from tflearn.backbones.vocabularies import subwords
from tflearn.backbones.vocabularies.trained import TrainedTokenizer, load_tokenizer
from tflearn.support import cache, files

# A smaller corpus is trained on in a moment.
_WORTH_CHARACTERS = 200_000
_LIBRARIES = ("tokenizers", "sentencepiece")


def trained_once(
    train: Callable[[Sequence[str]], TrainedTokenizer],
    corpus: Sequence[str],
    *settings: object,
) -> TrainedTokenizer:
    """Trains a tokenizer, or reads the one that the same corpus gave before.

    Args:
        train: Trains it.
        corpus: The texts.
        *settings: All that `train` depends on besides.

    Returns:
        The tokenizer. That of a small corpus is not kept.
    """
    if sum(map(len, corpus)) < _WORTH_CHARACTERS:
        return train(corpus)
    return cache.reuse(
        "vocabularies",
        _fingerprint(corpus, settings),
        make=lambda: train(corpus),
        read=load_tokenizer,
        write=TrainedTokenizer.save_assets,
    )


def _fingerprint(corpus: Sequence[str], settings: Sequence[object]) -> str:
    code = pathlib.Path(subwords.__file__).read_bytes()
    versions = [importlib.metadata.version(name) for name in _LIBRARIES]
    texts = (text.encode("utf-8", errors="surrogatepass") for text in corpus)
    return files.digest(code, *versions, repr(settings), *texts)
