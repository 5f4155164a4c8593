"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
from typing import Any

from tflearn.support.safety import json_files


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file in one atomic step.

    Args:
        path: Where to write; missing parent folders are made.
        text: The content.
    """
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes a value as indented JSON in one atomic step.

    Args:
        path: Where to write.
        value: Anything `json` takes; NaN and infinities are refused, since other
            languages' parsers refuse them.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.

    Returns:
        The parsed value.

    Raises:
        FileError: It is no JSON, or larger or deeper than any that tflearn writes.
        OSError: It cannot be read.
    """
    return json_files.read(path)


def free_page_cache(folder: pathlib.Path) -> None:
    """Lets the system take back the memory in which it keeps a folder's files.

    What is on its way to the disk stays until it is there; nothing is lost. It does
    nothing where the system has no such call.

    Args:
        folder: A local folder; other processes may write and delete in it.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    # It passes over folders that are renamed or deleted meanwhile.
    for parent, _, names in os.walk(folder):
        for name in names:
            path = pathlib.Path(parent, name)
            with contextlib.suppress(OSError), path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def digest(*parts: bytes | str) -> str:
    """Returns a short SHA-256 fingerprint of some parts in order.

    Example:

    >>> len(digest("a", b"b"))
    16
    """
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:16]
