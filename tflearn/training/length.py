"""How long a stage is: settled once, by its first process."""

from __future__ import annotations

import pathlib

from tflearn.distribution import processes
from tflearn.support.console import say
from tflearn.training import budgets, flops, loop
from tflearn.training.stage import Prepared
from tflearn.training.state import State


def settled(prepared: Prepared, folder: pathlib.Path) -> State:
    """Returns the state of a stage at its start, its length being settled.

    Args:
        prepared: The stage.
        folder: Its folder, in which the length is written.
    """
    return State(**processes.once(folder / "length.json", lambda: _length(prepared)))


def seconds_left(prepared: Prepared, state: State) -> float | None:
    """Returns how long a stage may go on by its budget; None if that is no time."""
    limit = budgets.parse(prepared.stage.budget).seconds
    return None if limit is None else max(0.0, limit - state.seconds)


def _length(prepared: Prepared) -> dict[str, int]:
    if prepared.total_steps is not None:
        return {"total_steps": prepared.total_steps, "interval": prepared.interval}
    budget = budgets.parse(prepared.stage.budget)
    loop.compile_model(
        prepared.network.model,
        optimizer=prepared.make_optimizer(1000),
        loss=prepared.loss(),
        metrics=prepared.metrics(),
        jit_compile=prepared.stage.jit_compile,
    )
    seconds = operations = None
    if budget.seconds is None:
        operations = flops.of_stage(prepared)
        told = f"of {operations:.3g} FLOPs, counted in the traced step"
    else:
        seconds = loop.measure_step_seconds(prepared.network.model, prepared.batches)
        told = f"at {1 / seconds:.1f} steps a second, measured now"
    total = budgets.total_steps(
        budget,
        num_examples=len(prepared.examples["train"]),
        batch_size=prepared.stage.batch_size,
        step_seconds=seconds,
        step_flops=operations,
    )
    say(f"{prepared.stage.budget} are about {total} steps {told}")
    # The clock is read at interval ends: twenty of them keep the overrun below 5 %.
    return {
        "total_steps": total,
        "interval": max(1, min(prepared.interval, total // 20)),
    }
