"""How long training waits for its batches, and in which shapes they come."""

from __future__ import annotations

import time
from typing import Any

import keras

# Asked for sooner than that, a batch is not made ahead: somebody is waiting.
_AT_ONCE_SECONDS = 1e-3


class Clock:
    """Adds up the time that training waits for batches.

    It reads the clock twice a batch and never the device. So the share is a bound from
    above: what a device still computes while the host makes the next batch is not
    waited for, and is counted all the same.

    Attributes:
        ahead: Whether batches are asked for by something that keeps a few in store, as
            `tf.data` does. Then one that is asked for some time after the last was
            done was asked for by a full store, and nobody waits for it.
        waited_seconds: Time that training waited.
        seconds: Time of training, validation and the like not included.
        shapes: The shapes that batches had; a program is compiled for each.
    """

    def __init__(self) -> None:
        self.ahead = False
        self.waited_seconds = 0.0
        self.seconds = 0.0
        self.shapes: set[tuple[tuple[int, ...], ...]] = set()
        self._since: float | None = None
        self._done = 0.0

    def begin(self) -> None:
        """Starts the clock; one that runs starts anew."""
        if self._since is not None:
            # The step behind compiled; what it waited belongs to no training.
            self.waited_seconds = 0.0
        self._since = time.perf_counter()

    def pause(self) -> None:
        """Stops the clock, as for a validation."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
        self._since = None

    def add(self, batch: Any, asked: float) -> None:
        """Counts a batch that has just been made.

        Args:
            batch: The batch.
            asked: When it was asked for, by `time.perf_counter`.
        """
        now = time.perf_counter()
        at_once = asked - self._done < max(_AT_ONCE_SECONDS, 0.1 * (now - asked))
        if self._since is not None and (at_once or not self.ahead):
            self.waited_seconds += now - max(asked, self._since)
        self._done = now
        self.shapes.add(tuple(array.shape for array in keras.tree.flatten(batch)))

    @property
    def share(self) -> float | None:
        """Waited share of training; None where no batch was asked for."""
        if not self.shapes or self.seconds <= 0:
            return None
        return min(1.0, self.waited_seconds / self.seconds)
