"""Asking a run to end: it finishes its step, saves, and exits with a code of its own.

SIGTERM is what a machine sends that is about to be taken away, SIGINT what a user sends
with Ctrl-C. Both are answered at the end of a step. A run that does not get there
within its grace time ends at once: what is on disk is always whole, so it then goes on
from its last checkpoint.

Several processes have to stop at the same step. On JAX its own service hears of SIGTERM
and finds that step; on TensorFlow they look at the end of an interval.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import keras
import numpy as np

from tflearn.distribution import processes
from tflearn.support.errors import RunError

#: How long a step, its checkpoint and the end of the process may take together.
GRACE_SECONDS = 25.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_asked: signal.Signals | None = None


class Stopped(RunError):
    """A run that ended because it was asked to; the same command goes on with it.

    Its exit code is 128 plus the number of the signal, as with shells: 143 for SIGTERM,
    130 for SIGINT.
    """

    def __init__(self, where: str) -> None:
        """Says where the run stands, such as `step 12 of stage 'tune' is saved`."""
        asked = _asked or signal.SIGTERM
        self.exit_code = 128 + asked
        super().__init__(
            f"stopped by {asked.name}: {where}",
            fix="run the same command again: it goes on from there",
        )


@contextlib.contextmanager
def listening(*, grace_seconds: float = GRACE_SECONDS) -> Iterator[None]:
    """Answers SIGTERM and SIGINT at the end of a step, for as long as it is open.

    Args:
        grace_seconds: After so long the process ends wherever it is.
    """
    global _asked
    if threading.current_thread() is not threading.main_thread():
        # Python lets the main thread alone answer signals.
        yield
        return

    def hear(number: int, frame: FrameType | None) -> None:
        del frame
        global _asked
        if _asked is not None and number == signal.SIGINT:
            _end_at_once(_asked)
        _asked = signal.Signals(number)
        # Not through the console: it may be in the middle of a line.
        os.write(2, _told(_asked, grace_seconds).encode())
        timer = threading.Timer(grace_seconds, _end_at_once, (_asked,))
        timer.daemon = True
        timer.start()
        timers.append(timer)

    timers: list[threading.Timer] = []
    _asked = None
    before = {number: signal.getsignal(number) for number in _heard()}
    for number in before:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def asked(step: int) -> bool:
    """Tells, after every step, whether the run is to end with this one.

    Args:
        step: Steps trained so far; the same in all processes.

    Returns:
        The same in all processes.
    """
    global _asked
    if processes.count() == 1:
        return _asked is not None
    if keras.backend.backend() != "jax":
        return False
    from jax.experimental import multihost_utils

    if multihost_utils.reached_preemption_sync_point(step):
        # It says so once; the step may be the last of its interval.
        _asked = signal.SIGTERM
    return _asked == signal.SIGTERM


def check(where: str) -> None:
    """Ends the run if it was asked to; all processes have to call it.

    Args:
        where: Where the run stands.

    Raises:
        Stopped: It was asked to.
    """
    wanted = _asked is not None
    if processes.count() > 1:
        wanted = any(processes.gather(_flag(wanted)).ravel())
    if wanted:
        raise Stopped(where)


def _flag(value: bool) -> np.ndarray:
    return np.asarray([value], np.uint8)


def _heard() -> tuple[signal.Signals, ...]:
    # JAX's service hears SIGTERM itself if there are several processes.
    several = processes.count() > 1 and keras.backend.backend() == "jax"
    return (signal.SIGINT,) if several else _SIGNALS


def _told(asked: signal.Signals, seconds: float) -> str:
    again = "; once more ends at once" if asked == signal.SIGINT else ""
    return (
        f"\n{asked.name}: finishing the step and saving, at most "
        f"{seconds:.0f} seconds{again}\n"
    )


def _end_at_once(asked: signal.Signals) -> None:
    os.write(2, b"ended at once; the last checkpoint stays\n")
    sys.stdout.flush()
    os._exit(128 + asked)
