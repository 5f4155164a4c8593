"""Parts of a functional model: some of its calls, over its own layers."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from tflearn.backbones import graph

#: Stands for a length that is open, such as the tokens of a text.
_OPEN = 32
_MASK = "_mask"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crossing:
    """A tensor that the prefix gives and the suffix takes.

    Args:
        name: Its name among the outputs of the one and the inputs of the other.
        shape: Shape without the batch dimension; None where it varies.
        dtype: Name of the type.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One call of an operation in a model.

    Args:
        operation: A layer or another Keras operation; None for a change of type.
        arguments: The recorded arguments, symbolic tensors in them.
        inputs: Numbers of the tensors that it takes.
        outputs: Numbers of the tensors that it gives.
        symbols: Those tensors.
        dtype: The new type, for a change of type.
    """

    operation: Any
    arguments: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    symbols: tuple[Any, ...]
    dtype: str = ""

    @property
    def products(self) -> float:
        """About how many multiplications its matrices take for one example."""
        places = [_OPEN if x is None else x for x in self.symbols[0].shape[1:-1]]
        sizes = (math.prod(x.shape) for x in _matrices(self.operation))
        return float(math.prod(places)) * sum(sizes)


class Part(keras.Model):
    """Some of the calls of a functional model, over its own layers.

    Args:
        calls: The calls in order.
        takes: Names of the inputs that it takes of the model, with their number and
            type; it takes them in the model's structure or by name.
        crossing_in: What it takes from another part, by the number of the tensor.
        crossing_out: What it gives to another part, by the number of the tensor.
        outputs: Numbers of the tensors that it returns, where it gives nothing.
        order: The model's layers; variables come in this order.

    Attributes:
        calls: The calls in order.
        takes: Names of the model's inputs that it takes.
        crossing: What it gives to the other part, or takes from it.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        *,
        takes: Mapping[str, tuple[int, str]],
        crossing_in: Mapping[int, Crossing],
        crossing_out: Mapping[int, Crossing],
        outputs: Sequence[int],
        order: Iterable[keras.Layer],
        name: str,
    ) -> None:
        # Every layer inside casts by its own policy, as in a functional model.
        super().__init__(name=name, dtype="float32", autocast=False)
        own = {id(call.operation) for call in calls}
        kept = {id(layer): layer for layer in order if id(layer) in own}
        self._own_layers = list(kept.values())
        self.calls = tuple(calls)
        self.takes = tuple(takes)
        self.crossing = (*crossing_in.values(), *crossing_out.values())
        # As tuples: Keras would track what it finds in a dict.
        self._taken = tuple(takes.items())
        self._ins = tuple(crossing_in.items())
        self._outs = tuple(crossing_out.items())
        self._returned = tuple(outputs)
        self._reader = _ReadMask(autocast=False)
        self._writer = _WriteMask(autocast=False)
        self.built = True

    @property
    def products(self) -> float:
        """About how many multiplications its matrices take for one example."""
        return sum(call.products for call in self.calls)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Runs the calls.

        Args:
            inputs: Of the prefix what the model takes; of the suffix a dict by the
                names of `takes` and `crossing`.
            training: Handed to the layers.

        Returns:
            Of the prefix a dict by the names of `crossing`, a mask that Keras attaches
            to a tensor being one more, `NAME_mask`; of the suffix what the model
            returns.
        """
        values = self._start(inputs)
        for call in self.calls:
            for number, value in zip(
                call.outputs, _run(call, values, training), strict=True
            ):
                values[number] = value
        if not self._outs:
            found = [values[number] for number in self._returned]
            return found[0] if len(found) == 1 else found
        given = {}
        for number, crossing in self._outs:
            value, *mask = self._reader(values[number])
            given[crossing.name] = value
            if mask:
                given[crossing.name + _MASK] = mask[0]
        return given

    def _start(self, inputs: Any) -> dict[int, Any]:
        named = inputs
        if not isinstance(inputs, dict):
            named = dict(zip(self.takes, keras.tree.flatten(inputs), strict=True))
        values = {
            number: keras.ops.convert_to_tensor(named[name], dtype=dtype)
            for name, (number, dtype) in self._taken
        }
        for number, crossing in self._ins:
            value = keras.ops.convert_to_tensor(
                named[crossing.name], dtype=crossing.dtype
            )
            mask = named.get(crossing.name + _MASK)
            values[number] = value if mask is None else self._writer(value, mask=mask)
        return values


class _ReadMask(keras.Layer):
    """Returns a tensor and the mask that Keras has attached to it, if any.

    Keras has no public function for it, but hands the mask to a layer that asks.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        return (inputs,) if mask is None else (inputs, mask)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        return None


class _WriteMask(keras.Layer):
    """Attaches a mask to a tensor."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        return inputs


def _run(call: Call, values: Mapping[int, Any], training: bool) -> list[Any]:
    taken = [values[number] for number in call.inputs]
    if call.operation is None:
        return [keras.ops.cast(taken[0], call.dtype)]
    symbols = call.arguments.keras_tensors
    filled = dict(zip(map(id, symbols), taken, strict=True))
    args, kwargs = call.arguments.fill_in(filled)
    # Keras calls `Part.call` past `__call__`, so that nothing is inherited.
    if isinstance(call.operation, keras.Layer) and takes_training(call.operation):
        kwargs = {**kwargs, "training": training}
    return keras.tree.flatten(call.operation(*args, **kwargs))


def takes_training(layer: keras.Layer) -> bool:
    """Tells whether a layer computes in another way while it trains."""
    return "training" in inspect.signature(layer.call).parameters


def with_sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """Returns a layer and all layers inside."""
    return [layer, *graph.layers_by_path(layer).values()]


def _matrices(operation: Any) -> list[keras.Variable]:
    """Returns the weights that inputs are multiplied with, not looked up in."""
    if not isinstance(operation, keras.Layer):
        return []
    tables = {
        id(x)
        for layer in with_sublayers(operation)
        if isinstance(layer, keras.layers.Embedding)
        for x in layer.variables
    }
    return [x for x in operation.weights if len(x.shape) > 1 and id(x) not in tables]
