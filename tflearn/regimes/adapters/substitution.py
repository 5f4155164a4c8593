"""Replacing an attribute of one layer for the length of a call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


@contextlib.contextmanager
def substituted(layer: keras.Layer, name: str, value: Any) -> Iterator[None]:
    """Puts a value in the place of an attribute or method of one layer.

    Args:
        layer: The layer; other instances of its class are not touched.
        name: Name of the attribute.
        value: What stands there inside the `with` block.

    Example:

    >>> layer = keras.layers.Dense(1)
    >>> _ = layer.build((None, 1))
    >>> with substituted(layer, "bias", keras.ops.ones(1)):
    ...     float(layer(keras.ops.zeros((1, 1)))[0, 0])
    1.0
    >>> float(layer(keras.ops.zeros((1, 1)))[0, 0])
    0.0
    """
    # The instance's dictionary is written past Keras, which would track the value.
    own = layer.__dict__
    missing = name not in own
    before = own.get(name)
    own[name] = value
    try:
        yield
    finally:
        if missing:
            del own[name]
        else:
            own[name] = before
