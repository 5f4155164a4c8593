"""Laying the variables of a model out over the mesh of a run; where each one lies.

Optimizer slots, averages and accumulators follow the weight they belong to: Keras makes
them with its layout, so a model is laid out before its optimizer is built.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from tflearn.backbones import graph
from tflearn.distribution import jax_mesh, layouts
from tflearn.support.units import bytes_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Where a variable lies.

    Args:
        path: Path of the variable.
        shape: Its shape.
        layout: An axis or None for every dimension.
        total_bytes: Bytes of the whole.
        device_bytes: Bytes that a device holds.
    """

    path: str
    shape: tuple[int, ...]
    layout: layouts.Layout
    total_bytes: int
    device_bytes: int


def variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns all variables of a model by the paths that layout rules are matched with.

    Args:
        model: A functional model, its backbone a layer named `backbone`.

    Returns:
        Variables by path; whatever is not the backbone's lies under `head/`.
    """
    found = graph.variables_by_path(model)
    if not any(path.startswith("backbone/") for path in found):
        return found
    return {
        path if path.split("/")[0] in ("backbone", "head") else f"head/{path}": variable
        for path, variable in found.items()
    }


def shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all variables of a model by path."""
    return {path: tuple(x.shape) for path, x in variables(model).items()}


def place(model: keras.Model) -> None:
    """Lays the variables of a model out as the active mesh declares, if there is one.

    Args:
        model: A model as it will train, its adapters attached.

    Raises:
        ConfigError: A rule does not fit a variable, or a large one would stay whole.
    """
    mesh = jax_mesh.active()
    if mesh is None:
        return
    owned = variables(model)
    for path, layout in _plan(shapes(model), mesh).items():
        jax_mesh.lay_out(owned[path], layout, mesh)


def check(models: Iterable[Mapping[str, tuple[int, ...]]]) -> None:
    """Checks that every layout rule matches a variable of some stage.

    Args:
        models: Shapes by path of the model of every stage, as `shapes` gives them.

    Raises:
        ConfigError: A rule matches nothing.
    """
    mesh = jax_mesh.active()
    if mesh is not None:
        merged = {path: shape for model in models for path, shape in model.items()}
        layouts.plan(merged, distribution=mesh.declared, axes=mesh.axes)


def census(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None
) -> tuple[Row, ...]:
    """Says how every variable is split and what a device holds of it.

    Args:
        model: A placed model.
        optimizer: Its optimizer, once built.

    Returns:
        A row a variable, slots of the optimizer as `optimizer/<path>`; none where no
        mesh is active.
    """
    mesh = jax_mesh.active()
    if mesh is None:
        return ()
    named: list[tuple[str, keras.Variable]] = list(variables(model).items())
    if optimizer is not None:
        named += [(f"optimizer/{x.path}", x) for x in optimizer.variables]
    return tuple(_row(path, variable) for path, variable in named)


def describe(rows: Sequence[Row]) -> str:
    """Returns the totals of a census in a line.

    Args:
        rows: What `census` returned.

    Returns:
        Such as `a device holds 12.5 MB of 100.0 MB of weights and optimizer state`.
    """
    total, held = sum(x.total_bytes for x in rows), sum(x.device_bytes for x in rows)
    split = sum(any(x.layout) for x in rows)
    return (
        f"a device holds {bytes_text(held)} of {bytes_text(total)}; "
        f"{split} of {len(rows)} variables are split"
    )


def _row(path: str, variable: Any) -> Row:
    value = variable.value
    held = value.sharding.shard_shape(value.shape)
    size = value.dtype.itemsize
    return Row(
        path=path,
        shape=tuple(value.shape),
        layout=tuple(variable._layout.axes),
        total_bytes=math.prod(value.shape) * size,
        device_bytes=math.prod(held) * size,
    )


def _plan(
    sizes: Mapping[str, tuple[int, ...]], mesh: jax_mesh.Mesh
) -> dict[str, layouts.Layout]:
    return layouts.plan(sizes, distribution=mesh.declared, axes=mesh.axes, strict=False)
