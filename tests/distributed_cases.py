"""Trains small networks on eight virtual devices; a process of its own runs it.

Called with a file for the results and the names of cases, such as `text/tensor`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import json
import math
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import keras
import numpy as np

from tflearn import backbones, objectives, regimes
from tflearn.backbones import import_keras_hub, vocabularies
from tflearn.data import Data, sources
from tflearn.distribution import Distribution, layouts
from tflearn.experiment import Experiment, Stage, build, run
from tflearn.training import assessment, loop, optimizers, placement
from tflearn.training.checkpoints import Checkpoints

hub = import_keras_hub()
STEPS = 20
BLOCKS = 4
LAYOUTS = {
    "single": Distribution(kind="single"),
    "data": Distribution(kind="data"),
    "fully_sharded": Distribution(kind="fully_sharded"),
    "two_axes": Distribution(kind="fully_sharded", mesh={"data": 2, "fsdp": 4}),
    "tensor": Distribution(kind="tensor", mesh={"data": -1, "model": 4}),
    "fsdp_model": Distribution(kind="fully_sharded", mesh={"fsdp": -1, "model": 2}),
    "cube": Distribution(kind="fully_sharded", mesh={"data": 2, "fsdp": 2, "model": 2}),
    "tensor_cube": Distribution(kind="tensor", mesh={"data": 2, "fsdp": 2, "model": 2}),
    "four_devices": Distribution(kind="fully_sharded", devices=4),
    "rules": Distribution(
        kind="fully_sharded",
        mesh={"data": 4, "model": 2},
        rules={"backbone/*/query/kernel": (None, "model", None)},
        replicate="backbone/pooled_dense/kernel",
    ),
}


def texts(target: str) -> Data:
    rng = np.random.default_rng(0)
    words = np.array(["good", "bad", "fine", "film", "plot", "end"])
    rows = {
        "text": [" ".join(row) for row in rng.choice(words, (75, 6))],
        "label": ["yes" if number % 3 else "no" for number in range(75)],
    }
    split = {
        "train": {name: column[:48] for name, column in rows.items()},
        "test": {name: column[48:] for name, column in rows.items()},
    }
    return Data(
        source=lambda: sources.arrays(split),
        input="text",
        target=target or None,
        truncate=True,
    )


def digits() -> Data:
    return Data(
        source=functools.partial(sources.sklearn, "digits"),
        input="image",
        examples_per_class=8,
        splits={"train": 0.5, "test": 0.5},
    )


def words() -> object:
    lines = ["good bad fine film plot end"] * 4
    return vocabularies.wordpiece(
        lambda: lines,
        vocabulary_size=60,
        special_tokens=("pad", "unknown", "start", "separator", "mask"),
    )


def letters() -> object:
    return vocabularies.bpe(
        lambda: ["good bad fine film plot end"] * 4,
        vocabulary_size=280,
        special_tokens=("pad", "mask", "end"),
    )


SIZES = {
    "num_layers": 1,
    "num_heads": 4,
    "hidden_dim": 128,
    "intermediate_dim": 512,
    "max_sequence_length": 32,
    "dropout": 0.1,
}


def bert() -> backbones.Backbone:
    return backbones.hub(
        functools.partial(hub.models.BertBackbone, **SIZES), tokenizer=words
    )


def gpt() -> backbones.Backbone:
    return backbones.hub(
        functools.partial(hub.models.GPT2Backbone, **SIZES), tokenizer=letters
    )


def resnet() -> backbones.Backbone:
    return backbones.hub(
        functools.partial(
            hub.models.ResNetBackbone,
            input_conv_filters=[64],
            input_conv_kernel_sizes=[3],
            stackwise_num_filters=[64, 128],
            stackwise_num_blocks=[1, 1],
            stackwise_num_strides=[1, 2],
            block_type="basic_block",
            image_shape=(16, 16, 1),
        )
    )


LORA = regimes.low_rank(targets="backbone/*/query|backbone/*/value", rank=4)
TASKS = {
    "text": (bert, functools.partial(texts, "label"), regimes.full()),
    "probe": (bert, functools.partial(texts, "label"), regimes.frozen()),
    "lora": (gpt, functools.partial(texts, ""), LORA),
    "image": (resnet, digits, regimes.scratch()),
}


def declare(task: str, layout: str) -> Experiment:
    backbone, data, regime = TASKS[task]
    # From rounding AdamW makes 0.5 % in 20 steps of a ResNet in float32 that eight
    # devices share, this 0.01 %; in float64 the curves with AdamW are equal to 4e-7.
    optimizer = functools.partial(optimizers.adamw, learning_rate=1e-3)
    if task == "image":
        optimizer = functools.partial(optimizers.sgd, learning_rate=1e-3)
    language = functools.partial(objectives.causal_lm, length=16)
    stage = Stage(
        name="tune",
        data=data,
        objective=language if task == "lora" else objectives.classification,
        regime=regime,
        optimizer=optimizer,
        budget=f"{STEPS} steps",
        batch_size=16,
        eval_batch_size=16,
        bootstrap=0,
    )
    return Experiment(backbone=backbone, stages=(stage,), distribution=LAYOUTS[layout])


def train(
    declared: Experiment,
    *,
    start: int = 0,
    steps: int = STEPS,
    folder: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Trains step by step; begins with a checkpoint of `folder`, or leaves one."""
    built = build(declared)
    with built.devices.scope():
        prepared = built.stages[0]
        prepared.apply_regime()
        model, batches = prepared.network.model, prepared.batches
        optimizer = prepared.make_optimizer(STEPS)
        loop.compile_model(model, optimizer=optimizer, loss=prepared.loss(), metrics=[])
        if folder is not None and start:
            Checkpoints(folder).restore(model, optimizer=optimizer)
        losses = []
        for step in range(start, start + steps):
            model.reset_metrics()
            losses.append(float(model.train_on_batch(*batches[step])))
        if folder is not None and not start:
            Checkpoints(folder).save(steps, model, optimizer=optimizer)
        measured = assessment.measure(prepared, "test")
        rows = placement.census(model, optimizer)
        return {
            "losses": losses,
            "note": built.devices.note,
            "outputs": np.asarray(
                list(measured.values())[0] if isinstance(measured, dict) else measured
            ).tolist(),
            "layouts": {row.path: list(row.layout) for row in rows},
            "lies": {
                path: [str(x) for x in variable.value.sharding.spec]
                for path, variable in placement.variables(model).items()
                if rows
            },
            "device_bytes": sum(row.device_bytes for row in rows),
            "total_bytes": sum(row.total_bytes for row in rows),
        }


