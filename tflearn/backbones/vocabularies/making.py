"""Functions that a declaration names to make a tokenizer.

backbones.hub.tokenizer = @vocabularies.bpe
vocabularies.bpe.texts = @data.training_texts
vocabularies.bpe.vocabulary_size = 4096
data.training_texts.data = @data.Data
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Sequence

from tflearn.backbones.vocabularies import subwords
from tflearn.backbones.vocabularies.kept import trained_once
from tflearn.backbones.vocabularies.special import check_roles
from tflearn.backbones.vocabularies.trained import TrainedTokenizer, load_tokenizer
from tflearn.backbones.vocabularies.units import (
    Bytes,
    Characters,
    Kmers,
    all_kmers,
    split_kmers,
)
from tflearn.support import storage
from tflearn.support.errors import BackboneError

Texts = Callable[[], Iterable[str]]

#: What BERT has; without `mask` nothing can be masked, without `start` and `separator`
#: nothing is put around a text.
BERT = ("pad", "unknown", "start", "separator", "mask")
_MOST_KMERS = 1_000_000


def wordpiece(
    texts: Texts,
    *,
    vocabulary_size: int,
    special_tokens: Sequence[str] = BERT,
    lowercase: bool = True,
) -> TrainedTokenizer:
    """Pieces of words, as BERT has them.

    Args:
        texts: Gives the corpus, such as `tflearn.data.training_texts`.
        vocabulary_size: Most tokens, special ones included.
        special_tokens: Roles; see `vocabularies.ROLES`. `unknown` must be there.
        lowercase: Whether capitals and accents are dropped.

    Returns:
        The tokenizer.

    Raises:
        BackboneError: The vocabulary is too small, or the corpus is empty.

    Example:

    >>> corpus = ["a quick fox", "a quicker fox"] * 3
    >>> made = wordpiece(lambda: corpus, vocabulary_size=60)
    >>> made.detokenize(made(["A quick fox"])[0])
    'a quick fox'
    """
    roles = _with_unknown(special_tokens, "wordpiece")

    def train(corpus: Sequence[str]) -> TrainedTokenizer:
        units = subwords.train_wordpiece(
            corpus, size=vocabulary_size - len(roles), lowercase=lowercase
        )
        return TrainedTokenizer(units=units, special_tokens=roles)

    settings = ("wordpiece", vocabulary_size, roles, lowercase)
    return trained_once(train, _corpus(texts), *settings)


def bpe(
    texts: Texts,
    *,
    vocabulary_size: int,
    special_tokens: Sequence[str] = ("pad", "end"),
) -> TrainedTokenizer:
    """Byte pairs, as GPT-2 has them: nothing is unknown, every text comes back.

    Args:
        texts: Gives the corpus, such as `tflearn.data.training_texts`.
        vocabulary_size: Most tokens, special ones and 256 bytes included.
        special_tokens: Roles; see `vocabularies.ROLES`.

    Returns:
        The tokenizer.

    Raises:
        BackboneError: The vocabulary is too small, or the corpus is empty.

    Example:

    >>> made = bpe(lambda: ["low lower lowest"], vocabulary_size=264)
    >>> made.detokenize(made(["Größe: lowest"])[0])
    'Größe: lowest'
    """
    roles = check_roles(special_tokens)

    def train(corpus: Sequence[str]) -> TrainedTokenizer:
        units = subwords.train_bpe(corpus, size=vocabulary_size - len(roles))
        return TrainedTokenizer(units=units, special_tokens=roles)

    return trained_once(train, _corpus(texts), "bpe", vocabulary_size, roles)


def unigram(
    texts: Texts,
    *,
    vocabulary_size: int,
    special_tokens: Sequence[str] = ("pad", "unknown", "end"),
) -> TrainedTokenizer:
    """SentencePiece's unigram pieces, as T5 has them.

    Texts are normalised by NFKC, runs of spaces and line breaks become one space.

    Args:
        texts: Gives the corpus, such as `tflearn.data.training_texts`.
        vocabulary_size: Most tokens, special ones included; a small corpus gives fewer.
        special_tokens: Roles; see `vocabularies.ROLES`. `unknown` must be there.

    Returns:
        The tokenizer.

    Raises:
        BackboneError: SentencePiece refuses the size, or the corpus is empty.
    """
    roles = _with_unknown(special_tokens, "unigram")

    def train(corpus: Sequence[str]) -> TrainedTokenizer:
        units = subwords.train_unigram(corpus, size=vocabulary_size - len(roles))
        return TrainedTokenizer(units=units, special_tokens=roles)

    return trained_once(train, _corpus(texts), "unigram", vocabulary_size, roles)


def characters(
    texts: Texts,
    *,
    special_tokens: Sequence[str] = ("pad", "unknown"),
    vocabulary_size: int | None = None,
) -> TrainedTokenizer:
    """The characters of the corpus, by code point.

    Args:
        texts: Gives the corpus, such as `tflearn.data.training_texts`.
        special_tokens: Roles; see `vocabularies.ROLES`. Without `unknown`, a text with
            a character that the corpus lacks is an error.
        vocabulary_size: Most tokens, special ones included: the most frequent
            characters. None: all.

    Returns:
        The tokenizer.

    Raises:
        BackboneError: The corpus is empty, or there is no room for a character.
    """
    roles = check_roles(special_tokens)
    counts: collections.Counter[str] = collections.Counter()
    for text in _corpus(texts):
        counts.update(text)
    kept = _most_frequent(counts, vocabulary_size, len(roles))
    return TrainedTokenizer(
        units=Characters("".join(sorted(kept))), special_tokens=roles
    )


def utf8_bytes(*, special_tokens: Sequence[str] = ("pad",)) -> TrainedTokenizer:
    """The 256 bytes: needs no corpus, knows every text.

    Args:
        special_tokens: Roles; see `vocabularies.ROLES`.

    Returns:
        The tokenizer.

    Example:

    >>> utf8_bytes().vocabulary_size()
    257
    """
    return TrainedTokenizer(units=Bytes(), special_tokens=check_roles(special_tokens))


def kmers(
    *,
    k: int,
    stride: int = 1,
    alphabet: str | None = None,
    texts: Texts | None = None,
    vocabulary_size: int | None = None,
    special_tokens: Sequence[str] = BERT,
    uppercase: bool = True,
) -> TrainedTokenizer:
    """Windows of k letters, for DNA, RNA and proteins.

    Give `alphabet` for all windows that there can be, or `texts` for those that occur.
    What is left behind the last window is tokenized letter by letter.

    Args:
        k: Letters of a window.
        stride: Letters from one window to the next, 1 to k.
        alphabet: The letters, such as `'ACGT'`; a window with another is unknown.
        texts: Gives the corpus, such as `tflearn.data.training_texts`.
        vocabulary_size: With `texts`: most tokens, the most frequent ones.
        special_tokens: Roles; see `vocabularies.ROLES`.
        uppercase: Whether small letters count as capitals.

    Returns:
        The tokenizer.

    Raises:
        BackboneError: The numbers do not go together.

    Example:

    >>> kmers(k=3, alphabet="ACGT", special_tokens=("pad",)).vocabulary_size()
    69
    """
    roles = check_roles(special_tokens)
    if k < 1 or not 1 <= stride <= k:
        raise BackboneError(
            "these windows leave letters out",
            received=f"k={k}, stride={stride}",
            expected="k of at least 1, a stride from 1 to k",
        )
    if (alphabet is None) == (texts is None):
        raise BackboneError(
            "k-mers are those of an alphabet or those of a corpus",
            received="both" if texts else "neither",
            expected="one of alphabet and texts",
        )
    if alphabet is not None:
        words = _of_alphabet(alphabet.upper() if uppercase else alphabet, k)
        if vocabulary_size not in (None, len(words) + len(roles)):
            raise BackboneError(
                "the alphabet gives another number of k-mers",
                received=f"vocabulary_size={vocabulary_size}",
                expected=len(words) + len(roles),
                fix="leave vocabulary_size out",
            )
    else:
        counts: collections.Counter[str] = collections.Counter()
        for text in _corpus(texts or list):
            whole = text.upper() if uppercase else text
            counts.update(split_kmers(whole, k=k, stride=stride))
            # Any of them can be left over behind the windows of another text.
            counts.update(set(whole))
        kept = _most_frequent(counts, vocabulary_size, len(roles))
        words = tuple(sorted(kept, key=lambda word: (len(word), word)))
    units = Kmers(words, k=k, stride=stride, uppercase=uppercase)
    return TrainedTokenizer(units=units, special_tokens=roles)


def of_run(
    path: str | os.PathLike[str], *, encoder: str = "encoder"
) -> TrainedTokenizer:
    """The tokenizer of an earlier run, for another architecture.

    Args:
        path: The run directory.
        encoder: `encoder`, that of the backbone, or `text_encoder`, that of the
            captions that a backbone of images was trained with.

    Returns:
        The tokenizer.

    Raises:
        BackboneError: The directory holds no tokenizer that was made from a corpus.
    """
    try:
        run = storage.fetched(path)
        return load_tokenizer(run / "model" / encoder / "tokenizer")
    except OSError as error:
        raise BackboneError(
            "this run has no tokenizer that was made from a corpus",
            received=str(path),
            expected="the directory of a finished run that made its tokenizer",
        ) from error


def _corpus(texts: Texts) -> list[str]:
    found = list(texts())
    if not any(found):
        raise BackboneError(
            "there is no text to make a vocabulary from", received=f"{len(found)} texts"
        )
    return found


def _with_unknown(special_tokens: Sequence[str], name: str) -> tuple[str, ...]:
    roles = check_roles(special_tokens)
    if "unknown" not in roles:
        raise BackboneError(
            f"{name} cannot do without the special token 'unknown'",
            received=", ".join(roles) or "none",
            fix="add 'unknown', or take bpe or utf8_bytes, which know every text",
        )
    return roles


def _most_frequent(
    counts: collections.Counter[str], size: int | None, num_special: int
) -> list[str]:
    # Ties are decided by the token itself, not by the order of the corpus.
    ordered = sorted(counts, key=lambda token: (-counts[token], token))
    if size is None:
        return ordered
    if size <= num_special:
        raise BackboneError(
            "the vocabulary has no room for tokens of the corpus",
            received=f"vocabulary_size={size}, {num_special} of them special",
        )
    return ordered[: size - num_special]


def _of_alphabet(alphabet: str, k: int) -> tuple[str, ...]:
    number = len(set(alphabet)) ** k
    if not alphabet or number > _MOST_KMERS:
        raise BackboneError(
            "the alphabet does not give a usable number of k-mers",
            received=f"{number:,} of {k} letters of '{alphabet}'",
            expected=f"1 to {_MOST_KMERS:,}",
            fix="lower k, or give texts to take the k-mers that occur",
        )
    return all_kmers(alphabet, k)
