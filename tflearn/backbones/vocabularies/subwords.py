"""Pieces of words: WordPiece and byte pairs by `tokenizers`, unigram by SentencePiece.

Training gives the same vocabulary for the same corpus in every process. That is why
unigram comes from SentencePiece: the trainer of `tokenizers` sums in the order of its
threads. And that is why WordPiece is told its alphabet: left alone it numbers the
letters in the order of a hash map, and equal counts are merged by number.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tflearn.backbones.vocabularies.units import REPLACEMENT, UNKNOWN
from tflearn.support import files
from tflearn.support.errors import BackboneError

_RUST_FILE = "tokenizer.json"
_PROTO_FILE = "vocabulary.spm"
_OUT_OF_VOCABULARY = "[UNK]"
_PREFIX = "##"
# As BERT's: beyond this, rare letters are unknown; twice as many tokens are taken.
_MOST_LETTERS = 1000


@dataclasses.dataclass(frozen=True)
class RustUnits:
    """WordPiece or byte pairs, run by the library `tokenizers`.

    Args:
        kind: `wordpiece` or `bpe`.
        description: The library's own JSON.
    """

    kind: str
    description: str = dataclasses.field(repr=False)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        import tokenizers

        return tokenizers.Tokenizer.from_str(self.description)

    @functools.cached_property
    def _shift(self) -> int:
        # WordPiece cannot do without a token for what it does not know: its first.
        return 1 if self.kind == "wordpiece" else 0

    def tokens(self) -> list[str]:
        """Returns the pieces."""
        size = self._tokenizer.get_vocab_size()
        return [self._tokenizer.id_to_token(i) for i in range(self._shift, size)]

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns int32 ids `(length,)` of each text."""
        encoded = self._tokenizer.encode_batch_fast(
            list(texts), add_special_tokens=False
        )
        return [np.array(one.ids, "int32") - self._shift for one in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text; WordPiece forgets capitals and spaces at signs."""
        if self.kind == "bpe":
            return self._tokenizer.decode([i for i in ids if i >= 0])
        text = self._tokenizer.decode(
            [i + self._shift for i in ids], skip_special_tokens=False
        )
        return text.replace(_OUT_OF_VOCABULARY, REPLACEMENT)

    def save(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Writes the library's JSON."""
        files.write_text(pathlib.Path(folder) / _RUST_FILE, self.description)
        return {}

    @classmethod
    def load(cls, kind: str, folder: str | os.PathLike[str]) -> RustUnits:
        """Reads what `save` wrote."""
        path = pathlib.Path(folder) / _RUST_FILE
        return cls(kind, path.read_text(encoding="utf-8"))


@dataclasses.dataclass(frozen=True)
class SentencePieces:
    """A unigram model, run by SentencePiece.

    Args:
        proto: SentencePiece's own format.
    """

    proto: bytes = dataclasses.field(repr=False)
    kind: str = dataclasses.field(default="unigram", init=False)

    @functools.cached_property
    def _processor(self) -> Any:
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_proto=self.proto)

    def tokens(self) -> list[str]:
        """Returns the pieces; `▁` stands for a space."""
        # Piece 0 is SentencePiece's own unknown.
        return [self._processor.id_to_piece(i) for i in range(1, len(self._processor))]

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns int32 ids `(length,)` of each text."""
        return [
            np.array(ids, "int32") - 1 for ids in self._processor.encode(list(texts))
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text; runs of spaces are one space, letters are NFKC."""
        parts: list[str] = []
        known: list[int] = []
        # SentencePiece shows an unknown piece as ' ⁇ ', spaces included.
        for i in [*ids, UNKNOWN]:
            if i >= 0:
                known.append(i + 1)
            else:
                pieces = [self._processor.id_to_piece(j) for j in known]
                parts.append("".join(pieces).replace("\u2581", " "))
                known = []
        return REPLACEMENT.join(parts).removeprefix(" ")

    def save(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Writes the model as SentencePiece does."""
        (pathlib.Path(folder) / _PROTO_FILE).write_bytes(self.proto)
        return {}

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> SentencePieces:
        """Reads what `save` wrote."""
        return cls((pathlib.Path(folder) / _PROTO_FILE).read_bytes())


def train_wordpiece(
    texts: Iterable[str], *, size: int, lowercase: bool = True
) -> RustUnits:
    """Trains pieces of words, the most frequent pair of pieces merged first.

    Args:
        texts: The corpus.
        size: Most pieces.
        lowercase: Whether capitals and accents are dropped.

    Returns:
        The pieces.

    Raises:
        BackboneError: The letters of the corpus alone are more.
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    corpus = list(texts)
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    counts = collections.Counter()
    for text in corpus:
        counts.update(normalizer.normalize_str(text))
    common = sorted(counts, key=lambda letter: (-counts[letter], letter))
    letters = sorted(x for x in common[:_MOST_LETTERS] if not x.isspace())
    fixed = [_OUT_OF_VOCABULARY, *letters, *(_PREFIX + letter for letter in letters)]
    if len(fixed) - 1 > size:
        raise _too_small(size, len(fixed) - 1, "the letters, at word starts and within")
    made = tokenizers.Tokenizer(models.WordPiece(unk_token=_OUT_OF_VOCABULARY))
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size + 1,
        special_tokens=fixed,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix=_PREFIX,
        show_progress=False,
    )
    made.train_from_iterator(corpus, trainer)
    # A new one: the trained one would find `fixed` in texts as special tokens.
    clean = tokenizers.Tokenizer(
        models.WordPiece(made.get_vocab(), unk_token=_OUT_OF_VOCABULARY)
    )
    clean.normalizer = normalizer
    clean.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    clean.decoder = decoders.WordPiece(prefix=_PREFIX, cleanup=False)
    return RustUnits("wordpiece", clean.to_str())


