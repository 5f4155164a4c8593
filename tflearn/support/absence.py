"""Making libraries look absent for a while, so that others do without them.

Keras and KerasHub import whatever optional library they find, whether anything asks
for it or not. That takes seconds at every start.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import sys
from collections.abc import Iterator
from typing import Any

# Keras wraps models for scikit-learn, takes tables of pandas, shows galleries with
# matplotlib and reports in IPython: nothing of it is reached from a command.
_EXTRAS = ("IPython", "matplotlib", "pandas", "sklearn")


class Absent:
    """Finds packages and fails to load them, as if they were broken off.

    A None in `sys.modules` would hide them too, but Keras takes the mere presence of
    TensorFlow's name there as a sign that it is loaded; and a finder that raised would
    break libraries that only ask whether a package is installed.

    Args:
        names: The packages.
    """

    def __init__(self, *names: str) -> None:
        """Hides nothing until it is put in front of `sys.meta_path`."""
        self._names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Answers for the hidden packages and leaves all others to Python."""
        hidden = name.split(".")[0] in self._names
        return importlib.machinery.ModuleSpec(name, self) if hidden else None  # type: ignore

    def create_module(self, spec: Any) -> None:
        """Fails as the import of a package that is not installed does."""
        raise ModuleNotFoundError(f"No module named '{spec.name}'", name=spec.name)

    def exec_module(self, module: Any) -> None:
        """Is never reached; Python asks for its presence."""


@contextlib.contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Makes packages that are not imported yet look absent.

    Args:
        names: The packages.

    Example:

    >>> with hidden("turtledemo"):
    ...     import turtledemo
    Traceback (most recent call last):
    ...
    ModuleNotFoundError: No module named 'turtledemo'
    """
    finder: Any = Absent(*names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def import_keras() -> None:
    """Imports Keras without the libraries that a command never asks it for.

    In this process Keras is from then on as if they were not installed; everything
    else, user code included, imports them as ever.
    """
    with hidden(*_EXTRAS):
        importlib.import_module("keras")
