"""Folders of files, also inside tar and zip archives, read without unpacking.

An archive is never extracted, so a member called `../../etc/passwd` is only a name;
an archive that holds links or devices, or claims to hold far more than is stored in
it, is refused.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator

from tflearn.data.images import FileReader
from tflearn.data.paths import join, missing
from tflearn.support.errors import DataError, TflearnError
from tflearn.support.safety import tars, zips


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file or folder below the root.

    Args:
        parts: The path below the root.
        read: Returns the file's bytes; None for a folder.
        location: How messages call it.
    """

    parts: tuple[str, ...]
    read: Callable[[], bytes] | None
    location: str


@dataclasses.dataclass(frozen=True)
class TarReader:
    """Reads a member of an uncompressed tar file by its place in the file."""

    path: str
    offset: int
    size: int

    def __call__(self) -> bytes:
        """Returns the member's bytes."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclasses.dataclass(frozen=True)
class ZipReader:
    """Reads a member of a zip file; each thread keeps its own open file."""

    path: str
    member: str

    def __call__(self) -> bytes:
        """Returns the member's bytes."""
        opened = getattr(_OPEN, "zips", None)
        if opened is None:
            opened = _OPEN.zips = {}
        if self.path not in opened:
            opened.clear()
            opened[self.path] = zipfile.ZipFile(self.path)
        try:
            return opened[self.path].read(self.member)
        except Exception as error:
            # BadZipFile, zlib.error, RuntimeError, KeyError, ...: all are damage.
            raise OSError(str(error)) from error


_OPEN = threading.local()


def entries(path: str, folder: str = "") -> list[Entry]:
    """Lists everything below a folder, a tar or zip file, or a folder inside of one.

    Args:
        path: Such as `images`, `images.tar`, `images.zip` or `images.tar/train`.
        folder: Put in front of a relative path.

    Returns:
        Files and folders, sorted by path.

    Raises:
        DataError: There is no such folder or archive, or the archive is damaged.
    """
    whole = join(folder, path)
    if whole.is_dir():
        return sorted(_in_folder(whole, path), key=lambda entry: entry.parts)
    archive = next((p for p in (whole, *whole.parents) if p.is_file()), None)
    if archive is None:
        raise missing(whole)
    inner = whole.relative_to(archive).parts
    name = str(pathlib.PurePath(path)).removesuffix("/".join(inner)).rstrip("/")
    found = [
        dataclasses.replace(entry, parts=entry.parts[len(inner) :])
        for entry in _in_archive(archive, name or archive.name)
        if entry.parts[: len(inner)] == inner and len(entry.parts) > len(inner)
    ]
    if not found:
        raise DataError("the archive has no such folder", received=str(whole))
    return sorted(found, key=lambda entry: entry.parts)


def _in_folder(root: pathlib.Path, name: str) -> Iterator[Entry]:
    # Links are followed: data sets often lie elsewhere. A loop of links would not end.
    seen = {os.path.realpath(root)}
    for folder, folders, files in os.walk(root, followlinks=True):
        here = pathlib.Path(folder)
        for child in folders:
            real = os.path.realpath(here / child)
            if real in seen and (here / child).is_symlink():
                raise DataError("a folder contains itself", received=str(here / child))
            seen.add(real)
        parts = here.relative_to(root).parts
        for child in folders:
            yield Entry((*parts, child), None, f"{name}/{'/'.join((*parts, child))}")
        for child in files:
            location = "/".join((name.rstrip("/"), *parts, child))
            yield Entry((*parts, child), FileReader(str(here / child)), location)


def _in_archive(archive: pathlib.Path, name: str) -> Iterator[Entry]:
    try:
        if tars.is_compressed(archive):
            raise DataError(
                "a compressed file has no random access",
                received=str(archive),
                expected="an uncompressed tar file, a zip file or a folder",
                fix=f"unpack it once, such as with gunzip {archive.name}",
            )
        if zipfile.is_zipfile(archive):
            return iter(list(_in_zip(archive, name)))
        if tars.is_tar(archive):
            return iter(list(_in_tar(archive, name)))
    except TflearnError:
        raise
    except Exception as error:
        # Broken headers end in TarError, BadZipFile, struct.error, UnicodeError, ...
        raise DataError(
            f"the archive is damaged ({error})", received=str(archive)
        ) from error
    raise DataError(
        "not a folder and not an archive",
        received=str(archive),
        expected="a folder, a tar file or a zip file",
    )


def _in_zip(archive: pathlib.Path, name: str) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as opened:
        seen = set()
        for member in zips.check_zip(opened, str(archive)):
            parts = _parts(member.filename)
            if not parts:
                continue
            if parts in seen:
                raise DataError(
                    "two members of the archive have one place",
                    received=f"{archive}: {member.filename[:200]!r}",
                )
            seen.add(parts)
            reader = ZipReader(str(archive), member.filename)
            location = f"{name}/{'/'.join(parts)}"
            yield Entry(parts, None if member.is_dir() else reader, location)


def _in_tar(archive: pathlib.Path, name: str) -> Iterator[Entry]:
    with tarfile.open(archive, "r:") as opened:
        for member in tars.members(opened, archive):
            parts = _parts(member.name)
            location = f"{name}/{'/'.join(parts)}"
            if parts and member.isdir():
                yield Entry(parts, None, location)
            elif parts and member.isfile():
                reader = TarReader(str(archive), member.offset_data, member.size)
                yield Entry(parts, reader, location)


def _parts(name: str) -> tuple[str, ...]:
    # The names only become classes and messages; they never reach the file system.
    return tuple(part for part in name.split("/") if part not in ("", ".", ".."))
