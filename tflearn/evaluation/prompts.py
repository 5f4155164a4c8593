"""What a model is given before it generates: the tokens of prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tflearn.backbones import TextEncoder
from tflearn.evaluation import sentinels
from tflearn.evaluation.decoding import is_encoder_decoder
from tflearn.support.errors import ConfigError


def tokenize(
    model: keras.Model,
    encoder: TextEncoder,
    prompts: Sequence[str],
    *,
    truncate: bool = False,
) -> list[np.ndarray]:
    """Turns prompts into what `generate_from` takes.

    Args:
        model: What texts are generated with.
        encoder: Its encoder.
        prompts: Texts; `<extra_id_0>`, ... in those for an encoder-decoder stand for
            the sentinels of `objectives.span_corruption`.
        truncate: Whether an encoder-decoder reads as much of a text as it takes;
            otherwise a longer one is an error.

    Returns:
        int32 ids, `(length,)` each.

    Raises:
        ConfigError: A prompt is empty, or too long for an encoder.
    """
    if not is_encoder_decoder(model):
        return _beginnings(encoder, prompts)
    tokens = sentinels.tokenize(encoder, prompts, size=int(model.output.shape[-1]))
    limit = encoder.max_length
    for row, ids in enumerate(tokens):
        if len(ids) > limit and not truncate:
            raise ConfigError(
                "a text is longer than the encoder takes",
                received=f"text {row}: {len(ids):,} tokens",
                expected=f"at most {limit:,} tokens, special ones included",
                fix="divide the text, or give truncate=True to cut it",
            )
    return [encoder.packing.cut(x, np.zeros_like(x), limit)[0] for x in tokens]


def most_new_tokens(model: keras.Model, encoder: TextEncoder) -> int | None:
    """Returns how many tokens a model can add; None for any number."""
    if not is_encoder_decoder(model):
        return None
    return encoder.max_length - len(decoder_prompt(model, encoder))


def without_tokens(
    model: keras.Model, encoder: TextEncoder, prompts: Sequence[str]
) -> tuple[int, ...]:
    """Finds the prompts that give a model nothing to go on from.

    Args:
        model: The model.
        encoder: Tokenizes the prompts.
        prompts: The prompts.

    Returns:
        Their positions; none for encoder-decoders, which begin by themselves.
    """
    if is_encoder_decoder(model):
        return ()
    found = _without_end(encoder, prompts)
    return tuple(row for row, ids in enumerate(found) if not len(ids))


def decoder_prompt(model: Any, encoder: TextEncoder) -> tuple[int, ...]:
    """Returns what the decoder of an encoder-decoder is given before its own tokens."""
    # A model that does not say what its decoder begins with is taken for a T5.
    return getattr(model, "decoder_prompt", (encoder.packing.pad,))


def _beginnings(encoder: TextEncoder, prompts: Sequence[str]) -> list[np.ndarray]:
    """Tokenizes beginnings: a text that is to go on has no end token."""
    tokens = _without_end(encoder, prompts)
    for row, ids in enumerate(tokens):
        if not len(ids):
            raise ConfigError(
                "an empty prompt gives the model nothing to go on from",
                received=f"prompt {row}: {prompts[row]!r}",
                fix="give a prompt, or declare the special token 'start' for the "
                "tokenizer that the model is trained with",
            )
    return tokens


def _without_end(encoder: TextEncoder, prompts: Sequence[str]) -> list[np.ndarray]:
    packing = dataclasses.replace(encoder.packing, end=())
    return dataclasses.replace(encoder, packing=packing).tokenize(list(prompts)).ids
