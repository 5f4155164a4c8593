"""A lock in a bucket: an object that is created if absent, and beats while it is held.

It is weaker than a lock of the operating system: nobody takes it away from a process
that was killed. One that finds it taken therefore watches it. If it beats, somebody is
at work; if it is silent for long enough, its owner is gone and it is taken over. An
owner that was only paused for so long finds another name in it, and puts no more files.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator

from tflearn.support.console import say
from tflearn.support.errors import RunError
from tflearn.support.storage.buckets import Bucket, Unreachable

NAME = ".lock"
#: How often an owner writes, and after how long without that it is taken for gone.
BEAT_SECONDS = 15.0
SILENT_SECONDS = 90.0


class Lock:
    """A lock that this process holds.

    Args:
        bucket: Where.
    """

    def __init__(self, bucket: Bucket) -> None:
        """Writes nothing; see `held`."""
        self._bucket, self._ended = bucket, threading.Event()
        self._owner = {"owner": uuid.uuid4().hex, "machine": _machine()}
        self._owner |= {"process": os.getpid()}
        self._lost = False

    def check(self) -> None:
        """Checks that the lock was not taken over.

        Raises:
            RunError: It was, while this process was paused or cut off.
        """
        if self._lost:
            raise RunError(
                "another process took over the output directory",
                received=self._bucket.url,
                expected=f"a sign of life every {SILENT_SECONDS:.0f} seconds",
                fix="let that one go on; this one writes nothing more",
            )

    def acquire(self) -> None:
        """Takes the lock, or waits until its owner is known to be gone.

        Raises:
            RunError: Its owner is at work.
        """
        if self._bucket.create(NAME, self._content(0)):
            return
        _wait_for_silence(self._bucket)
        self._bucket.delete(NAME)
        if not self._bucket.create(NAME, self._content(0)) or not self._is_own():
            raise _taken(self._bucket, self._bucket.read(NAME))

    def keep(self) -> None:
        """Beats until the lock is let go; runs in a thread of its own."""
        number = 0
        while not self._ended.wait(BEAT_SECONDS):
            number += 1
            # What cannot be reached now may be a moment later; the silence is bounded.
            with contextlib.suppress(Unreachable):
                if not self._is_own():
                    self._lost = True
                    return
                self._bucket.write(NAME, self._content(number))

    def release(self) -> None:
        """Lets the lock go, if it is this process's still."""
        self._ended.set()
        with contextlib.suppress(Unreachable):
            if self._is_own():
                self._bucket.delete(NAME)

    def _content(self, number: int) -> bytes:
        return json.dumps(self._owner | {"beat": number}).encode()

    def _is_own(self) -> bool:
        content = self._bucket.read(NAME)
        return content is not None and _told(content)["owner"] == self._owner["owner"]


@contextlib.contextmanager
def held(bucket: Bucket) -> Iterator[Lock]:
    """Holds the lock of a bucket.

    Args:
        bucket: Where; the lock is an object in it.

    Raises:
        RunError: Another process holds it.

    Example:

    >>> from tflearn.support.storage import buckets
    >>> bucket = buckets.connect("memory://docs/locked")
    >>> with held(bucket) as lock:
    ...     lock.check()
    ...     bucket.names()
    ['.lock']
    >>> bucket.names()
    []
    """
    lock = Lock(bucket)
    lock.acquire()
    keeper = threading.Thread(target=lock.keep, daemon=True, name="lock")
    keeper.start()
    try:
        yield lock
    finally:
        lock.release()
        keeper.join(BEAT_SECONDS)


def _wait_for_silence(bucket: Bucket) -> None:
    """Returns once the owner of a lock is known to be gone."""
    first = bucket.read(NAME)
    if first is None or _is_dead(_told(first)):
        return
    say(
        f"the output directory is locked by {_owner(first)}; waiting up to "
        f"{SILENT_SECONDS:.0f} seconds for a sign of it"
    )
    # By this machine's clock alone: those of two machines differ.
    end = time.monotonic() + SILENT_SECONDS
    while time.monotonic() < end:
        time.sleep(min(1.0, SILENT_SECONDS / 10))
        now = bucket.read(NAME)
        if now is None:
            return
        if now != first:
            raise _taken(bucket, now)
    say("there was none: the lock is taken over")


def _is_dead(told: dict[str, object]) -> bool:
    """Tells whether the owner was a process of this machine that has ended."""
    process = told.get("process")
    if told.get("machine") != _machine() or not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _machine() -> str:
    # Two containers of one machine see other processes under the same numbers.
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return f"{socket.gethostname()} {uuid.getnode()}"


def _told(content: bytes) -> dict[str, object]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    # Whatever lies there: it has an owner that is not this one.
    return found if isinstance(found, dict) and "owner" in found else {"owner": ""}


def _owner(content: bytes | None) -> str:
    told = _told(content or b"")
    return f"process {told.get('process', '?')} of {told.get('machine', '?')}"


def _taken(bucket: Bucket, content: bytes | None) -> RunError:
    return RunError(
        "another process runs in the output directory",
        received=f"{bucket.url}: {_owner(content)}",
    )
