"""Parquet files, read with pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tflearn.data import paths as path_tools
from tflearn.data.table import Table
from tflearn.support.errors import DataError
from tflearn.support.safety import zips

_ROWS, _FEWEST_ROWS = 1024, 32
# What a value takes in memory at least.
_CELL_BYTES = 16


def parquet(
    paths: path_tools.Paths,
    columns: Sequence[str] | None = None,
    folder: str = "",
) -> dict[str, Table]:
    """Reads Parquet files. Needs pyarrow.

    Images stored as Hugging Face does, `{bytes, path}`, stay encoded until they are
    needed. A null is an unusable row if the experiment needs the column.

    Args:
        paths: A path or glob, or `{'train': ..., 'test': ...}`.
        columns: The columns to read; None reads all.
        folder: Put in front of relative paths.

    Returns:
        The tables by split.

    Raises:
        DataError: A file is absent or damaged, a column is missing, or pyarrow is
            not installed.
    """
    try:
        from pyarrow import parquet as reader
    except ImportError as error:
        raise DataError(
            "pyarrow is not installed", fix="pip install pyarrow"
        ) from error
    return {
        split: _read(reader, patterns, folder, columns)
        for split, patterns in path_tools.by_split(paths).items()
    }


def _read(
    reader: Any, patterns: Sequence[str], folder: str, columns: Sequence[str] | None
) -> Table:
    values: dict[str, list[Any]] = {}
    starts: list[tuple[int, str]] = []
    count = 0
    for file in path_tools.find(patterns, folder):
        path_tools.check_not_empty(file)
        part = _load(reader, file, columns)
        if values and values.keys() != part.keys():
            raise DataError(
                f"{file.name} has other columns than the files before it",
                received=", ".join(part),
                expected=", ".join(values),
            )
        starts.append((count, file.name))
        for name, column in part.items():
            values.setdefault(name, []).extend(column)
        count += len(next(iter(part.values()), ()))
    if not count:
        raise DataError("the file has no rows", received=", ".join(patterns))
    return Table(values, locate=_Locations(starts), name=", ".join(patterns))


def _load(
    reader: Any, file: path_tools.File, columns: Sequence[str] | None
) -> dict[str, list[Any]]:
    try:
        known = Table({name: () for name in reader.read_schema(file.path).names})
        for name in columns or ():
            known.column(name)
        return _columns(reader, file, columns)
    except DataError:
        raise
    except Exception as error:
        # pyarrow's errors have no base class that all of them share.
        raise DataError(
            f"not a readable Parquet file ({str(error) or type(error).__name__})",
            received=str(file.path),
        ) from error


def _columns(
    reader: Any, file: path_tools.File, columns: Sequence[str] | None
) -> dict[str, list[Any]]:
    """Reads batch by batch: one value in a dictionary may be repeated for ever."""
    stored = file.path.stat().st_size
    values: dict[str, list[Any]] = {}
    size = 0
    with reader.ParquetFile(file.path) as opened:
        metadata = opened.metadata
        cells = metadata.num_rows * max(1, metadata.num_columns)
        zips.check_size(cells * _CELL_BYTES, stored, f"{file.path}: its cells")
        chunks = list(_chunks(metadata))
        unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
        zips.check_size(unpacked, stored, f"{file.path}: its columns")
        names = None if columns is None else list(columns)
        values = {name: [] for name in names or opened.schema_arrow.names}
        for batch in opened.iter_batches(batch_size=_rows(chunks), columns=names):
            size += batch.nbytes
            zips.check_size(size, stored, str(file.path))
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                values[name].extend(column.to_pylist())
    return values


def _chunks(metadata: Any) -> Iterator[Any]:
    """Yields what is known of every column of every group of rows."""
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for column in range(row_group.num_columns):
            yield row_group.column(column)


def _rows(chunks: Sequence[Any]) -> int:
    """Returns how many rows are read at once.

    One value of a dictionary can be that of every row: what rows take once they are
    read is known afterwards, but no value is larger than all that is stored of it.
    """
    largest = max(
        (x.total_uncompressed_size for x in chunks if x.has_dictionary_page), default=0
    )
    fitting = zips.FLOOR_BYTES // max(1, largest)
    return max(_FEWEST_ROWS, min(_ROWS, fitting))


class _Locations:
    """Gives the file of a row and its number in it, from 1."""

    def __init__(self, starts: list[tuple[int, str]]) -> None:
        self._starts = starts

    def __call__(self, index: int) -> str:
        start, name = next(x for x in reversed(self._starts) if x[0] <= index)
        return f"{name}:{index - start + 1}"
