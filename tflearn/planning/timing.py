"""How long a stage takes: measured on this machine, at best on other hardware."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tflearn.distribution.ahead import Compiled
from tflearn.distribution.hardware import Hardware
from tflearn.planning import calibration, memory, programs
from tflearn.planning.programs import Entered, Shape, Step
from tflearn.reports.plan import Figure
from tflearn.training import budgets
from tflearn.training.features import passes
from tflearn.training.stage import Prepared

_HERE, _PEAK = "measured here", "documented peak"
#: Splits that are measured when a stage ends.
_MEASURED = ("validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forward:
    """A program that runs layers in inference mode.

    Args:
        model: The layers.
        compiled: What it takes.
        run: The program.
        variables: What it is called with before the inputs.
        inputs: A batch.
        batches: How many such batches the run goes through.
        lengths: Different lengths among them: each is compiled.
        again: How many such batches every validation during training goes through.
    """

    model: Any
    compiled: Compiled
    run: Callable[..., Any]
    variables: Any
    inputs: Any
    batches: float
    lengths: int
    again: float = 0.0

    def seconds(self, entered: Entered, *, validations: int) -> float:
        """Measures how long all batches take, with so many validations."""
        one = calibration.forward_seconds(
            entered, self.run, self.variables, self.inputs
        )
        return (self.batches + validations * self.again) * one


def frozen_layers(entered: Entered) -> Forward | None:
    """Compiles what is computed once; None where nothing is."""
    if entered.gathered is None:
        return None
    planned, whole = entered.gathered.planned, entered.whole
    splits = {x: whole.examples[x] for x in entered.gathered.splits}
    size = whole.stage.eval_batch_size
    fits = passes.fitting(list(splits.values()), size)
    found = [
        (planned.views if split == "train" else 1, length)
        for split, examples in splits.items()
        for _, length in passes.passes(examples, size, fits)
    ]
    lengths = {length for _, length in found}
    # Not the last of `fits`, which may be more than a text may have.
    longest = max(lengths, key=lambda length: length or 0)
    batches = sum(times * (length or 1) / (longest or 1) for times, length in found)
    train = splits["train"]
    inputs = train.batch(np.zeros(min(size, len(train)), np.int64), length=longest)
    return _forward(entered, planned.prefix, inputs, batches, len(lengths))


def evaluation(entered: Entered) -> Forward | None:
    """Compiles the evaluation; None for objectives that make their own targets."""
    trained = entered.trained
    if trained.pretext is not None:
        return None
    chosen: Any = None
    batches, again, lengths = 0.0, 0.0, set()
    for split in _MEASURED:
        if split not in trained.examples:
            continue
        inputs, worth, found = programs.evaluated(trained, split)
        lengths |= found
        batches += worth
        again += worth if split == "validation" else 0.0
        if chosen is None or programs.elements(inputs) > programs.elements(chosen):
            chosen = inputs
    if chosen is None:
        return None
    deployed = trained.network.deployed
    made = _forward(entered, deployed, chosen, batches, len(lengths))
    return dataclasses.replace(made, again=again)


def _mean(shapes: Sequence[Shape], values: Sequence[float]) -> float:
    """Returns the mean of a step, of which there is a value for every shape."""
    return sum(x.share * y for x, y in zip(shapes, values, strict=True))


def _validations(trained: Prepared, *, step_seconds: float, step_flops: float) -> int:
    """Returns how often a stage is validated while it trains."""
    steps, interval = trained.total_steps, trained.interval
    if steps is None:
        steps = budgets.total_steps(
            budgets.parse(trained.stage.budget),
            num_examples=len(trained.examples["train"]),
            batch_size=trained.stage.batch_size,
            step_seconds=step_seconds,
            step_flops=step_flops,
        )
        # As `training.length` settles it.
        interval = max(1, min(interval, steps // 20))
    return math.ceil(steps / interval)


def _forward(
    entered: Entered, model: Any, inputs: Any, batches: float, lengths: int
) -> Forward:
    compiled, run, variables = entered.load_forward(model, inputs)
    return Forward(
        model=model,
        compiled=compiled,
        run=run,
        variables=variables,
        inputs=inputs,
        batches=batches,
        lengths=lengths,
    )


def counted(
    entered: Entered,
    shapes: Sequence[Shape],
    *,
    step: Compiled | None = None,
    once: Forward | None = None,
) -> tuple[dict[str, Figure], list[float]]:
    """Counts the operations of training.

    Args:
        entered: The stage.
        shapes: Shapes of its batches.
        step: The step of the largest, if it could be compiled.
        once: What is computed once.

    Returns:
        Figures, and the operations of a step by shape.
    """
    devices = entered.mesh.size
    largest = None if step is None else step.product_flops * devices
    by_shape = calibration.step_flops(entered, shapes, largest=largest)
    each = _mean(shapes, by_shape)
    found = {"flops_per_step": each}
    steps, budget = entered.whole.total_steps, budgets.parse(entered.whole.stage.budget)
    if budget.unit == "flops":
        found |= {"steps": math.ceil(budget.amount / each), "flops": budget.amount}
    elif steps is not None:
        before = 0.0
        if once is not None:
            before = once.batches * once.compiled.product_flops * devices
        found |= {"steps": steps, "flops": steps * each + before}
    return {k: Figure(float(v), "counted") for k, v in found.items()}, by_shape


def here(
    entered: Entered,
    shapes: Sequence[Shape],
    by_shape: Sequence[float],
    *,
    largest: Step,
    smallest: Step | None,
    once: Forward | None,
    evaluated: Forward | None,
) -> dict[str, Figure]:
    """Measures the programs of a stage on this machine.

    Args:
        entered: The stage.
        shapes: Shapes of its batches, the smallest first.
        by_shape: Operations of a step by shape.
        largest: The step compiled for the largest.
        smallest: The step compiled for the smallest, if that is another.
        once: What is computed once.
        evaluated: The evaluation.

    Returns:
        Figures of time.
    """
    ends = [(largest, shapes[-1], by_shape[-1])]
    if smallest is not None:
        ends.insert(0, (smallest, shapes[0], by_shape[0]))
    seconds = [
        calibration.step_seconds(entered, step, shape.batch)
        for (_, step), shape, _ in ends
    ]
    each = calibration.between([flops for *_, flops in ends], seconds, by_shape)
    compiling = statistics.fmean(compiled.seconds for (compiled, _), *_ in ends)
    found = {
        "step_seconds": _mean(shapes, each),
        "compile_seconds": compiling * len(shapes),
    }
    validations = _validations(
        entered.trained,
        step_seconds=found["step_seconds"],
        step_flops=_mean(shapes, by_shape),
    )
    for name, forward in (("cache_seconds", once), ("evaluation_seconds", evaluated)):
        if forward is not None:
            found[name] = forward.seconds(entered, validations=validations)
            found["compile_seconds"] += forward.compiled.seconds * forward.lengths
    return {name: Figure(value, _HERE) for name, value in found.items()}


def away(
    entered: Entered,
    hardware: Hardware,
    *,
    flops: float,
    step: Compiled,
    dtype: str,
) -> dict[str, Figure]:
    """Says how long a step takes at best where nothing could be measured.

    Args:
        entered: The stage.
        hardware: The hardware.
        flops: Operations of a step, of all devices together.
        step: The step as compiled for a device.
        dtype: Type of the products.
    """
    trainable, others, slots, _ = entered.groups
    # Everything is read once, but for tables in which some rows are looked up, and what
    # training changes is written.
    written = memory.held_bytes([*trainable, *slots], entered.mesh)
    tables = [x for x in others if x.path.endswith("/embeddings")]
    unread = memory.held_bytes(tables, entered.mesh)
    least = hardware.least_seconds(
        flops=flops / hardware.devices,
        num_bytes=step.argument_bytes + written - unread,
        traffic=step.collectives,
        dtype=dtype,
    )
    return {} if least is None else {"step_seconds": Figure(least, _PEAK)}


def totals(
    entered: Entered, found: dict[str, Figure], hardware: Hardware
) -> dict[str, Figure]:
    """Adds up the run: its time, device-hours, energy and cost.

    Args:
        entered: The stage.
        found: The figures so far.
        hardware: The hardware.
    """
    step = found.get("step_seconds")
    if step is None:
        return {}
    more: dict[str, Figure] = {}
    limit = budgets.parse(entered.whole.stage.budget).seconds
    names = ("cache_seconds", "evaluation_seconds", "compile_seconds")
    around = sum(found[name].value for name in names if name in found)
    if limit is not None:
        more["steps"] = Figure(math.ceil(limit / step.value), step.origin)
        more["run_seconds"] = Figure(limit, "declared")
    else:
        seconds = found["steps"].value * step.value + around
        more["run_seconds"] = Figure(seconds, step.origin)
    run = more["run_seconds"]
    hours = run.value / 3600 * hardware.devices
    more["device_hours"] = Figure(hours, run.origin)
    if hardware.tdp_watts is not None:
        energy = hours * hardware.tdp_watts / 1e3
        more["kilowatt_hours"] = Figure(energy, run.origin)
    if hardware.price_per_hour is not None:
        more["cost"] = Figure(hours * hardware.price_per_hour, run.origin)
    return more
