"""What a run changes, by names that survive a restart: listed, summed up, set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import keras
import numpy as np
import xxhash

from tflearn.backbones import graph
from tflearn.distribution.arrays import holds
from tflearn.support.errors import RunError


def state_variables(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None
) -> dict[str, keras.Variable]:
    """Returns everything that a run changes, by a name that survives a restart.

    Args:
        model: The model.
        optimizer: Its optimizer, once built.

    Returns:
        Variables by path; those of the optimizer by position, as `optimizer/0003`.
    """
    variables = dict(graph.variables_by_path(model))
    if optimizer is not None:
        # Names of slots hold automatic layer names; their order is the stable part.
        for index, variable in enumerate(optimizer.variables):
            variables[f"optimizer/{index:04d}"] = variable
    return variables


def digests(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Returns a checksum of every array that this process holds whole."""
    whole = {
        path: np.asarray(array)
        for path, array in arrays.items()
        if getattr(array, "is_fully_addressable", True)
    }
    # Training waits for this: no copies, and a thread for every core.
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(whole, pool.map(_checksum, whole.values()), strict=True))


def _checksum(array: np.ndarray) -> str:
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return f"xxh3:{xxhash.xxh3_64_hexdigest(values.data)}"


def assign(
    variables: Mapping[str, keras.Variable], arrays: Mapping[str, np.ndarray]
) -> None:
    """Sets variables from arrays of the same paths and shapes, and checks it.

    Args:
        variables: What to set.
        arrays: The values.

    Raises:
        RunError: Paths or shapes differ, or a value did not arrive.
    """
    check_same(variables, {path: tuple(x.shape) for path, x in arrays.items()})
    for path, variable in variables.items():
        variable.assign(arrays[path])
        if not holds(variable, arrays[path]):
            raise RunError("a restored value did not arrive", received=path)


def check_same(
    variables: Mapping[str, keras.Variable], saved: Mapping[str, tuple[int, ...]]
) -> None:
    """Checks that what was saved are the shapes of these variables.

    Args:
        variables: Variables by path.
        saved: Shapes by path.

    Raises:
        RunError: They differ.
    """
    missing = sorted(set(variables) - set(saved))
    extra = sorted(set(saved) - set(variables))
    shapes = [
        f"{path}: {saved[path]} for {tuple(variables[path].shape)}"
        for path in variables
        if path in saved and saved[path] != tuple(variables[path].shape)
    ]
    if missing or extra or shapes:
        raise RunError(
            "the checkpoint is of another model",
            received=f"missing {missing[:3]}, extra {extra[:3]}, shapes {shapes[:3]}",
            expected=f"{len(variables)} variables with equal paths and shapes",
            fix="use a new output directory for a changed experiment",
        )
