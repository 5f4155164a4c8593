"""Paths of layers and variables: the names by which everything else speaks of them."""

from __future__ import annotations

import keras


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
        generators, as `block_0/dense/kernel`.
    """
    found: dict[str, keras.Variable] = {}
    seen: set[int] = set()
    # The deepest layer that holds a variable owns it, so children come first.
    for path, layer in reversed(layers_by_path(model, prefix).items()):
        for variable in layer.variables:
            if id(variable) not in seen:
                seen.add(id(variable))
                found[_unique(f"{path}/{variable.name}", found)] = variable
    for variable in model.variables:
        if id(variable) not in seen:
            seen.add(id(variable))
            found[_unique(prefix + variable.name, found)] = variable
    return dict(sorted(found.items()))


def _collect(
    layer: keras.Layer, prefix: str, found: dict[str, keras.Layer], seen: set[int]
) -> None:
    for child in _children(layer):
        if id(child) in seen or isinstance(child, keras.layers.InputLayer):
            continue
        seen.add(id(child))
        path = _unique(prefix + child.name, found)
        found[path] = child
        _collect(child, f"{path}/", found, seen)


def _children(layer: keras.Layer) -> list[keras.Layer]:
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    # Keras has no public way to list the sublayers of a layer.
    return list(layer._flatten_layers(include_self=False, recursive=False))


def _unique(path: str, taken: dict) -> str:
    if path not in taken:
        return path
    number = 1
    while f"{path}_{number}" in taken:
        number += 1
    return f"{path}_{number}"
