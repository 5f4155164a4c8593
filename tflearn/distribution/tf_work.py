"""How much a traced function of TensorFlow computes: its products, as in `work`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from tflearn.support.errors import ConfigError


def graph_flops(graph: Any) -> int:
    """Counts the operations of matrix products and convolutions in a graph.

    A product `(m, k) x (k, n)` takes `2 m k n`.

    Args:
        graph: The graph of a concrete function whose inputs have known shapes.

    Returns:
        Floating-point operations.

    Raises:
        ConfigError: A product lies in a loop or a condition, whose length a graph does
            not tell, or its shape is open.

    Example:

    >>> import tensorflow as tf
    >>> left, right = tf.TensorSpec((2, 3)), tf.TensorSpec((3, 5))
    >>> graph_flops(tf.function(tf.matmul).get_concrete_function(left, right).graph)
    60
    """
    functions = {x.signature.name: x for x in graph.as_graph_def().library.function}
    _check_functions(functions.values())
    return sum(map(_flops, _needed(graph)))


def _needed(graph: Any) -> list[Any]:
    """Leaves out gradients that nothing asks for; TensorFlow does not run them."""
    ends = [tensor.op for tensor in graph.outputs]
    waiting = ends + [x for x in graph.get_operations() if x.op_def.is_stateful]
    found: dict[str, Any] = {}
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found[operation.name] = operation
            waiting += [tensor.op for tensor in operation.inputs]
            waiting += operation.control_inputs
    return list(found.values())


def _check_functions(functions: Any) -> None:
    """Refuses functions inside that hold products: their shapes are not told."""
    for function in functions:
        found = sorted({x.op for x in function.node_def if x.op in _COUNTS})
        if found:
            raise ConfigError(
                "the FLOPs of this train step cannot be counted on TensorFlow",
                received=f"{', '.join(found)} in a function or loop of the graph",
                fix="count steps, examples or time, or use --backend=jax",
            )


def _flops(operation: Any) -> int:
    count = _COUNTS.get(operation.type)
    if count is None:
        return 0
    try:
        return count(operation)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "the FLOPs of this train step cannot be counted on TensorFlow",
            received=f"{operation.type} '{operation.name}' of an open shape",
            fix="count steps, examples or time, or use --backend=jax",
        ) from error


def _shape(tensor: Any) -> list[int]:
    return tensor.shape.as_list()


def _matmul(operation: Any) -> int:
    left, out = _shape(operation.inputs[0]), _shape(operation.outputs[0])
    names = ("transpose_a", "adj_x")
    flags = [x for x in names if x in operation.node_def.attr]
    inner = left[-2] if flags and operation.get_attr(flags[0]) else left[-1]
    return 2 * math.prod(out) * inner


def _einsum(operation: Any) -> int:
    equation = operation.get_attr("equation").decode()
    inputs, out = equation.split("->")
    sizes: dict[str, int] = {}
    for labels, tensor in zip(inputs.split(","), operation.inputs, strict=True):
        shape, plain = _shape(tensor), labels.replace("...", "")
        spread = math.prod(shape[: len(shape) - len(plain)])
        sizes["."] = max(sizes.get(".", 1), spread)
        sizes |= dict(zip(plain, shape[len(shape) - len(plain) :], strict=True))
    # A sum over one input alone multiplies nothing.
    return 2 * math.prod(sizes.values()) if len(operation.inputs) == 2 else 0


def _convolution(out: Any, kernel: list[int], operation: Any) -> int:
    """Counts by outputs and the kernel `(..., inputs, outputs)`, of all gradients."""
    shape = _shape(out)
    depthwise = operation.type.startswith("Depthwise")
    taps = math.prod(kernel[:-2]) * (1 if depthwise else kernel[-2])
    channels_last = operation.get_attr("data_format").endswith(b"C")
    places = shape[1:-1] if channels_last else shape[2:]
    outputs = kernel[-2] * kernel[-1] if depthwise else kernel[-1]
    return 2 * shape[0] * math.prod(places) * outputs * taps


def _forward(operation: Any) -> int:
    kernel = _shape(operation.inputs[1])
    return _convolution(operation.outputs[0], kernel, operation)


def _to_input(operation: Any) -> int:
    # Inputs: sizes of the input, kernel, gradient of the output.
    return _convolution(operation.inputs[2], _shape(operation.inputs[1]), operation)


def _to_kernel(operation: Any) -> int:
    # Inputs: the input, sizes of the kernel, gradient of the output.
    return _convolution(operation.inputs[2], _shape(operation.outputs[0]), operation)


def _kinds() -> Iterator[tuple[str, Callable[[Any], int]]]:
    for name in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        yield name, _matmul
    yield "Einsum", _einsum
    for name in ("Conv2D", "Conv3D", "DepthwiseConv2dNative"):
        yield name, _forward
    for name in ("Conv2D", "DepthwiseConv2dNative"):
        yield f"{name}BackpropInput", _to_input
        yield f"{name}BackpropFilter", _to_kernel
    yield "Conv3DBackpropInputV2", _to_input
    yield "Conv3DBackpropFilterV2", _to_kernel


_COUNTS = dict(_kinds())
