"""KerasHub's tokenizers by quicker ways that give the very same tokens.

| tokenizer | quicker way |
|---|---|
| WordPiece | words are looked up; a new one goes through the library `tokenizers` |
| byte pairs | the `tokenizers` object that KerasHub itself makes, asked for ids alone |
| SentencePiece | KerasHub's call of SentencePiece without the Keras layer around it |

Every use compares a sample of the user's own texts with KerasHub first.
"""

from __future__ import annotations

import itertools
import sys
import unicodedata
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from tflearn.backbones.libraries import import_keras_hub
from tflearn.support.console import say

Tokenize = Callable[[Sequence[str]], Sequence[Sequence[int]]]

#: Fewer texts are left to the tokenizer itself: nothing is gained.
LEAST_TEXTS = 64
_SAMPLE_TEXTS = 48
_SAMPLE_CHARACTERS = 1000
# Words that are kept with their tokens: some 100 MB. Longer ones are rarely met again.
_KEPT_WORDS = 2**19
_KEPT_LENGTH = 64
# What KerasHub calls Chinese characters in the first plane: each is a word.
_CJK = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))
# KerasHub's own limit, in bytes; beyond it a word is unknown.
_WORD_LENGTH = 100

_found: weakref.WeakKeyDictionary[Any, Tokenize | None] = weakref.WeakKeyDictionary()


def quickest(tokenizer: Any, texts: Sequence[str]) -> Tokenize:
    """Returns the quickest way to tokenize that gives what a tokenizer gives.

    Args:
        tokenizer: A KerasHub tokenizer, or anything that is called with texts.
        texts: What is to be tokenized; a sample of it is compared.

    Returns:
        Takes a list of texts and returns rows of ids. The tokenizer itself where there
        is no quicker way, and with a line to the user where that differs.
    """
    if len(texts) < LEAST_TEXTS:
        return tokenizer
    try:
        known = tokenizer in _found
    except TypeError:
        # Neither hashable nor one of KerasHub's.
        return tokenizer
    if not known:
        _found[tokenizer] = _quicker(tokenizer)
    quicker = _found[tokenizer]
    if quicker is None:
        return tokenizer
    different = _difference(tokenizer, quicker, texts)
    if different is None:
        return quicker
    say(
        "note: KerasHub itself tokenizes, which is slower: its tokens differ from the "
        f"quicker way's for {different[:80]!r}"
    )
    _found[tokenizer] = None
    return tokenizer


