"""In which precision frozen layers run: the fastest that keeps features near enough."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.backbones.part import Part, with_sublayers
from tflearn.data.examples import Examples
from tflearn.support.console import say
from tflearn.training.features.passes import passes

_LOWER = ("bfloat16", "float16")
#: How much faster a lower precision has to be.
_GAIN = 1.1
_BATCHES = 3


@contextlib.contextmanager
def computed_in(prefix: Part, precision: str) -> Iterator[None]:
    """Inside, the layers of a prefix compute in another precision.

    Args:
        prefix: Its weights stay what they are.
        precision: `float32` for the one that was declared, `bfloat16` or `float16`.
    """
    if precision == "float32":
        yield
        return
    layers = [
        layer
        for call in prefix.calls
        if isinstance(call.operation, keras.Layer)
        for layer in with_sublayers(call.operation)
    ]
    # A layer may be called twice.
    before = {id(x): (x, x.dtype_policy) for x in layers}
    function: Any = prefix.predict_function
    # What was compiled in one precision must not run in the other.
    prefix.predict_function = None
    try:
        for layer, policy in before.values():
            if policy.name == "float32":
                layer.dtype_policy = f"mixed_{precision}"
        yield
    finally:
        for layer, policy in before.values():
            layer.dtype_policy = policy
        prefix.predict_function = function


def choose(
    prefix: Part, examples: Examples, *, batch_size: int, tolerance: float
) -> str:
    """Measures on a few batches in which precision a prefix is to run, and says so.

    Args:
        prefix: The prefix.
        examples: What it will run over.
        batch_size: Examples a batch.
        tolerance: How far a feature may lie from that in float32, in shares of the
            largest feature.

    Returns:
        `float32`, `bfloat16` or `float16`.
    """
    batches = _some_batches(examples, min(batch_size, len(examples)))
    exact, slowest = _timed(prefix, batches)
    best, fastest, told = "float32", slowest, [f"float32 {slowest:.3g} s a batch"]
    for name in _LOWER:
        with computed_in(prefix, name):
            found, seconds = _timed(prefix, batches)
        error = _difference(exact, found)
        told.append(f"{name} {seconds:.3g} s, off by {error:.2g}")
        if error <= tolerance and seconds * _GAIN < fastest:
            best, fastest = name, seconds
    say(f"frozen layers run in {best}: {'; '.join(told)}; {tolerance:g} are allowed")
    return best


def _some_batches(examples: Examples, size: int) -> list[Any]:
    """Returns whole batches from the middle, most of them of one length."""
    plan = [(x, length) for x, length in passes(examples, size) if len(x) == size]
    start = max(0, (len(plan) - _BATCHES) // 2)
    return [
        examples.batch(indices, length=length)
        for indices, length in plan[start : start + _BATCHES]
    ]


def _timed(
    prefix: Part, batches: Sequence[Any]
) -> tuple[list[Mapping[str, np.ndarray]], float]:
    """Returns the features, and the seconds of the fastest batch once compiled."""
    given = [prefix.predict_on_batch(batch) for batch in batches]
    seconds = []
    for batch in batches:
        began = time.perf_counter()
        prefix.predict_on_batch(batch)
        seconds.append(time.perf_counter() - began)
    return given, float(np.median(seconds))


def _difference(
    exact: Sequence[Mapping[str, np.ndarray]], found: Sequence[Mapping[str, np.ndarray]]
) -> float:
    """Returns the largest difference in shares of the largest feature."""
    worst = 0.0
    for name in exact[0]:
        now, then = (
            [np.asarray(x[name]).astype("float64") for x in some]
            for some in (found, exact)
        )
        scale = max(float(np.max(np.abs(x), initial=0.0)) for x in then) or 1.0
        differences = [
            float(np.max(np.abs(a - b), initial=0.0))
            for a, b in zip(now, then, strict=True)
        ]
        # Not a number where a feature is none: then it is not within anything.
        worst = max(
            worst, *(x / scale if np.isfinite(x) else np.inf for x in differences)
        )
    return worst
