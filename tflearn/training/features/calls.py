"""How steps are divided into calls, and what callbacks hear of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

#: By interval, the first step of every call and the one behind its last.
Plan = Sequence[Sequence[tuple[int, int]]]


class Steps(keras.callbacks.CallbackList):
    """Tells callbacks of the last step of a call, not of the number of the call.

    Args:
        callbacks: The callbacks.
        plan: As `calls` returns it.
        params: As `keras.callbacks.CallbackList` takes them.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        plan: Plan,
        **params: Any,
    ) -> None:
        super().__init__(callbacks, add_history=True, **params)
        firsts = [interval[0][0] for interval in plan]
        self._last = [
            [last - first - 1 for _, last in interval]
            for first, interval in zip(firsts, plan, strict=True)
        ]
        self._interval = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the interval."""
        self._interval = epoch
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tells the place of the last step in the interval."""
        super().on_train_batch_end(self._last[self._interval][batch], logs)


def calls(
    start: int, steps: int, *, interval: int, most: int, save_steps: int | None
) -> list[list[tuple[int, int]]]:
    """Divides steps into intervals, and these into calls.

    Args:
        start: The first step.
        steps: How many.
        interval: Steps of an interval; the last one may have fewer.
        most: Steps of a call at most.
        save_steps: No call goes beyond a multiple.

    Returns:
        The first step of every call and the one behind its last, by interval. All
        intervals have equally many; those at the end may have no steps.

    Example:

    >>> calls(0, 10, interval=6, most=4, save_steps=None)
    [[(0, 4), (4, 6)], [(6, 10), (10, 10)]]
    >>> calls(3, 6, interval=6, most=9, save_steps=5)
    [[(3, 5), (5, 9)]]
    """
    plan = []
    for begin in range(start, start + steps, interval):
        end, found = min(begin + interval, start + steps), []
        while begin < end:
            stop = min(end, begin + most)
            if save_steps:
                stop = min(stop, (begin // save_steps + 1) * save_steps)
            found.append((begin, stop))
            begin = stop
        plan.append(found)
    longest = max(map(len, plan))
    return [x + [(x[-1][1], x[-1][1])] * (longest - len(x)) for x in plan]
