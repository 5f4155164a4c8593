"""Keeping TensorFlow out of processes that do not use it.

KerasHub imports TensorFlow and TensorFlow Text whenever they are installed, and Keras
does the same when it sets a seed or serializes a layer: seconds and hundreds of
megabytes that a run on JAX has no use for. Both can do without, so TensorFlow is
hidden from them unless it is the backend or was imported already.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import sys
from collections.abc import Iterator
from typing import Any

import keras

_HIDDEN = ("tensorflow", "tensorflow_text")


class _Absent:
    """Finds the hidden packages and fails to load them, as if they were broken off.

    A None in `sys.modules` would hide them too, but Keras takes the mere presence of
    the name there as a sign that TensorFlow is loaded; and a finder that raised would
    break libraries that only ask whether TensorFlow is installed.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Answers for the hidden packages and leaves all others to Python."""
        hidden = name.split(".")[0] in _HIDDEN
        return importlib.machinery.ModuleSpec(name, self) if hidden else None  # type: ignore

    def create_module(self, spec: Any) -> None:
        """Fails as the import of a package that is not installed does."""
        raise ModuleNotFoundError(f"No module named '{spec.name}'", name=spec.name)

    def exec_module(self, module: Any) -> None:
        """Is never reached; Python asks for its presence."""


_ABSENT: Any = _Absent()


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
