"""CSV and TSV files."""

from __future__ import annotations

import csv as csv_format
import io
from collections import Counter
from collections.abc import Iterator, Sequence

from tflearn.data import paths as path_tools
from tflearn.data.sources.records import Records
from tflearn.data.table import Table
from tflearn.support.errors import DataError

_Record = tuple[int, list[str]]


def csv(
    paths: path_tools.Paths,
    columns: Sequence[str] | None = None,
    delimiter: str = ",",
    folder: str = "",
) -> dict[str, Table]:
    """Reads CSV files: quoted fields, one record a row, every value a text.

    Nothing is read as a missing value: `NA`, `None` and the empty text stay texts.

    Args:
        paths: A path or glob, or `{'train': ..., 'test': ...}`. Files that end in
            `.gz` are unpacked.
        columns: Names of the columns of files without a header; None takes them
            from the first record.
        delimiter: The character between fields.
        folder: Put in front of relative paths.

    Returns:
        The tables by split.

    Raises:
        DataError: A file is absent, empty, damaged or has no rows.
    """
    if len(delimiter) != 1:
        raise DataError(
            "delimiter is one character", received=delimiter, expected="',' or ';'"
        )
    return {
        split: _read(patterns, folder, columns, delimiter)
        for split, patterns in path_tools.by_split(paths).items()
    }


def tsv(
    paths: path_tools.Paths, columns: Sequence[str] | None = None, folder: str = ""
) -> dict[str, Table]:
    """Reads TSV files: a tab between fields, a line a row, quotes are plain characters.

    Nothing is read as a missing value: `NA`, `None` and the empty text stay texts.

    Args:
        paths: A path or glob, or `{'train': ..., 'test': ...}`. Files that end in
            `.gz` are unpacked.
        columns: Names of the columns of files without a header; None takes them
            from the first line.
        folder: Put in front of relative paths.

    Returns:
        The tables by split.

    Raises:
        DataError: A file is absent, empty or has no rows.
    """
    return {
        split: _read(patterns, folder, columns, None)
        for split, patterns in path_tools.by_split(paths).items()
    }


def _read(
    patterns: Sequence[str],
    folder: str,
    columns: Sequence[str] | None,
    delimiter: str | None,
) -> Table:
    records: Records | None = None
    blank = 0
    for file in path_tools.find(patterns, folder):
        text = path_tools.read_text(file)
        found = _tabbed(text) if delimiter is None else _quoted(text, file, delimiter)
        header = _header(found, columns, file)
        if records is None:
            records = Records(header, name=", ".join(patterns))
        if header != records.columns:
            raise DataError(
                f"{file.name} has other columns than the files before it",
                received=", ".join(header),
                expected=", ".join(records.columns),
            )
        blank += _add(found, records, file)
    if records is None:
        raise DataError("no path is declared", received=patterns)
    if blank:
        records.notes.append(f"{records.name}: {blank} blank lines skipped")
    return records.table()


def _add(found: Iterator[_Record], records: Records, file: path_tools.File) -> int:
    """Adds a file's records; returns how many blank lines there were."""
    blank = 0
    expected = len(records.columns)
    for line, fields in found:
        location = f"{file.name}:{line}"
        if not fields or (fields == [""] and expected > 1):
            blank += 1
        elif line == 1 and tuple(fields) == records.columns:
            records.notes.append(f"{location}: the header that columns repeats")
        elif len(fields) != expected:
            fault = f"{len(fields)} fields instead of {expected}"
            records.add_bad(location, fault)
        else:
            records.add(location, fields)
    return blank


def _header(
    found: Iterator[_Record], columns: Sequence[str] | None, file: path_tools.File
) -> tuple[str, ...]:
    if columns is not None:
        header = tuple(columns)
    else:
        header = next((tuple(fields) for _, fields in found if fields), ())
        for name in header:
            if path_tools.undecodable(name):
                raise DataError("the header is not UTF-8", received=file.name)
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice or not header:
        raise DataError(
            f"{file.name}: two columns have one name" if twice else "no columns",
            received=", ".join(header),
            fix="declare columns = (...) if the file has no header",
        )
    return header


def _tabbed(text: str) -> Iterator[_Record]:
    for number, line in enumerate(path_tools.lines(text), start=1):
        yield number, line.split("\t")


def _quoted(text: str, file: path_tools.File, delimiter: str) -> Iterator[_Record]:
    # Strict: otherwise a quote that is never closed swallows the rest of the file.
    reader = csv_format.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True
    )
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv_format.Error as error:
            raise DataError(
                f"{file.name}:{start}: the record cannot be read ({error})",
                expected=f"fields between '{delimiter}', quotes doubled in quotes",
                fix="data.sources.tsv reads files without quoting",
            ) from error
        yield start, fields
