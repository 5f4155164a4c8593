"""Arms side by side: processes, each with devices of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

from tflearn.support.console import say
from tflearn.support.errors import RunError
from tflearn.support.units import duration_text

_VISIBLE = "CUDA_VISIBLE_DEVICES"
# Set for a process whose standard input ends when the one that started it does.
_TIED = "TFLEARN_TIED_WORKER"
_LOOK_SECONDS = 0.2
_LINES = 12


@dataclasses.dataclass(kw_only=True)
class _Worker:
    """A process that runs an arm.

    Args:
        name: The arm.
        process: The process.
        log: What it prints.
        slot: Which devices it has.
        began: When it began, by `time.monotonic`.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: pathlib.Path
    slot: int
    began: float


def devices() -> list[str]:
    """Returns the GPUs of this machine by their numbers; none on a CPU.

    JAX and TensorFlow are not asked: a process that asks takes the memory of all.
    """
    named = os.environ.get(_VISIBLE)
    if named is not None:
        return [name for name in named.split(",") if name]
    # Switches between them are called nvidia-nvswitch0.
    names = [path.name for path in pathlib.Path("/dev").glob("nvidia*")]
    found = [name for name in names if re.fullmatch(r"nvidia\d+", name)]
    return [str(number) for number in range(len(found))]


def share(slot: int, *, workers: int, found: Sequence[str]) -> dict[str, str]:
    """Returns the environment that gives a worker its devices.

    Args:
        slot: Which worker.
        workers: How many there are.
        found: The devices; where there are fewer than workers, some share one.

    Example:

    >>> share(1, workers=2, found=["0", "1", "2", "3"])
    {'CUDA_VISIBLE_DEVICES': '1,3'}
    >>> share(1, workers=2, found=[])
    {}
    """
    if not found:
        return {}
    own = found[slot::workers] or [found[slot % len(found)]]
    return {_VISIBLE: ",".join(own)}


def end_with_parent() -> None:
    """Makes this process end when the one that started it as a worker is gone.

    One that is killed cannot end its workers, and they would hold the run directories
    that the next start asks for. Any other process goes on as it is.
    """
    # Not for what this process starts.
    if os.environ.pop(_TIED, None) is not None:
        threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    # Nothing is ever written to it: it ends with the process at its other end.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end this process as an error would: workers are told to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hear(number: int, frame: FrameType | None) -> None:
        del frame
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@_terminable()
def run(
    names: Sequence[str],
    command: Callable[[str], list[str]],
    *,
    workers: int,
    logs: Mapping[str, pathlib.Path],
) -> None:
    """Runs a process for every arm, some at a time.

    They end with this one: asked to where it is told to end itself, at once where it
    is killed.

    Args:
        names: The arms in order.
        command: Returns the command of an arm.
        workers: How many run at a time.
        logs: Where what a process prints goes, by arm.

    Raises:
        RunError: One of them failed; the others have ended before.
    """
    found, waiting = devices(), list(names)
    if len(found) < workers and found:
        say(f"note: {workers} workers share {len(found)} devices")
    running: list[_Worker] = []
    failed: list[str] = []
    free = list(range(workers))
    try:
        while waiting or running:
            while waiting and free:
                slot, name = free.pop(0), waiting.pop(0)
                given = share(slot, workers=workers, found=found)
                running.append(_start(name, command(name), slot, given, logs[name]))
            time.sleep(_LOOK_SECONDS)
            for worker in [x for x in running if x.process.poll() is not None]:
                running.remove(worker)
                free.append(worker.slot)
                failed += _end(worker)
    finally:
        # Only where this process is interrupted, or a process could not be started.
        for worker in running:
            worker.process.terminate()
        for worker in running:
            worker.process.wait()
            _let_go(worker)
    if failed:
        raise RunError(
            f"{len(failed)} of {len(names)} arms failed",
            received="; ".join(failed),
            fix="mend it and run the same command: what is finished is not repeated",
        )


def _start(
    name: str,
    command: list[str],
    slot: int,
    given: Mapping[str, str],
    log: pathlib.Path,
) -> _Worker:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **given, _TIED: "1"},
        )
    on = f" on devices {given[_VISIBLE]}" if given else ""
    say(f"{name}: began{on}, its lines go to {log}")
    return _Worker(
        name=name, process=process, log=log, slot=slot, began=time.monotonic()
    )


def _end(worker: _Worker) -> list[str]:
    """Tells how a process ended; returns what failed."""
    took = duration_text(time.monotonic() - worker.began)
    _let_go(worker)
    code = worker.process.returncode
    if code == 0:
        say(f"{worker.name}: finished in {took}")
        return []
    lines = worker.log.read_text(encoding="utf-8", errors="replace").splitlines()
    say(f"{worker.name}: failed with code {code} after {took}; its last lines:")
    for line in lines[-_LINES:]:
        say(f"  {line}")
    return [f"{worker.name} (code {code}, {worker.log})"]


def _let_go(worker: _Worker) -> None:
    if worker.process.stdin is not None:
        worker.process.stdin.close()
