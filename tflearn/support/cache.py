"""What is costly to make and cheap to keep, from one start of a run to the next.

An entry is a folder under the user's cache, named by a fingerprint of all that it
depends on, so that nothing in it is ever out of date; it may be deleted at any time.
`TFLEARN_CACHE` names another folder than `~/.cache/tflearn`.
"""

from __future__ import annotations

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
) -> _T:
    """Reads what an earlier process made, or makes it and keeps it.

    Args:
        kind: What it is, for its folder and for messages; such as `vocabularies`.
        key: Fingerprint of all that it depends on.
        make: Makes it.
        read: Reads it from a folder.
        write: Writes it into an empty folder.

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
    if folder.is_dir():
        try:
            _check(folder)
            found = read(folder)
        except (OSError, ValueError, KeyError) as error:
            say(f"note: damaged {kind} are made anew: {folder} ({error})")
            shutil.rmtree(folder, ignore_errors=True)
        else:
            say(f"{kind} of an earlier start: {folder}")
            return found
    made = make()
    try:
        _keep(folder, lambda part: write(made, part))
    except OSError as error:
        say(f"note: {kind} are not kept for another start ({error})")
    return made


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
        path.relative_to(folder).as_posix(): files.digest(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _DIGESTS
    }
