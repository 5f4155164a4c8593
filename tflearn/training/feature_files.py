"""Features of a split: computed once, kept in memory or in mapped files, batched.

A folder of features is named by a fingerprint of all that they depend on. It is written
under another name until it is complete; a process that was killed on the way goes on
behind the last batches that are known to be on disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import rich.progress

from tflearn.backbones.cut import Part
from tflearn.data.examples import Examples
from tflearn.data.spec import Batch, TensorSpec
from tflearn.support import cache, files
from tflearn.support.console import console, say
from tflearn.support.errors import RunError

_DONE, _META = "done.json", "features.json"
#: Seconds of work that a process that is killed may lose.
_FLUSH_SECONDS = 20.0

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One array of features.

    Args:
        name: Its name among the outputs of the prefix.
        shape: Shape of an example's part; of a token's, if `by_token`.
        dtype: Type that the prefix gives.
        stored: Type that it is kept in.
        by_token: Whether it has a row for each token of each text, padding left out.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: str
    by_token: bool

    def rows(self, examples: Examples) -> int:
        """Returns how many rows the features of some examples have."""
        if not self.by_token or examples.lengths is None:
            return len(examples)
        return int(np.sum(examples.lengths))

    def num_bytes(self, examples: Examples) -> int:
        """Returns how much the features of some examples take."""
        size = as_dtype(self.stored).itemsize * int(np.prod(self.shape))
        return size * self.rows(examples)


def as_dtype(name: str) -> np.dtype:
    """Returns a NumPy type by name, `bfloat16` included."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


class FeatureExamples(Examples):
    """Features in place of the examples that they were computed of.

    Args:
        examples: The examples.
        fields: What the arrays are.
        arrays: The features by name.
        names: Names of the model's inputs in order.
        takes: Which of them the suffix needs itself.
        mapped: Whether the arrays are files.
    """

    def __init__(
        self,
        examples: Examples,
        fields: Sequence[Field],
        arrays: Arrays,
        *,
        names: Sequence[str],
        takes: Sequence[str],
        mapped: bool,
    ) -> None:
        self._examples = examples
        self._fields = tuple(fields)
        self._arrays = arrays
        self._names = tuple(names)
        self._takes = tuple(takes)
        self.kind = examples.kind
        # Reading a file waits; threads wait together.
        self.lazy = mapped
        self._offsets = np.zeros(1, np.int64)
        varies = any(field.by_token for field in fields) or bool(takes)
        if varies and examples.lengths is not None:
            self.lengths = examples.lengths
            self.padded_lengths = examples.padded_lengths
            self._offsets = offsets(examples)
        one = self.batch(np.zeros(1, np.int64))
        self.inputs = {
            name: TensorSpec(
                shape=self._open(name, array.shape[1:]), dtype=str(array.dtype)
            )
            for name, array in one.items()
        }

    def __len__(self) -> int:
        return len(self._examples)

    def batch(
        self, indices: np.ndarray, *, length: int | None = None
    ) -> dict[str, np.ndarray]:
        """Returns what the suffix takes for some examples.

        Args:
            indices: Which examples, `(batch,)`.
            length: Length to pad to; None: the smallest that holds all of them.

        Returns:
            Arrays `(batch, ...)` by name; features of padding are zero.
        """
        indices = np.asarray(indices)
        if length is None and self.lengths is not None:
            longest = int(np.max(self.lengths[indices]))
            length = next(fit for fit in self.padded_lengths if fit >= longest)
        found = {x.name: self._feature(x, indices, length) for x in self._fields}
        if self._takes:
            raw = by_name(self._examples.batch(indices, length=length), self._names)
            found |= {name: raw[name] for name in self._takes}
        return found

    def _feature(
        self, field: Field, indices: np.ndarray, length: int | None
    ) -> np.ndarray:
        stored, dtype = self._arrays[field.name], as_dtype(field.dtype)
        if not field.by_token or self.lengths is None or length is None:
            return np.asarray(stored[indices]).astype(dtype, copy=False)
        place, source = tokens(self.lengths, self._offsets, indices, length)
        result = np.zeros((*place.shape, *field.shape), dtype)
        result[place] = stored[source]
        return result

    def _open(self, name: str, shape: tuple[int, ...]) -> tuple[int | None, ...]:
        fixed = {field.name for field in self._fields if not field.by_token}
        if self.lengths is None or name in fixed:
            return shape
        return (None, *shape[1:])


