"""Values of variables that may lie in parts on several devices and processes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.distribution import jax_mesh, processes

#: Below so many bytes compiling takes longer than it saves.
_WORTH_A_PROGRAM = 2**26


def to_host(value: Any) -> np.ndarray:
    """Returns a copy of a tensor in the memory of this process.

    Args:
        value: A tensor of any shape; on a mesh all its parts are gathered, and every
            process has to ask for it.

    Returns:
        An array of the same shape and type.
    """
    # Under `tf.distribute` some variables, such as counters, are no arrays until read.
    value = value.read_value() if hasattr(value, "read_value") else value
    whole = getattr(value, "is_fully_replicated", False)
    if whole or getattr(value, "is_fully_addressable", True):
        return np.array(np.asarray(value))
    from jax.experimental import multihost_utils

    return np.array(multihost_utils.process_allgather(value, tiled=True))


def share() -> Callable[[int], np.ndarray] | None:
    """Returns how a batch is shared out among the processes of a run.

    Returns:
        A function that gives the rows of a batch of some size that this process makes;
        None if it makes all. It works in every thread; what is active does not.
    """
    if processes.count() == 1:
        return None
    mesh = jax_mesh.active()
    if mesh is not None:
        return mesh.own_rows
    from tflearn.distribution import tf_batches, tf_strategy

    return functools.partial(tf_batches.own_rows, tf_strategy.active())


def assemble(make: Callable[[Any], Any], size: int) -> Any:
    """Makes a batch that is computed and not trained on.

    Args:
        make: Called with the rows that are wanted; returns arrays in any structure.
        size: Rows of the batch.

    Returns:
        What `predict_on_batch` takes. Of several processes on JAX each makes its own
        rows; on TensorFlow each makes all, since Keras orders them by device.
    """
    mesh = jax_mesh.active()
    if mesh is None or processes.count() == 1:
        return make(slice(None))
    return mesh.assemble(make(mesh.own_rows(size)), size)


@contextlib.contextmanager
def on_host(variables: Sequence[keras.Variable]) -> Iterator[None]:
    """Gathers variables so that this process alone can read all of their values.

    Args:
        variables: They lie on their devices again afterwards. The values of all of them
            together have to fit into the memory of the host.
    """
    if processes.count() == 1 or jax_mesh.active() is None:
        yield
        return
    known: Any = variables
    before = [variable._value for variable in known]
    for variable, value in zip(known, before, strict=True):
        variable._value = to_host(value)
    try:
        yield
    finally:
        for variable, value in zip(known, before, strict=True):
            variable._value = value


def saved_form(variables: Mapping[str, keras.Variable]) -> dict[str, Any]:
    """Returns the values of variables as a checkpoint takes them.

    Args:
        variables: By path. On a mesh each device's part is written as it lies; else a
            copy is.
    """
    values = {path: variable.value for path, variable in variables.items()}
    if jax_mesh.active():
        return values
    if keras.backend.backend() == "jax":
        # Of arrays of NumPy Orbax would make a second copy, on one core.
        num_bytes = sum(value.nbytes for value in values.values())
        return _copier(compiled=num_bytes >= _WORTH_A_PROGRAM)(values)
    return {path: to_host(value) for path, value in values.items()}


@functools.cache
def _copier(*, compiled: bool) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Returns what copies; in one compiled program copies run side by side."""
    import jax

    copy = functools.partial(jax.tree.map, jax.numpy.copy)
    return jax.jit(copy) if compiled else copy


def restored_form(variable: keras.Variable, dtype: np.dtype) -> Any:
    """Returns in what form a variable is read from a checkpoint.

    Args:
        variable: On a mesh every device reads its own part, however the saved value
            was split; else the whole is read.
        dtype: Type of the saved value.
    """
    if jax_mesh.active() is None:
        return np.empty(tuple(variable.shape), dtype)
    import jax

    value: Any = variable.value
    return jax.ShapeDtypeStruct(value.shape, dtype, sharding=value.sharding)


def holds(variable: keras.Variable, value: Any) -> bool:
    """Tells whether a variable has a value, bit by bit, a NaN being like another.

    Args:
        variable: The variable.
        value: An array; if it is split as the variable is, parts are compared.
    """
    mine: Any = variable.value
    if getattr(value, "sharding", None) != getattr(mine, "sharding", "none"):
        return np.array_equal(to_host(mine), np.asarray(value), equal_nan=True)
    parts = zip(mine.addressable_shards, value.addressable_shards, strict=True)
    return all(np.array_equal(a.data, b.data, equal_nan=True) for a, b in parts)
