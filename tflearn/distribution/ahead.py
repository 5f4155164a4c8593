"""Compiling a step of training for devices that need not be there.

The state of training is never allocated: a model with more weights than this machine
has memory can be built and compiled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from tflearn.distribution import hlo, layouts, work

#: Elements above which a variable that is not allocated keeps no value.
_LARGE = 2**16


class OutOfMemory(Exception):
    """A program needs more memory than a device has, in the compiler's own words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """What a compiled step takes, on each device.

    Args:
        argument_bytes: Weights, optimizer state and batch.
        temporary_bytes: What is held in between: activations, gradients.
        output_bytes: Results that take no argument's place.
        code_bytes: The program.
        flops: Floating-point operations of a step, as XLA counts them; the body of a
            loop counts once.
        product_flops: Those of matrix products and convolutions as traced, an equal
            share of all devices'.
        collectives: What is sent between devices, by kind.
        seconds: How long compiling took on this machine.
    """

    argument_bytes: int
    temporary_bytes: int
    output_bytes: int
    code_bytes: int
    flops: float
    product_flops: float
    collectives: Mapping[str, hlo.Traffic]
    seconds: float

    @property
    def total_bytes(self) -> int:
        """Everything that lies in a device's memory during a step."""
        return (
            self.argument_bytes
            + self.temporary_bytes
            + self.output_bytes
            + self.code_bytes
        )


@dataclasses.dataclass(frozen=True)
class PlannedLayout:
    """Marks a variable with its layout; what is made to follow it gets the mark too."""

    axes: layouts.Layout


@contextlib.contextmanager
def unallocated_variables() -> Iterator[None]:
    """Lets Keras make variables that take no memory, for as long as it is open.

    Their value is computed anew by their initializer whenever it is asked for, which
    is what Keras itself does while it traces a model. Large ones are all zeros, and
    what is assigned to them is dropped.

    Example:

    >>> with unallocated_variables():
    ...     large = keras.layers.Embedding(10**9, 10**3)
    ...     large.build(None)
    >>> tuple(large.embeddings.shape)
    (1000000000, 1000)
    """
    # Keras has no public way to make a variable without a value outside of a trace.
    variable: Any = keras.Variable
    allocate, assign = variable._initialize_with_initializer, variable._direct_assign

    def wait(self: Any, initializer: Any) -> None:
        large = math.prod(self._shape) > _LARGE
        self._value = None
        self._initializer = keras.initializers.Zeros() if large else initializer

    def keep(self: Any, value: Any) -> None:
        # A planned layout is no place where a value could be put.
        if self._initializer is None or math.prod(self._shape) <= _LARGE:
            self._value = value

    variable._initialize_with_initializer = wait
    variable._direct_assign = keep
    try:
        yield
    finally:
        variable._initialize_with_initializer = allocate
        variable._direct_assign = assign


@contextlib.contextmanager
def planned(
    variables: Mapping[str, keras.Variable], plan: Mapping[str, layouts.Layout]
) -> Iterator[None]:
    """Marks the variables of a model, so that the slots of its optimizer get marks too.

    Args:
        variables: Variables by path, unallocated.
        plan: A layout for every path.
    """
    known: Any = variables
    for path, layout in plan.items():
        known[path]._layout = PlannedLayout(layout)
    try:
        yield
    finally:
        for path in plan:
            known[path]._layout = None


def abstract(variable: Any, mesh: Any) -> Any:
    """Returns what stands for a variable when a step is compiled.

    Args:
        variable: A variable; one without a mark lies whole on every device.
        mesh: A `jax.sharding.Mesh`.

    Returns:
        A `jax.ShapeDtypeStruct` with a sharding.
    """
    layout = getattr(variable, "_layout", None)
    axes = layout.axes if isinstance(layout, PlannedLayout) else ()
    return _struct(tuple(variable.shape), variable.dtype, axes, mesh)


