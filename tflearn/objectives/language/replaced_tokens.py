"""Replaced-token detection: a small generator lies, the backbone finds the lies."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tflearn.backbones import Backbone, import_keras_hub
from tflearn.backbones.text import TextEncoder
from tflearn.data.examples import TextExamples
from tflearn.heads.language_model import POSITIONS, LanguageModel
from tflearn.objectives.language import isolation, tokens
from tflearn.objectives.language.masked_lm import Masker
from tflearn.objectives.language.masking import Masking
from tflearn.objectives.pretext import Batch, Pretext, SelfSupervised
from tflearn.support.errors import ConfigError

ORIGINAL = "original_token_ids"
DRAWS = "draws"
#: What the model gives of each example, in this order.
SCORES = (
    "generator_nll",
    "generator_correct",
    "masked",
    "discriminator_nll",
    "discriminator_correct",
    "tokens",
    "replaced",
)


def replaced_tokens(
    *,
    rate: float = 0.15,
    generator_size: float = 0.25,
    generator_layers: int | None = None,
    weight: float = 50.0,
) -> SelfSupervised:
    """Tells for each token whether a small masked language model put it there.

    The generator, trained along and dropped afterwards, fills masked places with
    tokens drawn from what it predicts; the backbone learns from all tokens, not from
    the masked ones alone. The generator has embeddings of its own.

    The draws are made of random numbers that belong to the batch: the same batch gives
    the same replacements for the same weights.

    Args:
        rate: Share of the tokens that are masked.
        generator_size: Width, heads and inner width of the generator relative to the
            backbone's.
        generator_layers: Blocks of the generator; None: as many as the backbone has.
        weight: Weight of the detection against the generator's own loss.

    Returns:
        The objective. Its metrics: `loss`, `generator_loss`, `masked_accuracy`,
        `discriminator_loss`, `accuracy` of the detection, and `replaced`, the share of
        tokens to be found: whoever finds none has an accuracy of 1 minus that.

    Raises:
        ConfigError: A number is out of its range.

    References:
        Clark et al. 2020, https://arxiv.org/abs/2003.10555
    """
    if not 0 < generator_size <= 1 or weight <= 0:
        raise ConfigError(
            "replaced_tokens cannot work with these numbers",
            received=f"generator_size={generator_size}, weight={weight}",
            expected="0 < generator_size <= 1, a positive weight",
        )
    return SelfSupervised(
        name="replaced_tokens",
        inputs=("text", "pair"),
        # What is kept or replaced at random would be no lie of the generator.
        bind=functools.partial(
            _bind,
            Masking(rate=rate, keep=0.0, random=0.0),
            (generator_size, generator_layers),
            weight,
        ),
        headline="loss",
    )


def _bind(
    settings: Masking,
    generator: tuple[float, int | None],
    weight: float,
    backbone: Backbone,
) -> Pretext:
    encoder = tokens.text_encoder(backbone, "replaced_tokens")
    masker = Masker(encoder, settings, whole_word=False, objective="replaced_tokens")
    isolation.check_not_decoder(backbone, "replaced_tokens")
    model, deployed = _models(backbone, encoder, generator)
    return Pretext(
        model=model,
        deployed=deployed,
        features="sequence",
        make_batch=functools.partial(_make_batch, masker, encoder),
        loss=functools.partial(ReplacedTokensLoss, weight),
        metrics=_metrics,
        statistics=_statistics,
        summarize=functools.partial(_summarize, weight),
    )


def _models(
    backbone: Backbone, encoder: TextEncoder, generator: tuple[float, int | None]
) -> tuple[keras.Model, keras.Model]:
    """Returns what is trained, and the backbone with the head that finds lies."""
    name = encoder.input_names["token_ids"]
    inputs = backbone.new_inputs()
    original = keras.Input((None,), dtype="int32", name=ORIGINAL)
    positions = keras.Input((None,), dtype="int32", name=POSITIONS)
    draws = keras.Input((None,), dtype="float32", name=DRAWS)
    mask = backbone.feature_mask(inputs)
    lies = _generator(backbone, encoder, *generator)(
        {
            "token_ids": inputs[name],
            "padding_mask": ops.cast(mask, "int32"),
            "segment_ids": ops.zeros_like(inputs[name]),
            POSITIONS: positions,
        }
    )
    replaced = ReplaceTokens(name="replace_tokens")(original, positions, draws, lies)
    dtype = backbone.model.dtype_policy
    size = backbone.features(backbone.model.output)["sequence"].shape[-1]
    dense = keras.layers.Dense(size, "gelu", dtype=dtype, name="detector")
    logit = keras.layers.Dense(1, dtype="float32", name="detection")

    def found(given: Any) -> Any:
        features = backbone.features(backbone.outputs(given))["sequence"]
        return ops.squeeze(logit(dense(features)), axis=-1)

    scores = ReplacedTokenScores(name="scores")(
        original,
        replaced,
        positions,
        draws,
        lies,
        found({**inputs, name: replaced}),
        mask,
    )
    whole = {**inputs, ORIGINAL: original, POSITIONS: positions, DRAWS: draws}
    alone = backbone.new_inputs()
    return (
        keras.Model(whole, scores, name="replaced_tokens"),
        keras.Model(alone, found(alone), name="replaced_token_detector"),
    )


def _generator(
    backbone: Backbone, encoder: TextEncoder, size: float, layers: int | None
) -> LanguageModel:
    """Makes a masked language model that is like the backbone, but smaller."""
    model = backbone.model
    width = backbone.features(model.output)["sequence"].shape[-1]
    heads = max(1, round(size * getattr(model, "num_heads", max(1, width // 64))))
    hidden = heads * max(1, round(size * width / heads))
    inner = getattr(model, "intermediate_dim", 4 * width)
    electra = import_keras_hub().models.ElectraBackbone(
        vocab_size=tokens.vocabulary_size(backbone),
        num_layers=layers or len(backbone.blocks) or 2,
        num_heads=heads,
        hidden_dim=hidden,
        embedding_dim=hidden,
        intermediate_dim=max(1, round(size * inner)),
        max_sequence_length=encoder.max_length,
        dtype=model.dtype_policy,
    )
    # Its pooler is left out.
    tokenwise = keras.Model(
        electra.input, electra.output["sequence_output"], name="encoder"
    )
    return LanguageModel(tokenwise, masked=True, name="generator")


@keras.saving.register_keras_serializable(package="tflearn")
class ReplaceTokens(keras.layers.Layer):
    """Puts tokens that are drawn from predictions in the places of others."""

    def call(self, ids: Any, positions: Any, draws: Any, logits: Any) -> Any:
        """Replaces tokens.

        Args:
            ids: Token ids, int `(batch, length)`.
            positions: Which to replace, int `(batch, positions)`.
            draws: Uniform numbers in [0, 1), `(batch, positions)`; negative where
                nothing is to be replaced.
            logits: Predictions, `(batch, positions, vocabulary)`.

        Returns:
            Token ids, int32 `(batch, length)`.
        """
        # The first token whose cumulated probability exceeds the number is drawn.
        shares = ops.cumsum(ops.softmax(ops.cast(logits, "float32"), axis=-1), axis=-1)
        # Sums end a little below or above 1.
        above = shares > (draws * 0.999999)[..., None] * shares[..., -1:]
        drawn = ops.cast(ops.argmax(ops.cast(above, "int32"), axis=-1), "int32")
        length = ids.shape[1] or ops.shape(ids)[1]
        places = ops.equal(positions[:, :, None], ops.arange(length)[None, None, :])
        places = ops.logical_and(places, (draws >= 0)[:, :, None])
        chosen = ops.sum(ops.where(places, drawn[:, :, None], 0), axis=1)
        return ops.where(ops.any(places, axis=1), chosen, ops.cast(ids, "int32"))

    def compute_output_spec(self, ids: Any, *args: Any) -> Any:
        """Returns the shape of the ids."""
        return keras.KerasTensor(ids.shape, dtype="int32")


@keras.saving.register_keras_serializable(package="tflearn")
class ReplacedTokenScores(keras.layers.Layer):
    """Sums over the tokens of each example, in the order of `SCORES`."""

    def call(
        self,
        original: Any,
        replaced: Any,
        positions: Any,
        draws: Any,
        logits: Any,
        detections: Any,
        mask: Any,
    ) -> Any:
        """Computes the sums.

        Args:
            original: Token ids of the text, int `(batch, length)`.
            replaced: Token ids that the backbone saw.
            positions: Which were masked, int `(batch, positions)`.
            draws: Negative where fewer were masked, `(batch, positions)`.
            logits: Of the generator, `(batch, positions, vocabulary)`.
            detections: Logit of being replaced, `(batch, length)`.
            mask: Which tokens are real, `(batch, length)`.

        Returns:
            float32 `(batch, 7)`.
        """
        masked = ops.cast(draws >= 0, "float32")
        real = ops.cast(mask, "float32")
        truth = ops.take_along_axis(ops.cast(original, "int32"), positions, axis=1)
        logits = ops.cast(logits, "float32")
        nll = keras.losses.sparse_categorical_crossentropy(
            truth, logits, from_logits=True
        )
        correct = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), truth)
        lies = ops.cast(ops.not_equal(original, replaced), "float32")
        detections = ops.cast(detections, "float32")
        bits = ops.softplus(detections) - lies * detections
        right = ops.equal(detections > 0, lies > 0)
        sums = (
            nll * masked,
            ops.cast(correct, "float32") * masked,
            masked,
            bits * real,
            ops.cast(right, "float32") * real,
            real,
            lies * real,
        )
        return ops.stack([ops.sum(values, axis=1) for values in sums], axis=1)

    def compute_output_spec(self, original: Any, *args: Any) -> Any:
        """Returns the shape `(batch, 7)`."""
        return keras.KerasTensor((original.shape[0], len(SCORES)), dtype="float32")


@keras.saving.register_keras_serializable(package="tflearn")
class ReplacedTokensLoss(keras.losses.Loss):
    """Loss of the generator plus weighted loss of the detection, each per token.

    Args:
        weight: Of the detection.
        name: Name of the loss.
    """

    # Its means are over all masked tokens; see `tflearn.distribution.tf_strategy`.
    needs_whole_batch = True

    def __init__(self, weight: float = 50.0, *, name: str = "replaced_tokens") -> None:
        super().__init__(name=name)
        self.weight = weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of the whole batch; what is given as true is not used."""
        sums = dict(zip(SCORES, ops.unstack(ops.sum(y_pred, axis=0)), strict=True))
        generator = sums["generator_nll"] / ops.maximum(sums["masked"], 1.0)
        detection = sums["discriminator_nll"] / ops.maximum(sums["tokens"], 1.0)
        return generator + self.weight * detection

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"name": self.name, "weight": self.weight}


