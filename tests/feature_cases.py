"""Small experiments for `test_features`, which starts some of them as processes."""

from __future__ import annotations

import functools
import sys

import keras
import numpy as np

from tflearn import backbones, experiment, objectives, regimes
from tflearn.backbones import vocabularies
from tflearn.data import Data, sources
from tflearn.training import optimizers

L = keras.layers
LETTERS = "abcdefgh "
TOP = (regimes.train("backbone/block_1*"), *regimes.frozen())


def build_text() -> keras.Model:
    """Two blocks of attention with dropout; the padding mask is an input of its own."""
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "padding_mask")
    }
    mask = keras.ops.expand_dims(inputs["padding_mask"], 1)
    x = L.Embedding(20, 8, name="embedding")(inputs["token_ids"])
    for number in range(2):
        attention = L.MultiHeadAttention(2, 4, dropout=0.2, name=f"block_{number}_mha")
        x = L.Add(name=f"block_{number}_add")([x, attention(x, x, attention_mask=mask)])
        x = L.LayerNormalization(name=f"block_{number}_norm")(x)
        x = L.Dropout(0.2, name=f"block_{number}_drop")(x)
    return keras.Model(inputs, x)


def text_backbone() -> backbones.Backbone:
    return backbones.function(
        build_text,
        tokenizer=lambda: vocabularies.characters(lambda: [LETTERS] * 4),
        max_length=64,
    )


def texts() -> Data:
    rng = np.random.default_rng(0)
    # Lengths that lie far apart, so that there are several lengths of batches.
    made = ["".join(rng.choice(list(LETTERS[:-1]), n)) for n in rng.integers(2, 60, 75)]
    labels = ["yes" if x.count("a") > len(x) / 8 else "no" for x in made]
    rows = {"train": (0, 45), "validation": (45, 60), "test": (60, 75)}
    split = {
        name: {"text": made[a:b], "label": labels[a:b]} for name, (a, b) in rows.items()
    }
    return Data(source=lambda: sources.arrays(split))


def build_images() -> keras.Model:
    x = inputs = keras.Input((8, 8, 1))
    for number in range(2):
        x = L.Conv2D(4, 3, padding="same", use_bias=False, name=f"block_{number}_conv")(
            x
        )
        x = L.BatchNormalization(momentum=0.7, name=f"block_{number}_norm")(x)
        x = L.ReLU(name=f"block_{number}_relu")(x)
    return keras.Model(inputs, x)


def image_backbone() -> backbones.Backbone:
    return backbones.function(build_images)


def images(**changes) -> Data:
    return Data(
        source=functools.partial(sources.sklearn, "digits"),
        input="image",
        examples_per_class=5,
        splits={"train": 0.95, "validation": 0.03, "test": 0.02},
        **changes,
    )


def build_vectors() -> keras.Model:
    x = inputs = keras.Input((4,), name="features")
    for number in range(2):
        x = L.Dense(8, activation="tanh", name=f"block_{number}")(x)
        x = L.Dropout(0.2, name=f"block_{number}_drop")(x)
    return keras.Model(inputs, x)


def vector_backbone() -> backbones.Backbone:
    return backbones.function(build_vectors)


def vectors() -> Data:
    return Data(
        source=functools.partial(sources.sklearn, "iris"),
        input="vector",
        splits={"train": 0.6, "validation": 0.2, "test": 0.2},
    )


BACKBONES = {"text": text_backbone, "image": image_backbone, "vector": vector_backbone}
DATA = {"text": texts, "image": images, "vector": vectors}


def make_stage(kind: str = "vector", **changes) -> experiment.Stage:
    fields = {
        "name": "tune",
        "data": DATA[kind],
        "objective": objectives.classification,
        "regime": regimes.frozen(),
        "optimizer": functools.partial(optimizers.adamw, learning_rate=0.02),
        "budget": "18 steps",
        "interval": 6,
        "batch_size": 16,
        "eval_batch_size": 16,
        "bootstrap": 0,
    }
    return experiment.Stage(**(fields | changes))


def make(*stages: experiment.Stage, kind: str = "vector", **changes):
    return experiment.Experiment(backbone=BACKBONES[kind], stages=stages, **changes)


if __name__ == "__main__":
    _, where, cache = sys.argv
    stage = make_stage("text", regime=TOP, cache=cache)
    experiment.run(make(stage, kind="text"), output_dir=where)
