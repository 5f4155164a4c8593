"""Which examples the batch of a step holds: a pure function of seed and step.

Position `p` of the endless stream of examples belongs to epoch `p // n`, and each
epoch has a permutation of its own. So any position is found at once, and a resumed
run seeks instead of replaying.
"""

from __future__ import annotations

import threading

import numpy as np

from tflearn.support import seeds

#: Batches of a window in which texts are sorted by length.
WINDOW_BATCHES = 64

# Up to so many examples an epoch's permutation is kept (128 MiB); above, Grain's
# index shuffle finds each position without memory. It is not used for all: a call
# takes 4 microseconds, and 200 to 2000 of them for sets of 100 to 10 examples.
_KEPT_EXAMPLES = 2**24
_ROUND_BLOCK = 4096


class Shuffle:
    """An endless stream of examples, shuffled anew each epoch, with random access.

    Args:
        count: Number of examples.
        seed: Seed.
    """

    def __init__(self, count: int, *, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._epochs: dict[int, np.ndarray] = {}

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Returns the examples at some positions.

        Args:
            positions: Positions, `(k,)` int64, at least 0.

        Returns:
            Examples `(k,)` int64, in `[0, count)`; every epoch holds each once.
        """
        epochs, places = np.divmod(positions, self._count)
        if self._count > _KEPT_EXAMPLES:
            return self._by_index(epochs, places)
        needed = np.unique(epochs).tolist()
        self._epochs = {epoch: self._permutation(epoch) for epoch in needed}
        result = np.empty(len(positions), dtype=np.int64)
        for epoch, permutation in self._epochs.items():
            inside = epochs == epoch
            result[inside] = permutation[places[inside]]
        return result

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch in self._epochs:
            return self._epochs[epoch]
        return np.argsort(_bits(self._seed, epoch, self._count), kind="stable")

    def _by_index(self, epochs: np.ndarray, places: np.ndarray) -> np.ndarray:
        from grain.experimental import index_shuffle

        last = self._count - 1
        found = (
            index_shuffle(
                place, max_index=last, seed=(self._seed + epoch) % 2**32, rounds=4
            )
            for epoch, place in zip(epochs.tolist(), places.tolist(), strict=True)
        )
        return np.fromiter(found, dtype=np.int64, count=len(places))


class Balanced:
    """An endless stream that holds each class once in every round.

    A round is as many positions as there are classes, in an order of its own. Round
    `r` takes the example at position `r` of each class's own shuffled stream.

    Args:
        classes: Class of each example, `(n,)`.
        seed: Seed.
    """

    def __init__(self, classes: np.ndarray, *, seed: int) -> None:
        self._seed = seeds.derive(seed, "classes")
        self._members = [np.flatnonzero(classes == c) for c in np.unique(classes)]
        self._streams = [
            Shuffle(len(members), seed=seeds.derive(seed, "class", number))
            for number, members in enumerate(self._members)
        ]
        self._block = max(1, _ROUND_BLOCK // len(self._members))

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Returns the examples at some positions, `(k,)` int64."""
        rounds, places = np.divmod(positions, len(self._members))
        order = self._class_order(rounds, places)
        result = np.empty(len(positions), dtype=np.int64)
        for number, members in enumerate(self._members):
            chosen = order == number
            result[chosen] = members[self._streams[number](rounds[chosen])]
        return result

    def _class_order(self, rounds: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Returns the class at each place of its round."""
        result = np.empty(len(rounds), dtype=np.int64)
        blocks, rows = np.divmod(rounds, self._block)
        for block in np.unique(blocks).tolist():
            bits = _bits(self._seed, block, self._block * len(self._members))
            orders = np.argsort(bits.reshape(self._block, -1), axis=1, kind="stable")
            inside = blocks == block
            result[inside] = orders[rows[inside], places[inside]]
        return result


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
        self._draw = (
            Shuffle(count, seed=seed)
            if classes is None
            else Balanced(classes, seed=seed)
        )
        # A window longer than an epoch would gather the repeats of an example in
        # one batch, since they have the same length.
        self._window = min(WINDOW_BATCHES, max(1, count // batch_size))
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
        bits = _bits(seeds.derive(self._seed, "window"), window, self._window)
        return batches[np.argsort(bits, kind="stable")]


def _bits(seed: int, place: int, count: int) -> np.ndarray:
    # Raw bits are the only part of NumPy's generators that never changes.
    return np.random.Philox(key=[seed, place]).random_raw(count)
