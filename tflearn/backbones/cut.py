"""Cutting a functional model where the first trainable or random operation begins.

What only frozen, deterministic operations feed, the prefix, gives the same result in
every epoch; the rest, the suffix, has to be computed anew. The walk goes through
poolings and other operations without weights, and into functional models that are
called as layers. The parts are made of the model's own layers: their variables are
those of the model.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from tflearn.backbones import graph
from tflearn.backbones.part import Call, Crossing, Part, takes_training, with_sublayers
from tflearn.support.errors import BackboneError


def cut(model: keras.Model) -> tuple[Part, Part]:
    """Cuts a functional model into a frozen prefix and a suffix that trains.

    An operation belongs to the prefix if all that it takes comes from there, nothing
    in it trains, and nothing in it is random or keeps statistics while it trains: a
    frozen Dropout runs in inference mode. What needs no weights at all is computed
    from the model's inputs in both parts where both need it, a mask for instance.

    Args:
        model: A functional model, its layers frozen or not.

    Returns:
        Prefix and suffix; `suffix(prefix(inputs) | inputs_by_name)` is
        `model(inputs)`. They share the layers of the model. Run the prefix with
        `training=False`.

    Raises:
        BackboneError: Nothing comes before the first operation that trains, or the
            model is not functional.

    Example:

    >>> inputs = keras.Input((4,))
    >>> x = keras.layers.Dense(8, name="body")(inputs)
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    >>> model.get_layer("body").trainable = False
    >>> prefix, suffix = cut(model)
    >>> [crossing.shape for crossing in prefix.crossing]
    [(8,)]
    >>> [variable.path for variable in suffix.trainable_variables]
    ['head/kernel', 'head/bias']
    """
    if not getattr(model, "inputs", None) or not hasattr(model, "_nodes_by_depth"):
        raise BackboneError(
            "only a functional model can be cut", received=type(model).__name__
        )
    names, tensors = _inputs(model)
    counter = itertools.count()
    numbers = [next(counter) for _ in tensors]
    calls: list[Call] = []
    outputs = _collect(
        model, dict(zip(map(id, tensors), numbers, strict=True)), calls, counter
    )
    rank = _ranks(calls, numbers)
    later = _needed(calls, outputs, lambda number: rank[number] != _FROZEN)
    crossing_numbers = _crossing(calls, later, outputs, rank)
    if not crossing_numbers:
        raise BackboneError("no frozen layer comes before the first one that trains")
    earlier = _needed(calls, crossing_numbers, lambda number: True)
    symbols = {n: x for c in calls for n, x in zip(c.outputs, c.symbols, strict=True)}
    crossing = {
        number: Crossing(
            name=f"features_{place}",
            shape=tuple(symbols[number].shape[1:]),
            dtype=str(symbols[number].dtype),
        )
        for place, number in enumerate(crossing_numbers)
    }
    places = {
        name: (number, str(tensor.dtype))
        for name, number, tensor in zip(names, numbers, tensors, strict=True)
    }
    used = {n for call in later for n in call.inputs} | set(outputs)
    order = list(_layers(model))
    prefix = Part(
        earlier,
        takes=places,
        crossing_in={},
        crossing_out=crossing,
        outputs=(),
        order=order,
        name="prefix",
    )
    suffix = Part(
        later,
        takes={name: place for name, place in places.items() if place[0] in used},
        crossing_in=crossing,
        crossing_out={},
        outputs=outputs,
        order=order,
        name="suffix",
    )
    return prefix, suffix


def _inputs(model: Any) -> tuple[list[str], list[Any]]:
    """Returns the names and the tensors of a model's inputs in Keras's order."""
    if isinstance(model.input, dict):
        names = sorted(model.input)
        return names, [model.input[name] for name in names]
    return [tensor.name for tensor in model.inputs], list(model.inputs)


# Keras has no public way to walk the calls that a functional model consists of.
def _collect(
    model: Any, known: dict[int, int], calls: list[Call], counter: Iterator[int]
) -> list[int]:
    """Appends the calls of a functional model; returns the numbers of its outputs."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input or not node.operation:
                continue
            taken = tuple(known[id(tensor)] for tensor in node.input_tensors)
            if _is_transparent(node):
                inner = _entered(node, taken, calls, counter)
                given = _collect(node.operation, inner, calls, counter)
            else:
                given = [next(counter) for _ in node.outputs]
                calls.append(
                    Call(
                        operation=node.operation,
                        arguments=node.arguments,
                        inputs=taken,
                        outputs=tuple(given),
                        symbols=tuple(node.outputs),
                    )
                )
            for tensor, number in zip(node.outputs, given, strict=True):
                known[id(tensor)] = number
    return [known[id(tensor)] for tensor in model.outputs]


