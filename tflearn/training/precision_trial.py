"""Choosing the precision by measuring real steps of the real model.

A trial costs about as much as the start of a run, so only runs that train long enough
have one; the others keep the rule of `tflearn.distribution.precision`. What was chosen
is kept in the run directory: a run that is resumed computes as before.
"""

from __future__ import annotations

import gc
import math
import pathlib
from collections.abc import Callable
from typing import Any

import keras

from tflearn import regimes
from tflearn.distribution import precision, processes
from tflearn.support import files
from tflearn.support.console import say
from tflearn.support.errors import TflearnError
from tflearn.training import loop
from tflearn.training.stage import Prepared

FILE = "precision.json"
#: Multiplications and additions of a run below which nothing is measured: on two CPU
#: cores two minutes of training.
LEAST_FLOPS = 2e13
#: Another precision has to be so many times faster than float32.
LEAST_GAIN = 1.1
_STEPS = 6
_SAMPLED = 8
# A lookup multiplies nothing.
_LOOKED_UP = (keras.layers.Embedding,)


def recall(folder: pathlib.Path) -> str | None:
    """Returns the precision that a run chose when it began, or None."""
    path = folder / FILE
    if not path.exists():
        return None
    found = files.read_json(path)["precision"]
    say(f"precision {found}, as measured when the run began")
    return found


def pays(prepared: Prepared, platform: str, folder: pathlib.Path) -> bool:
    """Returns whether a run trains long enough to measure its precision.

    Args:
        prepared: The first stage.
        platform: `cpu`, `gpu` or `tpu`.
        folder: The run directory; a run that has begun goes on as it is.
    """
    if processes.count() > 1 or len(precision.candidates(platform)) == 1:
        return False
    return not (folder / "stages").exists() and training_flops(prepared) >= LEAST_FLOPS


def settle(platform: str, build: Callable[[str], Prepared]) -> dict[str, Any]:
    """Measures steps in every precision, says how long they took, and chooses.

    Args:
        platform: `cpu`, `gpu` or `tpu`.
        build: Builds the first stage in a precision.

    Returns:
        What `keep` writes: the `precision`, and `seconds_per_step` of each.
    """
    seconds = {x: _seconds(build, x) for x in precision.candidates(platform)}
    chosen = choose(seconds)
    for name, found in seconds.items():
        shown = "failed" if found is None else f"{1e3 * found:.1f} ms a step"
        say(f"precision {name}: {shown}{', chosen' if name == chosen else ''}")
    return {"precision": chosen, "seconds_per_step": seconds}


def keep(folder: pathlib.Path, found: dict[str, Any] | None) -> None:
    """Writes what was chosen into the run directory; nothing without a trial."""
    if found is not None:
        files.write_json(folder / FILE, found)


def choose(seconds: dict[str, float | None]) -> str:
    """Returns the fastest precision; float32 where none is clearly faster.

    Args:
        seconds: Seconds a step by precision; None where it failed.

    Example:

    >>> choose({"float32": 1.0, "mixed_bfloat16": 0.95})
    'float32'
    >>> choose({"float32": 1.0, "mixed_bfloat16": 0.5, "mixed_float16": None})
    'mixed_bfloat16'
    """
    worked = {name: x for name, x in seconds.items() if x is not None}
    if not worked:
        return "float32"
    fastest = min(worked, key=lambda name: worked[name])
    exact = worked.get("float32")
    if exact is not None and exact < LEAST_GAIN * worked[fastest]:
        return "float32"
    return fastest


def training_flops(prepared: Prepared) -> float:
    """Estimates what a stage computes: 6 for every weight and position of its batches.

    Layers in which nothing trains are not counted: most are computed once.

    Args:
        prepared: The stage.

    Returns:
        FLOPs; infinite under a budget of time. Convolutions use a weight at many
        places, which is not counted: they are rarely faster on CPUs in other types.
    """
    if prepared.total_steps is None:
        return float("inf")
    sizes = [_positions(prepared.batches[step]) for step in range(_SAMPLED)]
    with regimes.rehearsal():
        prepared.apply_regime()
        layers = prepared.network.model._flatten_layers(include_self=False)
        weights = sum(
            math.prod(variable.shape)
            for layer in layers
            if layer.trainable_variables and not isinstance(layer, _LOOKED_UP)
            for variable in getattr(layer, "_trainable_variables", ())
            if len(variable.shape) > 1
        )
    return 6.0 * weights * sum(sizes) / _SAMPLED * prepared.total_steps


def _positions(batch: Any) -> int:
    leaves = [x for x in keras.tree.flatten(batch[0]) if hasattr(x, "shape")]
    # Texts are (examples, positions); a vector or an image is one position.
    return max(
        x.size if x.ndim == 2 and x.dtype.kind in "iub" else len(x) for x in leaves
    )


def _seconds(build: Callable[[str], Prepared], name: str) -> float | None:
    try:
        prepared = build(name)
        prepared.apply_regime()
        model = prepared.network.model
        loop.compile_model(
            model,
            optimizer=prepared.make_optimizer(prepared.total_steps or 1000),
            loss=prepared.loss(),
            metrics=prepared.metrics(),
            jit_compile=prepared.stage.jit_compile,
        )
        return loop.measure_step_seconds(model, prepared.batches, steps=_STEPS)
    except TflearnError:
        raise
    except Exception as error:
        # What a backend lacks in a precision it says in many ways.
        say(f"note: {name} failed: {str(error).splitlines()[0][:200]}")
        return None
    finally:
        gc.collect()
