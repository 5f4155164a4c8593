"""What lies in memory while a stage trains: counted by shape, and as compiled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from tflearn.distribution import ahead
from tflearn.distribution.ahead import Compiled
from tflearn.planning.programs import Entered
from tflearn.reports.plan import Figure
from tflearn.training.features.examples import as_dtype

_TRAIN = "train"


def counted(entered: Entered) -> dict[str, Figure]:
    """Counts the weights of a stage, and what is kept beside them.

    Args:
        entered: The stage.

    Returns:
        Figures of all devices together.
    """
    model, stage = entered.whole.network.model, entered.whole.stage
    weights = num_bytes(_unique(model.variables))
    slots = num_bytes(model.optimizer.variables)
    kept = stage.keep_last * (weights + slots)
    # The weights that the stage ends with, and the model that is exported.
    kept += 2 * weights + (2 * weights if stage.restore_best else 0)
    found = {
        "parameters": entered.leg.census.parameters,
        "trainable_parameters": entered.leg.census.trainable,
        "weight_bytes": weights,
        "gradient_bytes": num_bytes(model.trainable_variables),
        "optimizer_bytes": slots,
        "checkpoint_bytes": kept,
    }
    if entered.gathered is not None:
        found["cache_bytes"] = cache_bytes(entered)
    return {name: Figure(float(value), "counted") for name, value in found.items()}


def cache_bytes(entered: Entered) -> int:
    """Returns what the features of frozen layers take, of all splits."""
    if entered.gathered is None:
        return 0
    planned, whole = entered.gathered.planned, entered.whole
    return sum(
        field.num_bytes(examples) * (planned.views if split == _TRAIN else 1)
        for field in planned.fields
        for split, examples in whole.examples.items()
        if split in entered.gathered.splits
    )


def num_bytes(variables: Iterable[Any]) -> int:
    """Returns what variables take, whole."""
    return sum(math.prod(x.shape) * as_dtype(str(x.dtype)).itemsize for x in variables)


def held_bytes(variables: Iterable[Any], mesh: Any) -> int:
    """Returns what a device holds of variables laid out over a mesh."""
    found = 0
    for variable in variables:
        shape = tuple(variable.shape)
        sharding = ahead.abstract(variable, mesh).sharding
        found += (
            math.prod(sharding.shard_shape(shape))
            * as_dtype(str(variable.dtype)).itemsize
        )
    return found


def device_bytes(
    entered: Entered,
    *,
    step: Compiled,
    forwards: Sequence[tuple[Any, Compiled]],
) -> int:
    """Returns the most that a device holds at once.

    That is what the largest program takes, and what the others have left there.

    Args:
        entered: The stage.
        step: The train step.
        forwards: Other programs, each with the model that it runs.
    """
    model = entered.whole.network.model
    everything = _unique([*model.variables, *model.optimizer.variables])
    most = 0
    inside = [v for group in entered.groups for v in group]
    for used, compiled in [
        (inside, step),
        *((model.variables, compiled) for model, compiled in forwards),
    ]:
        own = set(map(id, used))
        left = [x for x in everything if id(x) not in own]
        most = max(most, held_bytes(left, entered.mesh) + compiled.total_bytes)
    return most + _on_device(entered)


def process_bytes(
    entered: Entered,
    baseline: int,
    *,
    step: Compiled,
    forwards: Sequence[tuple[Any, Compiled]],
) -> int:
    """Returns the most that a process on a CPU holds, all of it host memory.

    Args:
        entered: The stage.
        baseline: What it held when everything was built, weights among it.
        step: The train step.
        forwards: Other programs, each with the model that it runs.
    """
    model = entered.whole.network.model
    slots = num_bytes(model.optimizer.variables)
    # Training goes on while a copy of all variables is written; parts of a mesh are not
    # copied.
    copied = (
        num_bytes(_unique(model.variables)) + slots if entered.mesh.size == 1 else 0
    )
    programs = [step, *(compiled for _, compiled in forwards)]
    working = max(x.temporary_bytes + x.output_bytes + x.code_bytes for x in programs)
    kept = cache_bytes(entered)
    if entered.gathered is not None and entered.gathered.planned.place == "disk":
        kept = 0
    return baseline + slots + copied + working + kept + _on_device(entered)


def _on_device(entered: Entered) -> int:
    """Returns the bytes of features that lie on the device, for a head alone."""
    gathered = entered.gathered
    # With several devices a head alone is trained batch by batch.
    several = entered.mesh.size > 1
    if gathered is None or not gathered.planned.head_only or several:
        return 0
    first = gathered.splits[_TRAIN]
    if first.takes or first.lengths is not None or first.lazy:
        return 0
    rows, views = entered.whole.examples[_TRAIN], gathered.planned.views
    return views * sum(x.num_bytes(rows) for x in gathered.planned.fields)


def _unique(variables: Iterable[Any]) -> list[Any]:
    return list({id(x): x for x in variables}.values())
