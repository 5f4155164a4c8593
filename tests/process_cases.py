"""What `test_processes.py` trains; the gin files it writes import this.

    python tests/process_cases.py FLAGS JOB...

Runs one command line after the other in one process, which joins the others once.
`FLAGS` and every `JOB` are lists of flags in JSON.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys

import keras
import numpy as np

from tflearn import backbones
from tflearn.backbones import vocabularies
from tflearn.data import Data, sources

GIN = """
from __gin__ import dynamic_registration
import keras
import process_cases
from tflearn import distribution
from tflearn import experiment
from tflearn import objectives
from tflearn import regimes
from tflearn.training import optimizers

experiment.Experiment.name = 'several'
experiment.Experiment.seed = 3
experiment.Experiment.distribution = @distribution.Distribution()
experiment.Experiment.stages = (@tune/experiment.Stage(), @head/experiment.Stage())
experiment.Stage.objective = @objectives.classification
experiment.Stage.optimizer = @optimizers.adamw
experiment.Stage.batch_size = 16
# Neither the validation nor the test rows divide by it.
experiment.Stage.eval_batch_size = 8
experiment.Stage.interval = 4
experiment.Stage.bootstrap = 20
optimizers.adamw.learning_rate = 0.01
optimizers.adamw.clip_norm = 1.0
tune/experiment.Stage.name = 'tune'
tune/experiment.Stage.regime = @regimes.full()
tune/experiment.Stage.budget = '12 steps'
tune/experiment.Stage.restore_best = True
head/experiment.Stage.name = 'head'
head/experiment.Stage.regime = @regimes.frozen()
head/experiment.Stage.budget = '4 steps'
"""
DIGITS = """
DROPOUT = 0.2
experiment.Experiment.backbone = @process_cases.convolutions
process_cases.convolutions.dropout = %DROPOUT
experiment.Stage.data = @process_cases.digits
"""
TEXT = """
experiment.Experiment.backbone = @process_cases.bert
experiment.Stage.data = @process_cases.texts
"""


def digits() -> Data:
    return Data(
        source=functools.partial(sources.sklearn, "digits"),
        input="image",
        examples_per_class=8,
        splits={"train": 0.9, "validation": 0.05, "test": 0.05},
    )


def convolutions(dropout: float = 0.2) -> backbones.Backbone:
    def build() -> keras.Model:
        x = inputs = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(16, 3, use_bias=False, name="conv")(x)
        x = keras.layers.BatchNormalization(momentum=0.7, name="norm")(x)
        x = keras.layers.ReLU(name="relu")(x)
        x = keras.layers.Dropout(dropout, seed=1, name="dropout")(x)
        x = keras.layers.Conv2D(64, 3, name="large")(x)
        return keras.Model(inputs, keras.layers.ReLU(name="out")(x))

    return backbones.function(build)


def texts() -> Data:
    rng = np.random.default_rng(0)
    words = np.array(["good", "bad", "fine", "film", "plot", "end"])
    lengths = rng.integers(2, 12, 75)
    rows = {
        "text": [" ".join(rng.choice(words, length)) for length in lengths],
        "label": ["yes" if length % 3 else "no" for length in lengths],
    }
    cuts = {"train": (0, 43), "validation": (43, 56), "test": (56, 75)}
    split = {
        part: {name: column[start:end] for name, column in rows.items()}
        for part, (start, end) in cuts.items()
    }
    return Data(
        source=lambda: sources.arrays(split),
        input="text",
        target="label",
    )


def words() -> object:
    return vocabularies.wordpiece(
        lambda: ["good bad fine film plot end"] * 4,
        vocabulary_size=60,
        special_tokens=("pad", "unknown", "start", "separator", "mask"),
    )


def bert() -> backbones.Backbone:
    hub = backbones.import_keras_hub()
    architecture = functools.partial(
        hub.models.BertBackbone,
        num_layers=1,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=256,
        max_sequence_length=32,
        dropout=0.1,
    )
    return backbones.hub(architecture, tokenizer=words)


def main(flags: str, *jobs: str) -> int:
    """Runs all jobs; returns the exit code of the first that fails."""
    line = importlib.import_module("tflearn.run")
    written: list[str] = []

    def note(event: str, values: tuple[object, ...]) -> None:
        # Of `open` the third value is the flags of the system call.
        if event == "open" and isinstance(values[2], int) and values[2] & os.O_CREAT:
            written.append(str(values[0]))

    sys.addaudithook(note)
    for job in jobs:
        words = json.loads(job)
        written.clear()
        code = line.main([*words, *json.loads(flags)])
        (folder,) = [x.split("=")[1] for x in words if x.startswith("--output_dir=")]
        for path in [x for x in written if x.startswith(folder)]:
            print(f"=== wrote {path}")
        print(f"=== {code}", flush=True)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
