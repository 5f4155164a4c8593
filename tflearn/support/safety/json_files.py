"""JSON of bounded size and depth."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from tflearn.support.errors import FileError
from tflearn.support.units import bytes_text

#: The largest vocabularies of published tokenizers are a quarter of it.
MAX_BYTES = 128 * 2**20
MAX_DEPTH = 200


def parse(text: bytes | str, name: str, *, max_bytes: int = MAX_BYTES) -> Any:
    """Parses JSON.

    Args:
        text: The JSON.
        name: What messages call it.
        max_bytes: How long it may be.

    Returns:
        The parsed value.

    Raises:
        FileError: It is too long, too deep, or no JSON in UTF-8.

    Example:

    >>> parse('{"classes": ["a"]}', "labels.json")
    {'classes': ['a']}
    """
    if len(text) > max_bytes:
        raise FileError(
            "the JSON is longer than any of its kind",
            received=f"{name}: {bytes_text(len(text))}",
            expected=f"at most {bytes_text(max_bytes)}",
        )
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep(name) from None
    except ValueError as error:
        raise FileError(
            "this is no JSON", received=f"{name} ({str(error)[:200]})"
        ) from error
    _check_depth(value, name)
    return value


def read(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.
        max_bytes: How long it may be.

    Returns:
        The parsed value.

    Raises:
        FileError: It is too long, too deep, or no JSON in UTF-8.
        OSError: It cannot be read.
    """
    with pathlib.Path(path).open("rb") as file:
        return parse(file.read(max_bytes + 1), str(path), max_bytes=max_bytes)


def _check_depth(value: Any, name: str) -> None:
    # Not by recursion: the code that walks through the value later may recurse.
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep(name)
        level = [
            child
            for one in level
            if isinstance(one, (dict, list))
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, (dict, list))
        ]


def _too_deep(name: str) -> FileError:
    return FileError(
        "the JSON is nested too deeply",
        received=name,
        expected=f"at most {MAX_DEPTH} levels",
    )
