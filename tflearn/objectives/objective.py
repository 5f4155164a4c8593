"""The objective of a stage, and the network it makes of a backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tflearn import heads
from tflearn.backbones import Backbone, graph
from tflearn.data import Dataset
from tflearn.support.errors import ConfigError, nearest

# Which features a head prefers, by what a backbone may offer.
_PREFERENCE = ("sequence", "feature_map", "vector", "pooled")
_DEFAULT_POOLING: dict[str, Callable[..., keras.Layer]] = {
    "sequence": heads.MeanPooling,
    "feature_map": heads.GlobalAveragePooling,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """What a stage optimises.

    Args:
        name: Name of the objective.
        target_kind: What targets are: `class`, `multi_label` or `number`.
        head: Called with the number of outputs and `name=`; returns a Keras layer.
        pooling: Called with `name=`; returns a layer from `(batch, length, dim)` or
            `(batch, height, width, dim)` to `(batch, dim)`. None: mean over real
            tokens, global average over feature maps, nothing for vectors.
        features: Which features of the backbone: `sequence`, `pooled`,
            `feature_map`, `vector`, or `auto`.
        loss: Makes the loss from logits; called with whether targets are one-hot.
        metrics: Makes the metrics shown during training; called in the same way.
        one_hot: Whether the loss needs one-hot targets.
        calibrate: Whether to fit a temperature on the validation split.
        teach: Called with the data; returns the targets that training takes instead
            of the labels: float32 `(n, 2 num_outputs + hints)`. The network then has
            `hints` more outputs while it trains. See `tflearn.objectives.distillation`.
    """

    name: str
    target_kind: str
    head: Callable[..., keras.Layer]
    pooling: Callable[..., keras.Layer] | None
    features: str
    loss: Callable[[bool], keras.losses.Loss]
    metrics: Callable[[bool], list[keras.metrics.Metric]]
    one_hot: bool = False
    calibrate: bool = False
    teach: Callable[[Dataset], np.ndarray] | None = None

    # What an objective without labels may choose is settled for one with labels.
    lower_is_better = False
    any_length = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A backbone with a head.

    Args:
        model: The whole that trains, a functional model with a layer `backbone`.
        deployed: What of it is measured and exported: all but the hints.
        backbone: The backbone in it.
        unused: Paths of the backbone's layers that feed no output.
        num_outputs: Size of the last dimension of the deployed model's output.
    """

    model: keras.Model
    deployed: keras.Model
    backbone: Backbone
    unused: frozenset[str]
    num_outputs: int


def attach(
    objective: Objective, backbone: Backbone, *, num_outputs: int, hints: int = 0
) -> Network:
    """Puts an objective's head on a backbone.

    Args:
        objective: Names the features, the pooling and the head.
        backbone: Its layers become part of the network; nothing is copied.
        num_outputs: Number of classes, labels or values.
        hints: Outputs that only training has: a linear map, the layer `hint`, of the
            features that the head gets.

    Returns:
        The network; the output of its deployed model is `(batch, num_outputs)`.

    Raises:
        ConfigError: The backbone does not give the features that are asked for.
    """
    name = choose_features(backbone, objective.features)
    inputs = backbone.new_inputs()
    features = pooled(backbone, inputs, features=name, pooling=objective.pooling)
    outputs = objective.head(num_outputs, name="head")(features)
    if len(outputs.shape) != 2 or outputs.shape[-1] != num_outputs:
        raise ConfigError(
            "the head gives outputs of another shape",
            received=tuple(outputs.shape),
            expected=(None, num_outputs),
            fix="pool the features first, or let the head take num_outputs",
        )
    deployed = keras.Model(inputs, outputs, name=objective.name)
    return Network(
        model=_with_hints(deployed, features, hints) if hints else deployed,
        deployed=deployed,
        backbone=backbone,
        unused=unused_layers(backbone, name),
        num_outputs=num_outputs,
    )


def _with_hints(
    deployed: keras.Model, features: keras.KerasTensor, hints: int
) -> keras.Model:
    # In float32, as the outputs of heads are.
    hint = keras.layers.Dense(hints, name="hint", dtype="float32")(features)
    both = keras.layers.Concatenate(name="output_and_hint", dtype="float32")
    outputs = both([deployed.output, hint])
    return keras.Model(deployed.input, outputs, name=deployed.name)


def choose_features(backbone: Backbone, features: str) -> str:
    """Finds which features of a backbone are meant.

    Args:
        backbone: Offers one or several.
        features: One of them, or `auto`.

    Returns:
        The name of the features.

    Raises:
        ConfigError: The backbone does not give the features that are asked for.
    """
    offered = backbone.features(backbone.model.output)
    if features == "auto":
        return next(name for name in _PREFERENCE if name in offered)
    if features not in offered:
        raise ConfigError(
            "the backbone does not give these features",
            received=features,
            expected=", ".join(offered),
            nearest=nearest(features, offered),
        )
    return features


def pooled(
    backbone: Backbone,
    inputs: Any,
    *,
    features: str,
    pooling: Callable[..., keras.Layer] | None = None,
    name: str = "pooling",
) -> keras.KerasTensor:
    """Runs a backbone and pools its features.

    Args:
        backbone: Its layers are used, nothing is copied.
        inputs: Symbolic inputs, as `new_inputs` of the backbone makes them.
        features: What `choose_features` returned.
        pooling: Called with `name=`; None: the mean over real tokens, global average
            over feature maps, nothing for vectors.
        name: Name of the pooling layer.

    Returns:
        `(batch, dim)`.
    """
    values = backbone.features(backbone.outputs(inputs))[features]
    make = pooling or _DEFAULT_POOLING.get(features)
    if make is None:
        return values
    mask = backbone.feature_mask(inputs) if features == "sequence" else None
    layer = make(name=name)
    return layer(values) if mask is None else layer(values, mask=mask)


def unused_layers(backbone: Backbone, features: str) -> frozenset[str]:
    """Returns the paths of the backbone's layers that do not feed some features.

    Args:
        backbone: The backbone.
        features: A name of `backbone.features`.
    """
    model = backbone.model
    used = keras.Model(model.input, backbone.features(model.output)[features])
    needed = {id(layer) for layer in used.layers}
    return frozenset(
        f"backbone/{path}"
        for layer in model.layers
        if id(layer) not in needed
        for path in (
            layer.name,
            *(f"{layer.name}/{inner}" for inner in graph.layers_by_path(layer)),
        )
    )