def sample(texts: Sequence[str]) -> list[str]:
    """Chooses the texts that are compared: some from all over, strange ones first.

    Args:
        texts: All of them.

    Returns:
        Their beginnings.
    """
    # KerasHub takes as long for one as the quicker way for many.
    count = min(_SAMPLE_TEXTS, max(8, len(texts) // 50))
    strange = itertools.islice((x for x in texts if not x.isascii()), count)
    spread = texts[:: max(1, len(texts) // count)]
    return [text[:_SAMPLE_CHARACTERS] for text in [*strange, *spread[:count]]]


def _difference(tokenizer: Any, quicker: Tokenize, texts: Sequence[str]) -> str | None:
    """Returns a text that both tokenize differently."""
    chosen = sample(texts)
    pairs = zip(chosen, tokenizer(chosen), quicker(chosen), strict=True)
    for text, expected, given in pairs:
        if list(map(int, expected)) != list(map(int, given)):
            return text
    return None


def _quicker(tokenizer: Any) -> Tokenize | None:
    if "keras_hub" not in sys.modules:
        # Then it made none of the tokenizers; importing it takes seconds.
        return None
    library = import_keras_hub().tokenizers
    kinds = (
        (library.WordPieceTokenizer, _word_pieces),
        (library.BytePairTokenizer, _byte_pairs),
        (library.SentencePieceTokenizer, _sentence_pieces),
    )
    if not isinstance(tokenizer, tuple(kind for kind, _ in kinds)):
        return None
    if tokenizer.sequence_length or "int" not in str(tokenizer.compute_dtype):
        return None
    return next(make for kind, make in kinds if isinstance(tokenizer, kind))(tokenizer)


def _byte_pairs(tokenizer: Any) -> Tokenize | None:
    import tokenizers

    # A private name: where another version of KerasHub has none, it tokenizes itself.
    inner = getattr(tokenizer, "_tokenizer", None)
    if not isinstance(inner, tokenizers.Tokenizer):
        return None
    return lambda texts: [one.ids for one in inner.encode_batch_fast(list(texts))]


def _sentence_pieces(tokenizer: Any) -> Tokenize:
    own: Any = weakref.ref(tokenizer)
    return lambda texts: own().tokenize(list(texts))


def _word_pieces(tokenizer: Any) -> Tokenize | None:
    if not tokenizer.split or tokenizer.special_tokens_in_strings:
        say(
            "note: KerasHub itself tokenizes, which is slower: the tokenizer takes "
            "special tokens in texts, or does not split them"
        )
        return None
    return WordPieces(tokenizer)


class WordPieces:
    """WordPiece by looking up words.

    A text is cut where KerasHub cuts it wherever it stands: so the tokens of a text
    are those of its pieces. Most pieces have been met before. A new one goes to the
    library `tokenizers` if it is ASCII, where lower case is all there is to case
    folding, and to KerasHub's own tokenizer if not.

    Args:
        tokenizer: KerasHub's. It is not kept alive.
    """

    def __init__(self, tokenizer: Any) -> None:
        import tokenizers

        vocabulary = {t: i for i, t in enumerate(tokenizer.get_vocabulary())}
        model = tokenizers.models.WordPiece(
            vocab=vocabulary,
            unk_token=tokenizer.oov_token,
            max_input_chars_per_word=_WORD_LENGTH,
            continuing_subword_prefix=tokenizer.suffix_indicator,
        )
        self._library = tokenizers.Tokenizer(model)
        self._own = weakref.ref(tokenizer)
        self._lowercase = tokenizer.lowercase
        self._cuts = _Cuts(cjk=tokenizer.split_on_cjk)
        self._ids: dict[str, Sequence[int]] = {"": ()}

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, special tokens not included."""
        rows = [text.translate(self._cuts).split("\n") for text in texts]
        together = itertools.chain.from_iterable
        if len(self._ids) > _KEPT_WORDS:
            self._ids = {"": ()}
        new = set(together(rows)).difference(self._ids)
        self._learn([word for word in new if word.isascii()], self._by_library)
        self._learn([word for word in new if not word.isascii()], self._by_own)
        ids = [list(together(map(self._ids.__getitem__, row))) for row in rows]
        for word in new:
            if len(word) > _KEPT_LENGTH:
                del self._ids[word]
        return ids

    def _learn(self, words: list[str], tokenize: Tokenize) -> None:
        if words:
            self._ids.update(zip(words, map(tuple, tokenize(words)), strict=True))

    def _by_library(self, words: Sequence[str]) -> Sequence[Sequence[int]]:
        folded = [word.lower() if self._lowercase else word for word in words]
        return [one.ids for one in self._library.encode_batch_fast(folded)]

    def _by_own(self, words: Sequence[str]) -> Sequence[Sequence[int]]:
        tokenizer: Any = self._own()
        return [[int(i) for i in row] for row in tokenizer(list(words))]


class _Cuts(dict[int, str]):
    """What `str.translate` puts in the place of each character: line breaks at cuts.

    White space and control characters vanish, signs and Chinese characters become
    pieces of their own. A cut that is missed does no harm: KerasHub cuts there.
    """

    def __init__(self, *, cjk: bool) -> None:
        super().__init__()
        self._cjk = cjk

    def __missing__(self, point: int) -> str:
        self[point] = self._place(point, chr(point))
        return self[point]

    def _place(self, point: int, letter: str) -> str:
        category = unicodedata.category(letter)
        if letter == " " or category in ("Cc", "Cf"):
            return "\n"
        sign = category.startswith("P") or (point < 128 and not letter.isalnum())
        chinese = self._cjk and any(low <= point <= high for low, high in _CJK)
        return f"\n{letter}\n" if sign or chinese else letter
