"""What a zip archive claims, before anything of it is unpacked."""

from __future__ import annotations

import pathlib
import re
import stat
import zipfile
from collections.abc import Sequence

from tflearn.support.errors import FileError
from tflearn.support.units import bytes_text

#: What may be unpacked from next to nothing: padding, masks, empty images.
FLOOR_BYTES = 64 * 2**20
#: How many times larger than in the archive a large member, or all, may be.
MAX_EXPANSION = 200
_DRIVE = re.compile(r"[A-Za-z]:")


def check_zip(
    archive: zipfile.ZipFile, name: str, *, extracted: bool = False
) -> list[zipfile.ZipInfo]:
    """Checks the members of a zip archive.

    Args:
        archive: The open archive.
        name: What messages call it.
        extracted: Whether members will be written under their names, so that these
            have to stay inside of a folder.

    Returns:
        The members.

    Raises:
        FileError: A member is encrypted, a link or a device, two have one name, one is
            to be written elsewhere, or sizes are absurd.
    """
    members = archive.infolist()
    check_unique([member.filename for member in members], name)
    for member in members:
        mode = stat.S_IFMT(member.external_attr >> 16)
        if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise FileError(
                "a member of the archive is no file and no folder",
                received=f"{name}: {member.filename[:200]!r}",
                expected="an archive without links and devices",
            )
        if member.flag_bits & 0x1:
            raise FileError(
                "a member of the archive is encrypted",
                received=f"{name}: {member.filename[:200]!r}",
            )
        if extracted:
            _check_inside(member.filename, name)
        check_size(
            member.file_size, member.compress_size, f"{name}: {member.filename[:200]}"
        )
    stored = sum(member.compress_size for member in members)
    check_size(sum(member.file_size for member in members), stored, name)
    return members


def check_size(
    claimed: int, stored: int, name: str, *, expansion: int = MAX_EXPANSION
) -> None:
    """Checks that what a file claims to hold is in proportion to the file.

    Args:
        claimed: Bytes when unpacked.
        stored: Bytes in the file.
        name: What messages call it.
        expansion: How many times as much may be claimed, beyond a floor.

    Raises:
        FileError: It is not.
    """
    if claimed > FLOOR_BYTES + expansion * stored:
        raise FileError(
            "a small file claims to hold a large one",
            received=f"{name}: {bytes_text(claimed)} in {bytes_text(stored)}",
            expected=f"at most {expansion} times as much as is stored",
            fix="do not use this file unless you know who made it, and why so",
        )


def check_unique(names: Sequence[str], name: str) -> None:
    """Checks that no two members have one name: readers differ in which one they take.

    Raises:
        FileError: Two have.
    """
    seen: set[str] = set()
    for one in names:
        if one in seen:
            raise FileError(
                "two members of the archive have one name",
                received=f"{name}: {one[:200]!r}",
            )
        seen.add(one)


def _check_inside(member: str, name: str) -> None:
    parts = pathlib.PurePosixPath(member.replace("\\", "/")).parts
    if ".." in parts or member.startswith(("/", "\\")) or _DRIVE.match(member):
        raise FileError(
            "a member of the archive would be written outside of its folder",
            received=f"{name}: {member[:200]!r}",
        )
