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
    tokens = read(model, encoder, prompts)
    if not is_encoder_decoder(model):
        _check_beginnings(prompts, tokens)
        return tokens
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


def read(
    model: keras.Model, encoder: TextEncoder, prompts: Sequence[str]
) -> list[np.ndarray]:
    """Tokenizes prompts, too long or empty ones too.

    Args:
        model: As for `tokenize`, as are `encoder` and `prompts`.
        encoder: Its encoder.
        prompts: Texts.

    Returns:
        int32 ids, `(length,)` each: with an end token where the model reads a text,
        without one where the text is to go on.
    """
    if is_encoder_decoder(model):
        size = int(model.output.shape[-1])
        return sentinels.tokenize(encoder, prompts, size=size)
    packing = dataclasses.replace(encoder.packing, end=())
    going_on = dataclasses.replace(encoder, packing=packing)
    return list(going_on.tokenize(list(prompts)).ids)


def most_new_tokens(model: keras.Model, encoder: TextEncoder) -> int | None:
    """Returns how many tokens a model can add; None for any number."""
    if not is_encoder_decoder(model):
        return None
    return encoder.max_length - len(decoder_prompt(model, encoder))


def decoder_prompt(model: Any, encoder: TextEncoder) -> tuple[int, ...]:
    """Returns what the decoder of an encoder-decoder is given before its own tokens."""
    # A model that does not say what its decoder begins with is taken for a T5.
    return getattr(model, "decoder_prompt", (encoder.packing.pad,))


def _check_beginnings(prompts: Sequence[str], tokens: Sequence[np.ndarray]) -> None:
    for row, ids in enumerate(tokens):
        if not len(ids):
            raise ConfigError(
                "an empty prompt gives the model nothing to go on from",
                received=f"prompt {row}: {prompts[row]!r}",
                fix="give a prompt, or declare the special token 'start' for the "
                "tokenizer that the model is trained with",
            )
