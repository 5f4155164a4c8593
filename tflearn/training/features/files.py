"""Features of a split: computed once, kept in memory or in mapped files.

A folder of features is named by a fingerprint of all that they depend on. It is written
under another name until it is complete; a process that was killed on the way goes on
behind the last batches that are known to be on disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tflearn.backbones.part import Part
from tflearn.data.examples import Examples
from tflearn.support import cache, files
from tflearn.support.console import say
from tflearn.support.errors import RunError
from tflearn.training.features.examples import Field, as_dtype
from tflearn.training.features.passes import MakeBatch, compute

_DONE, _META = "done.json", "features.json"
#: Seconds of work that a process that is killed may lose.
_FLUSH_SECONDS = 20.0


def kept(
    prefix: Part,
    examples: Examples,
    fields: Sequence[Field],
    *,
    key: str,
    batch_size: int,
    fits: Sequence[int] = (),
    make_batch: MakeBatch | None = None,
    description: str = "frozen layers",
) -> tuple[dict[str, np.ndarray], bool]:
    """Returns features from files that an earlier process made, or makes them.

    Args:
        prefix: The prefix.
        examples: The examples.
        fields: What the arrays are.
        key: Fingerprint of all that they depend on.
        batch_size: Examples a batch.
        fits: As in `passes.passes`.
        make_batch: Makes a batch; by default the examples as they are.
        description: Text of the progress bar.

    Returns:
        Arrays mapped from files, and whether they were there.

    Raises:
        OSError: The files cannot be written, or another process is writing them.
    """
    folder = root() / key
    if folder.is_dir():
        try:
            _check(folder)
        except (OSError, ValueError, KeyError, RunError) as error:
            say(f"note: damaged features are computed anew: {folder} ({error})")
            shutil.rmtree(folder, ignore_errors=True)
        else:
            # What was used last is deleted last.
            folder.touch()
            return _map(folder, fields, examples, "r"), True
    part = root() / f".unfinished.{key}"
    part.mkdir(parents=True, exist_ok=True)
    run = functools.partial(
        compute,
        prefix,
        examples,
        fields,
        batch_size=batch_size,
        fits=fits,
        make_batch=make_batch,
        description=description,
    )
    with _locked(part):
        if not folder.is_dir():
            _make(part, fields, examples, run)
            part.rename(folder)
    return _map(folder, fields, examples, "r"), False


def root() -> pathlib.Path:
    """Returns the folder of all features that are kept."""
    return cache.root() / "features"


def make_room(num_bytes: int, *, limit: int, keep: Sequence[str] = ()) -> None:
    """Deletes the features that were used longest ago until there is room.

    Args:
        num_bytes: Room that is needed.
        limit: What all features together may take.
        keep: Keys that stay.
    """
    if not root().is_dir():
        return
    names = {name for key in keep for name in (key, f".unfinished.{key}")}
    sizes = {x: folder_bytes(x) for x in root().iterdir() if x.is_dir()}
    excess = sum(sizes.values()) + num_bytes - limit
    for folder in sorted(sizes, key=lambda x: x.stat().st_mtime):
        if excess <= 0:
            return
        if folder.name not in names:
            shutil.rmtree(folder, ignore_errors=True)
            excess -= sizes[folder]


def folder_bytes(folder: pathlib.Path) -> int:
    """Returns how much the files in a folder take."""
    return sum(x.stat().st_size for x in folder.iterdir() if x.is_file())


def _make(
    part: pathlib.Path,
    fields: Sequence[Field],
    examples: Examples,
    run: Callable[..., None],
) -> None:
    done = part / _DONE
    first = int(files.read_json(done)["batches"]) if done.exists() else 0
    if first:
        say(f"frozen layers: goes on behind batch {first}")
    if not first:
        _allocate(part, fields, examples)
    arrays = _map(part, fields, examples, "r+")
    written = time.monotonic()

    def on_batch(count: int) -> None:
        nonlocal written
        if time.monotonic() - written < _FLUSH_SECONDS:
            return
        _flush(arrays)
        files.write_json(done, {"batches": count})
        written = time.monotonic()

    run(arrays, first=first, on_batch=on_batch)
    _flush(arrays)
    done.unlink(missing_ok=True)
    names = [f"{field.name}.bin" for field in fields]
    files.write_json(part / _META, {name: _digest(part / name) for name in names})


def _allocate(part: pathlib.Path, fields: Sequence[Field], examples: Examples) -> None:
    """Takes the room on disk: a mapped file that finds none ends the process."""
    try:
        for field in fields:
            with (part / f"{field.name}.bin").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, field.num_bytes(examples))
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _map(
    folder: pathlib.Path, fields: Sequence[Field], examples: Examples, mode: Any
) -> dict[str, np.ndarray]:
    return {
        x.name: np.memmap(
            folder / f"{x.name}.bin",
            dtype=as_dtype(x.stored),
            mode=mode,
            shape=(x.rows(examples), *x.shape),
        )
        for x in fields
    }


def _flush(arrays: Mapping[str, Any]) -> None:
    for array in arrays.values():
        array.flush()


def _check(folder: pathlib.Path) -> None:
    expected = files.read_json(folder / _META)
    for name, digest in expected.items():
        if _digest(folder / name) != digest:
            raise ValueError(f"{name} is not what was written")


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        # The system lets go of the lock when the process ends, however it ends.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"another process is writing {folder}") from None
        yield
