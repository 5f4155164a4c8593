"""How the variables of a model are split over a mesh. Pure functions, no devices.

A layout is one axis of the mesh, or None, for every dimension of a variable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tflearn.distribution.plan import SHARDED, Distribution
from tflearn.distribution.tensor import tensor_layout
from tflearn.support.errors import ConfigError, nearest
from tflearn.support.patterns import matches

#: Variables with fewer elements stay whole: gathering them costs more than they take.
SMALL_ELEMENTS = 4096

Layout = tuple[str | None, ...]
Shape = tuple[int, ...]


def axis_sizes(distribution: Distribution, count: int) -> dict[str, int]:
    """Returns the sizes of the axes of the mesh on so many devices.

    Args:
        distribution: The declaration.
        count: Number of devices.

    Returns:
        Sizes by name, the outermost first, `data` always among them; their product is
        `count`. The order is the declared one, but `fsdp`, `data`, `model` where all
        three are larger than 1.

    Raises:
        ConfigError: The declared mesh does not have so many places.

    Example:

    >>> axis_sizes(Distribution(kind="tensor", mesh={"data": -1, "model": 2}), 8)
    {'data': 4, 'model': 2}
    """
    mesh = dict(distribution.mesh or {})
    if not mesh:
        if distribution.kind == "tensor":
            return {"data": 1, "model": count}
        return {"data": count}
    if "data" not in mesh:
        mesh = {"data": 1, **mesh}
    fixed = math.prod(size for size in mesh.values() if size != -1)
    rest = count // fixed if -1 in mesh.values() else 1
    sizes = {name: rest if size == -1 else size for name, size in mesh.items()}
    if not rest or math.prod(sizes.values()) != count:
        raise ConfigError(
            "the mesh does not fit the devices",
            received=f"mesh = {dict(distribution.mesh or {})} on {count} devices",
            expected=f"sizes with the product {count}, one of them may be -1",
        )
    if sum(size > 1 for size in sizes.values()) > 2:
        # With `data` before `fsdp`, XLA swaps rows of the batch: docs/distribution.md.
        sizes = {name: sizes[name] for name in ("fsdp", "data", "model")}
    return sizes


def batch_axes(axes: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the axes that split a batch."""
    return tuple(name for name in axes if name in ("data", "fsdp"))


def data_parallel_size(axes: Mapping[str, int]) -> int:
    """Returns in how many parts a batch is split."""
    return math.prod(axes[name] for name in batch_axes(axes))


def plan(
    shapes: Mapping[str, Shape],
    *,
    distribution: Distribution,
    axes: Mapping[str, int],
    strict: bool = True,
) -> dict[str, Layout]:
    """Decides how every variable is split.

    Args:
        shapes: Shapes of the variables by path, `backbone/.../kernel`.
        distribution: The declaration.
        axes: Sizes of the axes of the mesh.
        strict: Whether a rule that matches none of these paths is an error.

    Returns:
        A layout for every path.

    Raises:
        ConfigError: A rule matches nothing or does not fit what it matches, or a
            large variable would stay whole and `replicate` does not name it.

    Example:

    >>> plan({"dense/kernel": (128, 512), "dense/bias": (512,)},
    ...      distribution=Distribution(kind="fully_sharded"), axes={"data": 8})
    {'dense/kernel': (None, 'data'), 'dense/bias': (None,)}
    """
    rules, replicate = dict(distribution.rules or {}), distribution.replicate
    _check_rules(rules, axes)
    if distribution.kind not in SHARDED:
        return {path: (None,) * len(shape) for path, shape in shapes.items()}
    if strict:
        _check_used([*rules, *([replicate] if replicate else [])], shapes)
    found: dict[str, Layout] = {}
    for path, shape in shapes.items():
        rule = next((x for x in rules if matches(x, path)), None)
        if rule is not None:
            found[path] = _by_rule(rule, rules[rule], path, shape, axes)
        elif replicate and matches(replicate, path):
            found[path] = (None,) * len(shape)
        else:
            found[path] = _by_kind(distribution.kind, path, shape, axes)
            _check_split(path, shape, found[path], distribution.kind, axes)
    return found


def general(kind: str, shape: Shape, axes: Mapping[str, int]) -> Layout:
    """Splits a variable of which only the shape is known.

    Every axis that splits weights takes the largest dimension it divides, the later
    one of equals; a small variable stays whole.

    Args:
        kind: The kind of distribution.
        shape: Shape of the variable.
        axes: Sizes of the axes of the mesh.

    Returns:
        Its layout.

    Example:

    >>> general("fully_sharded", (768, 3072), {"data": 4, "model": 2})
    ('model', 'data')
    """
    layout: list[str | None] = [None] * len(shape)
    if math.prod(shape) < SMALL_ELEMENTS:
        return tuple(layout)
    return _fill(layout, shape, weight_axes(kind, axes), axes)


