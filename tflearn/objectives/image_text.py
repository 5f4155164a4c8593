"""Image-text pretraining: which caption belongs to which image (CLIP)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tflearn.backbones import Backbone, TextEncoder
from tflearn.data.examples import ImageExamples
from tflearn.objectives import contrastive
from tflearn.objectives.captions import CaptionedImages
from tflearn.objectives.objective import choose_features, pooled
from tflearn.objectives.pretext import Batch, Pretext, SelfSupervised
from tflearn.objectives.views import image_shape
from tflearn.support.errors import ConfigError

Shape = tuple[int | None, ...]
_TOWER = "text_backbone"
# The paper keeps the factor of the cosines from growing beyond this.
_LARGEST_FACTOR = 100.0


def image_text(
    *,
    text_backbone: Callable[[], Backbone],
    dim: int = 128,
    temperature: float = 0.07,
    learn_temperature: bool = True,
    max_length: int | None = None,
    truncate: bool = False,
    views: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
) -> SelfSupervised:
    """Contrastive pretraining on images and their captions.

    The experiment's backbone takes the images, `data.Data.target` names the captions.
    The text tower's layers lie under `head/text_backbone/`. Rows of one batch with
    the same caption are not pushed apart.

    Args:
        text_backbone: Makes the backbone of the captions.
        dim: Size of the common space.
        temperature: Divides the cosines, or its start where it is learned.
        learn_temperature: Whether it is trained, as its logarithm.
        max_length: Longest caption in tokens; None: what the text backbone takes.
        truncate: Whether longer captions are cut; otherwise they are an error.
        views: From uint8 images and a generator to such images, such as
            `Views(min_area=0.9, jitter=0.0, grayscale=0.0)`; None leaves them.

    Returns:
        The objective.

    Raises:
        ConfigError: A value is out of its range.

    References:
        Radford et al. 2021, https://arxiv.org/abs/2103.00020
    """
    contrastive.positive_temperature(temperature)
    if dim < 1:
        raise ConfigError("image_text.dim is a size", received=dim)
    scale = functools.partial(
        CosineScale, 1 / temperature, learned=learn_temperature, name="cosine_scale"
    )
    return SelfSupervised(
        name="image_text",
        inputs=("image",),
        target_kind="text",
        bind=functools.partial(
            _bind, text_backbone, dim, scale, (max_length, truncate), views
        ),
        headline="loss",
    )


@keras.saving.register_keras_serializable(package="tflearn")
class CosineScale(keras.layers.Layer):
    """Gives vectors one length: `x / |x| * factor`, `factor <= 100`.

    Args:
        factor: The length, or its start where it is learned; positive.
        learned: Whether the length is trained, as its logarithm.
        name: Name of the layer.
        trainable: Whether the length, if it is learned, is trained.
        dtype: Dtype or dtype policy; None takes the global policy.

    Example:

    >>> scaled = CosineScale(10.0)(np.array([[3.0, 4.0]]))
    >>> np.asarray(scaled).round(3).tolist()
    [[6.0, 8.0]]
    """

    def __init__(
        self,
        factor: float,
        *,
        learned: bool = True,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        self.factor = factor
        self.learned = learned

    def build(self, input_shape: Shape) -> None:
        """Creates the logarithm of the factor, if it is learned."""
        if self.learned:
            self.log_factor = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(math.log(self.factor)),
                name="log_factor",
                autocast=False,
            )

    def call(self, inputs: Any) -> Any:
        """Scales the last axis; float32 in and out, as the losses are."""
        factor: Any = self.factor
        if self.learned:
            factor = ops.exp(ops.cast(self.log_factor, "float32"))
        units = ops.normalize(ops.cast(inputs, "float32"), axis=-1)
        return ops.minimum(factor, _LARGEST_FACTOR) * units

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Returns the shape of the inputs, float32."""
        return keras.KerasTensor(inputs.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        own = {"factor": self.factor, "learned": self.learned}
        return super().get_config() | own


def _bind(
    text_backbone: Callable[[], Backbone],
    dim: int,
    scale: Callable[[], CosineScale],
    limits: tuple[int | None, bool],
    views: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None,
    backbone: Backbone,
) -> Pretext:
    tower, encoder = _text_tower(text_backbone)
    max_length, truncate = limits
    images = keras.Input(image_shape(backbone), name="images")
    texts = tower.new_inputs()
    features = choose_features(backbone, "auto")
    of_images = pooled(backbone, images, features=features)
    of_texts = pooled(
        tower, texts, features=choose_features(tower, "auto"), name="text_pooling"
    )
    project = functools.partial(keras.layers.Dense, dim, use_bias=False)
    # The factor on one side scales the cosines; a loss has no weights of its own.
    sides = [
        scale()(project(name="image_projection")(of_images)),
        CosineScale(1.0, learned=False, name="unit_length")(
            project(name="text_projection")(of_texts)
        ),
    ]
    outputs = ops.stack(sides, axis=1)
    return Pretext(
        model=keras.Model({"images": images, **texts}, outputs, name="image_text"),
        features=features,
        arrange=functools.partial(
            _arrange, encoder, max_length=max_length, truncate=truncate
        ),
        make_batch=functools.partial(_make_batch, views),
        loss=functools.partial(contrastive.PairLoss, "info_nce"),
        encoders={"text_encoder": encoder},
        metrics=_metrics,
        statistics=_statistics,
        summarize=_summarize,
    )


def _text_tower(text_backbone: Callable[[], Backbone]) -> tuple[Backbone, TextEncoder]:
    tower = text_backbone()
    encoder = getattr(tower, "encoder", None)
    if not isinstance(encoder, TextEncoder):
        raise ConfigError(
            "image_text.text_backbone makes a backbone of texts",
            received=getattr(tower, "origin", type(tower).__name__),
            expected="a factory such as @text/backbones.preset",
        )
    # A plain model of the same layers: two parts of a network cannot both be named
    # `backbone`, and what a class builds of its configuration would be.
    model = keras.Model(tower.model.input, tower.model.output, name=_TOWER)
    return dataclasses.replace(tower, model=model), encoder


def _arrange(
    encoder: TextEncoder,
    examples: ImageExamples,
    targets: np.ndarray | None,
    *,
    max_length: int | None,
    truncate: bool,
) -> CaptionedImages:
    if targets is None:
        raise ConfigError(
            "image_text needs captions", fix="name their column in data.Data.target"
        )
    return CaptionedImages(
        examples, targets, encoder, max_length=max_length, truncate=truncate
    )


def _make_batch(
    views: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None,
    examples: CaptionedImages,
    indices: np.ndarray,
    rng: np.random.Generator,
) -> Batch:
    pixels = examples.images.pixels(indices)
    pixels = pixels if views is None else views(pixels, rng)
    images = examples.images.scale(pixels)
    inputs = {"images": images, **examples.captions(indices)}
    return inputs, examples.numbers[indices]


def _metrics() -> list[keras.metrics.Metric]:
    return [
        keras.metrics.MeanMetricWrapper(_text_found, name="text_retrieval_accuracy")
    ]


def _text_found(examples: Any, pairs: Any) -> Any:
    return contrastive.sides_found(pairs, examples)[0]


def _statistics(pairs: Any, examples: Any, weights: Any) -> dict[str, Any]:
    del weights
    texts, images = contrastive.sides_found(pairs, examples)
    loss = contrastive.info_nce(pairs, examples)
    return {"loss": loss, "texts_found": texts, "images_found": images}


def _summarize(mean: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "loss": mean["loss"],
        "text_retrieval_accuracy": mean["texts_found"],
        "image_retrieval_accuracy": mean["images_found"],
    }