def train_bpe(texts: Iterable[str], *, size: int) -> RustUnits:
    """Trains byte pairs: bytes, and the most frequent pairs merged.

    Args:
        texts: The corpus.
        size: Most tokens, 256 bytes included.

    Returns:
        The pairs; no text is unknown to them.

    Raises:
        BackboneError: There is no room for the bytes.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    if size < len(letters):
        raise _too_small(size, len(letters), "the bytes")
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return RustUnits("bpe", made.to_str())


def train_unigram(texts: Iterable[str], *, size: int) -> SentencePieces:
    """Trains SentencePiece's unigram model (Kudo, 2018, arXiv:1804.10959).

    Args:
        texts: The corpus; a line of it is a sentence, as SentencePiece wants it.
        size: Most pieces; a small corpus gives fewer.

    Returns:
        The pieces.

    Raises:
        BackboneError: SentencePiece refuses the corpus or the size.
    """
    import sentencepiece

    written = io.BytesIO()
    lines = (line for text in texts for line in text.splitlines() if line.strip())
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=written,
            model_type="unigram",
            vocab_size=size + 1,
            hard_vocab_limit=False,
            # All of the corpus: by default, longer lines are left out in silence.
            max_sentence_length=2**30,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            # How threads share the work decides how floating-point numbers add up.
            num_threads=8,
            minloglevel=3,
        )
    except (RuntimeError, OSError) as error:
        raise BackboneError(
            "SentencePiece cannot make pieces of this corpus",
            received=f"vocabulary_size for {size} pieces ({error})",
            fix="give another vocabulary_size or more text",
        ) from error
    return SentencePieces(written.getvalue())


def _too_small(size: int, least: int, what: str) -> BackboneError:
    return BackboneError(
        "the vocabulary is too small",
        received=f"room for {size} tokens besides the special ones",
        expected=f"at least {least}: {what}",
        fix="raise vocabulary_size",
    )