def weight_axes(kind: str, axes: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the axes that split weights, in the order in which they choose.

    Args:
        kind: The kind of distribution.
        axes: Sizes of the axes of the mesh.

    Returns:
        Under `fully_sharded` the axis `fsdp`, or `data` where there is none, then
        `model`; under `tensor` `model`, then `fsdp`. Axes of size 1 are left out.
    """
    full = "fsdp" if "fsdp" in axes else "data"
    order = {"fully_sharded": (full, "model"), "tensor": ("model", "fsdp")}
    return tuple(x for x in order.get(kind, ()) if axes.get(x, 1) > 1)


def _by_kind(kind: str, path: str, shape: Shape, axes: Mapping[str, int]) -> Layout:
    if kind == "tensor" and axes.get("model", 1) > 1:
        declared = tensor_layout(path, len(shape))
        if declared is not None and math.prod(shape) >= SMALL_ELEMENTS:
            fits = [
                axis if axis and size % axes[axis] == 0 else None
                for axis, size in zip(declared, shape, strict=True)
            ]
            left = [x for x in weight_axes(kind, axes) if x not in fits]
            if not any(declared):
                left.remove("model")
            return _fill(fits, shape, left, axes)
    return general(kind, shape, axes)


def _fill(
    layout: Sequence[str | None],
    shape: Shape,
    names: Sequence[str],
    axes: Mapping[str, int],
) -> Layout:
    """Lets every axis in turn take the largest free dimension that it divides."""
    filled = list(layout)
    for name in names:
        free = [
            i
            for i, size in enumerate(shape)
            if filled[i] is None and size % axes[name] == 0
        ]
        if free:
            filled[max(free, key=lambda i: (shape[i], i))] = name
    return tuple(filled)


def _by_rule(
    rule: str,
    declared: Sequence[str | None],
    path: str,
    shape: Shape,
    axes: Mapping[str, int],
) -> Layout:
    if len(declared) != len(shape):
        raise ConfigError(
            f"the layout rule '{rule}' does not fit '{path}'",
            received=f"{len(declared)} dimensions: {tuple(declared)}",
            expected=f"{len(shape)} dimensions, of the shape {shape}",
            fix="name kernels and biases in rules of their own: '*/kernel'",
        )
    for axis, size in zip(declared, shape, strict=True):
        if axis is not None and size % axes[axis]:
            raise ConfigError(
                f"the layout rule '{rule}' does not divide '{path}'",
                received=f"shape {shape}, layout {tuple(declared)}",
                expected=f"{size} to be a multiple of {axes[axis]} ('{axis}')",
            )
    return tuple(declared)


def _check_rules(
    rules: Mapping[str, Sequence[str | None]], axes: Mapping[str, int]
) -> None:
    for rule, layout in rules.items():
        if isinstance(layout, str):
            raise ConfigError(
                f"the layout rule '{rule}' is one text",
                received=layout,
                expected="an axis or None for every dimension, such as (None, 'model')",
            )
        named = [axis for axis in layout if axis is not None]
        for axis in named:
            if axis not in axes:
                raise ConfigError(
                    f"the layout rule '{rule}' names an axis that the mesh lacks",
                    received=axis,
                    expected=tuple(axes),
                    nearest=nearest(str(axis), axes),
                )
        if "data" in named and sum(size > 1 for size in axes.values()) > 2:
            # XLA would swap rows of the batch, as with `data` before `fsdp`.
            raise ConfigError(
                f"the layout rule '{rule}' divides a weight over 'data'",
                received=f"{tuple(layout)} on the mesh {dict(axes)}",
                expected="'fsdp' and 'model', where all three axes are larger than 1",
            )
        if len(set(named)) < len(named):
            raise ConfigError(
                f"the layout rule '{rule}' uses an axis twice", received=tuple(layout)
            )


def _check_used(patterns: Sequence[str], paths: Mapping[str, Shape]) -> None:
    for pattern in patterns:
        if not any(matches(pattern, path) for path in paths):
            raise ConfigError(
                "a layout rule matches no variable",
                received=pattern,
                expected=f"a pattern over paths such as {next(iter(paths), '')}",
                nearest=nearest(pattern, paths),
            )


def _check_split(
    path: str, shape: Shape, layout: Layout, kind: str, axes: Mapping[str, int]
) -> None:
    if not any(weight_axes(kind, axes)) or any(layout):
        return
    if math.prod(shape) < SMALL_ELEMENTS:
        return
    if kind == "tensor" and tensor_layout(path, len(shape)) == layout:
        return
    raise ConfigError(
        f"a large variable would lie whole on every device under kind '{kind}'",
        received=f"{path} {shape}",
        expected=f"a dimension that {dict(axes)} divides",
        fix=f"declare distribution.Distribution.replicate = '{path}', or another mesh",
    )


def check_batch_size(size: int, *, axes: Mapping[str, int], name: str) -> None:
    """Checks that a global batch divides over the devices.

    Args:
        size: Examples a step.
        axes: Sizes of the axes of the mesh.
        name: What declares the size, for the message.

    Raises:
        ConfigError: It does not; the message names the nearest sizes that do.
    """
    parts = data_parallel_size(axes)
    if size % parts:
        below, above = size // parts * parts, (size // parts + 1) * parts
        raise ConfigError(
            f"{name} does not divide over {parts} parts",
            received=size,
            expected=f"{below} or {above}" if below else str(above),
        )
