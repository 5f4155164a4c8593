"""Tokenizers made from the corpus, for backbones that are built from scratch.

| function | tokens |
|---|---|
| `wordpiece` | pieces of words, as BERT's |
| `bpe` | byte pairs, as GPT-2's; every text comes back as it was |
| `unigram` | SentencePiece's unigram pieces, as T5's |
| `characters` | the characters of the corpus |
| `utf8_bytes` | the 256 bytes |
| `kmers` | windows of k letters: DNA, proteins |
| `of_run` | the tokenizer of an earlier run |

Example:

>>> tokenizer = characters(lambda: ["abba", "cab"], special_tokens=("pad",))
>>> tokenizer(["cab"])[0].tolist()
[3, 1, 2]
"""

from tflearn.backbones.vocabularies.making import (
    bpe,
    characters,
    kmers,
    of_run,
    unigram,
    utf8_bytes,
    wordpiece,
)
from tflearn.backbones.vocabularies.special import ROLES
from tflearn.backbones.vocabularies.trained import TrainedTokenizer, load_tokenizer

__all__ = [
    "ROLES",
    "TrainedTokenizer",
    "bpe",
    "characters",
    "kmers",
    "load_tokenizer",
    "of_run",
    "unigram",
    "utf8_bytes",
    "wordpiece",
]
