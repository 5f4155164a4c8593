"""What objectives have to know of a vocabulary's tokens."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tflearn.backbones import Backbone
from tflearn.backbones.text import TextEncoder
from tflearn.support.errors import BackboneError, ConfigError

_SPACE = "\u2581"  # SentencePiece writes a space like this.
_BYTE_SPACE = "\u0120"  # And byte pairs write it like this.


def text_encoder(backbone: Backbone, objective: str) -> TextEncoder:
    """Returns the encoder of a backbone of text.

    Raises:
        ConfigError: It takes something else.
    """
    if not isinstance(backbone.encoder, TextEncoder):
        raise ConfigError(
            f"the objective '{objective}' needs a backbone of text",
            received=f"{backbone.origin}, a backbone of kind '{backbone.kind}'",
        )
    return backbone.encoder


def encoder_decoder(backbone: Backbone, objective: str) -> Any:
    """Returns the encoder-decoder that a backbone belongs to.

    Raises:
        BackboneError: There is no decoder.
    """
    if backbone.seq2seq is None:
        raise BackboneError(
            f"the objective '{objective}' needs an encoder-decoder",
            received=backbone.origin,
            expected="T5Backbone or BartBackbone of KerasHub",
            fix="take objectives.masked_lm for an encoder, causal_lm for a decoder",
        )
    return backbone.seq2seq


def vocabulary_size(backbone: Backbone) -> int:
    """Returns how many tokens a backbone can embed, at least its tokenizer's."""
    model = backbone.model
    # KerasHub's ELECTRA spells it like no other.
    size = getattr(model, "vocabulary_size", getattr(model, "vocab_size", None))
    encoder = text_encoder(backbone, "language")
    return max(int(size or 0), int(encoder.tokenizer.vocabulary_size()))


def feature_output(backbone: Backbone, features: str) -> str | int | None:
    """Returns which of a backbone's outputs some features are, by name or number.

    Raises:
        ConfigError: The backbone does not give them.
    """
    outputs: Any = backbone.model.output
    found = backbone.features(outputs).get(features)
    if found is None:
        raise ConfigError(
            "the backbone does not give features of each token",
            received=", ".join(backbone.features(outputs)),
            expected=features,
        )
    if outputs is found:
        return None
    named = outputs.items() if isinstance(outputs, dict) else enumerate(outputs)
    return next(name for name, tensor in named if tensor is found)


def mask_token(encoder: TextEncoder, objective: str) -> int:
    """Returns the id of the token that stands for a masked one.

    Raises:
        BackboneError: The tokenizer has none.
    """
    found = getattr(encoder.tokenizer, "mask_token_id", None)
    if found is None:
        raise BackboneError(
            f"the objective '{objective}' needs a mask token",
            received=f"{type(encoder.tokenizer).__name__} without one",
            expected="a tokenizer with mask_token_id, such as BERT's",
            fix="for a trained tokenizer, add 'mask' to its special_tokens; for a "
            "decoder such as GPT-2, take objectives.causal_lm",
        )
    return int(found)


def special_ids(encoder: TextEncoder) -> np.ndarray:
    """Returns the ids of all tokens that stand for no text, sorted int `(n,)`."""
    packing, tokenizer = encoder.packing, encoder.tokenizer
    declared = getattr(tokenizer, "special_token_ids", None) or ()
    named = [
        getattr(tokenizer, f"{role}_token_id", None)
        for role in ("pad", "unk", "mask", "cls", "sep", "start", "end")
    ]
    around = (*packing.start, *packing.separator, *packing.end)
    # What pads is special only where a token was declared for it.
    found = [*declared, *named, *around]
    return np.unique([int(i) for i in found if i is not None]).astype("int64")


def ordinary_ids(encoder: TextEncoder) -> np.ndarray:
    """Returns the ids of all tokens that stand for text, sorted int `(n,)`."""
    every = np.arange(encoder.tokenizer.vocabulary_size())
    return np.setdiff1d(every, special_ids(encoder))


def continues_word(encoder: TextEncoder) -> np.ndarray:
    """Tells which tokens go on with the word before them.

    Known are WordPiece (`##ing`), byte pairs and SentencePiece, whose words begin
    with a space.

    Args:
        encoder: Of a backbone of text.

    Returns:
        bool `(vocabulary,)`.

    Raises:
        ConfigError: The vocabulary does not say where words begin.
    """
    texts = token_texts(encoder.tokenizer)
    if any(text.startswith("##") for text in texts):
        found = [text.startswith("##") and len(text) > 2 for text in texts]
    elif any(text.startswith((_SPACE, _BYTE_SPACE)) for text in texts):
        # A byte that begins no word, such as a line feed, is a token of its own.
        found = [not text.startswith((_SPACE, _BYTE_SPACE, "\u010a")) for text in texts]
    else:
        raise ConfigError(
            "this vocabulary does not say where words begin",
            received=type(encoder.tokenizer).__name__,
            expected="WordPiece, byte pairs or SentencePiece",
            fix="set whole_word = False",
        )
    result = np.array(found)
    result[special_ids(encoder)] = False
    return result


def token_bytes(tokenizer: Any) -> np.ndarray | None:
    """Counts the bytes of text that each token stands for.

    The sum over a text's tokens is its length in UTF-8 for byte pairs, bytes and
    characters; for WordPiece and SentencePiece it is that of the normalised text,
    each space between words counted once.

    Args:
        tokenizer: Of KerasHub or trained.

    Returns:
        float32 `(vocabulary,)`, 0 for special tokens; None for a vocabulary that is
        none of these.
    """
    count = _counter(tokenizer)
    if count is None:
        return None
    sizes = np.array([count(text) for text in token_texts(tokenizer)], "float32")
    special = list(getattr(tokenizer, "special_token_ids", None) or ())
    unknown = getattr(tokenizer, "unk_token_id", None)
    sizes[[i for i in [*special, unknown] if i is not None]] = 0
    return sizes


def token_texts(tokenizer: Any) -> list[str]:
    """Returns the text of every token as the vocabulary writes it."""
    return [
        str(tokenizer.id_to_token(number))
        for number in range(tokenizer.vocabulary_size())
    ]


def _counter(tokenizer: Any) -> Any:
    """Returns what counts the bytes of a token's text, by the kind of tokenizer."""
    units = getattr(tokenizer, "units", None)
    kind = getattr(units, "kind", None)
    names = {base.__name__ for base in type(tokenizer).__mro__}
    if kind == "bpe" or "BytePairTokenizer" in names:
        # Each of 256 letters stands for a byte.
        return len
    if kind == "bytes" or "ByteTokenizer" in names:
        return lambda text: 1
    if kind == "unigram" or "SentencePieceTokenizer" in names:
        return _piece_bytes
    if kind == "wordpiece" or "WordPieceTokenizer" in names:
        return _word_piece_bytes
    if kind == "kmers":
        return functools.partial(_window_letters, units)
    return _utf8 if kind == "characters" else None


def _utf8(text: str) -> int:
    return len(text.encode("utf-8", errors="surrogatepass"))


def _piece_bytes(text: str) -> int:
    is_byte = len(text) == 6 and text.startswith("<0x") and text.endswith(">")
    return 1 if is_byte else _utf8(text.replace(_SPACE, " "))


def _word_piece_bytes(text: str) -> int:
    continues = text.startswith("##") and len(text) > 2
    return _utf8(text) - 2 if continues else _utf8(text) + 1


def _window_letters(units: Any, text: str) -> int:
    # A window repeats all but its last letters.
    return units.stride if len(text) == units.k else len(text)
