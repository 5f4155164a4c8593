"""The run directory: whose it is, who writes in it, what is written when."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import pathlib
from collections.abc import Iterator
from typing import Protocol

from tflearn.distribution import processes
from tflearn.support import environment, files, secrets, storage
from tflearn.support.console import say
from tflearn.support.errors import ConfigError, RunError

CONFIG = "config.gin"
REPORT = "report.json"
INPUTS = "inputs.json"
_LOCK = ".lock"


class Declared(Protocol):
    """The written form of an experiment."""

    text: str

    def operative_text(self) -> str:
        """Returns the declaration with every default that was used."""
        ...


def is_finished(folder: pathlib.Path, declared: Declared | None) -> bool:
    """Tells whether a run directory holds the finished run of this declaration.

    Args:
        folder: The run directory; it need not exist.
        declared: The declaration; None for an experiment made in Python.

    Returns:
        True if there is nothing left to do.

    Raises:
        RunError: The folder holds something else. Nothing is changed.
    """
    processes.check_same(_text(declared), "declaration")
    storage.pull(folder, deep=False)
    return processes.on_first(lambda: _holds_report(folder, declared))


def _holds_report(folder: pathlib.Path, declared: Declared | None) -> bool:
    if not folder.exists() or (folder.is_dir() and _is_empty(folder)):
        return False
    config = folder / CONFIG
    if not config.exists():
        raise RunError(
            "the output directory is not empty and holds no run",
            received=storage.shown(folder),
            fix="choose another --output_dir",
        )
    if not secrets.same(config.read_text(encoding="utf-8"), _text(declared)):
        raise RunError(
            "the output directory holds another experiment",
            received=f"{storage.shown(folder)}; first differences: "
            + "; ".join(_differences(config.read_text(encoding="utf-8"), declared)),
            fix="choose another --output_dir, or restore the declaration",
        )
    return (folder / REPORT).exists()


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Holds a run directory for this run alone; makes it if need be.

    Args:
        folder: The run directory; of several processes the first one holds it.

    Raises:
        RunError: Another run works in it, or it cannot be made.
        ConfigError: It is of a kind that several processes cannot write to.
    """
    if processes.count() > 1 and storage.is_packed(folder):
        raise ConfigError(
            "several processes write a checkpoint together, which Orbax does in "
            "folders and under gs:// alone",
            received=storage.shown(folder),
            fix="choose another --output_dir",
        )
    with contextlib.ExitStack() as held:
        # Returns nothing that would have to be told the others.
        processes.on_first(lambda: bool(held.enter_context(_locked(folder))))
        storage.pull(folder)
        try:
            yield
        except BaseException:
            with _told():
                _put(folder)
            raise
        _put(folder)


def _put(folder: pathlib.Path) -> None:
    if processes.is_chief():
        storage.push(folder)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Lets an error through that came first; says what went wrong after it."""
    try:
        yield
    except RunError as error:
        say(f"warning: {error}")


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    if storage.is_copy(folder):
        with storage.locked(folder):
            yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("w")
    except OSError as error:
        raise RunError(
            "the output directory cannot be written",
            received=f"{folder}: {error.strerror}",
            fix="choose another --output_dir",
        ) from error
    with lock:
        try:
            # The system lets go of the lock when the process ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                "another process runs in the output directory", received=str(folder)
            ) from error
        yield


def write_start(folder: pathlib.Path, declared: Declared | None) -> None:
    """Writes the declaration and the environment, before anything trains."""
    if not processes.is_chief():
        return
    files.write_text(folder / CONFIG, secrets.redact(_text(declared)))
    files.write_json(
        folder / "environment.json",
        {"versions": environment.versions(), "hardware": environment.hardware()},
    )
    # Claimed: another experiment is refused from now on.
    storage.push(folder)


def write_operative(folder: pathlib.Path, declared: Declared | None) -> None:
    """Writes the declaration with every default that was used."""
    if declared is not None and processes.is_chief():
        text = secrets.redact(declared.operative_text())
        files.write_text(folder / "operative_config.gin", text)


def _is_empty(folder: pathlib.Path) -> bool:
    # What a process leaves that was killed before the declaration was there.
    left = (_LOCK, INPUTS, f".{INPUTS}.", f".{CONFIG}.")
    return all(
        path.name in left or path.name.startswith(left[2:]) for path in folder.iterdir()
    )


def _text(declared: Declared | None) -> str:
    return "# declared in Python\n" if declared is None else declared.text


def _differences(old: str, declared: Declared | None) -> list[str]:
    lines = difflib.unified_diff(
        old.splitlines(), _text(declared).splitlines(), lineterm="", n=0
    )
    return [line for line in lines if line[:1] in "+-" and line[:3] not in "+++---"][:4]
