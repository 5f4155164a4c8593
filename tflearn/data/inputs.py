"""Reading the inputs of rows: texts, pairs of texts, images, vectors."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from tflearn.data import images
from tflearn.data.paths import undecodable
from tflearn.data.splits import content_digest
from tflearn.data.table import MISSING, Column, Table
from tflearn.support.errors import DataError

# How many rows decide whether columns of a text file hold numbers.
_PROBE = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """The usable inputs of a table.

    Args:
        kind: `text`, `pair`, `image` or `vector`.
        values: The inputs of the usable rows: texts, pairs, `Images`, or a float32
            matrix.
        rows: Row numbers of the usable rows in the table, ascending.
        digests: Digest of each usable input.
        faults: Why the other rows are not usable, by row number.
    """

    kind: str
    values: Sequence[Any] | np.ndarray
    rows: np.ndarray
    digests: list[bytes]
    faults: dict[int, str]


class Images(Sequence[np.ndarray]):
    """Images of some rows, decoded when they are asked for.

    Args:
        column: Anything `images.to_array` reads.
        rows: The row numbers.
    """

    def __init__(self, column: Column, rows: np.ndarray) -> None:
        self._column = column
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return images.to_array(self._column[int(self._rows[index])])

    def take(self, positions: np.ndarray) -> Images:
        """Returns some of the images, still not decoded."""
        return Images(self._column, self._rows[positions])


def take(values: Sequence[Any] | np.ndarray, positions: np.ndarray) -> Any:
    """Returns the inputs at some positions, in the container they came in."""
    if isinstance(values, np.ndarray):
        return values[positions]
    if isinstance(values, Images):
        return values.take(positions)
    return [values[int(position)] for position in positions]


def read(table: Table, columns: str | Sequence[str], rows: Iterable[int]) -> Inputs:
    """Reads and checks the inputs of some rows.

    Args:
        table: The table.
        columns: One column, or several: two of texts are a pair, numeric ones are
            put together to a vector.
        rows: Row numbers, ascending.

    Returns:
        The usable inputs, and what is wrong with the others.

    Raises:
        DataError: There is no such column, or it holds nothing a model can take.
    """
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    values = [table.column(name) for name in names]
    chosen = np.fromiter(rows, dtype=np.int64)
    kind = _kind(values, chosen, several=not isinstance(columns, str), name=table.name)
    if kind == "image":
        return _images(values[0], chosen)
    reader = {"text": _texts, "pair": _pairs, "vector": _vectors}[kind]
    return reader(values, chosen)


def _kind(columns: list[Column], rows: np.ndarray, *, several: bool, name: str) -> str:
    probes = [_probe(column, rows) for column in columns]
    if all(probes) and all(map(_is_numeric, (probe[0] for probe in probes))):
        return "vector"
    firsts = [probe[0] if probe else "" for probe in probes]
    if all(isinstance(first, str) for first in firsts):
        # A text file does not say that its fields are numbers.
        numeric = several and all(_numeric_share(probe) > 0.5 for probe in probes)
        if numeric or len(firsts) > 2:
            return "vector"
        return "pair" if len(firsts) == 2 else "text"
    if len(firsts) == 1 and images.is_image(firsts[0]):
        return "image"
    raise DataError(
        f"the input columns of {name} hold nothing a model can take",
        received=", ".join(type(first).__name__ for first in firsts),
        expected="texts, one image column, or numbers",
        fix="data.Data.input names the column, or the columns",
    )


def _probe(column: Column, rows: np.ndarray) -> list[Any]:
    values = (column[int(row)] for row in rows[:_PROBE])
    return [value for value in values if not _absent(value)]


def _absent(value: Any) -> bool:
    if value is None or value is MISSING:
        return True
    return isinstance(value, float) and math.isnan(value)


def _is_numeric(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim <= 1 and value.dtype.kind in "fiub"
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, numbers.Number) for item in value)
    return isinstance(value, (numbers.Number, np.generic)) and not isinstance(
        value, (np.str_, np.bytes_)
    )


def _numeric_share(values: list[Any]) -> float:
    good = sum(_number(value) is not None for value in values)
    return good / len(values) if values else 0.0


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _texts(columns: list[Column], rows: np.ndarray) -> Inputs:
    return _checked("text", rows, lambda row: _text(columns[0][row]))


def _pairs(columns: list[Column], rows: np.ndarray) -> Inputs:
    def pair(row: int) -> tuple[str, str]:
        return _text(columns[0][row]), _text(columns[1][row])

    return _checked("pair", rows, pair)


class _Fault(Exception):
    """Why a value cannot be used."""


def _text(value: Any) -> str:
    if _absent(value):
        raise _Fault("no text")
    if not isinstance(value, str):
        raise _Fault(f"{type(value).__name__} instead of a text")
    if not value.strip():
        raise _Fault("empty text")
    fault = undecodable(value)
    if fault:
        raise _Fault(fault)
    return str(value)


def _checked(kind: str, rows: np.ndarray, get: Callable[[int], Any]) -> Inputs:
    values, digests, good, faults = [], [], [], {}
    for row in rows.tolist():
        try:
            value = get(row)
        except _Fault as fault:
            faults[row] = str(fault)
            continue
        values.append(value)
        digests.append(content_digest(value))
        good.append(row)
    return Inputs(
        kind=kind,
        values=values,
        rows=np.asarray(good, dtype=np.int64),
        digests=digests,
        faults=faults,
    )


def _images(column: Column, rows: np.ndarray) -> Inputs:
    def check(row: int) -> bytes | str:
        try:
            return content_digest(images.to_array(column[row]))
        except DataError as error:
            return str(error)

    numbered = rows.tolist()
    if numbered and isinstance(column[numbered[0]], images.Image):
        # Decoding runs outside the interpreter lock; other columns may not be safe
        # to read from several threads.
        with futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            results = list(pool.map(check, numbered, chunksize=1))
    else:
        results = [check(row) for row in numbered]
    pairs = list(zip(numbered, results, strict=True))
    good = [row for row, result in pairs if isinstance(result, bytes)]
    kept = np.asarray(good, dtype=np.int64)
    return Inputs(
        kind="image",
        values=Images(column, kept),
        rows=kept,
        digests=[result for result in results if isinstance(result, bytes)],
        faults={row: result for row, result in pairs if isinstance(result, str)},
    )


def _vectors(columns: list[Column], rows: np.ndarray) -> Inputs:
    size: list[int] = []

    def vector(row: int) -> np.ndarray:
        parts = [_numbers(column[row]) for column in columns]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if not size:
            size.append(len(whole))
        if len(whole) != size[0]:
            raise _Fault(f"{len(whole)} numbers instead of {size[0]}")
        return whole

    found = _checked("vector", rows, vector)
    matrix = (
        np.stack(list(found.values)) if len(found.values) else np.zeros((0, 0), "f4")
    )
    return dataclasses.replace(found, values=matrix)


def _numbers(value: Any) -> np.ndarray:
    if _absent(value):
        raise _Fault("no number")
    try:
        array = np.asarray(value, dtype=np.float32).reshape(-1)
    except (TypeError, ValueError):
        raise _Fault(f"{value!r} is not a number") from None
    if not np.isfinite(array).all():
        raise _Fault(f"{array[~np.isfinite(array)][0]} among the numbers")
    return array
