"""How much a traced function computes, counted before the compiler changes it.

XLA's own count takes the body of a loop once, and it turns the products of sharded
weights into loops; so the products are counted in what was traced.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any


def product_flops(jaxpr: Any) -> int:
    """Counts the operations of matrix products and convolutions in a function.

    A product `(m, k) x (k, n)` takes `2 m k n`. What is computed again in the backward
    pass counts again.

    Args:
        jaxpr: A `jax.core.Jaxpr`, as `jax.jit(f).trace(...).jaxpr.jaxpr`.

    Returns:
        Floating-point operations, of all devices together. Of the branches of a
        condition the largest counts; a loop of unknown length counts once.

    Example:

    >>> import jax
    >>> import jax.numpy as jnp
    >>> left, right = jnp.ones((2, 3)), jnp.ones((3, 5))
    >>> product_flops(jax.make_jaxpr(jnp.matmul)(left, right).jaxpr)
    60
    """
    return sum(_flops(equation) for equation in jaxpr.eqns)


def _flops(equation: Any) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        return _dot_flops(equation)
    if name == "conv_general_dilated":
        return _convolution_flops(equation)
    inner = [product_flops(jaxpr) for jaxpr in _inner(equation.params)]
    if name == "cond":
        return max(inner, default=0)
    return sum(inner) * (equation.params["length"] if name == "scan" else 1)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Yields the functions that an operation calls."""
    for value in params.values():
        for leaf in value if isinstance(value, (tuple, list)) else (value,):
            leaf = getattr(leaf, "jaxpr", leaf)
            if hasattr(leaf, "eqns"):
                yield leaf


def _dot_flops(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    out = equation.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _convolution_flops(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    out = equation.outvars[0].aval.shape
    # Dimensions of the kernel: outputs, inputs of a group, positions.
    outputs, *rest = equation.params["dimension_numbers"].rhs_spec
    taps = math.prod(kernel[axis] for axis in rest)
    # Gradients space their inputs out with zeros, which cost nothing.
    spread = math.prod(equation.params["lhs_dilation"])
    groups = equation.params["batch_group_count"]
    return 2 * math.prod(out) * taps // spread // groups
