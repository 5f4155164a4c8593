"""What a stage's input was like: how long steps waited for it, lengths, padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from tflearn.data import pipeline
from tflearn.data.input_clock import Clock

#: Share of training that may be spent waiting before a line tells of it.
MOST_WAITING = 0.02
# Less is not worth a line.
_LEAST_SECONDS = 1.0


class Waiting(keras.callbacks.Callback):
    """Runs the clock of the batches while Keras trains; reads nothing of a step.

    On JAX, Keras calls `on_train_batch_end` from a thread, once the step's metrics have
    come from the device: when a step has ended is known without waiting for it.

    Args:
        clock: The clock.
    """

    # Keras may call it from a thread, behind the device's work.
    async_safe = True

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._compiled = False
        # TensorFlow asks for batches from a thread of its own, some in advance.
        clock.ahead = keras.backend.backend() == "tensorflow"

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock with an interval."""
        self._clock.begin()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Tells the clock that a step asks for its batch."""
        self._clock.begun(batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tells the clock of the end; leaves out the first step, which compiles."""
        self._clock.ended(batch)
        if not self._compiled:
            self._compiled = True
            self._clock.begin()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Stops the clock once the device is done."""
        for value in (logs or {}).values():
            float(value)
            break
        self._clock.pause()


def describe(batches: pipeline.TrainBatches) -> dict[str, Any]:
    """Returns what is reported of a stage's input.

    Args:
        batches: What was trained on.

    Returns:
        `waiting_share` and `waiting_seconds`, `shapes` (for each of which the step was
        compiled), `lengths` that texts were padded to and `padding_share` of all
        tokens; what does not apply is absent.
    """
    found: dict[str, Any] = pipeline.padding(batches)
    clock = batches.clock
    if clock.shapes:
        found["shapes"] = len(clock.shapes)
    if clock.share is not None:
        found["waiting_share"] = clock.share
        found["waiting_seconds"] = clock.waited_seconds
    return found


def notes(found: Mapping[str, Any]) -> list[str]:
    """Returns lines for the user.

    Args:
        found: What `describe` returned.

    Example:

    >>> notes({"waiting_share": 0.25, "waiting_seconds": 10.0, "shapes": 3})
    ['steps waited 25.0 % of the time for their batches (10.0 s)']
    """
    lines = []
    if found.get("lengths"):
        lengths = ", ".join(map(str, found["lengths"]))
        lines.append(
            f"batches are padded to {lengths} tokens; "
            f"{100 * found['padding_share']:.1f} % of all tokens are padding"
        )
    share = found.get("waiting_share", 0.0)
    if share > MOST_WAITING and found["waiting_seconds"] > _LEAST_SECONDS:
        lines.append(
            f"steps waited {100 * share:.1f} % of the time for their batches "
            f"({found['waiting_seconds']:.1f} s)"
        )
    return lines