def abstract_batch(batch: Any, mesh: Any, *, size: int | None = None) -> Any:
    """Returns what stands for a batch when a step is compiled.

    Args:
        batch: Arrays in any structure, `(batch, ...)` each.
        mesh: A `jax.sharding.Mesh`.
        size: Another number of examples.

    Returns:
        The same structure, split over the axes of the mesh that split batches.
    """
    sizes = dict(mesh.shape)
    axes, parts = layouts.batch_axes(sizes), layouts.data_parallel_size(sizes)

    def struct(array: Any) -> Any:
        rows = size or array.shape[0]
        divides = rows % parts == 0
        return _struct(
            (rows, *array.shape[1:]), array.dtype, (axes,) if divides else (), mesh
        )

    return keras.tree.map_structure(struct, batch)


def _struct(shape: tuple[int, ...], dtype: Any, axes: Sequence[Any], mesh: Any) -> Any:
    import jax

    spec = jax.sharding.PartitionSpec(*axes)
    sharding = jax.sharding.NamedSharding(mesh, spec)
    # NumPy's 64 bits are not JAX's.
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def compile_step(model: keras.Model, state: Any, batch: Any) -> Compiled:
    """Compiles the train step of a compiled Keras model, as its `fit` would.

    Args:
        model: The model, compiled and built.
        state: Stands for trainable, other, optimizer and metrics variables.
        batch: Stands for a batch.

    Returns:
        What the step takes.

    Raises:
        OutOfMemory: It does not fit.
    """
    return load_step(model, state, batch)[0]


def load_step(
    model: keras.Model, state: Any, batch: Any
) -> tuple[Compiled, Callable[..., Any]]:
    """Compiles the train step as `compile_step` does, to run it too.

    Args:
        model: The model, compiled and built.
        state: Stands for trainable, other, optimizer and metrics variables.
        batch: Stands for a batch.

    Returns:
        What the step takes, and the step: it takes state and batch, which it
        overwrites, and returns logs and state.

    Raises:
        OutOfMemory: It does not fit.
    """
    return load(_step(model, state), (state, batch), devices=_devices(state))


def step_flops(model: keras.Model, state: Any, batch: Any) -> float:
    """Counts the products of the train step without compiling it.

    Args:
        model: The model, compiled and built.
        state: Stands for its variables.
        batch: Stands for a batch.

    Returns:
        Floating-point operations, of all devices together.
    """
    traced = _step(model, state).trace(state, batch)
    return work.product_flops(traced.jaxpr.jaxpr)


def load(
    function: Any, arguments: Sequence[Any], *, devices: int = 1
) -> tuple[Compiled, Callable[..., Any]]:
    """Compiles a function, to know what it takes and to run it.

    Args:
        function: What `jax.jit` returned.
        arguments: What stands for its arguments.
        devices: How many share its products.

    Returns:
        What it takes on each device, and the compiled function.

    Raises:
        OutOfMemory: It does not fit.
    """
    import jax

    started = time.perf_counter()
    traced = function.trace(*arguments)
    lowered = traced.lower()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(_said(str(error))) from error
    # Any, because JAX allows for devices that know neither.
    memory: Any = compiled.memory_analysis()
    cost = compiled.cost_analysis()
    found = Compiled(
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        output_bytes=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        flops=float((cost or {}).get("flops", 0.0)),
        product_flops=work.product_flops(traced.jaxpr.jaxpr) / devices,
        collectives=hlo.collectives(compiled.as_text() or ""),
        seconds=time.perf_counter() - started,
    )
    return found, compiled


def _step(model: keras.Model, state: Any) -> Any:
    import jax

    shardings = jax.tree.map(lambda x: x.sharding, state)
    trainer: Any = model
    return jax.jit(
        trainer.train_step, donate_argnums=0, out_shardings=(None, shardings)
    )


def _devices(state: Any) -> int:
    return len(next(iter(keras.tree.flatten(state))).sharding.device_set)


def _said(message: str) -> str:
    """Takes the sentences on memory out of what the compiler says."""
    found = re.search(r"Ran out of memory[^\n]*", message)
    said = found.group() if found else message.strip().splitlines()[0]
    return said.strip().rstrip(".")
