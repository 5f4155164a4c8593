"""Supervised text to text: an encoder-decoder learns to write the target column."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from tflearn.backbones import Backbone
from tflearn.backbones.text import TextEncoder
from tflearn.data.examples import TextExamples
from tflearn.heads.encoder_decoder import EncoderDecoder
from tflearn.objectives.language import scores, tokens
from tflearn.objectives.language.text_pairs import TextPairs, checked_limit
from tflearn.objectives.pretext import Batch, Pretext, SelfSupervised
from tflearn.support.errors import ConfigError


def seq2seq(
    *,
    max_length: int | None = None,
    truncate: bool = False,
    decoder_start: int | None = None,
    tie_embeddings: bool | None = None,
) -> SelfSupervised:
    """Learns to turn the texts of `data.Data.input` into those of `data.Data.target`.

    The decoder is given a start and predicts the target and the end token, as the
    architecture is used in KerasHub: T5 starts from the padding token; BART, whose
    texts have a start token, from the end token followed by the start token. Of these
    tokens that are given, none counts in loss or metrics.

    Args:
        max_length: Longest target in tokens, the end token included. None: what the
            decoder takes.
        truncate: Whether longer targets are cut; otherwise they are an error.
        decoder_start: Id that the decoder begins with. None: as said above.
        tie_embeddings: Whether logits come from the token embedding. None: where the
            backbone can do that, else from an output layer.

    Returns:
        The objective. Its metrics: `loss` in nats a token of the targets, the end
        included; `perplexity`; `accuracy` of tokens; `exact_match`, the share of
        texts that greedy decoding writes without a mistake (each token is the
        likeliest one, given those before it).

    Raises:
        ConfigError: `data.Data.target` is not declared.

    References:
        Sutskever et al. 2014, https://arxiv.org/abs/1409.3215
    """
    return SelfSupervised(
        name="seq2seq",
        inputs=("text",),
        target_kind="text",
        bind=functools.partial(
            _bind, (max_length, truncate), decoder_start, tie_embeddings
        ),
        headline="loss",
    )


def _bind(
    limits: tuple[int | None, bool],
    decoder_start: int | None,
    tie_embeddings: bool | None,
    backbone: Backbone,
) -> Pretext:
    encoder = tokens.text_encoder(backbone, "seq2seq")
    whole = tokens.encoder_decoder(backbone, "seq2seq")
    end = _end(encoder)
    prompt = _prompt(encoder, end, decoder_start)
    max_length, truncate = limits
    limit = checked_limit(encoder, max_length, len(prompt))
    return Pretext(
        model=EncoderDecoder(
            whole, decoder_prompt=prompt, tied=tie_embeddings, name="seq2seq"
        ),
        arrange=functools.partial(
            _arrange, encoder, end=end, max_length=limit, truncate=truncate
        ),
        make_batch=functools.partial(_make_batch, prompt, encoder.packing.pad),
        loss=scores.loss,
        metrics=scores.metrics,
        statistics=_statistics,
        summarize=_summarize,
    )


def _end(encoder: TextEncoder) -> int:
    found = getattr(encoder.tokenizer, "end_token_id", None)
    if encoder.packing.end:
        found = encoder.packing.end[0]
    if found is None:
        raise ConfigError(
            "seq2seq needs an end token, or no text would ever end",
            received=f"{type(encoder.tokenizer).__name__} without one",
            fix="declare 'end' among the special_tokens of the tokenizer",
        )
    return int(found)


def _prompt(encoder: TextEncoder, end: int, start: int | None) -> tuple[int, ...]:
    """Returns what the decoder is given before the target."""
    packing = encoder.packing
    if start is None and packing.start:
        start = end
    if start is None:
        start = getattr(encoder.tokenizer, "pad_token_id", None)
    if start is None:
        raise ConfigError(
            "seq2seq needs a token that the decoder begins with",
            received=f"{type(encoder.tokenizer).__name__} without a padding token",
            fix="declare 'pad' among the special_tokens of the tokenizer, or bind "
            "objectives.seq2seq.decoder_start to an id",
        )
    return (int(start), *packing.start)


def _arrange(
    encoder: TextEncoder,
    examples: TextExamples,
    targets: np.ndarray | None,
    *,
    end: int,
    max_length: int,
    truncate: bool,
) -> TextPairs:
    if targets is None:
        raise ConfigError(
            "seq2seq needs texts to learn", fix="name their column in data.Data.target"
        )
    return TextPairs(
        examples, targets, encoder, end=end, max_length=max_length, truncate=truncate
    )


def _make_batch(
    prompt: tuple[int, ...],
    pad: int,
    examples: TextPairs,
    indices: np.ndarray,
    rng: np.random.Generator,
) -> Batch:
    """Makes inputs of encoder and decoder, targets and weights; nothing is random."""
    del rng
    inputs: Any = examples.batch(indices)
    width = examples.width(next(iter(inputs.values())).shape[1])
    ids = [examples.ids[index] for index in np.asarray(indices).tolist()]
    lengths = np.array([len(row) for row in ids])[:, None]
    rows = np.full((len(ids), len(prompt) + width), pad, "int32")
    rows[:, : len(prompt)] = prompt
    places = np.arange(rows.shape[1])[None, :] - len(prompt)
    real = (places >= 0) & (places < lengths)
    rows[real] = np.concatenate(ids)
    inputs = inputs | {
        "decoder_token_ids": rows[:, :-1],
        "decoder_padding_mask": (places < lengths)[:, :-1].astype("int32"),
    }
    return inputs, rows[:, 1:], real[:, 1:].astype("float32")


def _statistics(logits: Any, targets: Any, weights: Any) -> dict[str, Any]:
    found = scores.statistics(logits, targets, weights)
    exact = ops.equal(found["correct"], found["tokens"])
    return found | {"exact": ops.cast(exact, "float32")}


def _summarize(mean: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return scores.summarize(mean) | {"exact_match": mean["exact"]}
