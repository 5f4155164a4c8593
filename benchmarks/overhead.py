"""What does tflearn add to a step of bare Keras `fit`?

The same model, arrays and batch size, trained in turn by Keras `fit` on NumPy arrays
and by tflearn's loop (batches by step through Grain, progress lines, interval ends with
log and checkpoint left out of both). Medians of several rounds; prints the ratio.

Run: python -m benchmarks.overhead [--rounds 7] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from tflearn.data import Data, pipeline, sources
from tflearn.support import environment
from tflearn.training import loop
from tflearn.training.progress import Progress

SIZES = {"small": (64, 2), "medium": (512, 4), "large": (1536, 4)}


class Vectors:
    """Passes rows on as they are."""

    size = 256

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows, "float32")


def make_model(width: int, depth: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(width, activation="gelu") for _ in range(depth)]
    model = keras.Sequential([keras.Input((256,)), *layers, keras.layers.Dense(10)])
    return compiled(model)


def compiled(model: keras.Model) -> keras.Model:
    """Compiles a classifier for integer labels as tflearn does."""
    loop.compile_model(
        model,
        optimizer=keras.optimizers.AdamW(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model


def bare(model: keras.Model, x: np.ndarray, y: np.ndarray, batch_size: int) -> float:
    start = time.perf_counter()
    model.fit(x, y, batch_size=batch_size, epochs=1, verbose=0)
    return time.perf_counter() - start


def ours(model: keras.Model, batches: pipeline.TrainBatches, steps: int) -> float:
    schedule = loop.Schedule(total_steps=steps, interval_steps=steps)
    progress = Progress(steps, description="ours", interval_steps=steps)
    start = time.perf_counter()
    loop.train(
        model,
        batches,
        schedule=schedule,
        on_interval=lambda step, logs: False,
        callbacks=[progress],
    )
    return time.perf_counter() - start


def train_batches(
    x: np.ndarray, y: np.ndarray, *, batch_size: int, classes: int
) -> pipeline.TrainBatches:
    """Makes batches of vectors `(rows, dim)` and their classes `(rows,)`."""
    data = Data(
        source=functools.partial(
            sources.arrays, {"train": {"features": x, "label": y}}
        ),
        input="features",
        allow_overlap=True,
    )
    split = data.load(target_kind="class").splits["train"]
    return pipeline.train_batches(
        pipeline.encode(split, Vectors(), data=data),
        split.targets,
        batch_size=batch_size,
        seed=0,
        data=data,
        num_outputs=classes,
        one_hot=False,
    )


def measure(width: int, depth: int, *, rounds: int, steps: int) -> dict[str, object]:
    batch_size = 64
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps * batch_size, 256)).astype("float32")
    y = rng.integers(0, 10, len(x))
    batches = train_batches(x, y, batch_size=batch_size, classes=10)
    model = make_model(width, depth)
    runs: dict[str, list[float]] = {"keras": [], "tflearn": []}
    for round_number in range(rounds + 1):
        # In turn, so that a slow moment of the machine falls on both.
        times = {
            "keras": bare(model, x, y, batch_size),
            "tflearn": ours(model, batches, steps),
        }
        if round_number:
            for name, seconds in times.items():
                runs[name].append(1e6 * seconds / steps)
    ratios = [a / b for a, b in zip(runs["tflearn"], runs["keras"], strict=True)]
    return {
        "microseconds_per_step": {k: statistics.median(v) for k, v in runs.items()},
        "ratio": statistics.median(ratios),
        "ratio_lowest": min(ratios),
        "ratio_highest": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--json")
    flags = parser.parse_args()
    results = {
        name: measure(*size, rounds=flags.rounds, steps=flags.steps)
        for name, size in SIZES.items()
    }
    for name, found in results.items():
        times = found["microseconds_per_step"]
        print(
            f"{name:7s} keras {times['keras']:8.0f} us  "
            f"tflearn {times['tflearn']:8.0f} us  ratio {found['ratio']:.3f} "
            f"[{found['ratio_lowest']:.3f}, {found['ratio_highest']:.3f}]"
        )
    if flags.json:
        record = {
            "backend": keras.backend.backend(),
            "versions": environment.versions(),
            "hardware": environment.hardware(),
            "rounds": flags.rounds,
            "steps": flags.steps,
            "results": results,
        }
        with open(flags.json, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=2)


if __name__ == "__main__":
    main()
