"""What a step would take with smaller batches, for a run that found no memory."""

from __future__ import annotations

import os
import pathlib
import resource
from typing import Any

import keras

from tflearn.distribution import ahead, processes
from tflearn.support.units import bytes_text
from tflearn.training.stage import Prepared

# Each takes the time of compiling a step.
_TRIED = 4


def what_fits(prepared: Prepared) -> str:
    """Compiles the step of a stage for smaller batches until one fits.

    Only on JAX with one device, where the compiler says what a step takes.

    Args:
        prepared: The stage, its model compiled.

    Returns:
        One line, empty if it cannot be told.
    """
    if keras.backend.backend() != "jax" or processes.count() > 1:
        return ""
    try:
        return _tried(prepared)
    # There is no memory left, so anything may fail now; the first error counts.
    except Exception:
        return ""


def _tried(prepared: Prepared) -> str:
    import jax

    (device,) = jax.devices()
    mesh = jax.sharding.Mesh([device], ("data",))
    model: Any = prepared.network.model
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = tuple([ahead.abstract(x, mesh) for x in group] for group in groups)
    size = prepared.stage.batch_size
    room, batch = _room(device), prepared.batches[0]
    needed = 0
    for _ in range(_TRIED):
        data = ahead.abstract_batch(batch, mesh, size=size)
        step = ahead.compile_step(model, state, data)
        # On a CPU weights and optimizer are there already, and are no part of the room.
        needed = step.total_bytes - (step.argument_bytes if _is_host(device) else 0)
        if size < prepared.stage.batch_size and (room is None or needed <= room):
            break
        if size == 1:
            return f"even batch_size 1 takes {bytes_text(needed)}{_of(room)}"
        size //= 2
    else:
        return f"batch_size {size * 2} still takes {bytes_text(needed)}{_of(room)}"
    return f"batch_size {size} takes {bytes_text(needed)}{_of(room)} by the compiler"


def _of(room: int | None) -> str:
    return "" if room is None else f" of {bytes_text(room)}"


def _is_host(device: Any) -> bool:
    return device.platform == "cpu"


def _room(device: Any) -> int | None:
    """Returns the memory of a device, or what this process may still take."""
    if not _is_host(device):
        return (device.memory_stats() or {}).get("bytes_limit")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    own = pathlib.Path("/proc/self/statm")
    if limit == resource.RLIM_INFINITY or not own.exists():
        return None
    taken = int(own.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return max(0, limit - taken)
