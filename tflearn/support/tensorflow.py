"""Keeping TensorFlow out of processes that do not use it.

KerasHub imports TensorFlow and TensorFlow Text whenever they are installed, and Keras
does the same when it sets a seed or serializes a layer: seconds and hundreds of
megabytes that a run on JAX has no use for. Both can do without, so TensorFlow is
hidden from them unless it is the backend or was imported already.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import keras

_HIDDEN = ("tensorflow", "tensorflow_text")


@contextlib.contextmanager
def hidden_tensorflow() -> Iterator[None]:
    """Makes TensorFlow look absent for a while, unless this process uses it.

    Inside, `import tensorflow` fails as if it were not installed. Nothing happens on
    the TensorFlow backend, or where TensorFlow was imported before.

    Example:

    >>> with hidden_tensorflow():
    ...     import keras
    """
    if keras.backend.backend() == "tensorflow" or "tensorflow" in sys.modules:
        yield
        return
    absent = [name for name in _HIDDEN if name not in sys.modules]
    # A None in `sys.modules` is Python's own way to say "do not import".
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            if sys.modules.get(name, ...) is None:
                del sys.modules[name]


def allow_tensorflow() -> None:
    """Ends the hiding for the rest of the process, for what cannot do without.

    TensorFlow Datasets and KerasCV import TensorFlow on every backend.
    """
    for name in _HIDDEN:
        if sys.modules.get(name, ...) is None:
            del sys.modules[name]
