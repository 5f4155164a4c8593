"""Feeding batches to Keras through Grain. Imported only when something is fed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import grain
import numpy as np
from absl import flags

from tflearn.data.batches import Share, TrainBatch, TrainBatches
from tflearn.distribution.arrays import share

# Batches that are made ahead of the one that is being trained on.
_AHEAD = 4
# Batches that Keras looks at before it trains, from iterators it throws away.
_LOOKED_AT = 2


class Stream(grain.IterDataset):
    """The batches of a range of steps as a Grain dataset.

    Keras opens an iterator to look at two batches, another one to build the model,
    and a third one to train. The first batches are kept, so that threads and worker
    processes start once, with the first batch behind them.

    Args:
        batches: Random access to the batches.
        start_step: The first step.
        num_steps: How many.
    """

    def __init__(
        self, batches: TrainBatches, *, start_step: int, num_steps: int
    ) -> None:
        super().__init__()
        self._batches = batches
        self._start = start_step
        self._count = num_steps
        # Here and not in the threads, which do not know what is active.
        self._share = share()
        self._head: dict[int, TrainBatch] = {}

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> grain.DatasetIterator:
        """Returns an iterator from the first step on."""
        return _Iterator(self)

    def head(self, place: int) -> TrainBatch | None:
        """Returns one of the first batches, or None for later ones."""
        if place >= _LOOKED_AT:
            return None
        if place not in self._head:
            self._head[place] = self._batches.part(self._start + place, self._share)
        return self._head[place]

    def tail(self, place: int) -> grain.DatasetIterator:
        """Returns an iterator from a place on; costly batches are made ahead."""
        first, stop = self._start + place, self._start + self._count
        batches = self._batches
        if batches.workers:
            return _in_processes(batches, first, stop, self._share)
        source: Any = _Source(batches, batches.part, self._share)
        steps = grain.MapDataset.source(source)[first:stop]
        # Decoding and augmentation run outside the interpreter lock. What is cheap is
        # made in place: handing it over from a thread would cost more.
        threads = min(8, os.cpu_count() or 1) if batches.is_costly else 0
        options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=2 * threads
        )
        return iter(steps.to_iter_dataset(options))

    @property
    def count(self) -> int:
        """Number of steps."""
        return self._count


class _Iterator(grain.DatasetIterator):
    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self._place = 0
        self._tail: grain.DatasetIterator | None = None

    def __next__(self) -> TrainBatch:
        if self._place >= self._stream.count:
            raise StopIteration
        batch = self._stream.head(self._place)
        if batch is None:
            tail = self._tail or self._stream.tail(self._place)
            self._tail = tail
            batch = next(tail)
        self._place += 1
        if self._place == self._stream.count:
            # Keras never asks for one more, and worker processes would live on.
            self._close_tail()
        return batch

    def get_state(self) -> dict[str, Any]:
        return {"place": self._place}

    def set_state(self, state: dict[str, Any]) -> None:
        self._close_tail()
        self._place = int(state["place"])

    def close(self) -> None:
        self._close_tail()
        super().close()

    def _close_tail(self) -> None:
        if self._tail is not None:
            self._tail.close()
            self._tail = None


class _Source:
    """The batches as a Grain source."""

    def __init__(
        self,
        batches: TrainBatches,
        part: Callable[[int, Share | None], TrainBatch],
        share: Share | None,
    ) -> None:
        self._length = len(batches.raw)
        self._part = part
        self._share = share

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: Any) -> TrainBatch:
        return self._part(int(step), self._share)


def _in_processes(
    batches: TrainBatches, first: int, stop: int, share: Share | None
) -> grain.DatasetIterator:
    """Decodes in worker processes; augments here, where the backend runs."""
    if not flags.FLAGS.is_parsed():
        # Grain's worker pool reads its settings there, and fails if nobody did this.
        flags.FLAGS.mark_as_parsed()
    read = batches.raw_share(share)
    if read is not None:
        # Devices do not travel to a worker process; indices do.
        rows = read(len(batches.indices(first)))
        read = functools.partial(_fixed, rows)
    source: Any = _Source(batches, batches.raw.part, read)
    steps = grain.MapDataset.source(source)[first:stop]
    options = grain.MultiprocessingOptions(
        num_workers=batches.workers, per_worker_buffer_size=2
    )
    unthreaded = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    made = steps.to_iter_dataset(unthreaded).mp_prefetch(options)

    def finish(place: int, raw: TrainBatch) -> TrainBatch:
        # Copies, so that the memory shared with the workers is free at once.
        own = tuple(np.array(array, subok=False) for array in raw)
        return batches.finish_part(first + place, own, share)

    finished = made.map_with_index(finish)
    ahead = grain.experimental.ThreadPrefetchIterDataset(
        finished, prefetch_buffer_size=_AHEAD
    )
    return iter(ahead)


def _fixed(rows: np.ndarray, size: int) -> np.ndarray:
    """Shares out batches that all have one size."""
    return rows
