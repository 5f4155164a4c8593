"""Loss, metrics and statistics of objectives that predict tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops


def loss() -> keras.losses.Loss:
    """Makes the cross-entropy, its mean taken over what has a weight.

    Returns:
        A loss of integer targets and logits `(..., vocabulary)`.
    """
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )


def metrics(accuracy: str = "accuracy") -> list[keras.metrics.Metric]:
    """Makes the metrics shown during training; `accuracy` is the name of the share."""
    return [keras.metrics.SparseCategoricalAccuracy(name=accuracy)]


def statistics(
    logits: Any, targets: Any, weights: Any, *, bytes_of_token: np.ndarray | None = None
) -> dict[str, Any]:
    """Sums over the predicted tokens of each example.

    Args:
        logits: `(batch, positions, vocabulary)`.
        targets: Token ids, int `(batch, positions)`.
        weights: 1 where a token is predicted, else 0, `(batch, positions)`.
        bytes_of_token: Bytes that each token stands for, `(vocabulary,)`.

    Returns:
        float32 `(batch,)` each: `nll` in nats, `correct` tokens, `tokens`, and `bytes`
        if they are known.
    """
    logits = ops.cast(logits, "float32")
    weights = ops.cast(weights, "float32")
    targets = ops.cast(targets, "int32")
    nll = keras.losses.sparse_categorical_crossentropy(
        targets, logits, from_logits=True
    )
    correct = ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32"), targets)
    sums = {
        "nll": nll * weights,
        "correct": ops.cast(correct, "float32") * weights,
        "tokens": weights,
    }
    if bytes_of_token is not None:
        sizes = ops.convert_to_tensor(bytes_of_token, "float32")
        sums["bytes"] = ops.take(sizes, targets, axis=0) * weights
    return {name: ops.sum(values, axis=1) for name, values in sums.items()}


def summarize(
    mean: Mapping[str, np.ndarray], *, accuracy: str = "accuracy"
) -> dict[str, np.ndarray]:
    """Computes metrics of the means of `statistics`.

    Args:
        mean: By name, arrays of one shape.
        accuracy: Name of the share of correct tokens.

    Returns:
        `loss` in nats a token, `perplexity`, `accuracy`, and `bits_per_byte` if bytes
        were counted.

    Example:

    >>> found = summarize({k: np.array(v) for k, v in
    ...     {"nll": 4.0, "correct": 1.0, "tokens": 2.0, "bytes": 8.0}.items()})
    >>> {name: round(float(value), 3) for name, value in found.items()}
    {'loss': 2.0, 'perplexity': 7.389, 'accuracy': 0.5, 'bits_per_byte': 0.721}
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = mean["nll"] / mean["tokens"]
        found = {
            "loss": nats,
            "perplexity": np.exp(nats),
            accuracy: mean["correct"] / mean["tokens"],
        }
        if "bytes" in mean:
            found["bits_per_byte"] = mean["nll"] / mean["bytes"] / np.log(2)
    return found
