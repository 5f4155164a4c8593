"""SimCSE: a text is told from others although dropout changes its features."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tflearn import heads
from tflearn.backbones import Backbone, graph
from tflearn.data.examples import TextExamples
from tflearn.objectives import contrastive
from tflearn.objectives.language import tokens
from tflearn.objectives.objective import choose_features, pooled
from tflearn.objectives.pretext import Batch, Pretext, SelfSupervised
from tflearn.support.errors import BackboneError


def simcse(
    *,
    temperature: float = 0.05,
    features: str = "auto",
    pooling: Callable[..., keras.layers.Layer] | None = None,
    projection: bool = True,
) -> SelfSupervised:
    """Recognises a text seen under another dropout mask among all of a batch.

    Each text goes through the backbone twice, and the two vectors have to find each
    other by their cosines, in both directions. Dropout is off in evaluation, where
    both are the same: the loss then says how far texts lie apart, and the retrieval
    accuracy is 1 unless two texts coincide. Watch it during training.

    Args:
        temperature: Divides the cosines.
        features: Features of the backbone, or `auto`.
        pooling: Pooling layer class or factory; None chooses by the features.
        projection: Whether a dense layer with tanh, dropped after training, stands
            between features and cosines.

    Returns:
        The objective. Its metrics: `loss`, `retrieval_accuracy`.

    Raises:
        ConfigError: The temperature is not positive.

    References:
        Gao et al. 2021, https://arxiv.org/abs/2104.08821
    """
    contrastive.positive_temperature(temperature)
    return SelfSupervised(
        name="simcse",
        inputs=("text", "pair"),
        bind=functools.partial(_bind, temperature, features, pooling, projection),
        headline="loss",
    )


def _bind(
    temperature: float,
    features: str,
    pooling: Callable[..., keras.layers.Layer] | None,
    projection: bool,
    backbone: Backbone,
) -> Pretext:
    tokens.text_encoder(backbone, "simcse")
    _check_dropout(backbone)
    name = choose_features(backbone, features)
    if pooling is None and name == "sequence":
        pooling = heads.MeanPooling
    # One layer for both models, should it have weights.
    layer = pooling and pooling(name="pooling")
    shared = layer and (lambda name: layer)
    inputs = backbone.new_inputs()
    twice = {key: ops.repeat(value, 2, axis=0) for key, value in inputs.items()}
    vectors = pooled(backbone, twice, features=name, pooling=shared)
    if projection:
        size = vectors.shape[-1]
        vectors = keras.layers.Dense(size, "tanh", name="projection")(vectors)
    units = keras.layers.UnitNormalization(name="unit", dtype="float32")(vectors)
    pairs = ops.reshape(units, (-1, 2, units.shape[-1]))
    alone = backbone.new_inputs()
    return Pretext(
        model=keras.Model(inputs, pairs, name="simcse"),
        deployed=keras.Model(
            alone,
            pooled(backbone, alone, features=name, pooling=shared),
            name="sentence_encoder",
        ),
        features=name,
        make_batch=_make_batch,
        loss=functools.partial(
            contrastive.PairLoss, "info_nce", temperature=temperature
        ),
        metrics=_metrics,
        statistics=functools.partial(_statistics, temperature),
        summarize=_summarize,
        arrange=lambda examples, targets: examples.as_compared(),
    )


def _check_dropout(backbone: Backbone) -> None:
    layers = graph.layers_by_path(backbone.model).values()
    rates = [x.rate for x in layers if isinstance(x, keras.layers.Dropout)]
    if not any(rates):
        raise BackboneError(
            "simcse needs a backbone with dropout: it makes two views of a text",
            received=f"{backbone.origin} without",
            fix="build it with dropout=0.1",
        )


def _make_batch(
    examples: TextExamples, indices: np.ndarray, rng: np.random.Generator
) -> Batch:
    del rng  # The two views of a text differ by dropout alone.
    batch = examples.batch(indices)
    tokens_of = np.concatenate(keras.tree.flatten(batch), axis=1)
    # Equal texts have one number, so that they are not pushed apart.
    numbers = np.unique(tokens_of, axis=0, return_inverse=True)[1]
    return batch, numbers.reshape(-1).astype("int32")


def _found(pairs: Any, examples: Any) -> Any:
    first, second = contrastive.sides_found(pairs, examples)
    return (first + second) / 2


def _metrics() -> list[keras.metrics.Metric]:
    def retrieved(examples: Any, pairs: Any) -> Any:
        return _found(pairs, examples)

    return [keras.metrics.MeanMetricWrapper(retrieved, name="retrieval_accuracy")]


def _statistics(
    temperature: float, pairs: Any, examples: Any, weights: Any
) -> dict[str, Any]:
    del weights
    return {
        "loss": contrastive.info_nce(pairs, examples, temperature=temperature),
        "found": _found(pairs, examples),
    }


def _summarize(mean: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"loss": mean["loss"], "retrieval_accuracy": mean["found"]}
