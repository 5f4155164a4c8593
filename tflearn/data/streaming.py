"""Feeding batches to Keras through Grain. Imported only when something is fed.

A worker process that dies is started again, a bounded number of times; one that hangs
ends the run (`tflearn.data.waiting`). Nothing is lost: a batch is a function of its
step.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from tflearn.data import waiting
from tflearn.data.batches import TrainBatches
from tflearn.data.input_clock import Clock
from tflearn.data.raw_batches import Share, TrainBatch
from tflearn.distribution.arrays import share
from tflearn.support.console import say

# Batches that are made ahead of the one that is being trained on.
_AHEAD = 4
# Batches that Keras looks at before it trains, from iterators it throws away.
_LOOKED_AT = 2
# How often worker processes that died are started again.
_RESTARTS = 3


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
        #: What an iterator raised; TensorFlow puts an error of its own in its place.
        self.failure: Exception | None = None

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
            self._head[place] = self._made(self._start + place)
        return self._head[place]

    def _made(self, step: int) -> TrainBatch:
        """Makes a batch here; what reads files is not waited for without an end."""
        batches = self._batches
        if not batches.examples.lazy:
            return batches.part(step, self._share)
        one = map(functools.partial(batches.part, share=self._share), (step,))
        ahead = waiting.Ahead(one, size=1, seconds=batches.stall_seconds)
        try:
            return ahead.get()
        except waiting.Stalled:
            raise self.lost(step - self._start, "reading hangs") from None
        finally:
            ahead.close()

    def tail(self, place: int) -> Any:
        """Returns what has `get` and `close`; costly batches are made ahead."""
        first, stop = self._start + place, self._start + self._count
        batches = self._batches
        if batches.workers:
            made = _in_processes(batches, first, stop, self._share)
            seconds = batches.stall_seconds
            return waiting.Ahead(made, size=_AHEAD, seconds=seconds)
        source: Any = _Source(batches, batches.part, self._share)
        steps = grain.MapDataset.source(source)[first:stop]
        # Decoding and augmentation run outside the interpreter lock. What is cheap is
        # made in place: handing it over from a thread would cost more.
        threads = min(8, os.cpu_count() or 1) if batches.is_costly else 0
        options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=2 * threads
        )
        made = iter(steps.to_iter_dataset(options))
        if not batches.examples.lazy:
            return _Here(made)
        return waiting.Ahead(made, size=1, seconds=batches.stall_seconds)

    def lost(self, place: int, problem: str) -> waiting.WorkerLost:
        """Returns the error for a batch that nobody makes."""
        step, batches = self._start + place, self._batches
        return waiting.WorkerLost(
            problem,
            step=step + 1,
            rows=batches.indices(step).tolist(),
            received=f"data.Data.stall_seconds is {batches.stall_seconds:g}, workers "
            f"is {batches.workers}",
            fix="run the same command again: it goes on from the last checkpoint. "
            "Look at the disk these rows are on, and at the memory",
        )

    def worker(self, place: int, first: int) -> str:
        """Names the worker that makes the batch of a place, given their first one."""
        workers = self._batches.workers
        return f"data worker {(place - first) % workers}" if workers else "reading"

    @property
    def clock(self) -> Clock:
        """Counts the time that training waits."""
        return self._batches.clock

    @property
    def count(self) -> int:
        """Number of steps."""
        return self._count


class _Iterator(grain.DatasetIterator):
    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self._place = 0
        self._tail: Any = None
        self._tail_begins = 0
        self._restarts = 0

    def __next__(self) -> TrainBatch:
        if self._place >= self._stream.count:
            raise StopIteration
        asked = time.perf_counter()
        try:
            batch = self._stream.head(self._place) or self._from_tail()
        except Exception as error:
            self._stream.failure = error
            raise
        self._stream.clock.add(batch, asked)
        self._place += 1
        if self._place == self._stream.count:
            # Keras never asks for one more, and worker processes would live on.
            self._close_tail()
        return batch

    def _from_tail(self) -> TrainBatch:
        while True:
            if self._tail is None:
                self._tail = self._stream.tail(self._place)
                self._tail_begins = self._place
            worker = self._stream.worker(self._place, self._tail_begins)
            try:
                return self._tail.get()
            except waiting.Stalled:
                problem = f"{worker} hangs"
                raise self._stream.lost(self._place, problem) from None
            except RuntimeError as error:
                if not waiting.died(error):
                    raise
                self._restart(worker, error)

    def _restart(self, worker: str, error: RuntimeError) -> None:
        """Starts all workers again at the batch that is missing."""
        self._restarts += 1
        if self._restarts > _RESTARTS:
            problem = f"{worker} died for the {self._restarts}th time"
            raise self._stream.lost(self._place, problem) from error
        code = str(error).partition(".")[0].rpartition(" ")[2]
        say(
            f"warning: {worker} died with exit code {code}; started again, "
            f"{self._restarts} of {_RESTARTS} times"
        )
        self._close_tail()

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


class _Here:
    """Takes what costs little where it is needed."""

    def __init__(self, made: grain.DatasetIterator) -> None:
        self.get, self.close = made.__next__, made.close


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
) -> Iterator[TrainBatch]:
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
    made = steps.to_iter_dataset(unthreaded).mp_prefetch(
        options, worker_init_fn=waiting.end_with_parent
    )

    def finish(place: int, raw: TrainBatch) -> TrainBatch:
        # Copies, so that the memory shared with the workers is free at once.
        own = tuple(np.array(array, subok=False) for array in raw)
        return batches.finish_part(first + place, own, share)

    return iter(made.map_with_index(finish))


def _fixed(rows: np.ndarray, size: int) -> np.ndarray:
    """Shares out batches that all have one size."""
    return rows
