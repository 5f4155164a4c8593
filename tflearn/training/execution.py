"""Training one stage: resume, fit, best weights, proof that frozen stayed frozen."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tflearn import regimes
from tflearn.support import files
from tflearn.support.console import say
from tflearn.training import budgets, loop
from tflearn.training.assessment import assess, measure
from tflearn.training.checkpoints import Checkpoints
from tflearn.training.stage import Prepared


@dataclasses.dataclass(kw_only=True)
class State:
    """What a stage remembers between intervals; saved with every checkpoint.

    Args:
        step: Steps trained.
        total_steps: Where the stage ends.
        interval: Steps between validations.
        history: One dict an interval.
        best: Best headline metric on the validation split.
        best_step: Where it was reached.
        waited: Validations since then.
        seconds: Wall-clock time spent training.
        stopped: Why it ended early, or an empty string.
    """

    step: int = 0
    total_steps: int = 0
    interval: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    seconds: float = 0.0
    stopped: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a stage.

    Args:
        state: Steps, history and the best validation.
        proof: Number of frozen layers and parameters found bit-identical.
        seconds: Seconds by phase.
    """

    state: State
    proof: dict[str, int]
    seconds: dict[str, float]


Observer = Callable[[State], None]


def execute(
    prepared: Prepared,
    folder: pathlib.Path,
    *,
    census: regimes.Census,
    callbacks: Callable[[State], Sequence[keras.callbacks.Callback]] = lambda _: (),
    observers: Sequence[Observer] = (),
) -> Outcome:
    """Trains a stage, or goes on where an earlier process stopped.

    Args:
        prepared: The stage.
        folder: Its folder in the run directory.
        census: What applying the stage's regime gave.
        callbacks: Makes further Keras callbacks, given the state at the start.
        observers: Called with the state after every interval.

    Returns:
        What became of it; the network's model holds the final weights.
    """
    model = prepared.network.model
    regimes.reinitialize(model, census)
    frozen = regimes.frozen_digests(model, census)
    checkpoints = Checkpoints(folder / "checkpoints")
    state = _start(prepared, folder, checkpoints)
    best = Checkpoints(folder / "best") if prepared.stage.restore_best else None
    _rewrite_log(folder / "metrics.jsonl", state)

    started = time.perf_counter()
    before = state.seconds

    def on_interval(step: int, logs: loop.Logs) -> bool:
        state.step = step
        state.seconds = before + time.perf_counter() - started
        row = {"step": step, **{k: float(v) for k, v in logs.items()}}
        state.history.append(row | _validate(prepared))
        stop = _judge(prepared, state, best)
        _append(folder / "metrics.jsonl", state.history[-1])
        checkpoints.save(
            step, model, optimizer=model.optimizer, record=dataclasses.asdict(state)
        )
        for observe in observers:
            observe(state)
        return stop

    schedule = loop.Schedule(
        total_steps=state.step if state.stopped else state.total_steps,
        interval_steps=state.interval,
        start_step=state.step,
        seconds=_seconds_left(prepared, state),
    )
    loop.train(
        model,
        prepared.batches,
        schedule=schedule,
        on_interval=on_interval,
        callbacks=callbacks(state),
    )
    if best is not None and state.best_step not in (0, state.step):
        best.restore(model, step=state.best_step)
        say(f"restored the best weights, of step {state.best_step}")
    for opened in filter(None, (checkpoints, best)):
        opened.close()
    return Outcome(
        state=state,
        proof=regimes.check_unchanged(model, census, frozen),
        seconds={"train": state.seconds},
    )


def _start(prepared: Prepared, folder: pathlib.Path, saved: Checkpoints) -> State:
    """Compiles the model and restores the newest checkpoint, if there is one."""
    # The schedule needs the length that the first process settled on.
    length_file = folder / "length.json"
    if not length_file.exists():
        files.write_json(length_file, _length(prepared))
    length = files.read_json(length_file)
    _compile(prepared, length["total_steps"])
    if saved.latest is None:
        return State(**length)
    model = prepared.network.model
    state = State(**saved.restore(model, optimizer=model.optimizer))
    say(
        f"resumed stage '{prepared.stage.name}' at step {state.step} "
        f"of {state.total_steps}"
    )
    return state


def _length(prepared: Prepared) -> dict[str, int]:
    if prepared.total_steps is not None:
        return {"total_steps": prepared.total_steps, "interval": prepared.interval}
    budget = budgets.parse(prepared.stage.budget)
    _compile(prepared, total_steps=1000)
    seconds = loop.measure_step_seconds(prepared.network.model, prepared.batches)
    total = budgets.total_steps(
        budget,
        num_examples=len(prepared.examples["train"]),
        batch_size=prepared.stage.batch_size,
        step_seconds=seconds,
    )
    say(
        f"{prepared.stage.budget} are about {total} steps "
        f"at {1 / seconds:.1f} steps a second, measured now"
    )
    # The clock is read at interval ends: twenty of them keep the overrun below 5 %.
    return {
        "total_steps": total,
        "interval": max(1, min(prepared.interval, total // 20)),
    }


def _compile(prepared: Prepared, total_steps: int) -> None:
    loop.compile_model(
        prepared.network.model,
        optimizer=prepared.make_optimizer(total_steps),
        loss=prepared.loss(),
        metrics=prepared.metrics(),
        jit_compile=prepared.stage.jit_compile,
    )


def _validate(prepared: Prepared) -> dict[str, float]:
    if "validation" not in prepared.examples:
        return {}
    values = measure(prepared, "validation")
    evaluation = assess(prepared, "validation", bootstrap=0, values=values)
    return {
        f"val_{name}": estimate.value
        for name, estimate in evaluation.metrics.items()
        if estimate.value is not None
    }


def _judge(prepared: Prepared, state: State, best: Checkpoints | None) -> bool:
    """Updates the best validation; returns whether patience has run out."""
    headline = prepared.headline
    value = state.history[-1].get(f"val_{headline}")
    if value is None:
        return False
    state.waited += 1
    sign = -1 if prepared.lower_is_better else 1
    if state.best is None or sign * value > sign * state.best:
        state.best, state.best_step, state.waited = value, state.step, 0
        if best is not None:
            best.save(state.step, prepared.network.model)
    patience = prepared.stage.patience
    if patience is None or state.waited < patience:
        return False
    state.stopped = f"no better val_{headline} in {patience} validations"
    return True


def _seconds_left(prepared: Prepared, state: State) -> float | None:
    limit = budgets.parse(prepared.stage.budget).seconds
    return None if limit is None else max(0.0, limit - state.seconds)


def _rewrite_log(path: pathlib.Path, state: State) -> None:
    """Brings the log to the state: rows behind the checkpoint are trained again."""
    files.write_text(path, "".join(_line(row) for row in state.history))


def _append(path: pathlib.Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(row))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
