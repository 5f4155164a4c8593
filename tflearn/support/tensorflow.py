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

from tflearn.support.absence import Absent

_ABSENT: Any = Absent("tensorflow", "tensorflow_text")


@contextlib.contextmanager
def hidden_tensorflow() -> Iterator[None]:
    """Makes TensorFlow look absent for a while, unless this process uses it.

    Inside, `import tensorflow` fails as if it were not installed. Nothing happens on
    the TensorFlow backend, or where TensorFlow was imported before.

    Example:

    >>> with hidden_tensorflow():
    ...     import keras
    """
    used = keras.backend.backend() == "tensorflow" or "tensorflow" in sys.modules
    if used or _ABSENT in sys.meta_path:
        yield
        return
    sys.meta_path.insert(0, _ABSENT)
    try:
        yield
    finally:
        allow_tensorflow()


def allow_tensorflow() -> None:
    """Ends the hiding early, for what cannot do without TensorFlow.

    TensorFlow Datasets and KerasCV import it on every backend.
    """
    if _ABSENT in sys.meta_path:
        sys.meta_path.remove(_ABSENT)
