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
from tflearn.distribution import products
from tflearn.distribution.devices import computed_on
from tflearn.support.console import say
from tflearn.training.features.passes import passes

#: Layers compute in float32, their matrices are multiplied in bfloat16.
PRODUCTS = "bfloat16 products"
#: How much faster a lower precision has to be.
_GAIN = 1.1
_REPEATS = 2


@contextlib.contextmanager
def computed_in(prefix: Part, precision: str) -> Iterator[None]:
    """Inside, the layers of a prefix compute in another precision.

    Args:
        prefix: Its weights stay what they are.
        precision: `float32` for the one that was declared, `bfloat16`, `float16`, or
            `PRODUCTS`.
    """
    if precision == "float32":
        yield
        return
    changed = _products(prefix) if precision == PRODUCTS else _types(prefix, precision)
    function: Any = prefix.predict_function
    # What was compiled in one precision must not run in the other.
    prefix.predict_function = None
    try:
        with changed:
            yield
    finally:
        prefix.predict_function = function


@contextlib.contextmanager
def _products(prefix: Part) -> Iterator[None]:
    # Past `__setattr__`, which would look for layers in it.
    prefix.__dict__["predict_step"] = products.transformed(
        prefix.predict_step, dtype="float32"
    )
    try:
        yield
    finally:
        del prefix.__dict__["predict_step"]


@contextlib.contextmanager
def _types(prefix: Part, precision: str) -> Iterator[None]:
    layers = [
        layer
        for call in prefix.calls
        if isinstance(call.operation, keras.Layer)
        for layer in with_sublayers(call.operation)
    ]
    # A layer may be called twice.
    before = {id(x): (x, x.dtype_policy) for x in layers}
    try:
        for layer, policy in before.values():
            if policy.name == "float32":
                layer.dtype_policy = f"mixed_{precision}"
        yield
    finally:
        for layer, policy in before.values():
            layer.dtype_policy = policy


def choose(
    prefix: Part,
    examples: Examples,
    *,
    batch_size: int,
    tolerance: float,
    fits: Sequence[int] = (),
) -> str:
    """Measures on a batch in which precision a prefix is to run, and says so.

    Args:
        prefix: The prefix.
        examples: What it will run over.
        batch_size: Examples a batch.
        tolerance: How far a feature may lie from that in float32, in shares of the
            largest feature.
        fits: As in `passes.passes`.

    Returns:
        `float32`, `bfloat16`, `float16`, or `PRODUCTS`.
    """
    lower = _lower()
    if not lower:
        say("frozen layers run in float32: this processor is faster in no other")
        return "float32"
    batch = _middle_batch(examples, min(batch_size, len(examples)), fits)
    exact, slowest = _timed(prefix, batch)
    best, fastest, told = "float32", slowest, [f"float32 {slowest:.3g} s a batch"]
    for name in lower:
        with computed_in(prefix, name):
            found, seconds = _timed(prefix, batch)
        error = _difference(exact, found)
        told.append(f"{name} {seconds:.3g} s, off by {error:.2g}")
        if error <= tolerance and seconds * _GAIN < fastest:
            best, fastest = name, seconds
    say(f"frozen layers run in {best}: {'; '.join(told)}; {tolerance:g} are allowed")
    return best


def _lower() -> tuple[str, ...]:
    """Returns the precisions that may be faster than float32 here."""
    if keras.backend.backend() != "jax" or computed_on() != "cpu":
        return ("bfloat16", "float16")
    # XLA computes in float32 on CPUs, and converts what is declared to be less.
    return (PRODUCTS,) if products.is_fast() else ()


def _middle_batch(examples: Examples, size: int, fits: Sequence[int]) -> Any:
    """Returns a whole batch, of texts one of middling length."""
    plan = [x for x in passes(examples, size, fits) if len(x[0]) == size]
    indices, length = plan[len(plan) // 2]
    return examples.batch(indices, length=length)


def _timed(prefix: Part, batch: Any) -> tuple[Mapping[str, np.ndarray], float]:
    """Returns the features, and the seconds of a batch once compiled."""
    given = prefix.predict_on_batch(batch)
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        prefix.predict_on_batch(batch)
        seconds.append(time.perf_counter() - began)
    return given, min(seconds)


def _difference(
    exact: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> float:
    """Returns the largest difference in shares of the largest feature."""
    worst = 0.0
    for name in exact:
        now, then = (np.asarray(x[name]).astype("float64") for x in (found, exact))
        scale = float(np.max(np.abs(then), initial=0.0)) or 1.0
        difference = float(np.max(np.abs(now - then), initial=0.0))
        # Not a number where a feature is none: then it is not within anything.
        worst = max(worst, difference / scale if np.isfinite(difference) else np.inf)
    return worst
