"""Objectives whose targets come from the inputs themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tflearn.backbones import Backbone
from tflearn.backbones.encoder_files import Encoder

#: What Keras `fit` takes: inputs, targets, and optionally weights of the targets.
Batch = tuple[Any, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretext:
    """What a self-supervised objective becomes on a given backbone.

    Args:
        model: The network that is trained. A layer or functional model in it is
            named `backbone` and holds the backbone's own layers under their names.
        features: The features of the backbone that the model uses; what feeds none of
            them is listed as unused. None: all of it is used.
        make_batch: Called with examples, the indices of a batch `(batch,)` and a
            random generator; returns a batch. A pure function of the three.
        loss: Makes the loss; called anew for every compilation.
        metrics: Makes the metrics shown during training, all weighted.
        statistics: Called with outputs, targets and weights (None if the batch has
            none), all tensors; returns tensors `(batch,)` by name, with `keras.ops`.
        summarize: Called with the mean of every statistic over examples, as arrays of
            any one shape; returns the metrics by name in that shape.
        arrange: Called with the examples of a split and their targets (None without
            labels); returns the examples that are used, such as rows of packed
            documents, or examples that hold their targets too.
        deployed: What is exported; None for `model` itself.
        encoders: What is needed beside the backbone's encoder to make inputs of the
            exported model, by the name of its folder.
    """

    model: keras.Model
    make_batch: Callable[[Any, np.ndarray, np.random.Generator], Batch]
    loss: Callable[[], keras.losses.Loss]
    statistics: Callable[[Any, Any, Any], dict[str, Any]]
    summarize: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
    metrics: Callable[[], list[keras.metrics.Metric]] = list
    features: str | None = None
    arrange: Callable[[Any, np.ndarray | None], Any] = lambda examples, targets: (
        examples
    )
    deployed: keras.Model | None = None
    encoders: Mapping[str, Encoder] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfSupervised:
    """An objective without labels.

    Args:
        name: Name of the objective.
        inputs: Kinds of examples it takes: some of `text`, `image`.
        bind: Makes the network and what belongs to it from a backbone.
        headline: The metric of `Pretext.summarize` that early stopping, the best
            checkpoint and comparisons go by.
        lower_is_better: Whether a lower headline is better.
        target_kind: What `arrange` gets as targets; `none` for nothing.
        any_length: Whether `arrange` takes texts of any length and divides them.
    """

    name: str
    inputs: tuple[str, ...]
    bind: Callable[[Backbone], Pretext]
    headline: str
    lower_is_better: bool = True
    target_kind: str = "none"
    any_length: bool = False
