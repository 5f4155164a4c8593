"""What is costly to make and cheap to keep, from one start of a run to the next.

An entry is a folder under the user's cache, named by a fingerprint of all that it
depends on, so that nothing in it is ever out of date; it may be deleted at any time.
`TFLEARN_CACHE` names another folder than `~/.cache/tflearn`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import TypeVar

from tflearn.support import files
from tflearn.support.console import say

_DIGESTS = "digests.json"
_T = TypeVar("_T")


def root() -> pathlib.Path:
    """Returns the folder of all entries."""
    named = os.environ.get("TFLEARN_CACHE")
    if named:
        return pathlib.Path(named).expanduser()
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(user).expanduser() / "tflearn"


def reuse(
    kind: str,
    key: str,
    *,
    make: Callable[[], _T],
    read: Callable[[pathlib.Path], _T],
    write: Callable[[_T, pathlib.Path], None],
    limit_bytes: int | None = None,
) -> _T:
    """Reads what an earlier process made, or makes it and keeps it.

    Args:
        kind: What it is, for its folder and for messages; such as `vocabularies`.
        key: Fingerprint of all that it depends on.
        make: Makes it.
        read: Reads it from a folder.
        write: Writes it into an empty folder.
        limit_bytes: What all entries of the kind may take; those that were used
            longest ago make room. None: any number.

    Returns:
        What was read or made. An entry that is damaged is made anew; a cache that
        cannot be written to is told of and no error.

    Example:

    >>> import tempfile
    >>> def write(text, folder):
    ...     (folder / "text").write_text(text)
    >>> with tempfile.TemporaryDirectory() as name:
    ...     os.environ["TFLEARN_CACHE"] = name
    ...     found = [
    ...         reuse(
    ...             "texts",
    ...             "1",
    ...             make=lambda: made,
    ...             read=lambda folder: (folder / "text").read_text(),
    ...             write=write,
    ...         )
    ...         for made in ("first", "second")
    ...     ]
    ...     del os.environ["TFLEARN_CACHE"]
    texts of an earlier start: ...
    >>> found
    ['first', 'first']
    """
    folder = root() / kind / key
    found = _found(folder, kind, read)
    if found is not None:
        return found
    made = make()
    try:
        _keep(folder, lambda part: write(made, part))
        make_room(kind, limit_bytes, keep=key)
    except OSError as error:
        say(f"note: {kind} are not kept for another start ({error})")
    return made


def reuse_files(
    kind: str,
    key: str,
    *,
    write: Callable[[pathlib.Path], None],
    read: Callable[[pathlib.Path], _T],
    limit_bytes: int | None = None,
) -> _T:
    """Reads what an earlier process wrote, or writes it; for what outgrows memory.

    Args:
        kind: As for `reuse`, as are `key`, `read` and `limit_bytes`.
        key: Fingerprint of all that it depends on.
        write: Makes it in an empty folder.
        read: Reads it from there.
        limit_bytes: What all entries of the kind may take.

    Returns:
        What was read.

    Raises:
        OSError: It cannot be written.
    """
    folder = root() / kind / key
    found = _found(folder, kind, read)
    if found is not None:
        return found
    _keep(folder, write)
    make_room(kind, limit_bytes, keep=key)
    return read(folder)


def make_room(kind: str, limit_bytes: int | None, *, keep: str) -> None:
    """Deletes the entries of a kind that were used longest ago until they fit.

    Args:
        kind: The kind.
        limit_bytes: What they may take; None: any number.
        keep: Key of the entry that stays.
    """
    if limit_bytes is None or not (root() / kind).is_dir():
        return
    # Another process may delete the same ones.
    sizes = {x: _num_bytes(x) for x in (root() / kind).iterdir() if x.is_dir()}
    excess = sum(sizes.values()) - limit_bytes
    for folder in sorted(sizes, key=lambda x: x.stat().st_mtime):
        if excess > 0 and folder.name != keep:
            shutil.rmtree(folder, ignore_errors=True)
            excess -= sizes[folder]


def _num_bytes(folder: pathlib.Path) -> int:
    return sum(x.stat().st_size for x in folder.rglob("*") if x.is_file())


def _found(
    folder: pathlib.Path, kind: str, read: Callable[[pathlib.Path], _T]
) -> _T | None:
    """Reads an entry; deletes one that is damaged, and says so."""
    if not folder.is_dir():
        return None
    try:
        _check(folder)
        found = read(folder)
    except (OSError, ValueError, KeyError) as error:
        say(f"note: damaged {kind} are made anew: {folder} ({error})")
        shutil.rmtree(folder, ignore_errors=True)
        return None
    say(f"{kind} of an earlier start: {folder}")
    # What was used last is deleted last.
    with contextlib.suppress(OSError):
        folder.touch()
    return found


def _keep(folder: pathlib.Path, write: Callable[[pathlib.Path], None]) -> None:
    """Writes an entry so that it is there as a whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished."))
    try:
        write(part)
        files.write_json(part / _DIGESTS, _digests(part))
        part.rename(folder)
    except OSError:
        # Another process may have been quicker with the same entry.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check(folder: pathlib.Path) -> None:
    expected = files.read_json(folder / _DIGESTS)
    if _digests(folder) != expected:
        raise ValueError("the files are not those that were written")


def _digests(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _DIGESTS
    }


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
