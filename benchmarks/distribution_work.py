"""Work and traffic of a training step on 1, 2, 4 and 8 devices, and the count by hand.

    python benchmarks/distribution_work.py
    python benchmarks/distribution_work.py --devices 1 8 --blocks 1 --json

The step of a small BERT classifier is compiled for virtual devices of this machine, not
run: FLOPs and collectives are what the compiler put into the program of a device, so
they hang neither on the machine's speed nor on its load. docs/distribution.md has the
table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import keras
import numpy as np

from tflearn.backbones import import_keras_hub
from tflearn.distribution import Distribution, ahead, layouts

FLOAT_BYTES = 4
KINDS = ("data", "fully_sharded", "tensor")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """A classifier of equal blocks, and its batch.

    Args:
        blocks: Number of blocks.
        width: Width of a block; its inner layer is four times as wide.
        heads: Heads of attention.
        vocabulary: Rows of the table of embeddings.
        batch: Examples a step, over all devices.
        length: Tokens of an example.
    """

    blocks: int = 4
    width: int = 512
    heads: int = 8
    vocabulary: int = 1024
    batch: int = 32
    length: int = 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--blocks", type=int, default=Size.blocks)
    parser.add_argument("--json", action="store_true", help="a line of JSON a row")
    given = parser.parse_args()
    size = Size(blocks=given.blocks)
    # One device is the same under every kind.
    alone: dict[str, Any] = measure("data", 1, size) | {"kind": "single"}
    rows = [
        measure(kind, count, size)
        for kind in KINDS
        for count in given.devices
        if count > 1
    ]
    for row in (alone, *rows):
        row["flops_share"] = row["flops"] * row["devices"] / alone["flops"]
        print(json.dumps(row) if given.json else line(row), flush=True)
    return 0


def line(row: dict[str, Any]) -> str:
    """Returns a row of the table in docs/distribution.md."""
    found, expected = sum(row["sent"].values()), sum(row["expected"].values())
    ratio = f"{found / expected:.3f}" if expected else ""
    sent = ", ".join(f"{k} {n / 1e6:.2f}" for k, n in row["sent"].items())
    return (
        f"| {row['kind']} | {row['devices']} | {row['flops'] / 1e9:.2f} | "
        f"{row['flops_share']:.3f} | {sent} | {expected / 1e6:.2f} | {ratio} |"
    )


def measure(kind: str, count: int, size: Size) -> dict[str, Any]:
    """Compiles a step of training for so many devices.

    Args:
        kind: `data`, `fully_sharded` or `tensor`, all devices on one axis.
        count: Number of devices.
        size: The model and its batch.

    Returns:
        FLOPs a device, bytes sent by kind of collective, and those expected.
    """
    declared = Distribution(kind=kind)
    axes = layouts.axis_sizes(declared, count)
    devices = np.array(jax.devices()[:count]).reshape(tuple(axes.values()))
    mesh = jax.sharding.Mesh(devices, tuple(axes))
    with ahead.unallocated_variables():
        model = classifier(size)
        variables = {variable.path: variable for variable in model.variables}
        shapes = {path: tuple(x.shape) for path, x in variables.items()}
        plan = layouts.plan(shapes, distribution=declared, axes=axes)
        with ahead.planned(variables, plan):
            compiled = compile_step(model, mesh, size)
    return {
        "kind": kind,
        "devices": count,
        "flops": compiled.flops,
        "sent": {k: x.num_bytes for k, x in compiled.collectives.items()},
        "expected": by_hand(kind, shapes, plan, size) if count > 1 else {},
    }


def classifier(size: Size) -> keras.Model:
    """Returns a BERT that puts texts into two classes."""
    backbone = import_keras_hub().models.BertBackbone(
        vocabulary_size=size.vocabulary,
        num_layers=size.blocks,
        num_heads=size.heads,
        hidden_dim=size.width,
        intermediate_dim=4 * size.width,
        max_sequence_length=size.length,
        # Its random numbers are no work of the model's.
        dropout=0.0,
    )
    logits = keras.layers.Dense(2, name="head")(backbone.output["pooled_output"])
    return keras.Model(backbone.input, logits)


def compile_step(model: keras.Model, mesh: Any, size: Size) -> ahead.Compiled:
    """Compiles the step as `fit` would run it with Adam."""
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    trainer: Any = model
    trainer.optimizer.build(model.trainable_variables)
    ids = np.zeros((size.batch, size.length), "int32")
    inputs = {name: ids for name in ("token_ids", "segment_ids", "padding_mask")}
    batch = inputs, np.zeros((size.batch,), "int32")
    trainer._symbolic_build(data_batch=batch)
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        trainer.optimizer.variables,
        model.metrics_variables,
    )
    state = tuple([ahead.abstract(x, mesh) for x in group] for group in groups)
    return ahead.compile_step(model, state, ahead.abstract_batch(batch, mesh))


def by_hand(
    kind: str,
    shapes: dict[str, tuple[int, ...]],
    plan: dict[str, layouts.Layout],
    size: Size,
) -> dict[str, int]:
    """Counts the bytes of the tensors that a step has to exchange, in float32.

    `data`: every gradient is summed. `fully_sharded`: every divided weight is gathered
    once, the backward pass taking the same copy; XLA for CPUs sums whole gradients and
    keeps a part, where accelerators scatter the sum. `tensor`: activations are summed
    once behind the embeddings, and in a block behind attention and behind the MLP;
    backward before the MLP, and before queries, keys and values, one sum each.

    Returns:
        Bytes by kind of collective.
    """
    weights = {path: FLOAT_BYTES * math.prod(x) for path, x in shapes.items()}
    if kind == "data":
        return {"all-reduce": sum(weights.values())}
    if kind == "fully_sharded":
        return {
            "all-gather": sum(n for path, n in weights.items() if any(plan[path])),
            "all-reduce": sum(weights.values()),
        }
    activations = FLOAT_BYTES * size.batch * size.length * size.width
    forward, backward = 2, 1 + 3
    return {"all-reduce": activations * (1 + size.blocks * (forward + backward))}


if __name__ == "__main__":
    sys.exit(main())
