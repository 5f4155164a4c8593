"""Span corruption: an encoder-decoder restores what was cut out of a text."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np

from tflearn.backbones import Backbone
from tflearn.backbones.text import TextEncoder
from tflearn.data.examples import TextExamples
from tflearn.heads.encoder_decoder import EncoderDecoder
from tflearn.objectives.language import scores, tokens
from tflearn.objectives.language.spans import Spans, corrupt
from tflearn.objectives.pretext import Batch, Pretext, SelfSupervised
from tflearn.support.errors import BackboneError, ConfigError

_SENTINEL = re.compile(r"<extra_id_(\d+)>")
_MOST_SENTINELS = 100


def span_corruption(
    *,
    rate: float = 0.15,
    mean_length: float = 3.0,
    decoder_start: int | None = None,
    tie_embeddings: bool | None = None,
) -> SelfSupervised:
    """Restores spans that were cut out, chosen anew every time a text is seen.

    A sentinel stands in the place of each span; the targets are the sentinels, each
    followed by its span, and the end token. Sentinels are the tokens `<extra_id_0>`,
    `<extra_id_1>`, ... of the vocabulary; without such, the ids that the backbone has
    beyond its tokenizer's (T5: the last of them first, at most 100); without such,
    the mask token for every span.

    Args:
        rate: Share of the tokens that are cut out.
        mean_length: Mean number of tokens of a span.
        decoder_start: Id that the decoder begins with. None: the padding token, as
            for T5.
        tie_embeddings: Whether logits come from the token embedding. None: where the
            backbone can do that, else from an output layer.

    Returns:
        The objective. Its metrics: `loss` in nats a token of the targets,
        `perplexity`, `accuracy`.

    Raises:
        ConfigError: A number is out of its range.

    References:
        Raffel et al. 2020, https://arxiv.org/abs/1910.10683
    """
    spans = Spans(rate=rate, mean_length=mean_length)
    return SelfSupervised(
        name="span_corruption",
        inputs=("text",),
        bind=functools.partial(_bind, spans, decoder_start, tie_embeddings),
        headline="loss",
    )


def _bind(
    spans: Spans,
    decoder_start: int | None,
    tie_embeddings: bool | None,
    backbone: Backbone,
) -> Pretext:
    encoder = tokens.text_encoder(backbone, "span_corruption")
    whole = tokens.encoder_decoder(backbone, "span_corruption")
    size = int(getattr(whole, "vocabulary_size", 0))
    start = encoder.packing.pad if decoder_start is None else decoder_start
    corruptor = Corruptor(
        encoder,
        spans,
        sentinels=_sentinels(encoder, size, spans),
        decoder_start=start,
    )
    return Pretext(
        model=EncoderDecoder(
            whole, decoder_prompt=(start,), tied=tie_embeddings, name="span_corruption"
        ),
        make_batch=corruptor,
        loss=scores.loss,
        metrics=scores.metrics,
        statistics=scores.statistics,
        summarize=scores.summarize,
    )


class Corruptor:
    """Makes batches of texts with spans cut out.

    Args:
        encoder: Of the backbone.
        spans: How much is cut out.
        sentinels: What stands in the place of each span, int `(n,)`.
        decoder_start: Id that the decoder begins with.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        spans: Spans,
        *,
        sentinels: np.ndarray,
        decoder_start: int,
    ) -> None:
        self._packing = encoder.packing
        self._names = encoder.input_names
        self._spans = spans
        self._sentinels = sentinels
        self._decoder_start = decoder_start

    def __call__(
        self, examples: TextExamples, indices: np.ndarray, rng: np.random.Generator
    ) -> Batch:
        """Returns inputs of encoder and decoder, targets and weights."""
        arrays: Any = examples.batch(np.asarray(indices))
        ids = arrays[self._names["token_ids"]]
        real = arrays[self._names["padding_mask"]] > 0
        pairs = [
            self._corrupt(row[mask], rng) for row, mask in zip(ids, real, strict=True)
        ]
        noise, spans = self._spans.most(ids.shape[1])
        width = noise + spans + len(self._packing.end)
        encoded, encoded_mask = self._filled([x for x, _ in pairs], ids.shape[1])
        targets, weights = self._filled([x for _, x in pairs], width)
        begin = np.full((len(ids), 1), self._decoder_start, "int32")
        inputs = {
            "encoder_token_ids": encoded,
            "encoder_padding_mask": encoded_mask,
            "decoder_token_ids": np.concatenate([begin, targets[:, :-1]], axis=1),
            # The decoder sees its first token even where there is nothing to restore.
            "decoder_padding_mask": np.concatenate(
                [np.ones_like(begin), weights[:, :-1]], axis=1
            ),
        }
        return inputs, targets, weights.astype("float32")

    def _corrupt(
        self, ids: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns a text with sentinels and special tokens, and its targets."""
        start, end = len(self._packing.start), len(self._packing.end)
        inner = ids[start : len(ids) - end]
        chosen = self._spans.choose(len(inner), rng)
        if not chosen.any():
            return ids, ids[:0]
        text, cut = corrupt(inner, chosen, self._sentinels)
        behind = ids[len(ids) - end :]
        return (
            np.concatenate([ids[:start], text, behind]),
            np.concatenate([cut, behind]),
        )

    def _filled(
        self, rows: list[np.ndarray], width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        ids = np.full((len(rows), width), self._packing.pad, "int32")
        mask = np.arange(width) < np.array([len(row) for row in rows])[:, None]
        ids[mask] = np.concatenate(rows)
        return ids, mask.astype("int32")


def _sentinels(encoder: TextEncoder, size: int, spans: Spans) -> np.ndarray:
    """Returns an id for each span of the longest text."""
    _, needed = spans.most(encoder.max_length)
    found = sentinels_of(encoder, size)
    if not found:
        mask = getattr(encoder.tokenizer, "mask_token_id", None)
        if mask is None:
            raise BackboneError(
                "span_corruption has no token to put in the place of a span",
                received=f"{type(encoder.tokenizer).__name__} of "
                f"{encoder.tokenizer.vocabulary_size()} tokens, backbone of {size}",
                expected="tokens <extra_id_0>, ..., room behind the vocabulary, or a "
                "mask token",
                fix="raise the backbone's vocabulary_size by 100, or declare 'mask' "
                "among the special_tokens of a trained tokenizer",
            )
        found = [mask] * needed
    if len(found) < needed:
        raise ConfigError(
            "there are fewer sentinels than spans in the longest text",
            received=f"{len(found)} sentinels, {needed} spans in {encoder.max_length} "
            "tokens",
            fix="raise span_corruption.mean_length, or lower the backbone's max_length",
        )
    return np.array(found[:needed])


def sentinels_of(encoder: TextEncoder, size: int) -> list[int]:
    """Returns the ids of `<extra_id_0>`, `<extra_id_1>`, ... as far as there are any.

    Args:
        encoder: Of the backbone.
        size: Tokens that the backbone can embed.
    """
    texts = tokens.token_texts(encoder.tokenizer)
    named = {
        int(match.group(1)): number
        for number, text in enumerate(texts)
        if (match := _SENTINEL.fullmatch(text))
    }
    if named:
        return [named[number] for number in sorted(named)]
    room = min(size - len(texts), _MOST_SENTINELS)
    return list(range(len(texts) + room - 1, len(texts) - 1, -1))
