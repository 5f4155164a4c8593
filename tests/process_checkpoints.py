"""Saves checkpoints into two folders at once; one of several processes on JAX.

python tests/process_checkpoints.py FOLDER COORDINATOR PROCESSES PROCESS_ID
"""

from __future__ import annotations

import pathlib
import random
import sys
import time

from tflearn.distribution import Distribution, processes
from tflearn.distribution.plan import resolve


def main(folder: str, coordinator: str, count: str, index: str) -> None:
    distribution = Distribution(
        kind="data",
        coordinator=coordinator,
        processes=int(count),
        process_id=int(index),
    )
    processes.start(distribution)
    import keras

    from tflearn.training.checkpoints import Checkpoints

    # Each process pauses for other times, so that each is behind at some time.
    pauses = random.Random(int(index))
    with resolve(distribution).scope():
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
        behind = Checkpoints(pathlib.Path(folder) / "checkpoints", background=True)
        best = Checkpoints(pathlib.Path(folder) / "best")
        for step in range(60):
            for checkpoints in (behind, best):
                checkpoints.save(step, model)
                time.sleep(pauses.uniform(0, 0.05))
        found = [checkpoints.check(59) for checkpoints in (behind, best)]
        assert found[0] == found[1]
        behind.close()
        best.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
