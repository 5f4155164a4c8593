"""Running a model over a data set, every example once and in its own place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from tflearn.support.errors import RunError


def predict_outputs(
    model: keras.Model,
    batches: Iterable[tuple[Any, np.ndarray]],
    *,
    num_examples: int,
) -> np.ndarray:
    """Computes a model's outputs in inference mode.

    Compiled once for every shape of batch, on the first call; nothing is printed.

    Args:
        model: A built model with one output, `(batch, outputs)`.
        batches: Inputs, and which examples their first rows are; rows beyond those
            are padding, so that all batches can have the same shape.
        num_examples: Number of examples in all batches.

    Returns:
        `(num_examples, outputs)`, float32, in the examples' order.

    Raises:
        RunError: An example is missing or comes twice.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> x = np.ones((2, 2))
    >>> batches = [(x, np.array([2, 0])), (x, np.array([1]))]
    >>> predict_outputs(model, batches, num_examples=3).shape
    (3, 3)
    """
    places: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    for inputs, indices in batches:
        outputs = model.predict_on_batch(inputs)
        places.append(np.asarray(indices))
        parts.append(np.asarray(outputs)[: len(indices)].astype("float32"))
    place = np.concatenate(places) if places else np.zeros(0, int)
    if not np.array_equal(np.sort(place), np.arange(num_examples)):
        raise RunError(
            "the batches do not hold every example exactly once",
            received=f"{len(place)} rows, {len(np.unique(place))} of them different",
            expected=f"{num_examples} examples",
        )
    if not parts:
        raise RunError("there is no example to run the model on")
    ordered = np.empty((num_examples, *parts[0].shape[1:]), "float32")
    ordered[place] = np.concatenate(parts)
    return ordered