@contextlib.contextmanager
def watched() -> Iterator[dict[int, int]]:
    """Finds the most bytes that each device holds whenever a variable gets a value.

    Whatever JAX keeps alive counts, a value on its way to a variable too; not what was
    there before.
    """
    gc.collect()
    before, most = held(), {device.id: 0 for device in jax.devices()}
    variable: Any = keras.Variable
    assign = variable._direct_assign

    def look() -> None:
        now = held()
        most.update({x: max(most[x], now[x] - before[x]) for x in most})

    def assign_and_look(self: Any, value: Any) -> None:
        if math.prod(self.shape) >= layouts.SMALL_ELEMENTS:
            look()
        assign(self, value)

    variable._direct_assign = assign_and_look
    try:
        yield most
    finally:
        variable._direct_assign = assign


def held() -> dict[int, int]:
    """Counts the bytes of all arrays by device; several may share a piece of memory."""
    pieces = {}
    for array in jax.live_arrays():
        for shard in array.addressable_shards:
            place = shard.data.unsafe_buffer_pointer()
            pieces[shard.device.id, place] = shard.data.nbytes
    found = {device.id: 0 for device in jax.devices()}
    for (device, _), num_bytes in pieces.items():
        found[device] += num_bytes
    return found


def load(layout: str) -> dict[str, Any]:
    """Opens a preset of equal blocks, then restores a checkpoint with its optimizer."""
    declared = declare("text", layout)
    with tempfile.TemporaryDirectory() as folder:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        known = [*special, "good", "bad", "fine", "film", "plot", "end"]
        tokenizer = hub.models.BertTokenizer(vocabulary=known)
        sizes = SIZES | {"num_layers": BLOCKS, "dropout": 0.0}
        model = hub.models.BertBackbone(tokenizer.vocabulary_size(), **sizes)
        model.save_to_preset(folder)
        tokenizer.save_to_preset(folder)
        del model
        preset = functools.partial(backbones.preset, folder)
        with watched() as loading:
            built = build(dataclasses.replace(declared, backbone=preset))
        with built.devices.scope():
            prepared = built.stages[0]
            prepared.apply_regime()
            model, optimizer = prepared.network.model, prepared.make_optimizer(STEPS)
            weights = placement.census(model)
            loop.compile_model(
                model, optimizer=optimizer, loss=prepared.loss(), metrics=[]
            )
            saved = Checkpoints(pathlib.Path(folder) / "saved")
            saved.save(1, model, optimizer=optimizer)
            with watched() as restoring:
                saved.restore(model, optimizer=optimizer)
            state = placement.census(model, optimizer)
    return {
        "loading": list(loading.values()),
        "restoring": list(restoring.values()),
        "largest": max(row.total_bytes for row in weights),
        "weights": [sum(row.total_bytes for row in weights)]
        + [sum(row.device_bytes for row in weights)],
        "state": [sum(row.total_bytes for row in state)]
        + [sum(row.device_bytes for row in state)],
    }


