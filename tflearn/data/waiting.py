"""Waiting for batches that others make, but not for ever.

A worker process that was killed, and one that hangs on a disk that does not answer,
look alike to who waits for its batch. The wait has an end here, and says which it was.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from tflearn.support.errors import RunError

#: How long a batch may take, unless declared otherwise.
STALL_SECONDS = 300.0
# Grain names its worker processes so, and says so when one is gone.
_WORKER_NAME = "grain-process-prefetch"
_DIED = "Worker process was terminated unexpectedly"
# How often a thread looks whether anybody still waits for it.
_LOOK_SECONDS = 0.1


class WorkerLost(RunError):
    """What makes the batches died or hangs; the run goes on from its checkpoint.

    Args:
        problem: What happened.
        step: The step whose batch is missing, from 1.
        rows: Examples of that batch.
        received: What is known about it.
        fix: What to do.

    Attributes:
        step: The same.
        rows: The same.
    """

    exit_code = 75

    def __init__(
        self, problem: str, *, step: int, rows: Sequence[Any], received: str, fix: str
    ) -> None:
        self.step, self.rows = step, tuple(rows)
        self._said = {"problem": problem, "received": received, "fix": fix}
        shown = ", ".join(map(str, self.rows[:4])) + " ..." * (len(self.rows) > 4)
        super().__init__(
            f"{problem} (step {step}, rows {shown})", received=received, fix=fix
        )

    def named(self, rows: Sequence[str]) -> WorkerLost:
        """Returns the same error with names for the rows."""
        return WorkerLost(step=self.step, rows=rows, **self._said)


class Stalled(Exception):
    """A batch did not come in time."""


class Ahead:
    """Takes items from an iterator in a thread of its own.

    Args:
        items: The iterator; closed at the end if it can be.
        size: How many items are taken before they are asked for.
        seconds: How long `get` waits for one.

    Example:

    >>> ahead = Ahead(iter("ab"), size=1, seconds=60.0)
    >>> ahead.get(), ahead.get()
    ('a', 'b')
    >>> ahead.close()
    """

    def __init__(self, items: Iterator[Any], *, size: int, seconds: float) -> None:
        self._items, self._seconds = items, seconds
        self._ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(size)
        self._stopped = threading.Event()
        self._stalled = False
        # A daemon: a thread that hangs must not keep the process.
        self._thread = threading.Thread(
            target=self._take, name="tflearn-ahead", daemon=True
        )
        self._thread.start()

    def get(self) -> Any:
        """Returns the next item.

        Raises:
            Stalled: It did not come in time.
            StopIteration: There is none. Whatever else the iterator raised, too.
        """
        try:
            item, error = self._ready.get(timeout=self._seconds)
        except queue.Empty:
            self._stalled = True
            raise Stalled from None
        if error is not None:
            raise error
        return item

    def close(self) -> None:
        """Ends the thread, and the iterator with it, unless it hangs."""
        self._stopped.set()
        if self._stalled:
            end_workers()
            return
        self._thread.join(self._seconds)
        close = getattr(self._items, "close", None)
        if close is not None and not self._thread.is_alive():
            close()

    def _take(self) -> None:
        while not self._stopped.is_set():
            try:
                found: tuple[Any, BaseException | None] = (next(self._items), None)
            # Whatever it is, who waits has to hear of it.
            except BaseException as error:
                found = (None, error)
            self._put(found)
            if found[1] is not None:
                return

    def _put(self, found: tuple[Any, BaseException | None]) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(found, timeout=_LOOK_SECONDS)
                return


def died(error: BaseException) -> bool:
    """Tells whether an error of Grain means that a worker process is gone."""
    return isinstance(error, RuntimeError) and _DIED in str(error)


def end_workers() -> None:
    """Kills the worker processes: those that hang would outlive this process."""
    for child in multiprocessing.active_children():
        if child.name.startswith(_WORKER_NAME):
            child.kill()


def end_with_parent(worker: int, workers: int) -> None:
    """Makes this worker process end when the one that started it is gone.

    One that is killed cannot end its workers, and they would wait for it for ever.

    Args:
        worker: Number of the worker; Grain gives it.
        workers: How many there are.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def raised_as_it_was(stream: Any) -> Iterator[None]:
    """Raises what a stream raised, whatever a backend made of it.

    Args:
        stream: The stream that is read inside.
    """
    try:
        yield
    except Exception as error:
        failure = getattr(stream, "failure", None)
        if failure is None or failure is error:
            raise
        # What the backend says holds the whole traceback as one text.
        raise failure from None