def by_name(batch: Batch, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns a batch by the names of the model's inputs."""
    return batch if isinstance(batch, dict) else {names[0]: batch}


def offsets(examples: Examples) -> np.ndarray:
    """Returns the first row of each text, `(n,)`, where each token has one."""
    if examples.lengths is None:
        return np.zeros(1, np.int64)
    return np.concatenate([[0], np.cumsum(examples.lengths)[:-1]]).astype(np.int64)


def tokens(
    lengths: np.ndarray, starts: np.ndarray, indices: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the tokens of texts lie, in a batch and among all rows.

    Args:
        lengths: Tokens of each text, `(n,)`.
        starts: First row of each text, `(n,)`.
        indices: The texts of the batch, `(batch,)`.
        length: Length of the batch.

    Returns:
        bool `(batch, length)`, and the rows `(tokens of the batch,)`.

    Example:

    >>> place, rows = tokens(np.array([2, 1]), np.array([0, 2]), np.array([1, 0]), 3)
    >>> place.tolist(), rows.tolist()
    ([[True, False, False], [True, True, False]], [2, 0, 1])
    """
    positions = np.arange(length)[None, :]
    place = positions < lengths[indices][:, None]
    return place, (starts[indices][:, None] + positions)[place]


def passes(
    examples: Examples, batch_size: int
) -> Iterator[tuple[np.ndarray, int | None]]:
    """Gives every example once, texts sorted by length and hardly padded.

    Args:
        examples: The examples.
        batch_size: Examples a batch; the last one may have fewer.

    Yields:
        Indices `(batch,)` and the length to pad to, None where there is none. There
        are few lengths, since each is compiled: steps of 8, from 64 on of a quarter.
    """
    lengths = examples.lengths
    order = np.arange(len(examples))
    if lengths is not None:
        order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        if lengths is None:
            yield indices, None
            continue
        longest, size = int(np.max(lengths[indices])), 8
        while size < longest:
            size += max(8, size // 32 * 8)
        yield indices, min(size, examples.padded_lengths[-1])


def compute(
    prefix: Part,
    examples: Examples,
    fields: Sequence[Field],
    arrays: Arrays,
    *,
    batch_size: int,
    first: int = 0,
    on_batch: Callable[[int], None] = lambda done: None,
    description: str = "frozen layers",
) -> None:
    """Runs the prefix over examples and puts what it gives into arrays.

    Args:
        prefix: The prefix.
        examples: The examples.
        fields: What the arrays are.
        arrays: Are filled.
        batch_size: Examples a batch.
        first: Batches that are there already.
        on_batch: Called with the number of batches that are there.
        description: Text of the progress bar.

    Raises:
        RunError: A feature is not finite in the type that it is kept in.
    """
    starts, size = offsets(examples), min(batch_size, len(examples))
    plan = list(passes(examples, size))
    for number, (indices, length) in enumerate(
        rich.progress.track(plan[first:], description, console=console, transient=True),
        start=first,
    ):
        filled = np.pad(indices, (0, size - len(indices)), mode="edge")
        given = prefix.predict_on_batch(examples.batch(filled, length=length))
        for field in fields:
            values = np.asarray(given[field.name])[: len(indices)]
            _put(arrays[field.name], field, values, examples, indices, starts)
        on_batch(number + 1)


def _put(
    array: np.ndarray,
    field: Field,
    values: np.ndarray,
    examples: Examples,
    indices: np.ndarray,
    starts: np.ndarray,
) -> None:
    narrower = field.stored != field.dtype
    with np.errstate(over="ignore"):
        stored = values.astype(array.dtype, copy=False)
    if narrower and not np.array_equal(np.isfinite(stored), np.isfinite(values)):
        raise RunError(
            "features are too large for the type that they are to be kept in",
            received=f"{float(np.max(np.abs(values))):.3g} in {field.stored}",
            fix="leave Stage.cache_dtype at 'auto'",
        )
    if not field.by_token or examples.lengths is None:
        array[indices] = stored
        return
    place, rows = tokens(examples.lengths, starts, indices, values.shape[1])
    array[rows] = stored[place]


def empty(fields: Sequence[Field], examples: Examples) -> dict[str, np.ndarray]:
    """Returns arrays in memory for the features of some examples."""
    return {
        x.name: np.empty((x.rows(examples), *x.shape), as_dtype(x.stored))
        for x in fields
    }


def kept(
    prefix: Part,
    examples: Examples,
    fields: Sequence[Field],
    *,
    key: str,
    batch_size: int,
    description: str = "frozen layers",
) -> tuple[dict[str, np.ndarray], bool]:
    """Returns features from files that an earlier process made, or makes them.

    Args:
        prefix: The prefix.
        examples: The examples.
        fields: What the arrays are.
        key: Fingerprint of all that they depend on.
        batch_size: Examples a batch.
        description: Text of the progress bar.

    Returns:
        Arrays mapped from files, and whether they were there.

    Raises:
        OSError: The files cannot be written.
        BlockingIOError: Another process is making the same features.
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
    with _locked(part):
        _make(prefix, examples, fields, part, batch_size, description)
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
    prefix: Part,
    examples: Examples,
    fields: Sequence[Field],
    part: pathlib.Path,
    batch_size: int,
    description: str,
) -> None:
    done = part / _DONE
    first = int(files.read_json(done)["batches"]) if done.exists() else 0
    if first:
        say(f"{description}: goes on behind batch {first}")
    arrays = _map(part, fields, examples, "r+" if first else "w+")
    written = time.monotonic()

    def on_batch(count: int) -> None:
        nonlocal written
        if time.monotonic() - written < _FLUSH_SECONDS:
            return
        _flush(arrays)
        files.write_json(done, {"batches": count})
        written = time.monotonic()

    compute(
        prefix,
        examples,
        fields,
        arrays,
        batch_size=batch_size,
        first=first,
        on_batch=on_batch,
        description=description,
    )
    _flush(arrays)
    done.unlink(missing_ok=True)
    names = [f"{field.name}.bin" for field in fields]
    files.write_json(part / _META, {name: _digest(part / name) for name in names})


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
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
