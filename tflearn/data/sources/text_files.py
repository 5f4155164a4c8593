"""JSONL files, plain-text files and CoNLL files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tflearn.data import paths as path_tools
from tflearn.data.sources.records import Records
from tflearn.data.splits import check_shares
from tflearn.data.table import MISSING, Table
from tflearn.support.errors import DataError


def jsonl(paths: path_tools.Paths, folder: str = "") -> dict[str, Table]:
    """Reads JSONL files: a JSON object a line; its keys are the columns.

    A row may lack a key; it is unusable only if the experiment needs the column.

    Args:
        paths: A path or glob, or `{'train': ..., 'test': ...}`. Files that end in
            `.gz` are unpacked.
        folder: Put in front of relative paths.

    Returns:
        The tables by split.

    Raises:
        DataError: A file is absent or empty, or no line of it is an object.
    """
    return {
        split: _jsonl(patterns, folder)
        for split, patterns in path_tools.by_split(paths).items()
    }


def text_lines(paths: path_tools.Paths, folder: str = "") -> dict[str, Table]:
    """Reads plain-text files: a line a row, in the column `text`.

    Blank lines are skipped and counted.

    Args:
        paths: A path or glob, or `{'train': ..., 'test': ...}`. Files that end in
            `.gz` are unpacked.
        folder: Put in front of relative paths.

    Returns:
        The tables by split.

    Raises:
        DataError: A file is absent or empty.
    """
    return {
        split: _text_lines(patterns, folder)
        for split, patterns in path_tools.by_split(paths).items()
    }


def text_files(
    paths: path_tools.Paths,
    folder: str = "",
    shares: Mapping[str, float] | None = None,
) -> dict[str, Table]:
    r"""Reads plain-text files: a file a row, in the column `text`, as it stands.

    Args:
        paths: A path or glob, or `{'train': ..., 'test': ...}`. Files that end in
            `.gz` are unpacked.
        folder: Put in front of relative paths.
        shares: Cuts every file at positions, such as `{'train': 0.9, 'validation':
            0.1}`: the first 90 % of its characters are for training. `paths` then
            names no splits.

    Returns:
        The tables by split, with `\n` between lines.

    Raises:
        DataError: A file is absent or empty, or shorter than there are shares.
        ConfigError: The shares do not make a whole.
    """
    files = {
        split: [(file, path_tools.read_text(file)) for file in found]
        for split, patterns in path_tools.by_split(paths).items()
        for found in [path_tools.find(patterns, folder)]
    }
    if shares is None:
        return {split: _whole(split, texts) for split, texts in files.items()}
    if set(files) != {path_tools.ALL}:
        raise DataError(
            "a split is both given and to be cut out of the files",
            received=f"paths of {', '.join(files)}, shares of {', '.join(shares)}",
            fix="give the paths without splits, or leave shares out",
        )
    parts = check_shares(shares)
    cut = [(file, _cut(file, text, parts)) for file, text in files[path_tools.ALL]]
    return {
        split: _whole(split, [(file, part[split]) for file, part in cut])
        for split in parts
    }


def conll(
    paths: path_tools.Paths,
    columns: Sequence[str] = ("tokens", "tags"),
    folder: str = "",
) -> dict[str, Table]:
    """Reads CoNLL files: a token a line, a blank line after each sentence.

    A row is a sentence: a list for each column, and `text`, the first column joined
    by spaces. `-DOCSTART-` lines are skipped and counted. A sentence with a faulty
    line is one unusable row, named by that line.

    Args:
        paths: A path or glob, or `{'train': ..., 'test': ...}`. Files that end in
            `.gz` are unpacked.
        columns: What the tab- or space-separated fields of a line are.
        folder: Put in front of relative paths.

    Returns:
        The tables by split.

    Raises:
        DataError: A file is absent or empty.
    """
    return {
        split: _conll(patterns, folder, tuple(columns))
        for split, patterns in path_tools.by_split(paths).items()
    }


def _numbered(
    patterns: Sequence[str], folder: str
) -> Iterator[tuple[path_tools.File, list[str]]]:
    for file in path_tools.find(patterns, folder):
        yield file, path_tools.lines(path_tools.read_text(file))


def _jsonl(patterns: Sequence[str], folder: str) -> Table:
    parsed: list[tuple[str, dict[str, Any] | str]] = []
    for file, lines in _numbered(patterns, folder):
        for number, line in enumerate(lines, start=1):
            parsed.append((f"{file.name}:{number}", _object(line)))
    objects = [value for _, value in parsed if isinstance(value, dict)]
    columns = list(dict.fromkeys(key for value in objects for key in value))
    if not columns:
        raise DataError(
            "no line is a JSON object",
            received=f"{parsed[0][0]}: {parsed[0][1]}",
            expected='lines such as {"text": "good", "label": "1"}',
        )
    records = Records(columns, name=", ".join(patterns))
    for location, value in parsed:
        if isinstance(value, str):
            records.add_bad(location, value)
        else:
            records.add(location, [value.get(key, MISSING) for key in columns])
    return records.table()


def _object(line: str) -> dict[str, Any] | str:
    """Returns the object in a line, or why there is none."""
    fault = path_tools.undecodable(line)
    if fault:
        return fault
    if not line.strip():
        return "a blank line instead of a JSON object"
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        # ValueError: also a number of more digits than Python reads.
        return f"not JSON ({error})"
    if not isinstance(value, dict):
        return f"a JSON {type(value).__name__} instead of an object"
    return value


def _text_lines(patterns: Sequence[str], folder: str) -> Table:
    records = Records(("text",), name=", ".join(patterns))
    blank = 0
    for file, lines in _numbered(patterns, folder):
        for number, line in enumerate(lines, start=1):
            if line.strip():
                records.add(f"{file.name}:{number}", [line])
            else:
                blank += 1
    if blank:
        records.notes.append(f"{records.name}: {blank} blank lines skipped")
    return records.table()


def _whole(split: str, texts: Sequence[tuple[path_tools.File, str]]) -> Table:
    records = Records(("text",), name=split)
    for file, text in texts:
        records.add(file.name, [text])
    return records.table()


def _cut(
    file: path_tools.File, text: str, shares: Mapping[str, float]
) -> dict[str, str]:
    """Returns the part of a text that is each split's, in the order of the shares."""
    total = list(itertools.accumulate(shares.values(), initial=0.0))
    # The last one goes to the end, whatever the rounding of the sum.
    ends = [*(int(part * len(text) + 1e-6) for part in total[:-1]), len(text)]
    parts = {
        split: text[start:end]
        for split, (start, end) in zip(shares, itertools.pairwise(ends), strict=True)
    }
    empty = [split for split, part in parts.items() if not part]
    if empty:
        raise DataError(
            "a file is too short to be cut into these splits",
            received=f"{len(text)} characters in {file.name}, none for {empty[0]}",
        )
    return parts


