"""TensorBoard logs, written without TensorFlow.

TensorBoard's own writer imports TensorFlow wherever it is installed. Its record format
and its messages need none, so the file is written here. A run that is resumed goes on
in the file it began; steps that are trained again are not written twice.
"""

from __future__ import annotations

import importlib.util
import pathlib
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Protocol

from tflearn.support.console import say

_NAME = "events.out.tfevents.{seconds}.tflearn"


class HasHistory(Protocol):
    """What an observer is called with: the state of a stage."""

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """One row an interval: `step` and metrics."""
        ...


def observer(folder: str | pathlib.Path) -> Callable[[HasHistory], None]:
    """Makes a function that writes the rows of a history that are new.

    Args:
        folder: Where TensorBoard looks, such as `stages/tune/tensorboard`. It is made
            when the first row is written.

    Returns:
        Called with an object that has `history`; rows behind the last step in the
        file are added, `val_...` metrics as `validation/...`, the others as
        `train/...`.
    """
    if importlib.util.find_spec("tensorboard") is None:
        say("tensorboard is not installed: no logs are written for it")
        return lambda state: None
    log = EventLog(pathlib.Path(folder))

    def observe(state: HasHistory) -> None:
        for row in state.history:
            log.add(row)

    return observe


class EventLog:
    """A file of scalars that TensorBoard reads.

    Args:
        folder: Its folder; the newest file there that this class wrote is continued.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Opens nothing yet: the first row does."""
        self._folder = folder
        self._path: pathlib.Path | None = None
        self._last_step = -1

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row, unless its step or a later one is in the file.

        Args:
            row: `step` and metrics; values that are no numbers are left out.
        """
        if self._path is None:
            self._path = self._open()
        step = int(row["step"])
        if step <= self._last_step:
            return
        values = {
            _tag(name): float(value)
            for name, value in row.items()
            if name != "step" and isinstance(value, (int, float))
        }
        with self._path.open("ab") as file:
            _write(file, _event(step=step, values=values))
        self._last_step = step

    def _open(self) -> pathlib.Path:
        """Finds the file of an earlier process, or begins one."""
        event, _ = _messages()
        self._folder.mkdir(parents=True, exist_ok=True)
        found = sorted(self._folder.glob(_NAME.format(seconds="*")))
        if not found:
            path = self._folder / _NAME.format(seconds=int(time.time()))
            head = event(wall_time=time.time(), file_version="brain.Event:2")
            with path.open("ab") as file:
                _write(file, head.SerializeToString())
            return path
        whole = 0
        for end, record in _records(found[-1]):
            self._last_step = event.FromString(record).step
            whole = end
        # A process that was killed may have left half a record; readers stop there.
        with found[-1].open("r+b") as file:
            file.truncate(whole)
        return found[-1]


def read_scalars(folder: str | pathlib.Path) -> list[tuple[int, str, float]]:
    """Reads what `observer` wrote.

    Args:
        folder: The folder given to `observer`.

    Returns:
        Triples `(step, tag, value)` in the order of writing.
    """
    event_type, _ = _messages()
    scalars = []
    for path in sorted(pathlib.Path(folder).glob(_NAME.format(seconds="*"))):
        for _, record in _records(path):
            event = event_type.FromString(record)
            scalars += [
                (event.step, value.tag, value.simple_value)
                for value in event.summary.value
            ]
    return scalars


def _messages() -> tuple[Any, Any]:
    """Returns the types `Event` and `Summary`; generated code declares no types."""
    from tensorboard.compat.proto import event_pb2, summary_pb2

    return vars(event_pb2)["Event"], vars(summary_pb2)["Summary"]


def _tag(name: str) -> str:
    if name.startswith("val_"):
        return f"validation/{name.removeprefix('val_')}"
    return f"train/{name}"


def _event(*, step: int, values: Mapping[str, float]) -> bytes:
    event_type, summary_type = _messages()
    summary = summary_type(
        value=[
            summary_type.Value(tag=tag, simple_value=value)
            for tag, value in values.items()
        ]
    )
    event = event_type(wall_time=time.time(), step=step, summary=summary)
    return event.SerializeToString()


def _write(file: BinaryIO, data: bytes) -> None:
    # This part of TensorBoard knows checksums and framing, and no TensorFlow.
    from tensorboard.summary.writer.record_writer import RecordWriter

    RecordWriter(file).write(data)


def _records(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """Yields the whole records of a file, each with the offset behind it.

    A record is its length (8 bytes), a checksum of it (4), the data, and a checksum of
    the data (4).
    """
    content = path.read_bytes()
    offset = 0
    while offset + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, offset)
        end = offset + 12 + length + 4
        if end > len(content):
            return
        yield end, content[offset + 12 : end - 4]
        offset = end
