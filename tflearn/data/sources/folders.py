"""Folders whose subfolders are the classes."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from tflearn.data import archives, images
from tflearn.data import paths as path_tools
from tflearn.data.sources.records import Records
from tflearn.data.table import Table
from tflearn.support.errors import DataError

_TEXT_SUFFIXES = frozenset((".txt", ".text", ".md"))


@dataclasses.dataclass(frozen=True)
class _Kind:
    column: str
    suffixes: frozenset[str]
    value: Callable[[archives.Entry], Any]


def image_folder(paths: path_tools.Paths, folder: str = "") -> dict[str, Table]:
    """Reads `<class>/*.jpg` or `<split>/<class>/*.jpg`, also inside tar and zip files.

    Folders above the splits or classes that hold nothing else are passed over. Images
    stay encoded until they are needed. Columns: `image`, `label` (the folder's name)
    and `path`. Files that are not images by their suffix are counted in a note; a
    class folder without an image is an error.

    Args:
        paths: A folder or an archive, or `{'train': ..., 'test': ...}`. A folder
            inside of an archive is written `images.tar/train`.
        folder: Put in front of relative paths.

    Returns:
        The tables by split.

    Raises:
        DataError: A path is absent, an archive damaged, a class folder empty, or
            there is no image.
    """
    kind = _Kind(
        "image",
        images.SUFFIXES,
        lambda entry: images.Image(_reader(entry), entry.location),
    )
    return _read(paths, folder, kind)


def text_folder(paths: path_tools.Paths, folder: str = "") -> dict[str, Table]:
    """Reads `<class>/*.txt` or `<split>/<class>/*.txt`, also inside tar and zip files.

    A row is a file. Columns: `text`, `label` (the folder's name) and `path`. Files
    with another suffix than .txt, .text and .md are counted in a note.

    Args:
        paths: A folder or an archive, or `{'train': ..., 'test': ...}`.
        folder: Put in front of relative paths.

    Returns:
        The tables by split.

    Raises:
        DataError: A path is absent, an archive damaged, a class folder empty, or
            there is no text file.
    """
    return _read(paths, folder, _Kind("text", _TEXT_SUFFIXES, _text))


def _text(entry: archives.Entry) -> str:
    text = _reader(entry)().decode("utf-8-sig", errors="surrogateescape")
    return text.replace("\r\n", "\n").strip()


def _reader(entry: archives.Entry) -> Callable[[], bytes]:
    if entry.read is None:
        raise DataError("a folder stands where a file should", received=entry.location)
    return entry.read


def _read(paths: path_tools.Paths, folder: str, kind: _Kind) -> dict[str, Table]:
    found: dict[str, list[archives.Entry]] = {}
    notes: dict[str, list[str]] = {}
    for split, roots in path_tools.by_split(paths).items():
        for root in roots:
            entries = archives.entries(root, folder)
            tree = _strip([entry for entry in entries if _belongs(entry, kind)])
            if not any(entry.read for entry in tree):
                raise DataError(
                    f"the folder has no {kind.column} file",
                    received=root,
                    expected=f"files that end in {', '.join(sorted(kind.suffixes))}",
                )
            parts = _by_split(tree) if split == path_tools.ALL else {split: tree}
            for part, below in parts.items():
                found.setdefault(part, []).extend(below)
                notes.setdefault(part, [])
            notes[next(iter(parts))] += _others(entries, kind, root)
    return {
        split: _table(entries, kind, notes[split], split)
        for split, entries in found.items()
    }


def _belongs(entry: archives.Entry, kind: _Kind) -> bool:
    """Tells whether an entry is a folder or a file of the kind, and not hidden."""
    if any(part.startswith(".") or part == "__MACOSX" for part in entry.parts):
        return False
    suffix = pathlib.PurePath(entry.parts[-1]).suffix.lower()
    return entry.read is None or suffix in kind.suffixes


def _others(entries: list[archives.Entry], kind: _Kind, root: str) -> list[str]:
    others = [e.location for e in entries if e.read and not _belongs(e, kind)]
    if not others:
        return []
    places = ", ".join(others[:3])
    return [f"{root}: {len(others)} files are no {kind.column} files: {places}"]


def _folders(tree: list[archives.Entry]) -> set[str]:
    """Returns the folders at the top; an archive may not list them by themselves."""
    return {e.parts[0] for e in tree if e.read is None or len(e.parts) > 1}


def _strip(tree: list[archives.Entry]) -> list[archives.Entry]:
    """Removes folders at the top that hold all the others."""
    while True:
        tops = {entry.parts[0] for entry in tree}
        shallow = any(entry.read and len(entry.parts) < 3 for entry in tree)
        if len(tops) != 1 or shallow or path_tools.is_split_name(next(iter(tops))):
            return tree
        tree = _below(tree)


def _below(tree: list[archives.Entry]) -> list[archives.Entry]:
    return [
        dataclasses.replace(entry, parts=entry.parts[1:])
        for entry in tree
        if len(entry.parts) > 1
    ]


def _by_split(tree: list[archives.Entry]) -> dict[str, list[archives.Entry]]:
    tops = sorted(_folders(tree))
    loose = any(len(entry.parts) == 1 and entry.read for entry in tree)
    if loose or not tops or not all(map(path_tools.is_split_name, tops)):
        return {path_tools.ALL: tree}
    result: dict[str, list[archives.Entry]] = {}
    for top in tops:
        inside = [entry for entry in tree if entry.parts[0] == top]
        result.setdefault(path_tools.split_name(top), []).extend(_below(inside))
    return result


def _table(
    tree: list[archives.Entry], kind: _Kind, notes: Sequence[str], split: str
) -> Table:
    folders = _folders(tree)
    _check_classes(tree, folders, kind)
    # Files without any class folder can still be predicted.
    columns = (kind.column, "path", "label") if folders else (kind.column, "path")
    records = Records(columns, name=f"the folder of '{split}'")
    records.notes.extend(notes)
    loose = []
    for entry in tree:
        if entry.read is None:
            continue
        values = [kind.value(entry), "/".join(entry.parts), entry.parts[0]]
        if folders and len(entry.parts) == 1:
            loose.append(entry.location)
        else:
            records.add(entry.location, values[: len(columns)])
    if loose:
        places = ", ".join(loose[:3])
        records.notes.append(f"{len(loose)} files lie in no class folder: {places}")
    return records.table()


def _check_classes(tree: list[archives.Entry], folders: set[str], kind: _Kind) -> None:
    full = {entry.parts[0] for entry in tree if entry.read and len(entry.parts) > 1}
    empty = sorted(folders - full)
    if empty:
        where = {e.parts[0]: e.location for e in tree if e.parts[0] in empty}
        raise DataError(
            f"{len(empty)} class folders have no {kind.column} file",
            received=", ".join(where[name] for name in empty[:3]),
            expected=f"files that end in {', '.join(sorted(kind.suffixes))}",
            fix="remove the empty folders, or fill them",
        )
