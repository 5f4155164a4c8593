"""From declared paths to files, and from files to text."""

from __future__ import annotations

import dataclasses
import glob
import gzip
import io
import os
import pathlib
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence

from tflearn.support.errors import DataError, nearest
from tflearn.support.safety import zips

#: What a source's `paths` may be: one split, or splits by name; a glob, or several.
Paths = str | Sequence[str] | Mapping[str, str | Sequence[str]]

#: The split of a source that does not name any.
ALL = "all"

_SPELLINGS = {
    "training": "train",
    "dev": "validation",
    "val": "validation",
    "valid": "validation",
    "eval": "validation",
    "testing": "test",
}
SPLITS = ("train", "validation", "test")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """A file of a source.

    Args:
        path: Where it is.
        name: How messages call it: the path as it was declared.
    """

    path: pathlib.Path
    name: str


def split_name(name: str) -> str:
    """Returns the name tflearn uses for a split.

    Example:
    >>> split_name("dev")
    'validation'
    """
    lowered = name.lower()
    return _SPELLINGS.get(lowered, lowered)


def is_split_name(name: str) -> bool:
    """Tells whether a folder's or a key's name is that of a split."""
    return split_name(name) in SPLITS


def by_split(paths: Paths) -> dict[str, tuple[str, ...]]:
    """Returns the declared paths of each split.

    Args:
        paths: One path or glob, several, or a mapping from split to these.

    Returns:
        Paths by split; the split is `all` where none is named.

    Raises:
        DataError: Nothing is declared, or a split is declared in two spellings.
    """
    declared = paths if isinstance(paths, Mapping) else {ALL: paths}
    result: dict[str, tuple[str, ...]] = {}
    for split, value in declared.items():
        name = split_name(split)
        if name in result:
            raise DataError(
                "a split is declared twice", received=", ".join(map(repr, declared))
            )
        result[name] = (value,) if isinstance(value, str) else tuple(value)
    if not result or not all(result.values()):
        raise DataError(
            "no path is declared",
            received=paths,
            expected="a path, or {'train': 'train.csv', 'test': 'test.csv'}",
        )
    return result


def join(folder: str, path: str) -> pathlib.Path:
    """Returns a path under a folder; `~` is the home directory."""
    return pathlib.Path(folder).expanduser() / pathlib.Path(path).expanduser()


def find(patterns: Sequence[str], folder: str = "") -> list[File]:
    """Finds the files that paths or globs name.

    Args:
        patterns: Paths or globs (`*`, `?`, `[...]`, `**`).
        folder: Put in front of relative ones.

    Returns:
        The files, those of a glob in order of their names.

    Raises:
        DataError: A file does not exist, or a glob matches none.
    """
    return [file for pattern in patterns for file in _find(pattern, folder)]


def _find(pattern: str, folder: str) -> Iterator[File]:
    path = join(folder, pattern)
    if path.is_file():
        yield File(path=path, name=pattern)
        return
    if path.is_dir():
        raise DataError(
            "a folder stands where a file should", received=str(path), expected="a file"
        )
    if not glob.has_magic(pattern):
        raise missing(path)
    root = pathlib.Path(folder).expanduser()
    found = sorted(map(pathlib.Path, glob.glob(str(path), recursive=True)))
    files = [item for item in found if item.is_file()]
    if not files:
        raise DataError("a glob matches no file", received=str(path))
    for item in files:
        yield File(path=item, name=os.path.relpath(item, root) if folder else str(item))


def missing(path: pathlib.Path) -> DataError:
    """Returns the error for a path that does not exist, with the closest name."""
    folder = path.parent
    known = [item.name for item in folder.iterdir()] if folder.is_dir() else []
    return DataError(
        "no such file or folder" if folder.is_dir() else "no such folder",
        received=str(path if folder.is_dir() else folder),
        nearest=nearest(path.name, known),
    )


def read_bytes(file: File) -> bytes:
    """Reads a file, unpacking it if its name ends in `.gz`.

    Raises:
        DataError: The file is empty, cannot be read or is damaged.
    """
    try:
        content = file.path.read_bytes()
        if file.path.suffix == ".gz":
            content = _unpacked(content, str(file.path))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"cannot read the file ({error})", received=str(file.path)
        ) from error
    if not content:
        raise DataError("the file is empty", received=str(file.path))
    return content


def _unpacked(content: bytes, name: str) -> bytes:
    most = zips.FLOOR_BYTES + zips.MAX_EXPANSION * len(content)
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as opened:
        # Not more than one byte too much is ever made of a file that has no end.
        unpacked = opened.read(most + 1)
    zips.check_size(len(unpacked), len(content), name)
    return unpacked


def check_not_empty(file: File) -> None:
    """Raises a `DataError` if a file has no bytes."""
    if file.path.stat().st_size == 0:
        raise DataError("the file is empty", received=str(file.path))


def read_text(file: File) -> str:
    r"""Reads a UTF-8 text file.

    Bytes that are not UTF-8 become lone surrogates, which `undecodable` finds again,
    so that the rest of the file stays readable and the rows can be named.

    Returns:
        The text with `\n` between lines, without a byte order mark.

    Raises:
        DataError: The file is empty, or is UTF-16.
    """
    content = read_bytes(file)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(
            "the file is UTF-16",
            received=str(file.path),
            expected="UTF-8",
            fix=f"iconv -f UTF-16 -t UTF-8 {file.name}",
        )
    text = content.decode("utf-8-sig", errors="surrogateescape")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines(text: str) -> list[str]:
    r"""Splits a text at line feeds only; a final line feed ends the last line.

    `str.splitlines` would also split at characters that occur inside of texts, such
    as the line separator U+2028.

    Example:
    >>> lines("a\nb\u2028c\n")
    ['a', 'b\u2028c']
    """
    return text.removesuffix("\n").split("\n")


def undecodable(text: str) -> str | None:
    """Returns why a text has no form in UTF-8, or None if it has one."""
    found = None if text.isascii() else _SURROGATE.search(text)
    if found is None:
        return None
    point, place = ord(found.group()), f"at character {found.start() + 1}"
    if 0xDC80 <= point <= 0xDCFF:  # What `read_text` makes of such a byte.
        return f"byte 0x{point - 0xDC00:02x} {place} is not UTF-8"
    # JSON can hold it: "\ud83d" is what is left of an emoji that was cut in two.
    return f"\\u{point:04x} {place} is half of a character"
