"""Training steps of shipped experiments and of peers, as contenders measure them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.measuring import Measure, Numbers

_SIDE, _PRODUCTS = 2048, 8


def tflearn_stage(
    gin_file: str, bindings: Sequence[str], *, steps: int
) -> tuple[Numbers, Measure]:
    """Builds the first stage of an experiment and trains it by tflearn's own loop.

    Args:
        gin_file: The declaration.
        bindings: Bindings that change it.
        steps: Steps a round; always the same batches, so that every shape has been
            compiled before the clock starts.

    Returns:
        What is said once, and what trains a round.
    """
    import dataclasses

    import keras

    from tflearn import config, experiment
    from tflearn.support import compiled
    from tflearn.training import loop, precision_trial
    from tflearn.training.progress import Progress

    compiled.keep()
    declared = config.load([gin_file], bindings).experiment()

    def build(precision: str) -> experiment.Built:
        keras.utils.clear_session()
        return experiment.build(dataclasses.replace(declared, precision=precision))

    chosen: Numbers = {"precision": declared.precision}
    if declared.precision == "auto":
        # As a long run does it.
        chosen = precision_trial.settle("cpu", lambda name: build(name).stages[0])
    built = build(chosen["precision"])
    prepared = built.stages[0]
    prepared.apply_regime()
    model = prepared.network.model
    loop.compile_model(
        model,
        optimizer=prepared.make_optimizer(10_000),
        loss=prepared.loss(),
        metrics=prepared.metrics(),
        jit_compile=prepared.stage.jit_compile,
    )
    counts = [_count(prepared.batches[step]) for step in range(steps)]
    size = prepared.stage.batch_size

    def measure() -> Numbers:
        progress = Progress(steps, description="step", interval_steps=steps)
        began = time.perf_counter()
        loop.train(
            model,
            prepared.batches,
            schedule=loop.Schedule(total_steps=steps, interval_steps=steps),
            on_interval=lambda step, logs: False,
            callbacks=[progress],
        )
        seconds = time.perf_counter() - began
        return {
            "seconds": seconds,
            "per_second": steps * size / seconds,
            "tokens_per_second": sum(counts) / seconds,
        }

    began = time.perf_counter()
    measure()
    return {
        "parameters": model.count_params(),
        "trainable": sum(math.prod(x.shape) for x in model.trainable_variables),
        **chosen,
        "positions_per_example": sum(counts) / (steps * size),
        "compile_seconds": time.perf_counter() - began,
        "peak_gflops": keras_peak(),
    }, measure


def _count(batch: Any) -> int:
    """Returns how many positions of a batch are computed, padding included."""
    inputs = batch[0]
    first = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
    return int(first.size) if first.ndim == 2 else int(first.shape[0])


def keras_peak() -> dict[str, float]:
    """Returns the speed of a large matrix product by type, GFLOP/s, as Keras has it."""
    import keras

    def multiply(a: Any) -> Any:
        if keras.backend.backend() == "tensorflow":
            return keras.ops.matmul(a, a).numpy()
        return product(a, a).block_until_ready()

    if keras.backend.backend() == "jax":
        import jax

        # Rounded to the type it had only after it was summed, as tflearn does it.
        product = jax.jit(lambda a, b: jax.lax.dot(a, b, preferred_element_type="f4"))
    types = ("float32", "bfloat16")
    sides = (_SIDE, _SIDE)
    return {x: _peak(multiply, keras.ops.ones(sides, x)) for x in types}


def torch_peak() -> dict[str, float]:
    """Returns the speed of a large matrix product by type, GFLOP/s, as torch has it."""
    import torch

    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return {
        name: _peak(lambda a: a @ a, torch.ones((_SIDE, _SIDE), dtype=dtype))
        for name, dtype in types.items()
    }


def _peak(multiply: Any, matrix: Any) -> float:
    multiply(matrix)
    times = []
    for _ in range(_PRODUCTS):
        began = time.perf_counter()
        multiply(matrix)
        times.append(time.perf_counter() - began)
    return 2 * _SIDE**3 / min(times) / 1e9


def roofline(said: Numbers, per_second: float, *, flops: float, dtype: str) -> Numbers:
    """Says how far from the machine's matrix products a contender is.

    Args:
        said: What contenders said about their peaks.
        per_second: Examples a second.
        flops: What an example needs, without padding.
        dtype: Type of the products.

    Returns:
        Needed GFLOP/s, the highest peak any contender measured, and the share.
    """
    peaks = [x.get("peak_gflops", {}).get(dtype, 0.0) for x in said.values()]
    needed, peak = flops * per_second / 1e9, max(peaks, default=0.0)
    return {
        "needed_gflops": needed,
        "peak_gflops": peak,
        "share": needed / peak if peak else None,
    }
