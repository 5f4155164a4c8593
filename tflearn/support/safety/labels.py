"""`labels.json`: what the model of a run is for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from tflearn.support.errors import FileError
from tflearn.support.safety import json_files

_MAX_BYTES = 16 * 2**20


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_temperature(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 < value < math.inf


_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "task": (_is_text, "a text"),
    "classes": (_are_texts, "texts"),
    "input": (lambda x: _is_text(x) or _are_texts(x), "a column, or several"),
    "kind": (_is_text, "a text"),
    "max_length": (lambda x: x is None or _is_count(x), "a count, or null"),
    "truncate": (lambda x: isinstance(x, bool), "true or false"),
    "temperature": (lambda x: x is None or _is_temperature(x), "above 0, or null"),
}


def read_labels(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads and checks a file of labels.

    Args:
        path: The file.

    Returns:
        Task, classes, input columns, temperature and more by name.

    Raises:
        FileError: A field is missing or holds something else.
        OSError: It cannot be read.
    """
    found = json_files.read(path, max_bytes=_MAX_BYTES)
    if not isinstance(found, dict):
        raise FileError("the labels are no table", received=str(path))
    for name, (fits, expected) in _FIELDS.items():
        if name not in found or not fits(found[name]):
            raise FileError(
                f"the field '{name}' of the labels is missing or wrong",
                received=f"{path}: {str(found.get(name))[:100]}",
                expected=expected,
            )
    return found
