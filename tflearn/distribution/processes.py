"""The processes of one run: who this one is, and what all of them agree on.

Every process runs the same program and computes its rows of every step, so all have to
decide the same at the same place. What hangs on a clock, a file or a terminal the first
process decides for all (`agree`, `on_first`), and only the first one writes. With one
process every function here is free.

Example:
>>> (index(), count(), is_chief())
(0, 1, True)
>>> agree({"stop": False})
{'stop': False}
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tflearn.support import files
from tflearn.support.console import console
from tflearn.support.errors import ConfigError, RunError, TflearnError

if TYPE_CHECKING:
    from tflearn.distribution.plan import Distribution

#: A process that has been silent for so long is taken for dead.
HEARTBEAT_SECONDS = 20
#: So long a process waits for the others at the start.
START_SECONDS = 600


class ProcessLost(RunError):
    """Another process of the run is gone: nobody's mistake, so it may start again.

    Attributes:
        exit_code: What the command line ends with; 2, a mistake, is never restarted.
    """

    exit_code = 75


@dataclasses.dataclass(frozen=True)
class Here:
    """This process among those of the run.

    Args:
        index: Which one it is; the first one writes.
        count: How many there are.
        gather: Puts the arrays of all processes behind each other; they have one shape,
            type `uint8`, and every process has to call it.
    """

    index: int
    count: int
    gather: Callable[[np.ndarray], np.ndarray]


_ALONE = Here(0, 1, lambda array: array[None])
# A process joins others once in its life, on both backends.
_here = _ALONE


def start(distribution: Distribution) -> None:
    """Joins the other processes of a run, before anything lists devices.

    Args:
        distribution: The declaration; nothing happens with one process.

    Raises:
        ConfigError: The processes are declared in part only, or in a way the backend
            cannot do.
    """
    global _here
    _check(distribution)
    if keras.backend.backend() == "tensorflow":
        from tflearn.distribution import tf_strategy as backend
    else:
        from tflearn.distribution import jax_workers as backend
    found = backend.start(distribution)
    if found is None or found.count == 1:
        return
    _here = found
    if not is_chief():
        # One process tells what goes on; the others are heard when something is wrong.
        console.quiet = True
        logging.getLogger("tflearn").setLevel(logging.WARNING)


def _check(distribution: Distribution) -> None:
    declared = {
        "coordinator": distribution.coordinator,
        "processes": distribution.processes,
        "process_id": distribution.process_id,
    }
    given = [name for name, value in declared.items() if value is not None]
    if given and len(given) < len(declared) and not os.environ.get("TF_CONFIG"):
        raise ConfigError(
            "several processes need to know each other",
            received=", ".join(f"{name} = {declared[name]}" for name in given),
            expected="coordinator, processes and process_id",
            fix="--coordinator=HOST:PORT --processes=N --process_id=I",
        )
    total, number = distribution.processes, distribution.process_id
    if total is not None and number is not None and not 0 <= number < total:
        raise ConfigError(
            "process_id is the number of this process, from 0",
            received=number,
            expected=f"0 to {total - 1}",
        )


def count() -> int:
    """Returns how many processes the run has."""
    return _here.count


def index() -> int:
    """Returns which of them this one is, from 0."""
    return _here.index


def is_chief() -> bool:
    """Tells whether this process writes files and talks to the user."""
    return _here.index == 0


def gather(array: np.ndarray) -> np.ndarray:
    """Puts the arrays of all processes behind each other.

    Args:
        array: Of one shape and type in all processes; all must call this.

    Returns:
        `(processes, ...)`.

    Raises:
        ProcessLost: Another process is gone.
    """
    # As bytes: no backend then makes 32 bits of 64.
    array = np.asarray(array, order="C")
    with watched():
        found = _here.gather(np.frombuffer(array.tobytes(), np.uint8))
    return np.frombuffer(found.tobytes(), array.dtype).reshape(-1, *array.shape)


def meet() -> None:
    """Waits until every process has come here."""
    if count() > 1:
        gather(np.zeros(1, np.uint8))


def agree(value: Any) -> Any:
    """Returns the first process's value in all of them.

    Args:
        value: Anything JSON takes; what other processes give does not matter.

    Returns:
        The value, as it was given with one process.
    """
    if count() == 1:
        return value
    text = json.dumps(value).encode() if is_chief() else b""
    size = int(gather(np.asarray([len(text)]))[0, 0])
    buffer = np.zeros(size, np.uint8)
    if is_chief():
        buffer[:] = np.frombuffer(text, np.uint8)
    return json.loads(gather(buffer)[0].tobytes())


def on_first(function: Callable[[], Any]) -> Any:
    """Lets the first process do something, and all know what came of it.

    Args:
        function: Returns anything JSON takes.

    Returns:
        What it returned, in every process.

    Raises:
        TflearnError: It raised one.
    """
    if count() == 1:
        return function()
    result: Any = None
    error: TflearnError | None = None
    if is_chief():
        try:
            result = function()
        except TflearnError as raised:
            error = raised
    result, message = agree([result, None if error is None else str(error)])
    if message is not None:
        raise error or RunError(message)
    return result


def once(path: pathlib.Path, make: Callable[[], Any]) -> Any:
    """Returns what a JSON file holds; if there is none it is made and written.

    Args:
        path: The file.
        make: Makes the value; called by every process, or by none.

    Returns:
        The value of the first process, in all of them.
    """
    if on_first(path.exists):
        return on_first(lambda: files.read_json(path))
    value = agree(make())
    if is_chief():
        files.write_json(path, value)
    return value


def check_same(value: str, what: str) -> None:
    """Checks that all processes have the same text, such as their declaration.

    Args:
        value: The text.
        what: What it is, for the message.

    Raises:
        RunError: They have not, in every process.
    """
    if count() == 1:
        return
    digests = gather(np.frombuffer(files.digest(value).encode(), np.uint8))
    other = [i for i, x in enumerate(digests) if not np.array_equal(x, digests[0])]
    if other:
        raise RunError(
            f"the processes of this run do not have the same {what}",
            received=f"process {other[0]} has another one than process 0",
            fix="start the same command everywhere, on the same files",
        )


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Tells of another process that is gone in one message.

    Raises:
        ProcessLost: What was raised inside says so.
    """
    try:
        yield
    except Exception as error:
        told = _told(error) if count() > 1 else None
        if told is None:
            raise
        raise ProcessLost(
            "another process of this run is gone, or does not answer",
            received=told,
            fix="start all processes again: the run goes on from its last checkpoint",
        ) from error


def _told(error: Exception) -> str | None:
    if keras.backend.backend() == "tensorflow":
        from tflearn.distribution import tf_workers

        return tf_workers.lost(error)
    from tflearn.distribution import jax_workers

    return jax_workers.lost(error)
