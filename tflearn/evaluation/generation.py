"""Texts from language models and encoder-decoders, with KerasHub's samplers.

Where KerasHub has a task for the architecture, keys and values are cached: the prompt
is one forward pass and so is each new token, over one position. Elsewhere each new
token costs a pass over the text so far, or over as much of it as the model takes. The
whole loop is compiled once a call, for one shape of batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.backbones import TextEncoder, import_keras_hub
from tflearn.backbones.text import Tokens
from tflearn.evaluation import cached, decoding, sentinels
from tflearn.evaluation.decoding import is_encoder_decoder
from tflearn.evaluation.prompts import (
    decoder_prompt,
    most_new_tokens,
    read,
    tokenize,
)
from tflearn.evaluation.samplers import SAMPLERS, make_sampler, seeded
from tflearn.support.errors import ConfigError

__all__ = [
    "SAMPLERS",
    "Generated",
    "generate",
    "generate_from",
    "is_encoder_decoder",
    "make_sampler",
    "most_new_tokens",
    "read",
    "tokenize",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generated:
    """A text that a model made.

    Args:
        text: The new text, without the prompt.
        ids: The new tokens, int32 `(length,)`, without a final end token.
        ended: Whether the model ended the text itself.
        how: Whether keys and values were cached, and by what or why not.
    """

    text: str
    ids: np.ndarray
    ended: bool
    how: str


def generate(
    model: keras.Model,
    encoder: TextEncoder,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    sampler: Any = "greedy",
    seed: int = 0,
    batch_size: int = 16,
) -> list[Generated]:
    """Continues texts, or with an encoder-decoder makes a text of each.

    A text ends at `max_new_tokens`, or at the end token if the tokenizer declares one.
    With a causal model, one that outgrows what the model takes is continued from its
    last tokens.

    Args:
        model: A functional model of the encoder's inputs, with an encoder-decoder also
            of `decoder_token_ids` and `decoder_padding_mask`; its output are logits of
            the next token at each position, `(batch, length, vocabulary)`.
        encoder: Turns the prompts into tokens.
        prompts: Beginnings of texts; an empty one needs a start token. Or what the
            encoder of an encoder-decoder reads.
        max_new_tokens: Most tokens to add.
        sampler: What `make_sampler` takes, or a `keras_hub.samplers.Sampler`.
        seed: Decides what random samplers draw, together with the batches.
        batch_size: Texts at a time.

    Returns:
        One text a prompt, in their order.

    Raises:
        BackboneError: The model takes other inputs than the encoder makes.
        ConfigError: A prompt is empty or too long, or a number is out of range.
    """
    return generate_from(
        model,
        encoder,
        tokenize(model, encoder, prompts),
        max_new_tokens=max_new_tokens,
        sampler=sampler,
        seed=seed,
        batch_size=batch_size,
    )


def generate_from(
    model: keras.Model,
    encoder: TextEncoder,
    tokens: Sequence[np.ndarray],
    *,
    max_new_tokens: int,
    sampler: Any = "greedy",
    seed: int = 0,
    batch_size: int = 16,
) -> list[Generated]:
    """Does what `generate` does, from the tokens of the prompts.

    Args:
        model: As for `generate`, as are the arguments that follow.
        encoder: Its encoder.
        tokens: What `tokenize` returned.
        max_new_tokens: Most tokens to add.
        sampler: How tokens are chosen.
        seed: Decides what is drawn.
        batch_size: Texts at a time.

    Returns:
        One text a prompt, in their order.
    """
    most = most_new_tokens(model, encoder)
    _check_numbers(max_new_tokens, batch_size, most)
    if not tokens:
        return []
    sampler = make_sampler(sampler) if isinstance(sampler, str) else sampler
    sampler = seeded(sampler, seed)
    beginnings = list(tokens)
    if most is not None:
        beginnings = [np.array(decoder_prompt(model, encoder))] * len(tokens)
    length = max(map(len, beginnings)) + max_new_tokens
    loop, how = _loop(model, encoder, sampler, length)
    # KerasHub's beams count the likelihood of tokens that the prompt then replaces.
    beams = isinstance(sampler, import_keras_hub().samplers.BeamSampler)
    found: dict[int, Generated] = {}
    for rows in _batches(tokens, batch_size, equal_lengths=beams and most is None):
        # Repeated rows keep the shape of the batch, for which the loop is compiled.
        padded = (rows * batch_size)[: min(batch_size, len(tokens))]
        read = {} if most is None else _collated(encoder, tokens, padded)
        buffers = loop.run([beginnings[row] for row in padded], read)
        for row, buffer in zip(rows, buffers, strict=False):
            start = len(beginnings[row])
            new = buffer[start : start + max_new_tokens]
            found[row] = _cut(new, loop, encoder, how)
    return [found[row] for row in range(len(tokens))]


def _loop(
    model: keras.Model, encoder: TextEncoder, sampler: Any, length: int
) -> tuple[decoding.Loop, str]:
    task, how = cached.task_of(model, encoder, length=length)
    if task is None:
        return decoding.PlainLoop(model, encoder, sampler, length=length), how
    return cached.CachedLoop(task, model, encoder, sampler, length=length), how


def _check_numbers(max_new_tokens: int, batch_size: int, most: int | None) -> None:
    if max_new_tokens < 1 or batch_size < 1:
        raise ConfigError(
            "nothing can be generated in these numbers",
            received=f"max_new_tokens={max_new_tokens}, batch_size={batch_size}",
            expected="at least 1",
        )
    if most is not None and max_new_tokens > most:
        raise ConfigError(
            "the decoder does not make texts of this length",
            received=f"max_new_tokens={max_new_tokens}",
            expected=f"at most {most}",
        )


def _collated(
    encoder: TextEncoder, tokens: Sequence[np.ndarray], rows: Sequence[int]
) -> dict[str, np.ndarray]:
    chosen = Tokens(ids=[tokens[row] for row in rows])
    # One length for all batches: every other one would be another compilation.
    return encoder.collate(chosen, max(map(len, tokens)))


def _batches(
    tokens: Sequence[np.ndarray], batch_size: int, *, equal_lengths: bool
) -> Iterator[list[int]]:
    # Prompts of one length together: the loop starts behind the shortest one.
    rows = sorted(range(len(tokens)), key=lambda row: (len(tokens[row]), row))
    batch: list[int] = []
    for row in rows:
        differs = batch and len(tokens[row]) != len(tokens[batch[0]])
        if len(batch) == batch_size or (equal_lengths and differs):
            yield batch
            batch = []
        batch.append(row)
    yield batch


def _cut(
    ids: np.ndarray, loop: decoding.Loop, encoder: TextEncoder, how: str
) -> Generated:
    ends = np.flatnonzero(ids == loop.stop) if loop.stop is not None else []
    if len(ends):
        ids = ids[: ends[0]]
    size = int(loop.network.output.shape[-1])
    text = sentinels.decode(encoder, ids, size=size)
    return Generated(text=text, ids=ids, ended=bool(len(ends)), how=how)
