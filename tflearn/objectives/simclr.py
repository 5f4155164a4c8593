"""SimCLR: two views of an image are to be recognised among those of all others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.backbones import Backbone
from tflearn.data.examples import ImageExamples
from tflearn.objectives import contrastive
from tflearn.objectives.objective import choose_features, pooled
from tflearn.objectives.pretext import Batch, Pretext, SelfSupervised
from tflearn.objectives.views import Views, image_shape
from tflearn.support.errors import ConfigError

#: From uint8 images `(batch, height, width, channels)` and a generator to such images.
MakeViews = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def simclr(
    *,
    temperature: float = 0.5,
    projection: Sequence[int] = (128, 64),
    views: MakeViews | None = None,
    features: str = "auto",
    pooling: Callable[..., keras.Layer] | None = None,
) -> SelfSupervised:
    """Contrastive pretraining on images without labels.

    The model takes `(batch, 2, height, width, channels)` and gives `(batch, 2, dim)`;
    a batch of `n` images costs what `2 n` cost in classification. Its metrics depend
    on the size of the batch: among more images the right one is harder to find.

    Args:
        temperature: Divides the cosines; lower looks at the hardest negatives only.
        projection: Sizes of the dense layers behind the pooled features, ReLU between
            them. They are dropped after pretraining.
        views: Makes the views; None for `Views()`.
        features: Features of the backbone, or `auto`.
        pooling: Pooling layer class or factory; None chooses by the features.

    Returns:
        The objective.

    Raises:
        ConfigError: The temperature or a size is not positive.

    References:
        Chen et al. 2020, https://arxiv.org/abs/2002.05709
    """
    contrastive.positive_temperature(temperature)
    if not projection or any(size < 1 for size in projection):
        raise ConfigError(
            "simclr.projection takes the sizes of dense layers",
            received=tuple(projection),
            expected="such as (128, 64)",
        )
    return SelfSupervised(
        name="simclr",
        inputs=("image",),
        bind=functools.partial(
            _bind, temperature, tuple(projection), views or Views(), features, pooling
        ),
        headline="loss",
    )


def _bind(
    temperature: float,
    projection: tuple[int, ...],
    views: MakeViews,
    features: str,
    pooling: Callable[..., keras.Layer] | None,
    backbone: Backbone,
) -> Pretext:
    name = choose_features(backbone, features)
    shape = image_shape(backbone)
    inputs = keras.Input((2, *shape), name="views")
    values = keras.ops.reshape(inputs, (-1, *shape))
    values = pooled(backbone, values, features=name, pooling=pooling)
    for index, size in enumerate(projection):
        last = index == len(projection) - 1
        values = keras.layers.Dense(
            size,
            activation=None if last else "relu",
            use_bias=not last,
            name=f"projection_{index}",
        )(values)
    outputs = keras.ops.reshape(values, (-1, 2, projection[-1]))
    return Pretext(
        model=keras.Model(inputs, outputs, name="simclr"),
        features=name,
        make_batch=functools.partial(_make_batch, views),
        loss=functools.partial(
            contrastive.PairLoss, "nt_xent", temperature=temperature
        ),
        metrics=_metrics,
        statistics=functools.partial(_statistics, temperature),
        summarize=_summarize,
        arrange=lambda examples, targets: examples.as_compared(),
    )


def _make_batch(
    views: MakeViews,
    examples: ImageExamples,
    indices: np.ndarray,
    rng: np.random.Generator,
) -> Batch:
    pixels = np.repeat(examples.pixels(indices), 2, axis=0)
    made = examples.scale(views(pixels, rng))
    pairs = made.reshape(len(indices), 2, *made.shape[1:])
    return pairs, np.asarray(indices, "int32")


def _metrics() -> list[keras.metrics.Metric]:
    return [keras.metrics.MeanMetricWrapper(_found, name="retrieval_accuracy")]


def _found(examples: Any, pairs: Any) -> Any:
    return contrastive.views_found(pairs, examples)


def _statistics(
    temperature: float, pairs: Any, examples: Any, weights: Any
) -> dict[str, Any]:
    del weights
    return {
        "loss": contrastive.nt_xent(pairs, examples, temperature=temperature),
        "found": contrastive.views_found(pairs, examples),
    }


def _summarize(mean: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"loss": mean["loss"], "retrieval_accuracy": mean["found"]}