def _conll(patterns: Sequence[str], folder: str, columns: tuple[str, ...]) -> Table:
    if "text" in columns or len(set(columns)) != len(columns) or not columns:
        raise DataError(
            "the columns of a CoNLL file need different names, none of them 'text'",
            received=columns,
            expected="such as ('tokens', 'tags')",
        )
    records = Records((*columns, "text"), name=", ".join(patterns))
    documents = 0
    for file, lines in _numbered(patterns, folder):
        sentence: list[tuple[int, list[str]]] = []
        for number, line in enumerate([*lines, ""], start=1):
            if line.startswith("-DOCSTART-"):
                documents += 1
            elif line.strip():
                fields = line.split("\t") if "\t" in line else line.split()
                sentence.append((number, fields))
            elif sentence:
                _add_sentence(sentence, records, file)
                sentence = []
    if documents:
        records.notes.append(f"{records.name}: {documents} -DOCSTART- lines skipped")
    return records.table()


def _add_sentence(
    sentence: list[tuple[int, list[str]]], records: Records, file: path_tools.File
) -> None:
    expected = len(records.columns) - 1
    for number, fields in sentence:
        fault = path_tools.undecodable("\t".join(fields))
        if len(fields) != expected:
            fault = f"{len(fields)} fields instead of {expected}"
        elif not all(field.strip() for field in fields):
            fault = "an empty field"
        if fault:
            records.add_bad(f"{file.name}:{number}", fault)
            return
    values = [list(column) for column in zip(*(f for _, f in sentence), strict=True)]
    records.add(f"{file.name}:{sentence[0][0]}", [*values, " ".join(values[0])])