def resume(task: str, first: str, second: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "saved"
        before = train(declare(task, first), steps=4, folder=path)
        after = train(declare(task, second), start=4, steps=4, folder=path)
    return after | {"losses": before["losses"] + after["losses"]}


def perceptron() -> keras.Model:
    inputs = keras.Input((4,), name="features")
    x = keras.layers.Dense(256, activation="tanh", name="block_0")(inputs)
    x = keras.layers.Dropout(0.1, name="dropout")(x)
    x = keras.layers.Dense(64, activation="tanh", name="block_1")(x)
    return keras.Model(inputs, x)


def whole_run(layout: str) -> dict[str, object]:
    """A whole run in three stages of the order of things: train, report, export."""
    iris = functools.partial(
        Data,
        source=functools.partial(sources.sklearn, "iris"),
        input="vector",
        splits={"train": 0.6, "validation": 0.2, "test": 0.2},
    )
    stage = functools.partial(
        Stage,
        data=iris,
        objective=objectives.classification,
        optimizer=functools.partial(optimizers.adamw, learning_rate=0.01),
        budget="3 epochs",
        batch_size=16,
        eval_batch_size=16,
        bootstrap=0,
    )
    low_rank = regimes.low_rank(targets="backbone/block_1", rank=2)
    declared = Experiment(
        backbone=functools.partial(backbones.function, perceptron),
        stages=(
            stage(name="first", regime=regimes.scratch(), restore_best=True),
            stage(name="second", regime=low_rank),
        ),
        distribution=LAYOUTS[layout],
    )
    with tempfile.TemporaryDirectory() as folder:
        report = run(declared, output_dir=folder)
        # The exported model opens on one device.
        saved = keras.saving.load_model(pathlib.Path(folder) / "model" / "model.keras")
    return {
        "history": [row.history for row in report.stages],
        "metrics": [row.evaluations["test"]["metrics"] for row in report.stages],
        "weights": [np.asarray(w).ravel()[:8].tolist() for w in saved.get_weights()],
        "devices": report.hardware["devices"],
        "outside": keras.distribution.distribution() is None,
    }


def main(output: str, *cases: str) -> None:
    results = {}
    for case in cases:
        kind, *names = case.split("/")
        if kind == "run":
            results[case] = whole_run(*names)
        elif kind == "load":
            results[case] = load(*names)
        elif kind == "resume":
            results[case] = resume(*names)
        else:
            results[case] = train(declare(kind, *names))
        # What is done is kept, whatever becomes of the next case.
        pathlib.Path(output).write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
