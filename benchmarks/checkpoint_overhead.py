"""What does a checkpoint a minute cost a run?

A transformer of a hundred million weights (AdamW: three arrays a weight) is trained by
`experiment.run` in turn with no checkpoint inside its interval and with one, the run
being as long as the minute between two. Medians of several rounds; prints the ratio of
the seconds spent training. Both also write what every run writes, at the stage's start
and end.

Run: python -m benchmarks.checkpoint_overhead [--repeats 5] [--seconds 60]
"""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import tempfile

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks import measuring
from benchmarks.measuring import Numbers
from tflearn import backbones, experiment, objectives, regimes
from tflearn.data import Data, sources
from tflearn.training import optimizers

LENGTH, SIZE, BATCH, CLASSES = 32, 64, 8, 4


def transformer(layers: int, width: int) -> backbones.Backbone:
    """A backbone with the layers of BERT-base, over vectors in place of tokens."""

    def build() -> keras.Model:
        hub = backbones.import_keras_hub()
        vectors = keras.Input((LENGTH * SIZE,))
        x = keras.layers.Reshape((LENGTH, SIZE))(vectors)
        x = keras.layers.Dense(width, name="embedding")(x)
        for index in range(layers):
            x = hub.layers.TransformerEncoder(
                4 * width, width // 64, name=f"transformer_layer_{index}"
            )(x)
        return keras.Model(vectors, x)

    return backbones.function(build)


def rows() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {
        split: {
            "vectors": rng.normal(size=(size, LENGTH * SIZE)).astype("float32"),
            "label": rng.integers(0, CLASSES, size),
        }
        for split, size in (
            ("train", 64 * BATCH),
            ("validation", BATCH),
            ("test", BATCH),
        )
    }


def train(flags: argparse.Namespace, *, steps: int, saves: int) -> dict[str, float]:
    """Runs the experiment once; returns seconds by what was done."""
    data = functools.partial(
        Data,
        source=functools.partial(sources.arrays, rows()),
        input="vectors",
        target="label",
        allow_overlap=True,
    )
    stage = experiment.Stage(
        name="tune",
        data=data,
        objective=objectives.classification,
        regime=regimes.full(),
        optimizer=functools.partial(optimizers.adamw, learning_rate=1e-4),
        budget=f"{steps} steps",
        batch_size=BATCH,
        interval=steps,
        # In the first half, so that it is written while training goes on.
        save_steps=steps // 2 if saves else None,
        bootstrap=0,
    )
    backbone = functools.partial(transformer, flags.layers, flags.width)
    with tempfile.TemporaryDirectory() as folder:
        report = experiment.run(
            experiment.Experiment(backbone=backbone, stages=(stage,)),
            output_dir=str(pathlib.Path(folder) / "run"),
        )
    found = report.stages[0].seconds | {"parameters": report.model["parameters"]}
    keras.backend.clear_session()
    return found


def main() -> None:
    flags = _flags()
    warm = train(flags, steps=20, saves=0)
    again = train(flags, steps=40, saves=0)
    step = (again["train"] - warm["train"]) / 20
    steps = max(2, round(flags.seconds / step / 2) * 2)
    millions = warm["parameters"] / 1e6
    print(
        f"{millions:.0f} M parameters, {step:.3f} s a step, {steps} steps", flush=True
    )
    rounds: dict[str, list[Numbers]] = {"without": [], "with": []}
    for _ in range(flags.repeats):
        # In turn, so that a slow moment of the machine falls on both.
        for saves, found in enumerate(rounds.values()):
            found.append({"seconds": train(flags, steps=steps, saves=saves)["train"]})
    contenders = {name: {"rounds": found} for name, found in rounds.items()}
    summary = measuring.summarize(contenders, "seconds")
    question = f"What does a checkpoint a minute cost a model of {millions:.0f} M?"
    measuring.show(question, summary, "seconds")
    measuring.write(
        "checkpoint_overhead",
        {
            "question": question,
            "unit": "seconds of training",
            "summary": summary,
            "steps": steps,
            "rounds": rounds,
        },
        results=flags.results,
    )


def _flags() -> argparse.Namespace:
    parser = measuring.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--width", type=int, default=768)
    return parser.parse_args()


if __name__ == "__main__":
    main()
