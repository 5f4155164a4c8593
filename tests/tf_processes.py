"""One of two TensorFlow processes; `test_tf_strategy.py` starts both.

    python tests/tf_processes.py PORT INDEX WHAT RESULT

WHAT is a row of `tf_devices.py`, or `dies`: the second process ends itself after some
steps, and the first one writes what it was told.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import tf_devices

from tflearn.distribution import Distribution, resolve
from tflearn.support.errors import RunError
from tflearn.training import loop


def main(port: str, index: str, what: str, path: str) -> None:
    declared = Distribution(
        kind="data",
        coordinator=f"127.0.0.1:{port}",
        processes=2,
        process_id=int(index),
    )
    if what == "dies":
        found = survive(declared, int(index))
    else:
        with resolve(declared).scope():
            prepared = tf_devices.build(tf_devices.ROWS[what])
            prepared.apply_regime()
            found = {
                "losses": tf_devices.curve(prepared),
                "measured": tf_devices.measured(prepared),
            }
    pathlib.Path(path).write_text(json.dumps(found))


def survive(declared: Distribution, index: int) -> dict[str, object]:
    """Trains without an end; the second process ends itself after five steps."""
    seen = [time.monotonic()]

    def note(step: int, logs: loop.Logs) -> bool:
        if index == 1 and step == 5:
            os._exit(9)
        seen[0] = time.monotonic()
        return False

    schedule = loop.Schedule(total_steps=1_000_000, interval_steps=1)
    try:
        with resolve(declared).scope():
            prepared = tf_devices.build(tf_devices.ROWS["probe"])
            prepared.apply_regime()
            loop.compile_model(
                prepared.network.model,
                optimizer=prepared.make_optimizer(1000),
                loss=prepared.loss(),
                metrics=prepared.metrics(),
            )
            loop.train(
                prepared.network.model,
                prepared.batches,
                schedule=schedule,
                on_interval=note,
            )
    except RunError as error:
        return {"error": str(error), "seconds": time.monotonic() - seen[0]}
    raise AssertionError("training went on without the other process")


if __name__ == "__main__":
    main(*sys.argv[1:])
