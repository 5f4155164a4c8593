"""What does a checkpoint a minute cost a run?

A transformer of a hundred million weights (AdamW: three arrays a weight) is trained by
tflearn's loop. Windows of some steps follow each other in one run, every other one with
a checkpoint at its start, written in the background while it trains; so a slow minute
of the machine falls on both. A window is longer than writing takes. Prints the ratio of
a minute with one checkpoint to one without.

Run: python -m benchmarks.checkpoint_overhead [--repeats 10] [--steps 15]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_hub
import numpy as np

from benchmarks import measuring, overhead
from tflearn.data import pipeline
from tflearn.training import loop
from tflearn.training.checkpoints import Checkpoints

LENGTH, SIZE, BATCH, CLASSES = 32, 8, 8, 4
MINUTE = 60.0


def transformer(layers: int, width: int) -> keras.Model:
    """Makes the layers of BERT-base, over vectors in place of tokens, and a head."""
    keras.utils.set_random_seed(0)
    vectors = keras.Input((LENGTH * SIZE,))
    x = keras.layers.Reshape((LENGTH, SIZE))(vectors)
    x = keras.layers.Dense(width)(x)
    for _ in range(layers):
        x = keras_hub.layers.TransformerEncoder(4 * width, width // 64)(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return overhead.compiled(keras.Model(vectors, keras.layers.Dense(CLASSES)(x)))


def rows() -> pipeline.TrainBatches:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64 * BATCH, LENGTH * SIZE)).astype("float32")
    y = rng.integers(0, CLASSES, len(x))
    return overhead.train_batches(x, y, batch_size=BATCH, classes=CLASSES)


def windows(model: keras.Model, saved: Checkpoints, *, count: int, steps: int) -> list:
    """Trains window after window; returns the seconds of each."""
    times: list[float] = []

    def on_inside(step: int, inside: int, ends: bool) -> None:
        # The device is done with all steps before.
        keras.ops.convert_to_numpy(model.optimizer.iterations)
        times.append(time.perf_counter())
        if len(times) % 2:
            saved.save(step, model, optimizer=model.optimizer)

    total = (count + 1) * steps + 1
    loop.train(
        model,
        rows(),
        schedule=loop.Schedule(
            total_steps=total, interval_steps=total, save_steps=steps
        ),
        on_interval=lambda step, logs: False,
        on_inside=on_inside,
    )
    return np.diff(times).tolist()


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.set_defaults(repeats=10)
    parser.add_argument("--steps", type=int, default=15, help="of a window")
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--width", type=int, default=768)
    flags = parser.parse_args()
    measure(flags)


def measure(flags: argparse.Namespace) -> None:
    model = transformer(flags.layers, flags.width)
    millions = model.count_params() / 1e6
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Checkpoints(folder, background=True)) as saved,
    ):
        # Of the first two the first compiles the copies.
        count = 2 * (flags.repeats + 1)
        found = windows(model, saved, count=count, steps=flags.steps)[2:]
    pairs = list(zip(found[::2], found[1::2], strict=True))
    for number, (with_one, without) in enumerate(pairs, 1):
        print(f"pair {number}: {with_one:.2f} s with, {without:.2f} s without")
    minutes = {
        "without": {"rounds": [{"seconds": MINUTE} for _ in pairs]},
        "with": {"rounds": [{"seconds": MINUTE + a - b} for a, b in pairs]},
    }
    summary = measuring.summarize(minutes, "seconds")
    question = f"What does a checkpoint a minute cost a model of {millions:.0f} M?"
    measuring.show(question, summary, "seconds")
    record = {"question": question, "unit": "seconds", "summary": summary}
    measuring.write(
        "checkpoint_overhead",
        record | {"steps": flags.steps, "windows": found},
        results=flags.results,
    )


if __name__ == "__main__":
    main()
