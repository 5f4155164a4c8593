"""The proof that frozen weights did not move: digests before and after."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import keras

from tflearn.backbones import graph
from tflearn.regimes.census import Census
from tflearn.regimes.trainability import own_weights, unit_layers
from tflearn.support.errors import RegimeError


def frozen_digests(model: keras.Model, census: Census) -> dict[str, str]:
    """Fingerprints every layer that the census calls frozen or unused.

    Args:
        model: The model the regime was applied to.
        census: What `apply` returned for it.

    Returns:
        SHA-256 of all weights of a layer, statistics of normalisation included, by
        layer path.
    """
    units = unit_layers(model)
    return {path: _digest(units[path]) for path in census.paths("frozen", "unused")}


def check_unchanged(
    model: keras.Model, census: Census, before: Mapping[str, str]
) -> dict[str, int]:
    """Checks that every frozen layer is bit-identical to what it was.

    Args:
        model: The model after training.
        census: The census of the stage.
        before: `frozen_digests` from before training.

    Returns:
        `{"layers": ..., "parameters": ...}` that were compared.

    Raises:
        RegimeError: A frozen layer has changed.
    """
    after = frozen_digests(model, census)
    changed = [path for path, digest in before.items() if after.get(path) != digest]
    if changed:
        raise RegimeError(
            f"{len(changed)} frozen layers changed during training",
            received=", ".join(changed[:5]),
            expected="bit-identical weights",
            fix="look for a callback or layer that assigns to these weights",
        )
    rows = [row for row in census.rows if row.path in before]
    return {"layers": len(rows), "parameters": sum(row.parameters for row in rows)}


def _digest(layer: keras.Layer) -> str:
    total = hashlib.sha256()
    for weight in own_weights(layer):
        total.update(graph.value_of(weight).tobytes())
    return total.hexdigest()
