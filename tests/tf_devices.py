"""Trains on one, two and four TensorFlow devices; `test_tf_strategy.py` reads it.

    python tests/tf_devices.py RESULT ROW...

A process of its own, because TensorFlow fixes its devices when it starts.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import contextlib
import dataclasses
import functools
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tflearn import backbones, objectives, regimes
from tflearn.backbones import graph, vocabularies
from tflearn.data import Data, sources
from tflearn.distribution import Distribution, resolve, tf_strategy
from tflearn.training import assessment, execution, loop, optimizers
from tflearn.training.preparation import prepare
from tflearn.training.stage import Prepared, Stage

STEPS = 20
SIZE = 12
WORDS = "the a red green blue cats dogs birds were sleeping running in sun gardens"
hub = backbones.import_keras_hub()


def texts(target: str | None = "label") -> Data:
    """Sentences of 2 to 9 words; the label says whether `red` is among them."""
    rng = np.random.default_rng(1)
    rows = [" ".join(rng.choice(WORDS.split(), rng.integers(2, 10))) for _ in range(44)]
    labels = [str("red" in row) for row in rows]
    train = {"text": rows[:30], "label": labels[:30]}
    test = {"text": rows[30:], "label": labels[30:]}
    columns = {"train": train, "test": test}
    return Data(source=lambda: sources.arrays(columns), target=target)


def images() -> Data:
    rng = np.random.default_rng(2)
    shades = rng.integers(40, 215, (44, SIZE, SIZE, 3)).astype("uint8")
    shades[::2, :, :, 0] //= 2
    names = ["green", "red"] * 22
    columns = {
        "train": {"image": list(shades[:30]), "label": names[:30]},
        "test": {"image": list(shades[30:]), "label": names[30:]},
    }
    return Data(source=lambda: sources.arrays(columns), input="image", target="label")


@functools.cache
def pieces() -> Any:
    return vocabularies.wordpiece(
        lambda: [WORDS],
        vocabulary_size=60,
        special_tokens=("pad", "unknown", "start", "separator", "mask"),
    )


def text_backbone(name: str, dropout: float = 0.0) -> backbones.Backbone:
    size = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
    tokenizer = pieces
    if name == "GPT2Backbone":
        tokenizer = functools.partial(
            vocabularies.bpe,
            lambda: [WORDS],
            vocabulary_size=300,
            special_tokens=("pad", "end"),
        )
    architecture = functools.partial(
        getattr(hub.models, name), **size, dropout=dropout, max_sequence_length=48
    )
    return backbones.hub(architecture, tokenizer=tokenizer)


def convolutions() -> backbones.Backbone:
    def build() -> keras.Model:
        x = inputs = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Conv2D(4, 3, strides=2, name="conv")(x)
        x = keras.layers.BatchNormalization(name="norm")(x)
        return keras.Model(inputs, keras.layers.ReLU(name="relu")(x))

    return backbones.function(build)


@dataclasses.dataclass(frozen=True)
class Row:
    """What is trained."""

    backbone: Callable[[], backbones.Backbone]
    data: Callable[[], Data] = texts
    objective: Callable[[], Any] = objectives.classification
    regime: Sequence[regimes.Rule] = regimes.full()
    # Clips: a gradient of the whole batch, not of a device's part, must be clipped.
    optimizer: Callable[..., Any] = functools.partial(
        optimizers.sgd, learning_rate=0.3, momentum=0.9, clip_norm=0.3
    )
    total: int = 16


ROWS = {
    "text": Row(functools.partial(text_backbone, "BertBackbone")),
    "image": Row(convolutions, images),
    "causal": Row(
        functools.partial(text_backbone, "GPT2Backbone"),
        functools.partial(texts, None),
        objectives.causal_lm,
        regimes.low_rank(rank=2),
        functools.partial(optimizers.adamw, learning_rate=0.05, clip_norm=0.3),
    ),
    "probe": Row(
        functools.partial(text_backbone, "BertBackbone", 0.1),
        regime=regimes.frozen(),
        optimizer=functools.partial(keras.optimizers.AdamW, 0.05, use_ema=True),
    ),
}


def stage(row: Row) -> Stage:
    return Stage(
        name="stage",
        data=row.data,
        objective=row.objective,
        regime=row.regime,
        optimizer=row.optimizer,
        budget=f"{STEPS} steps",
        batch_size=row.total,
        # Neither the 14 rows of the test split nor 6 divide among 4 devices.
        eval_batch_size=6,
        interval=10,
        bootstrap=0,
    )


def build(row: Row) -> Prepared:
    keras.utils.set_random_seed(0)
    return prepare(stage(row), row.backbone(), seed=0)


def curve(prepared: Prepared) -> list[float]:
    """The loss of each step."""
    model, losses = prepared.network.model, []
    optimizer = prepared.make_optimizer(STEPS)
    loss = prepared.loss()
    tf_strategy.check(model, optimizer=optimizer, loss=loss, batch_size=16)
    loop.compile_model(
        model, optimizer=optimizer, loss=loss, metrics=prepared.metrics()
    )

    def note(step: int, logs: loop.Logs) -> bool:
        losses.append(float(logs["loss"]))
        return False

    schedule = loop.Schedule(total_steps=STEPS, interval_steps=1)
    loop.train(model, prepared.batches, schedule=schedule, on_interval=note)
    return losses


def measured(prepared: Prepared) -> dict[str, Any]:
    found = assessment.measure(prepared, "test")
    rows = found if isinstance(found, np.ndarray) else dict(found)
    return {k: np.asarray(v).tolist() for k, v in _named(rows).items()}


def _named(rows: Any) -> dict[str, Any]:
    return rows if isinstance(rows, dict) else {"outputs": rows}


def trained(row: Row, devices: int) -> dict[str, Any]:
    """Trains a row on so many devices; 0: without a strategy."""
    kind = "data" if devices else "single"
    with resolve(Distribution(kind=kind, devices=devices or None)).scope():
        prepared = build(row)
        prepared.apply_regime()
        losses = curve(prepared)
        model = prepared.network.model
        weights = graph.weights_by_path(model)
        flags = [getattr(x, "synchronized", False) for x in model._flatten_layers()]
        return {
            "losses": losses,
            "measured": measured(prepared),
            "digest": float(
                sum(np.abs(graph.value_of(x)).sum() for x in weights.values())
            ),
            "strategy": type(tf.distribute.get_strategy()).__name__,
            "synchronized_after": any(flags),
        }


class Killed(Exception):
    """Stands for a process that ends in the middle of a stage."""


def resumed(row: Row, counts: tuple[int, int]) -> dict[str, Any]:
    """Trains 10 steps on the first number of devices, the rest on the second."""
    strategies = []

    def train(folder: str, count: int, *, kill: bool) -> list[dict[str, float]]:
        def observe(_: execution.State) -> None:
            if kill:
                raise Killed

        with resolve(Distribution(kind="data", devices=count)).scope():
            strategies.append(type(tf.distribute.get_strategy()).__name__)
            prepared = build(row)
            census = prepared.apply_regime()
            outcome = execution.execute(
                prepared, pathlib.Path(folder), census=census, observers=[observe]
            )
        return outcome.state.history

    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(Killed):
            train(folder, counts[0], kill=True)
        history = train(folder, counts[1], kill=False)
    return {"losses": [x["loss"] for x in history], "strategies": strategies}


def masks(devices: int) -> list[list[bool]]:
    """What dropout keeps of equal rows, a row a device."""
    from tflearn.distribution import tf_training

    with resolve(Distribution(kind="data", devices=devices)).scope():
        keras.utils.set_random_seed(0)
        layers = [keras.Input((32,)), keras.layers.Dropout(0.5)]
        model = keras.Sequential(layers)
        with tf_training.training(model):
            strategy = tf.distribute.get_strategy()
            call = functools.partial(model, tf.ones((1, 32)), training=True)
            found = strategy.experimental_local_results(strategy.run(call))
    return [(x.numpy()[0] > 0).tolist() for x in found]


def main(path: str, *names: str) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 4
    )
    found: dict[str, Any] = {
        name: {str(count): trained(ROWS[name], count) for count in (0, 4)}
        for name in names
    }
    if "image" in names:
        found |= {"resumed": resumed(ROWS["image"], (4, 1)), "masks": masks(4)}
    pathlib.Path(path).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
