"""Matrix products in bfloat16 at the speed of a CPU's matrix units (AMX), on JAX.

XLA computes a product of bfloat16 matrices with these units only if the result is
float32 and neither operand is transposed; every other product it does in float32,
after converting. Keras asks for bfloat16 results, and two of three products of a
training step have a transposed operand. Here the compiled step asks for the same
numbers in the form that is fast: operands are laid out first, products are summed in
float32, and the result is rounded to bfloat16 as before.

Where float32 is declared, and a caller may be a little off, float32 products can be
computed of operands that are rounded to bfloat16. Everything between them stays in
float32, which these CPUs are faster in.
"""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

# Calls whose inside is part of the step.
_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")
# Smaller products are not worth laying out.
_SMALLEST = 16


def install(model: keras.Model) -> bool:
    """Makes a compiled model's training step use the fast form where it helps.

    Args:
        model: A compiled model on one device.

    Returns:
        Whether anything changed: on JAX, on a CPU with matrix units, in mixed bfloat16.
    """
    policy = keras.config.dtype_policy()
    wanted = getattr(policy, "compute_dtype", None) == "bfloat16"
    model.__dict__.pop("train_step", None)
    if not (wanted and keras.backend.backend() == "jax" and is_fast()):
        return False
    # Past `__setattr__`, which would look for layers in it.
    model.__dict__["train_step"] = transformed(model.train_step)
    return True


@functools.cache
def is_fast() -> bool:
    """Returns whether XLA computes on one CPU device, and knows the fast form.

    It depends on the version and on whether it optimizes at all; where the form is not
    known, it would fail.
    """
    import jax

    devices = jax.devices()
    if devices[0].platform != "cpu" or len(devices) > 1 or not has_matrix_units():
        return False
    matrix = jax.numpy.ones((32, 32), "bfloat16")
    multiply = jax.jit(functools.partial(jax.lax.dot, preferred_element_type="float32"))
    text = multiply.lower(matrix, matrix).compile().as_text()
    return "ynn_fusion" in (text or "")


def has_matrix_units() -> bool:
    """Returns whether the CPU multiplies bfloat16 matrices in hardware."""
    info = pathlib.Path("/proc/cpuinfo")
    return info.exists() and " amx_bf16" in info.read_text()


def transformed(
    step: Callable[..., Any], *, dtype: str = "bfloat16"
) -> Callable[..., Any]:
    """Returns a function whose products have the fast form.

    Args:
        step: A function of arrays, as JAX traces it.
        dtype: Type of the products that get it. With `float32` their operands are
            rounded to bfloat16.

    Returns:
        A function with the same arguments and results; products are summed in float32
        and rounded to the type they had.
    """
    import jax

    def fast(*arguments: Any) -> Any:
        traced, shape = jax.make_jaxpr(step, return_shape=True)(*arguments)
        leaves = jax.tree.leaves(arguments)
        results = _evaluate(traced.jaxpr, traced.consts, leaves, dtype)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return fast


def _evaluate(
    jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any], dtype: str
) -> Any:
    """Computes what a traced function does, its products in the fast form."""
    from jax.extend.core import Literal

    values = dict(zip(jaxpr.constvars, constants, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        inputs = [
            x.val if isinstance(x, Literal) else values[x] for x in equation.invars
        ]
        results = _apply(equation, inputs, dtype)
        values |= dict(zip(equation.outvars, results, strict=True))
    return [x.val if isinstance(x, Literal) else values[x] for x in jaxpr.outvars]


def _apply(equation: Any, inputs: Sequence[Any], dtype: str) -> Sequence[Any]:
    primitive, parameters = equation.primitive, equation.params
    if primitive.name == "dot_general" and _is_slow(equation, inputs, dtype):
        left, right = inputs
        return [_product(left, right, parameters["dimension_numbers"], dtype)]
    inside = parameters.get("jaxpr", parameters.get("call_jaxpr"))
    if primitive.name in _CALLS and hasattr(inside, "consts"):
        return _evaluate(inside.jaxpr, inside.consts, inputs, dtype)
    bound = primitive.get_bind_params(parameters)
    # Older releases of JAX return functions and parameters apart.
    functions, bound = bound if isinstance(bound, tuple) else ((), bound)
    results = primitive.bind(*functions, *inputs, **bound)
    return results if primitive.multiple_results else [results]


def _is_slow(equation: Any, operands: Sequence[Any], dtype: str) -> bool:
    """Returns whether a product is one of matrices of a type, and large enough."""
    a, b = operands
    (summed, _), (batched, _) = equation.params["dimension_numbers"]
    types = {str(x.dtype) for x in (a, b, equation.outvars[0].aval)}
    if types != {dtype} or batched:
        return False
    inner = math.prod(a.shape[i] for i in summed)
    if not inner:
        return False
    return min(inner, a.size // inner, b.size // inner) >= _SMALLEST


def _product(a: Any, b: Any, dimensions: Any, dtype: str) -> Any:
    """Multiplies two arrays as matrices without transposed operands."""
    import jax

    lax: Any = jax.lax
    (summed_a, summed_b), _ = dimensions
    free_a = [i for i in range(a.ndim) if i not in summed_a]
    free_b = [i for i in range(b.ndim) if i not in summed_b]
    shape = [a.shape[i] for i in free_a] + [b.shape[i] for i in free_b]
    inner = math.prod(a.shape[i] for i in summed_a)
    a, b = a.astype("bfloat16"), b.astype("bfloat16")
    a = a.transpose((*free_a, *summed_a)).reshape(-1, inner)
    b = b.transpose((*summed_b, *free_b)).reshape(inner, -1)
    # Otherwise XLA would take the transpositions back into the product.
    a, b = lax.optimization_barrier((a, b))
    result = lax.dot(a, b, preferred_element_type=jax.numpy.float32)
    return result.astype(dtype).reshape(shape)
