"""Paths of layers and variables: the names by which everything else speaks of them.

A path is made of layer names: `transformer_layer_0/self_attention_layer/query`. Keras
gives layers without a name the name of their class and a counter that goes on for the
whole life of a process (`dense_17`), which would be another name in the next process
or in a second copy of a model. In a path such default names are counted anew inside
each parent, from zero: `dense`, `dense_1`.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Sequence

import keras
import numpy as np

from tflearn.distribution.arrays import to_host


def layers_by_path(model: keras.Layer, prefix: str = "") -> dict[str, keras.Layer]:
    """Returns all layers inside a layer or model by slash-separated path.

    Args:
        model: A model or a layer with sublayers.
        prefix: Put before every path.

    Returns:
        Layers and their sublayers at any depth, parents before children, each layer
        once under the first path that leads to it.

    Example:

    >>> inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="d")])
    >>> list(layers_by_path(inner))
    ['d']
    """
    found: dict[str, keras.Layer] = {}
    _collect(model, prefix, found, {id(model)})
    return found


def variables_by_path(
    model: keras.Layer, prefix: str = ""
) -> dict[str, keras.Variable]:
    """Returns every variable of a model by the path of the layer that owns it.

    Args:
        model: The model.
        prefix: Put before every path.

    Returns:
        All variables exactly once: weights, statistics and states of random
        generators, as `block_0/dense/kernel`, sorted by path.
    """
    found: dict[str, keras.Variable] = {}
    seen: set[int] = set()
    # The deepest layer that holds a variable owns it, so children come first.
    for path, layer in reversed(layers_by_path(model, prefix).items()):
        for variable in layer.variables:
            if id(variable) not in seen:
                seen.add(id(variable))
                found[_unique(f"{path}/{_name(variable)}", found)] = variable
    for variable in model.variables:
        if id(variable) not in seen:
            seen.add(id(variable))
            found[_unique(prefix + _name(variable), found)] = variable
    return dict(sorted(found.items()))


def weights_by_path(model: keras.Layer) -> dict[str, keras.Variable]:
    """Returns the variables of a model that are weights, by path.

    Args:
        model: The model.

    Returns:
        As `variables_by_path`, without the states of random generators.
    """
    weights = {id(weight) for weight in model.weights}
    return {
        path: variable
        for path, variable in variables_by_path(model).items()
        if id(variable) in weights
    }


def value_of(variable: keras.Variable) -> np.ndarray:
    """Returns a copy of a variable's value.

    Args:
        variable: Of any shape.

    Returns:
        An array of the same shape and type that later steps do not change.
    """
    # `Variable.numpy` and `ops.convert_to_numpy` each warn with NumPy 2 on one of the
    # backends.
    return to_host(variable.value)


def name_stably(model: keras.Model) -> None:
    """Gives the direct layers of a model the names that their paths have.

    Args:
        model: Its layers with default names are renamed in place, so that the names
            in a summary, in a saved file and in a path are the same.
    """
    layers = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    for layer, name in zip(layers, stable_names(layers), strict=True):
        if layer.name != name:
            layer.name = name


def stable_names(layers: Sequence[keras.Layer]) -> list[str]:
    """Returns the names of siblings, default names counted from zero.

    Args:
        layers: The layers inside one parent, in order.

    Returns:
        One name a layer, all different.

    Example:

    >>> stable_names([keras.layers.ReLU(), keras.layers.ReLU(name="mine")])
    ['re_lu', 'mine']
    """
    taken = {layer.name for layer in layers if not has_default_name(layer)}
    counts: collections.Counter[str] = collections.Counter()
    names: list[str] = []
    for layer in layers:
        base = _default_name(layer) if has_default_name(layer) else layer.name
        name, number = base, counts[base]
        if number or (has_default_name(layer) and base in taken):
            name, number = _next_free(base, max(number, 1), taken)
        counts[base] = number + 1
        taken.add(name)
        names.append(name)
    return names


def has_default_name(layer: keras.Layer) -> bool:
    """Tells whether Keras named a layer, by its class and a counter.

    Args:
        layer: Any layer; one that was given such a name on purpose counts too.
    """
    base, _, number = layer.name.partition(_default_name(layer))
    return not base and (not number or (number[0] == "_" and number[1:].isdecimal()))


def _collect(
    layer: keras.Layer, prefix: str, found: dict[str, keras.Layer], seen: set[int]
) -> None:
    children = [
        x for x in _children(layer) if not isinstance(x, keras.layers.InputLayer)
    ]
    for child, name in zip(children, stable_names(children), strict=True):
        if id(child) in seen:
            continue
        seen.add(id(child))
        path = _unique(prefix + name, found)
        found[path] = child
        _collect(child, f"{path}/", found, seen)


def _children(layer: keras.Layer) -> list[keras.Layer]:
    # Keras has no public way to list the sublayers of a layer.
    tracked = list(layer._flatten_layers(include_self=False, recursive=False))
    if not isinstance(layer, keras.Model):
        return _once(tracked)
    # The order of a functional model is that of its graph; a subclass may hold more.
    return _once([*layer.layers, *tracked])


def _once(layers: Iterable[keras.Layer]) -> list[keras.Layer]:
    return list({id(layer): layer for layer in layers}.values())


def _name(variable: keras.Variable) -> str:
    # Variables without a name are counted through the process, as layers are.
    return re.sub(r"^variable_\d+$", "variable", variable.name)


def _default_name(layer: keras.Layer) -> str:
    """Spells a class as Keras does when it names a layer after it."""
    name = re.sub(r"\W+", "", type(layer).__name__)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _unique(path: str, taken: Iterable[str]) -> str:
    return path if path not in taken else _next_free(path, 1, taken)[0]


def _next_free(base: str, number: int, taken: Iterable[str]) -> tuple[str, int]:
    while f"{base}_{number}" in taken:
        number += 1
    return f"{base}_{number}", number
