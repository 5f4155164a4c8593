"""Sending the rows of a run to a tracker that may not be there.

Every event is on disk before it is sent, and a thread sends what has not been sent yet.
A tracker that refuses, hangs or dies costs the run nothing: what could not be sent
stays on disk, and the next start of the same command sends it.
"""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from tflearn.distribution import processes
from tflearn.support import files
from tflearn.support.console import say

_EVENTS, _SENT = "tracker.jsonl", "tracker.json"
_AT_ONCE = 50
# How long the end of a run waits for a tracker; less if the run failed or was stopped.
_LAST_SECONDS, _HURRIED_SECONDS = 10.0, 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

Event = Mapping[str, Any]


class Tracker(Protocol):
    """Where events go."""

    @property
    def url(self) -> str:
        """Its address, for messages."""
        ...

    def begin(self, name: str) -> str:
        """Opens a run there; returns its name there."""
        ...

    def send(self, run: str, events: Sequence[Event]) -> None:
        """Sends events: `stage`, `step`, `time` in seconds, `metrics` by name."""
        ...

    def end(self, run: str) -> None:
        """Says that the run is finished."""
        ...


class Outbox:
    """The events of a run, on disk and on their way.

    Args:
        folder: The run directory.
        tracker: Where they go.
        name: Name of the run.
    """

    def __init__(self, folder: pathlib.Path, tracker: Tracker, name: str) -> None:
        """Reads what an earlier process left."""
        self._tracker, self._name = tracker, name
        self._path, self._cursor = folder / _EVENTS, folder / _SENT
        self._events = _whole_lines(self._path)
        self._known = {(event["stage"], event["step"]) for event in self._events}
        given = files.read_json(self._cursor) if self._cursor.exists() else {}
        self._run, self._sent = given.get("run", ""), given.get("sent", 0)
        self._ended, self._finished = given.get("ended", False), False
        self._reason = ""
        self._wake, self._closing = threading.Event(), threading.Event()
        # A daemon: a tracker that hangs must not keep the process.
        self._thread = threading.Thread(
            target=self._work, name="tflearn-tracker", daemon=True
        )
        self._thread.start()

    def observe(self, stage: str, history: Sequence[Mapping[str, Any]]) -> None:
        """Takes the rows of a stage that are new.

        Args:
            stage: Its name.
            history: One row an interval: `step` and metrics.
        """
        new = [row for row in history if (stage, row["step"]) not in self._known]
        for row in new:
            event = {
                "stage": stage,
                "step": row["step"],
                "time": time.time(),
                "metrics": {
                    # JSON has no NaN; no number is no point of a curve either.
                    name: float(value)
                    for name, value in row.items()
                    if name != "step"
                    and isinstance(value, int | float)
                    and math.isfinite(value)
                },
            }
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
            self._events.append(event)
            self._known.add((stage, row["step"]))
        self._wake.set()

    def close(self, *, finished: bool) -> None:
        """Sends what is left, if that is possible soon, and says what is not sent.

        Args:
            finished: Whether the run has ended; otherwise it has failed or was stopped.
        """
        self._finished = finished
        self._closing.set()
        self._wake.set()
        self._thread.join(_LAST_SECONDS if finished else _HURRIED_SECONDS)
        left = len(self._events) - self._sent
        if left:
            say(
                f"warning: the tracker {self._tracker.url} could not be reached "
                f"({self._reason or 'it does not answer'}): {left} events are kept in "
                f"{self._path}; the same command sends them"
            )

    def _work(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            if self._closing.is_set() or self._send():
                pause = _FIRST_PAUSE
                continue
            self._closing.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            self._wake.set()
        if self._send() and self._finished and self._run and not self._ended:
            with contextlib.suppress(Exception):
                self._tracker.end(self._run)
                self._ended = True
                self._write()

    def _send(self) -> bool:
        """Sends what is there; returns whether all of it went."""
        try:
            while self._sent < len(self._events):
                if not self._run:
                    self._run = self._tracker.begin(self._name)
                    self._write()
                some = self._events[self._sent : self._sent + _AT_ONCE]
                self._tracker.send(self._run, some)
                self._sent += len(some)
                self._write()
        # A tracker is no reason to end a run, whatever it did.
        except Exception as error:
            self._reason = " ".join(str(error).split())[:200] or type(error).__name__
            return False
        return True

    def _write(self) -> None:
        given = {"run": self._run, "sent": self._sent, "ended": self._ended}
        files.write_json(self._cursor, given)


@contextlib.contextmanager
def sending(
    tracker: Tracker | None, folder: pathlib.Path, name: str
) -> Iterator[Outbox | None]:
    """Sends the events of a run for as long as it is open.

    Args:
        tracker: Where they go; None: nowhere.
        folder: The run directory; what an earlier process left there goes first.
        name: Name of the run.

    Yields:
        The outbox; None in all processes but the first.
    """
    if tracker is None or not processes.is_chief():
        yield None
        return
    box = Outbox(folder, tracker, name)
    try:
        box.observe("", ())
        yield box
    except BaseException:
        box.close(finished=False)
        raise
    box.close(finished=True)


def _whole_lines(path: pathlib.Path) -> list[Event]:
    """Reads events; half a line, of a process that was killed, is cut off."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        files.write_text(path, whole)
    return [json.loads(line) for line in whole.splitlines()]
