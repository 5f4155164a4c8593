"""What the features of a backbone that is not trained tell of a task's labels."""

from __future__ import annotations

import dataclasses
import time

import keras
import numpy as np

from tflearn.backbones import Backbone
from tflearn.data import Data, Split, pipeline
from tflearn.data.inputs import take
from tflearn.evaluation import inference
from tflearn.objectives.objective import choose_features, pooled


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """Pooled features of some rows.

    Args:
        values: `(n, dim)`, float32.
        targets: Classes or numbers, `(n,)`.
        seconds: What computing them took, once compiled; 0.0 where that was not
            measured.
    """

    values: np.ndarray
    targets: np.ndarray
    seconds: float = 0.0


def sample(split: Split, most: int, *, seed: int) -> Split:
    """Draws rows of a split, the same ones for every backbone.

    Args:
        split: The rows.
        most: At most so many are drawn.
        seed: Another seed draws others.

    Returns:
        The split itself where it has no more rows.
    """
    if len(split) <= most:
        return split
    chosen = np.sort(np.random.default_rng(seed).permutation(len(split))[:most])
    targets = split.targets
    return dataclasses.replace(
        split,
        inputs=take(split.inputs, chosen),
        targets=None if targets is None else np.asarray(targets)[chosen],
        rows=split.rows[chosen],
        slices={name: values[chosen] for name, values in split.slices.items()},
    )


def frozen_features(
    backbone: Backbone,
    split: Split,
    data: Data,
    *,
    features: str = "auto",
    batch_size: int,
    measure: bool = False,
) -> Features:
    """Computes pooled features as a head would get them; nothing is trained.

    Args:
        backbone: The backbone.
        split: Rows with targets.
        data: How the rows are encoded.
        features: Features of the backbone, or `auto`.
        batch_size: Rows that are computed together.
        measure: Whether all is computed again when it is compiled, to tell the time.

    Returns:
        Features and targets in the order of the rows.

    Raises:
        ConfigError: The backbone does not give the features that are asked for.
        DataError: A row does not fit the backbone.
    """
    inputs = backbone.new_inputs()
    chosen = choose_features(backbone, features)
    network = keras.Model(inputs, pooled(backbone, inputs, features=chosen))
    examples = pipeline.encode(split, backbone.encoder, data=data)

    def compute() -> np.ndarray:
        return inference.predict_outputs(
            network,
            pipeline.ordered_batches(examples, batch_size=batch_size),
            num_examples=len(examples),
        )

    values, seconds = compute(), 0.0
    if measure:
        started = time.perf_counter()
        values = compute()
        seconds = time.perf_counter() - started
    targets = np.asarray(split.targets)
    return Features(values=values, targets=targets, seconds=seconds)
