"""Headers of safetensors files."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflearn.support.errors import FileError
from tflearn.support.safety import json_files

_MAX_HEADER_BYTES = 100_000_000
_MOST_DIMENSIONS = 32
_METADATA = "__metadata__"
# Bits of an element by name of its type.
_BITS = {
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


def check_safetensors(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Checks that a safetensors file holds what its header says, and reads no more.

    Args:
        path: The file.

    Returns:
        Shapes by name.

    Raises:
        FileError: The header is no header, or lengths, offsets, shapes and the size of
            the file do not agree.
        OSError: It cannot be read.
    """
    file = pathlib.Path(path)
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
            raise FileError(
                "this is no safetensors file: its header has no such length",
                received=f"{path}: {length} of {size} bytes",
            )
        header = json_files.parse(
            opened.read(length), str(path), max_bytes=_MAX_HEADER_BYTES
        )
    if not isinstance(header, dict):
        raise FileError("the header of this file is no table", received=str(path))
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise FileError("the metadata of this file are no texts", received=str(path))
    spans = {name: _span(name, entry, path) for name, entry in header.items()}
    _check_spans(sorted(spans.values()), size - 8 - length, path)
    return {name: tuple(entry["shape"]) for name, entry in header.items()}


def load_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a safetensors file that `check_safetensors` has found sound.

    Args:
        path: The file.

    Returns:
        Arrays by name.

    Raises:
        FileError: The file is damaged.
        OSError: It cannot be read.
    """
    return read_safetensors(path)[0]


def read_safetensors(
    path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads the arrays and the metadata of a safetensors file, once it is checked.

    Args:
        path: The file.

    Returns:
        Arrays by name, and the metadata.

    Raises:
        FileError: The file is damaged, or holds elements that NumPy does not know.
        OSError: It cannot be read.
    """
    import safetensors

    check_safetensors(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            arrays = {key: opened.get_tensor(key) for key in opened.keys()}
            return arrays, dict(opened.metadata() or {})
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise FileError(
            "this safetensors file cannot be read", received=f"{path}: {error}"
        ) from error


def _span(name: str, entry: Any, path: str | os.PathLike[str]) -> tuple[int, int]:
    """Returns where the bytes of a tensor begin and end."""
    if isinstance(entry, Mapping):
        shape, offsets = _counts(entry, "shape"), _counts(entry, "data_offsets")
        bits = _BITS.get(str(entry.get("dtype")))
        if bits and shape is not None and offsets is not None and len(offsets) == 2:
            begin, end = offsets
            if math.prod(shape) * bits == (end - begin) * 8:
                return begin, end
    raise FileError(
        "an entry of the header contradicts itself",
        received=f"{path}: {name[:200]!r}: {str(entry)[:200]}",
        expected="dtype, shape and data_offsets of as many bytes",
    )


def _counts(entry: Mapping[str, Any], key: str) -> list[int] | None:
    values = entry.get(key)
    if not isinstance(values, list) or len(values) > _MOST_DIMENSIONS:
        return None
    good = all(type(value) is int and 0 <= value < 2**63 for value in values)
    return values if good else None


def _check_spans(
    spans: list[tuple[int, int]], size: int, path: str | os.PathLike[str]
) -> None:
    end = 0
    for begin, after in spans:
        if begin != end:
            raise FileError(
                "tensors of this file overlap or leave gaps",
                received=f"{path}: one ends at {end}, the next begins at {begin}",
            )
        end = after
    if end != size:
        raise FileError(
            "the file is shorter or longer than its header says",
            received=f"{path}: {size} bytes of weights",
            expected=f"{end} bytes",
        )