def _make_batch(
    masker: Masker,
    encoder: TextEncoder,
    examples: TextExamples,
    indices: np.ndarray,
    rng: np.random.Generator,
) -> Batch:
    indices = np.asarray(indices)
    batch: Any = examples.batch(indices)
    inputs, masked = masker(batch, rng)
    draws = np.where(masked.weights > 0, rng.random(masked.weights.shape), -1.0)
    inputs = {
        **inputs,
        ORIGINAL: batch[encoder.input_names["token_ids"]],
        POSITIONS: masked.positions,
        DRAWS: draws.astype("float32"),
    }
    # The model knows itself what is true: it depends on what the generator says.
    return inputs, np.zeros((len(indices), len(SCORES)), "float32")


def _metrics() -> list[keras.metrics.Metric]:
    def share(part: str, whole: str, name: str) -> keras.metrics.Metric:
        one, all_of = SCORES.index(part), SCORES.index(whole)
        return keras.metrics.MeanMetricWrapper(
            lambda _, sums: sums[:, one] / ops.maximum(sums[:, all_of], 1.0), name=name
        )

    return [
        share("discriminator_correct", "tokens", "accuracy"),
        share("generator_correct", "masked", "masked_accuracy"),
    ]


def _statistics(sums: Any, targets: Any, weights: Any) -> dict[str, Any]:
    del targets, weights
    return {name: sums[:, place] for place, name in enumerate(SCORES)}


def _summarize(weight: float, mean: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    with np.errstate(divide="ignore", invalid="ignore"):
        generator = mean["generator_nll"] / mean["masked"]
        detection = mean["discriminator_nll"] / mean["tokens"]
        return {
            "loss": generator + weight * detection,
            "generator_loss": generator,
            "masked_accuracy": mean["generator_correct"] / mean["masked"],
            "discriminator_loss": detection,
            "accuracy": mean["discriminator_correct"] / mean["tokens"],
            "replaced": mean["replaced"] / mean["tokens"],
        }
