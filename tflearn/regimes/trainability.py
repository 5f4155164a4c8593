"""Applying rules to a model: freezing whole layers, attaching adapters.

A frozen layer is `trainable = False`, which stops its gradients and the statistics of
normalisation layers and survives saving. Keras leaves Dropout and other random layers
of a frozen part active; here a frozen layer runs in inference mode throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import keras

from tflearn.backbones import graph
from tflearn.regimes.adaptation import attach_decided, check_reached, merge_declared
from tflearn.regimes.adapters import KINDS, attached, forget_traces
from tflearn.regimes.adapters.attach import set_inference_mode
from tflearn.regimes.census import Census, CensusRow
from tflearn.regimes.decisions import decide
from tflearn.regimes.rules import Rule
from tflearn.support.errors import RegimeError


def layer_paths(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns every layer by the path that rules are matched against.

    Args:
        model: A functional model, its backbone a layer named `backbone`.

    Returns:
        Layers and their sublayers, parents first. Whatever is not part of the
        backbone lies under `head/`; without a backbone, paths are plain names.
    """
    layers = graph.layers_by_path(model)
    if "backbone" not in layers:
        return layers
    return {
        path if path.split("/")[0] in ("backbone", "head") else f"head/{path}": layer
        for path, layer in layers.items()
    }


def unit_layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns the layers that own weights themselves, by path."""
    return {path: x for path, x in layer_paths(model).items() if own_weights(x)}


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """Returns the weights that a layer owns itself, not through its sublayers."""
    inner = {id(w) for x in graph.layers_by_path(layer).values() for w in x.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


def apply(
    model: keras.Model,
    rules: Sequence[Rule],
    *,
    blocks: Sequence[str] = (),
    unused: Iterable[str] = (),
) -> Census:
    """Makes the layers of a model trainable or frozen as ordered rules say.

    Args:
        model: The model; its flags are set from scratch, whatever they were.
        rules: First-match rules; every rule must match and every layer that owns
            weights must be matched. A layer that a rule adapts is frozen and gets
            the adapter, unless it has an equal one; `freeze` keeps and freezes an
            adapter, `train` and `fresh` need it merged first.
        blocks: Patterns of the backbone's repeated blocks in order, relative to it.
        unused: Paths of layers that feed no output; they are frozen.

    Returns:
        What became of every layer.

    Raises:
        RegimeError: A rule matches nothing, no rule covers a layer, or a layer has
            an adapter that its rule does not keep.
    """
    rules = merge_declared(layer_paths(model), rules)
    skipped = set(unused)
    bodies = _without_adapters(layer_paths(model))
    decided = decide(
        bodies, [p for p, x in bodies.items() if own_weights(x)], rules, blocks
    )
    new = attach_decided(
        bodies, {path: rule for path, rule in decided.items() if path not in skipped}
    )
    layers = layer_paths(model)
    owned = {path: w for path, x in layers.items() if (w := own_weights(x))}
    roles = {
        path: "unused" if path in skipped else _ROLES.get(rule.action, "frozen")
        for path, rule in decided.items()
    } | _adapter_roles(layers, decided)
    model.trainable = True
    _set_flags(layers, set(owned), roles)
    check_reached(model, new)
    forget_traces(model)
    rows = [
        CensusRow(
            path=path,
            parameters=sum(map(_size, weights)),
            trainable=sum(
                _size(weight)
                for weight in weights
                if weight.trainable and layers[path].trainable
            ),
            role=roles[path],
            rule=str(_rule_of(path, decided)),
        )
        for path, weights in owned.items()
    ]
    return Census(rows=tuple(rows))


def reinitialize(model: keras.Model, census: Census) -> int:
    """Gives every layer that the census calls fresh new initial values.

    Args:
        model: The model; the values come from Keras's global seed.
        census: What `apply` returned for it.

    Returns:
        Number of weights that were set.
    """
    paths = census.paths("fresh")
    if not paths:
        return 0
    source = unit_layers(keras.models.clone_model(model))
    target = unit_layers(model)
    count = 0
    for path in paths:
        pairs = zip(own_weights(source[path]), own_weights(target[path]), strict=True)
        for new, old in pairs:
            old.assign(new.value)
            count += _size(old)
    return count


# The host of an adapter is frozen; the adapter's layers have roles of their own.
_ROLES = {"train": "trained", "fresh": "fresh"}
_MOVING = {"trained", "fresh"}


def _without_adapters(layers: Mapping[str, keras.Layer]) -> dict[str, keras.Layer]:
    inner = {
        f"{path}/{adapter.name}"
        for path, host in layers.items()
        for adapter in attached(host).values()
    }
    return {
        path: x
        for path, x in layers.items()
        if not any(path == y or path.startswith(f"{y}/") for y in inner)
    }


def _rule_of(path: str, decided: Mapping[str, Rule]) -> Rule:
    # The rule of an adapter is that of its host.
    while path not in decided:
        path = path.rpartition("/")[0]
    return decided[path]


def _adapter_roles(
    layers: Mapping[str, keras.Layer], decided: Mapping[str, Rule]
) -> dict[str, str]:
    """Returns the role of every layer that is (in) an adapter."""
    roles: dict[str, str] = {}
    for path, host in layers.items():
        for adapter in attached(host).values():
            rule = decided.get(path)
            trains = adapter.active and rule is not None and rule.action in KINDS
            top = f"{path}/{adapter.name}"
            for inner in layers:
                if inner == top or inner.startswith(f"{top}/"):
                    roles[inner] = "adapter" if trains else "frozen"
    return roles


def _set_flags(
    layers: Mapping[str, keras.Layer], units: set[str], roles: Mapping[str, str]
) -> None:
    # Parents come first: setting a parent sets its sublayers, which then follow. So an
    # adapter trains inside a host that is frozen.
    for path, layer in layers.items():
        inside = {x for x in units if x == path or x.startswith(f"{path}/")}
        found = {roles[x] for x in inside}
        own = roles.get(path)
        if not inside:
            layer.trainable = own != "frozen"
            set_inference_mode(layer, on=not layer.trainable)
            continue
        moves = bool(found & _MOVING)
        if path in units and moves and own not in _MOVING:
            raise RegimeError(
                "a layer's own weights cannot be frozen while a layer in it trains",
                received=path,
                fix=f"freeze or train all of '{path}'",
            )
        adapts = "adapter" in found
        layer.trainable = moves or (adapts and (path not in units or own == "adapter"))
        mine = tuple(f"{path}/{x.name}" for x in attached(layer).values())
        others = {x for x in inside if not (mine and x.startswith(mine))}
        still = not any(roles[x] in _MOVING | {"adapter"} for x in others)
        set_inference_mode(layer, on=still)


def _size(weight: keras.Variable) -> int:
    return math.prod(weight.shape)
