"""Causal language modelling: each token is predicted from those before it."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np

from tflearn.backbones import Backbone
from tflearn.backbones.text import TextEncoder
from tflearn.data.examples import Examples, TextExamples
from tflearn.heads.language_model import LanguageModel
from tflearn.objectives.language import isolation, packing, scores, tokens
from tflearn.objectives.pretext import Batch, Pretext, SelfSupervised
from tflearn.support.errors import ConfigError, nearest

PACKINGS = ("documents", "stream", "none")


def causal_lm(
    *,
    length: int | None = None,
    packing: str = "documents",
    tie_embeddings: bool | None = None,
) -> SelfSupervised:
    """Predicts the next token.

    Args:
        length: Places of a row: how many tokens it predicts. None: what the backbone
            takes. Not for `none`, whose rows are as long as their texts.
        packing: `documents`: several texts share a row and do not see each other,
            positions begin anew in each, longer texts are divided. `stream`: all
            texts are put end to end; training takes windows from anywhere in it,
            other splits are covered once by consecutive ones. `none`: one text a row,
            padded.
        tie_embeddings: Whether logits come from the token embedding. None: where the
            backbone can do that, else from an output layer.

    Returns:
        The objective. Its metrics: `loss` in nats a token, `perplexity`,
        `bits_per_byte`, `accuracy`.

    Raises:
        ConfigError: There is no such packing, or the length does not go with it.

    References:
        Krell et al. 2021, https://arxiv.org/abs/2107.02027 (packing)
    """
    if packing not in PACKINGS:
        raise ConfigError(
            "causal_lm.packing is unknown",
            received=packing,
            expected=", ".join(PACKINGS),
            nearest=nearest(packing, PACKINGS),
        )
    if length is not None and (length < 1 or packing == "none"):
        raise ConfigError(
            "causal_lm.length is the number of places in a row",
            received=f"length={length}, packing='{packing}'",
            expected="at least 1; None for packing='none'",
        )
    return SelfSupervised(
        name="causal_lm",
        inputs=("text",),
        bind=functools.partial(_bind, length, packing, tie_embeddings),
        headline="loss",
        any_length=packing != "none",
    )


def _bind(
    length: int | None, mode: str, tie_embeddings: bool | None, backbone: Backbone
) -> Pretext:
    encoder = tokens.text_encoder(backbone, "causal_lm")
    length = _checked_length(length, encoder)
    isolation.check_causal(backbone, encoder)
    deployed = LanguageModel(
        backbone.model,
        tied=tie_embeddings,
        vocabulary_size=tokens.vocabulary_size(backbone),
        output=tokens.feature_output(backbone, "sequence"),
        name="causal_lm",
    )
    isolated = mode == "documents"
    sizes = tokens.token_bytes(encoder.tokenizer)
    return Pretext(
        model=_isolated(backbone, encoder, deployed) if isolated else deployed,
        deployed=deployed,
        features="sequence",
        make_batch=functools.partial(_make_batch, encoder, isolated),
        arrange=functools.partial(_arrange, encoder, mode, length),
        loss=scores.loss,
        metrics=scores.metrics,
        statistics=functools.partial(scores.statistics, bytes_of_token=sizes),
        summarize=scores.summarize,
    )


def _isolated(
    backbone: Backbone, encoder: TextEncoder, deployed: LanguageModel
) -> keras.Model:
    """Returns the model for packed rows; its layers are those of the deployed one."""
    model = isolation.isolate(backbone, encoder)
    inputs = backbone.new_inputs()
    logits = deployed.logits(deployed.features_of(model(inputs)))
    return keras.Model(inputs, logits, name="causal_lm")


def _checked_length(length: int | None, encoder: TextEncoder) -> int:
    if length is not None and length > encoder.max_length:
        raise ConfigError(
            "causal_lm.length is more than the backbone takes",
            received=length,
            expected=f"at most {encoder.max_length} tokens",
        )
    return length or encoder.max_length


def _arrange(
    encoder: TextEncoder,
    mode: str,
    length: int,
    examples: TextExamples,
    targets: np.ndarray | None,
) -> Examples:
    if mode == "documents":
        return packing.PackedRows(examples, encoder, length=length)
    if mode == "stream":
        return packing.Windows(examples, encoder, length=length)
    return examples


def _make_batch(
    encoder: TextEncoder,
    isolated: bool,
    examples: Any,
    indices: np.ndarray,
    rng: np.random.Generator,
) -> Batch:
    if isinstance(examples, packing.LanguageRows):
        rows = examples.rows(np.asarray(indices), rng)
        inputs = examples.named(rows, isolated=isolated)
        return inputs, rows.targets, packing.weights_of(rows)
    return _padded_batch(encoder, examples, indices)


def _padded_batch(
    encoder: TextEncoder, examples: TextExamples, indices: np.ndarray
) -> Batch:
    """Makes a batch of one text a row, as the examples pad it."""
    inputs: Any = examples.batch(indices)
    ids = inputs[encoder.input_names["token_ids"]]
    lengths = np.minimum([len(examples.ids[i]) for i in indices], ids.shape[1])
    places = np.arange(ids.shape[1])[None, :]
    first = ids.shape[1] - lengths if encoder.packing.pad_left else 0 * lengths
    last = first + lengths - 1
    # The last place predicts nothing: its target would be the first of the row.
    weights = (places >= first[:, None]) & (places < last[:, None])
    return inputs, np.roll(ids, -1, axis=1), weights.astype("float32")
