"""A few steps of the real programs on this machine, and what follows from them.

Steps whose batches have another length than those that ran are taken between them, in
proportion to the operations that were counted for each.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.distribution import ahead
from tflearn.planning.programs import Entered, Shape

#: A program is run so long, and so often at least and at most.
_SECONDS, _LEAST, _MOST = 0.6, 2, 30


def step_seconds(entered: Entered, step: Callable[..., Any], batch: Any) -> float:
    """Measures the compiled train step; the model keeps its weights.

    Args:
        entered: The stage.
        step: What `Entered.load_step` returned.
        batch: A batch of the shape that it was compiled for.
    """
    import jax

    # The step overwrites what it is given.
    state = [tuple(_copies(group, entered.mesh) for group in entered.groups)]
    data = _placed(batch, entered.mesh)

    def once() -> Any:
        logs, state[0] = step(state[0], data)
        return jax.block_until_ready((logs, state[0]))

    return measured(once)


def forward_seconds(
    entered: Entered, run: Callable[..., Any], variables: Any, inputs: Any
) -> float:
    """Measures a compiled model in inference mode.

    Args:
        entered: The stage.
        run: What `Entered.load_forward` returned.
        variables: The variables that it returned.
        inputs: A batch of the shape that it was compiled for.
    """
    import jax

    state = tuple(_copies(group, entered.mesh) for group in variables)
    data = _placed(inputs, entered.mesh)
    return measured(lambda: jax.block_until_ready(run(state, data)))


def measured(once: Callable[[], Any]) -> float:
    """Returns the median time of a call, after one to warm up.

    Args:
        once: The call; it must wait until everything is done.
    """
    once()
    began, found = time.perf_counter(), []
    while len(found) < _LEAST or (
        len(found) < _MOST and time.perf_counter() - began < _SECONDS
    ):
        started = time.perf_counter()
        once()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def step_flops(
    entered: Entered, shapes: Sequence[Shape], *, largest: float | None = None
) -> list[float]:
    """Counts the products of a step of each shape.

    Attention is quadratic in the length, so three lengths tell of all others exactly.

    Args:
        entered: The stage.
        shapes: The shapes, the smallest first.
        largest: Those of the largest, if they were counted.

    Returns:
        Operations by shape, of all devices together.
    """
    last = len(shapes) - 1
    chosen = sorted({0, last // 2, last})
    known = {} if largest is None else {last: largest}
    counted = [
        known[x] if x in known else entered.step_flops(shapes[x].batch) for x in chosen
    ]
    return between([shapes[x].size for x in chosen], counted, [x.size for x in shapes])


def between(
    known: Sequence[float], values: Sequence[float], wanted: Sequence[float]
) -> list[float]:
    """Returns the polynomial through some points, at others.

    Args:
        known: Where it is known.
        values: What it is there.
        wanted: Where it is asked for.

    Example:

    >>> between([1, 2, 3], [1, 4, 9], [2, 4])
    [4.0, 16.0]
    """
    # Scaled, because sizes are large and their squares are larger.
    scale = max(known)
    # Two shapes may be worth the same.
    pairs = dict(zip(known, values, strict=True))
    points = np.polynomial.Polynomial.fit(
        np.array(list(pairs)) / scale,
        list(pairs.values()),
        deg=len(pairs) - 1,
    )
    return [float(round(points(x / scale), 6)) for x in wanted]


def release() -> None:
    """Gives memory that nothing uses any more back to the system, as far as it goes."""
    import jax

    gc.collect()
    jax.clear_caches()
    with contextlib.suppress(OSError, AttributeError):
        # What the C library keeps for later would hide what is taken anew.
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int | None:
    """Returns the memory that this process holds; None where that cannot be told."""
    path = pathlib.Path("/proc/self/statm")
    if not path.exists():
        return None
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _copies(variables: Sequence[Any], mesh: Any) -> list[Any]:
    import jax

    return [
        jax.device_put(
            jax.numpy.array(x.value, copy=True), ahead.abstract(x, mesh).sharding
        )
        for x in variables
    ]


def _placed(batch: Any, mesh: Any) -> Any:
    import jax

    wanted = ahead.abstract_batch(batch, mesh)
    return keras.tree.map_structure(
        lambda array, like: jax.device_put(
            np.asarray(array, like.dtype), like.sharding
        ),
        batch,
        wanted,
    )
