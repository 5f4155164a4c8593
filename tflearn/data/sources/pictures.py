"""Images beside their captions: tables that name image files, captions by template."""

from __future__ import annotations

import pathlib
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tflearn.data import images
from tflearn.data import paths as path_tools
from tflearn.data.sources.delimited import csv, tsv
from tflearn.data.sources.parquet_files import parquet
from tflearn.data.sources.text_files import jsonl
from tflearn.data.table import MISSING, Column, Table
from tflearn.support.errors import DataError, nearest

_READERS: dict[str, Callable[..., dict[str, Table]]] = {
    ".csv": csv,
    ".tsv": tsv,
    ".jsonl": jsonl,
    ".parquet": parquet,
}


def image_table(
    paths: path_tools.Paths,
    column: str = "image",
    images_folder: str | None = None,
    folder: str = "",
) -> dict[str, Table]:
    """Reads tables with a column of image files, such as captions of a folder's images.

    The images stay encoded until they are needed; one that is absent or broken is an
    unusable row. The names of the files stay in the column `path`, all other columns
    are as they were.

    Args:
        paths: A `.csv`, `.tsv`, `.jsonl` or `.parquet` file or glob, or `{'train':
            ..., 'test': ...}`.
        column: The column of paths.
        images_folder: Put in front of relative paths of images. None: the folder
            that the tables of a split lie in.
        folder: Put in front of relative paths of tables, and of `images_folder`.

    Returns:
        The tables by split.

    Raises:
        DataError: A table is absent or of unknown format, or lacks the column.
    """
    found = {}
    for split, patterns in path_tools.by_split(paths).items():
        table = _reader(patterns)({split: patterns}, folder=folder)[split]
        root = _root(patterns, images_folder, folder)
        names = table.column(column)
        opened = {"path": names, column: _Opened(names, root)}
        found[split] = _changed(table, opened)
    return found


def captioned(
    source: Callable[[], Any], template: str, column: str = "caption"
) -> dict[str, Table]:
    """Adds a column of texts made of other columns, such as of the class.

    Where one of these is missing or empty in a row, so is the text.

    Args:
        source: Any other source.
        template: A text with names of columns in braces, such as
            `'a photo of a {label}'`.
        column: Name of the new column.

    Returns:
        The tables by split.

    Raises:
        DataError: The template names no column or one that is not there, or cannot
            be filled with what stands in it.

    Example:

    >>> tables = captioned(lambda: [{"label": "cat"}], "a photo of a {label}")
    >>> tables["all"][0]["caption"]
    'a photo of a cat'
    """
    names = _fields(template)
    given = source()
    if not isinstance(given, Mapping):
        given = {path_tools.ALL: given}
    tables = {
        split: rows if isinstance(rows, Table) else Table.from_rows(rows, name=split)
        for split, rows in given.items()
    }
    made = {}
    for split, table in tables.items():
        parts = {name: table.column(name) for name in names}
        texts = [
            _filled(template, {name: parts[name][row] for name in names})
            for row in range(len(table))
        ]
        made[split] = _changed(table, {column: texts})
    return made


class _Opened(Sequence[images.Image]):
    """Images of named files, opened when they are asked for."""

    def __init__(self, names: Column, root: pathlib.Path) -> None:
        self._names = names
        self._root = root

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: Any) -> Any:
        name = self._names[index]
        if not isinstance(name, str):
            # What is missing, or no name, is told of with the row that it stands in.
            return name
        return images.open_image(str(path_tools.join(str(self._root), name)))


def _reader(patterns: Sequence[str]) -> Callable[..., dict[str, Table]]:
    suffixes = {
        pathlib.PurePath(pattern.removesuffix(".gz")).suffix.lower()
        for pattern in patterns
    }
    suffix = suffixes.pop() if len(suffixes) == 1 else ""
    if suffix not in _READERS:
        raise DataError(
            "the tables of a split are of one known format",
            received=", ".join(patterns),
            expected=f"files that end in {', '.join(_READERS)}",
            nearest=nearest(suffix, _READERS),
        )
    return _READERS[suffix]


def _root(
    patterns: Sequence[str], images_folder: str | None, folder: str
) -> pathlib.Path:
    if images_folder is not None:
        root = path_tools.join(folder, images_folder)
        if not root.is_dir():
            raise path_tools.missing(root)
        return root
    roots = sorted({file.path.parent for file in path_tools.find(patterns, folder)})
    if len(roots) > 1:
        raise DataError(
            "the tables lie in several folders, so it is open where the images are",
            received=", ".join(map(str, roots[:3])),
            fix="bind data.sources.image_table.images_folder",
        )
    return roots[0]


def _fields(template: str) -> tuple[str, ...]:
    try:
        named = {field for _, field, _, _ in string.Formatter().parse(template)}
    except ValueError as error:
        raise DataError(f"not a template ({error})", received=template) from error
    names = tuple(sorted(name for name in named if name is not None))
    if not names or not all(name.isidentifier() for name in names):
        raise DataError(
            "a template names columns in braces",
            received=template,
            expected="such as 'a photo of a {label}'",
        )
    return names


def _filled(template: str, values: Mapping[str, Any]) -> Any:
    for value in values.values():
        # NaN is the only number that differs from itself.
        absent = isinstance(value, float) and value != value
        if value is None or value is MISSING or absent or not str(value).strip():
            return MISSING
    try:
        return template.format(**values)
    except ValueError as error:
        raise DataError(
            f"the template cannot be filled ({error})", received=template
        ) from error


def _changed(table: Table, columns: Mapping[str, Column]) -> Table:
    """Returns a table with some columns more, or others in their place."""
    return Table(
        {**table.columns, **columns},
        locate=table.locate,
        name=table.name,
        bad=table.bad,
        ordinals=table.ordinals,
        notes=table.notes,
        classes=table.classes,
    )
