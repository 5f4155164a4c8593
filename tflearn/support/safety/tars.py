"""What a tar archive claims, before any member is read."""

from __future__ import annotations

import pathlib
import tarfile
from collections.abc import Iterator

from tflearn.support.errors import FileError

# How compressed files begin: gzip, bzip2, xz, zstandard.
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


def is_compressed(path: pathlib.Path) -> bool:
    """Tells whether a file is compressed, without unpacking any of it.

    A few kilobytes of a compressed archive can be a first header of gigabytes.

    Args:
        path: The file.
    """
    with path.open("rb") as file:
        return file.read(6).startswith(_COMPRESSED)


def is_tar(path: pathlib.Path) -> bool:
    """Tells whether a file is a tar archive that is not compressed."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError):
        return False


def members(archive: tarfile.TarFile, path: pathlib.Path) -> Iterator[tarfile.TarInfo]:
    """Yields the files and folders of a tar archive, each checked.

    Args:
        archive: The open archive, not compressed.
        path: The file.

    Raises:
        FileError: A member is a link or a device, has holes, or ends behind the file.
    """
    size = path.stat().st_size
    for member in archive:
        named = f"{path}: {member.name[:200]!r}"
        if not (member.isfile() or member.isdir()):
            raise FileError(
                "a member of the archive is no file and no folder",
                received=named,
                expected="an archive without links and devices",
                fix="pack the files themselves: tar --dereference",
            )
        # A sparse member of a kilobyte may claim terabytes of zeros.
        if member.issparse():
            raise FileError(
                "a member of the archive has holes",
                received=named,
                fix="pack it again without tar's --sparse",
            )
        if member.size < 0 or member.offset_data + member.size > size:
            raise FileError("a member ends behind the archive", received=named)
        yield member
