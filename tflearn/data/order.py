"""Which examples the batch of a step holds: a pure function of seed and step.

Position `p` of the endless stream of examples belongs to epoch `p // n`; within an
epoch, Grain's index shuffle is a permutation that needs no memory, so any position is
found at once and a resumed run seeks instead of replaying.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

#: Batches of a window in which texts are sorted by length.
WINDOW_BATCHES = 64


def shuffled(positions: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """Returns the example at each position of an endless shuffled stream.

    The same as `grain.MapDataset.range(count).seed(seed).shuffle()[position]`
    for a dataset's own `shuffle(seed)`, without its cost per element.

    Args:
        positions: Positions, `(k,)` int64, at least 0.
        count: Number of examples.
        seed: Seed; each epoch adds 1 to it.

    Returns:
        Examples `(k,)` int64, in `[0, count)`; every epoch holds each of them once.
    """
    from grain.experimental import index_shuffle

    epochs, places = np.divmod(positions, count)
    pairs = zip(epochs.tolist(), places.tolist(), strict=True)
    return np.fromiter(
        (
            index_shuffle(
                place, max_index=count - 1, seed=(seed + epoch) % 2**32, rounds=4
            )
            for epoch, place in pairs
        ),
        dtype=np.int64,
        count=len(positions),
    )


class Order:
    """The examples of every step.

    Args:
        count: Number of examples.
        batch_size: Examples a step.
        seed: Seed of the order.
        lengths: Length of each example; batches then hold examples of similar length.
        classes: Class of each example; each class is then drawn equally often.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        seed: int,
        lengths: np.ndarray | None = None,
        classes: np.ndarray | None = None,
    ) -> None:
        self._count = count
        self._batch_size = batch_size
        self._seed = seed
        self._lengths = lengths
        self._draw = self._shuffled if classes is None else _balanced(classes, seed)
        # A window longer than an epoch would gather the repeats of an example in
        # one batch, since they have the same length.
        window = min(WINDOW_BATCHES, max(1, count // batch_size))
        self._window = window if lengths is not None else WINDOW_BATCHES
        self._cached: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        # A lock does not travel to a worker process.
        return {**self.__dict__, "_lock": None, "_cached": {}}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def indices(self, step: int) -> np.ndarray:
        """Returns the examples of a step, `(batch,)` int64."""
        window, place = divmod(step, self._window)
        with self._lock:
            if window not in self._cached:
                # Threads that prefetch may be in two neighbouring windows at once.
                self._cached = {
                    key: value
                    for key, value in self._cached.items()
                    if key in (window - 1, window + 1)
                }
                self._cached[window] = self._plan(window)
            return self._cached[window][place]

    def _plan(self, window: int) -> np.ndarray:
        """Returns the examples of a window's batches, `(batches, batch)`."""
        size = self._window * self._batch_size
        examples = self._draw(np.arange(window * size, (window + 1) * size))
        if self._lengths is None:
            return examples.reshape(self._window, self._batch_size)
        by_length = examples[np.argsort(self._lengths[examples], kind="stable")]
        batches = by_length.reshape(self._window, self._batch_size)
        rng = np.random.Generator(np.random.Philox(key=[self._seed, window]))
        return batches[rng.permutation(self._window)]

    def _shuffled(self, positions: np.ndarray) -> np.ndarray:
        return shuffled(positions, count=self._count, seed=self._seed)


class _balanced:
    """Draws each class once in every group of as many positions as classes."""

    def __init__(self, classes: np.ndarray, seed: int) -> None:
        self._seed = seed
        self._members = [np.flatnonzero(classes == c) for c in np.unique(classes)]

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        rounds, places = np.divmod(positions, len(self._members))
        result = np.empty(len(positions), dtype=np.int64)
        order = self._class_order(rounds, places)
        for number, members in enumerate(self._members):
            chosen = order == number
            stream = shuffled(
                rounds[chosen], count=len(members), seed=(self._seed + number) % 2**32
            )
            result[chosen] = members[stream]
        return result

    def _class_order(self, rounds: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Returns the class at each place of a round, another order each round."""
        total = len(self._members)
        positions = rounds * total + places
        return shuffled(positions, count=total, seed=self._seed)


Draw = Callable[[np.ndarray], np.ndarray]
