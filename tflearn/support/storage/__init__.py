"""Run directories in buckets: worked on in a copy, put there file by file.

Libraries write to folders: models, plots, logs that grow. So a run whose directory is a
URL works in a folder of this machine, its copy, and what changed there is put into the
bucket at the moments that a resumed run depends on.

Functions that take a path take one of this machine, too, and then have nothing to do.

Example:

>>> folder = local("memory://docs/stored")
>>> _ = (folder / "report.json").write_text("{}")
>>> push(folder)
>>> shown(folder / "report.json")
'memory://docs/stored/report.json'
>>> local("runs/digits")
PosixPath('runs/digits')
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

from tflearn.support.storage import buckets, copies, locks

_copies: dict[str, copies.Copy] = {}


def local(name: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the folder in which a run directory is worked on.

    Args:
        name: A path, or a URL such as `gs://bucket/run`.

    Returns:
        The path itself; of a URL the copy, in which nothing is until it is pulled.

    Raises:
        ConfigError: The URL is of no known kind, or a library is missing.
    """
    url = buckets.split(name)
    if url is None:
        text = os.fspath(name)
        return pathlib.Path(re.sub(r"^file:/+", "/", text))
    wanted = f"{url[0]}://{url[1]}"
    for known, copy in _copies.items():
        if wanted == known or wanted.startswith(f"{known}/"):
            return copy.folder / wanted[len(known) + 1 :]
    made = copies.Copy(buckets.connect(wanted))
    _copies[wanted] = made
    return made.folder


def fetched(name: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the folder of a run that is read: of a URL a copy without checkpoints."""
    folder = local(name)
    copy = _copy_of(folder)
    # What this process writes is what it is, and a finished run stays as it is.
    if copy and not copy.locks and not (folder / "report.json").exists():
        copy.pull(copy.name(folder), deep=True, checkpoints=False)
    return folder


def is_copy(path: pathlib.Path) -> bool:
    """Tells whether a path belongs to a run directory in a bucket."""
    return _copy_of(path) is not None


def shown(path: str | os.PathLike[str]) -> str:
    """Returns a path as the user knows it: in a bucket, as a URL."""
    copy = _copy_of(pathlib.Path(path))
    if copy is None:
        return os.fspath(path)
    return f"{copy.bucket.url}/{copy.name(pathlib.Path(path))}".rstrip("/")


def pull(folder: pathlib.Path, *, deep: bool = True) -> None:
    """Makes a folder of a copy what the bucket holds.

    Args:
        folder: The folder; what lies in it and was not pushed is lost.
        deep: Whether folders in it are, too; if not, what lies in it stays.
    """
    copy = _copy_of(folder)
    if copy is not None:
        copy.pull(copy.name(folder), deep=deep, checkpoints=True)


def push(folder: pathlib.Path) -> None:
    """Puts what changed in the copy that a folder belongs to into its bucket.

    Raises:
        RunError: The bucket cannot be reached, or the lock was taken over.
    """
    copy = _copy_of(folder)
    if copy is not None:
        copy.push()


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds a folder of a copy for this process alone, in its bucket.

    Raises:
        RunError: Another process holds it.
    """
    copy = _copy_of(folder)
    if copy is None:
        raise ValueError(f"no copy of a run directory in a bucket: {folder}")
    with locks.held(copy.bucket.at(copy.name(folder))) as lock:
        copy.locks.append(lock)
        try:
            yield
        finally:
            copy.locks.remove(lock)


def checkpoint_folder(folder: pathlib.Path) -> Any:
    """Returns where Orbax keeps the checkpoints of a folder: there, or in the bucket.

    Returns:
        A `pathlib.Path`, or an `epath.Path` with the same methods.
    """
    copy = _copy_of(folder)
    if copy is None or not copy.of_orbax:
        return pathlib.Path(folder).absolute()
    from etils import epath
    from etils.epath import gpath

    if os.environ.get("EPATH_USE_TF") != "false":
        # Else epath would ask TensorFlow, which a run on JAX does not import. It may
        # have answered the question before, for a folder of this machine.
        os.environ["EPATH_USE_TF"] = "false"
        remembered: Any = getattr(gpath, "_is_tf_installed", None)
        getattr(remembered, "cache_clear", lambda: None)()
    return epath.Path(shown(folder))


def is_packed(folder: pathlib.Path) -> bool:
    """Tells whether checkpoints in a folder are packed and put into a bucket."""
    copy = _copy_of(folder)
    return copy is not None and not copy.of_orbax


def copy_tree(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a folder; `target` is there as a whole or not at all.

    Args:
        source: The folder. Of a copy it is pulled first.
        target: It must not exist; of a copy it belongs to the same one, and is pushed.
    """
    pull(source)
    copied = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(source, copied)
    copy = _copy_of(source)
    for name in copy.bucket.names(copy.name(source)) if copy else ():
        if copy and copy.of_orbax and copies.is_in_checkpoint(name):
            inside = name.removeprefix(copy.name(source))
            copy.bucket.copy(name, copy.name(target) + inside)
    if target.is_dir():
        target.rmdir()
    copied.rename(target)
    push(target)


def _copy_of(path: pathlib.Path) -> copies.Copy | None:
    found = [x for x in _copies.values() if pathlib.Path(path).is_relative_to(x.folder)]
    return found[0] if found else None