def _entered(
    node: Any, taken: Sequence[int], calls: list[Call], counter: Iterator[int]
) -> dict[int, int]:
    """Returns the numbers of an inner model's inputs; they get its types."""
    known = {}
    inner = node.operation.inputs
    for outer, number, tensor in zip(node.input_tensors, taken, inner, strict=True):
        if outer.dtype != tensor.dtype:
            changed = next(counter)
            calls.append(
                Call(
                    operation=None,
                    arguments=None,
                    inputs=(number,),
                    outputs=(changed,),
                    symbols=(tensor,),
                    dtype=str(tensor.dtype),
                )
            )
            number = changed
        known[id(tensor)] = number
    return known


def _is_transparent(node: Any) -> bool:
    """Tells whether a call is that of a functional model that does nothing more."""
    model, arguments = node.operation, node.arguments
    if getattr(type(model).call, "__qualname__", "") != "Functional.call":
        return False
    inside = {id(x) for layer in model.layers for x in layer.variables}
    # Such as an adapter of the model as a whole.
    if any(id(x) not in inside for x in model.variables):
        return False
    plain = not any(x is not None for x in keras.tree.flatten(arguments.kwargs))
    outer, inner = node.input_tensors, model.inputs
    if not plain or len(arguments.args) != 1 or len(outer) != len(inner):
        return False
    return all(len(a.shape) == len(b.shape) for a, b in zip(outer, inner, strict=True))


def _layers(model: Any) -> Iterator[keras.Layer]:
    """Returns the layers whose calls `_collect` finds, in the order of variables."""
    for layer in model.layers:
        yield layer
        if getattr(type(layer).call, "__qualname__", "") == "Functional.call":
            yield from _layers(layer)


# What a tensor hangs on: the inputs alone, frozen weights, or what trains.
_RAW, _FROZEN, _LIVE = range(3)


def _ranks(calls: Sequence[Call], inputs: Iterable[int]) -> dict[int, int]:
    rank = dict.fromkeys(inputs, _RAW)
    for call in calls:
        own = _rank(call.operation)
        found = max([own, *(rank[number] for number in call.inputs)])
        rank |= dict.fromkeys(call.outputs, found)
    return rank


def _rank(operation: Any) -> int:
    if not isinstance(operation, keras.Layer):
        return _RAW
    # Not `trainable_variables`: an adapter trains inside a layer that is frozen.
    if any(variable.trainable for variable in operation.variables):
        return _LIVE
    if any(map(_changes, with_sublayers(operation))):
        return _LIVE
    return _FROZEN if operation.variables else _RAW


def _changes(layer: keras.Layer) -> bool:
    """Tells whether a layer is random or changes itself from call to call."""
    inner = {id(x) for x in graph.layers_by_path(layer).values() for x in x.variables}
    own = [x for x in layer.variables if id(x) not in inner]
    if not own:
        return False
    by_mode = takes_training(layer)
    random = any(x.path.endswith("seed_generator_state") for x in own)
    if random and not by_mode:
        return True
    # `Normalization` knows its statistics beforehand.
    fixed = isinstance(layer, keras.layers.Normalization)
    return layer.trainable and not fixed and any(not x.trainable for x in own)


def _needed(calls: Sequence[Call], wanted: Iterable[int], computes: Any) -> list[Call]:
    """Returns the calls that some tensors need, in order."""
    needed = {number for number in wanted if computes(number)}
    found = []
    for call in reversed(calls):
        if needed.isdisjoint(call.outputs):
            continue
        found.append(call)
        needed |= {number for number in call.inputs if computes(number)}
    return found[::-1]


def _crossing(
    calls: Sequence[Call],
    later: Sequence[Call],
    outputs: Sequence[int],
    rank: Mapping[int, int],
) -> list[int]:
    used = {number for call in later for number in call.inputs} | set(outputs)
    made = [number for call in calls for number in call.outputs]
    return [number for number in made if number in used and rank[number] == _FROZEN]
