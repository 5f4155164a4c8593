"""What happens at the end of an interval, and inside: validate, judge, record, save."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflearn.distribution import processes
from tflearn.distribution.arrays import to_host
from tflearn.support import files, storage
from tflearn.support.errors import RunError
from tflearn.training import averaging, faults, interruption, loop
from tflearn.training.assessment import assess, measure
from tflearn.training.checkpoints import Checkpoints
from tflearn.training.stage import Prepared
from tflearn.training.state import Observer, State
from tflearn.training.track import Track


@dataclasses.dataclass(kw_only=True)
class Run:
    """What the intervals of a stage share.

    Args:
        prepared: The stage.
        trained: The same, or what stands in for it while it trains.
        fit: Runs the steps of what stands in, if they need not run one by one.
        folder: The stage's folder.
        state: Where it stands.
        checkpoints: All of a process that goes on.
        track: Its phases.
        best: Weights of the best validation, if they are wanted.
        kept: Weights of several good ones, for an average.
        average: What is made of them.
        observers: Called with the state after every interval.
        metrics: What the metrics of an unfinished interval had added up.
        began: When the clock of `state.seconds` showed nothing.
        fault: What is wrong with the newest interval.
    """

    prepared: Prepared
    trained: Prepared
    folder: pathlib.Path
    state: State
    checkpoints: Checkpoints
    track: Track
    best: Checkpoints | None
    kept: Checkpoints | None
    average: averaging.Average | None
    observers: Sequence[Observer]
    metrics: Sequence[np.ndarray]
    began: float
    fault: str = ""
    fit: loop.Fit | None = None

    def _probe(self) -> dict[str, float]:
        probe, number = self.prepared.probe, len(self.state.history) + 1
        if probe is None or number % probe.probe.every:
            return {}
        return probe.measure()

    def on_interval(self, step: int, logs: loop.Logs) -> bool:
        """Validates, judges, records and saves; returns whether training ends."""
        prepared, state = self.prepared, self.state
        model = prepared.network.model
        state.step, state.inside = step, 0
        state.seconds = time.perf_counter() - self.began
        row = {"step": step, **{k: float(v) for k, v in logs.items()}}
        # What is decided below hangs on these numbers and on the clock.
        row, state.seconds = processes.agree([row, state.seconds])
        state.history.append(row)
        self.fault = self._find_fault()
        if self.fault:
            return True
        row |= processes.agree(validate(self.trained) | self._probe())
        stop = _judge(prepared, state, self.best)
        if self.average is not None and self.kept is not None:
            _keep(prepared, state, self.kept, self.average.candidates)
        if processes.is_chief():
            _append(self.folder / "metrics.jsonl", state.history[-1])
        self.checkpoints.save(
            step, model, optimizer=model.optimizer, record=dataclasses.asdict(state)
        )
        for observe in self.observers if processes.is_chief() else ():
            observe(state)
        self._put()
        interruption.check(self._saved())
        return stop

    def _find_fault(self) -> str:
        """Judges the newest interval; what is wrong ends this call of `fit`."""
        declared, model = self.prepared.stage.faults, self.prepared.network.model
        left_out = faults.skipped(model.optimizer, declared)
        if left_out > declared.most:
            raise RunError(
                "too many steps had gradients that are no numbers",
                received=f"{left_out} steps left out",
                expected=f"at most {declared.most}: faults.Faults.most",
            )
        found = faults.find(self.state.history, declared)
        # Its last step alone may have spoilt them: nothing to go back to may be saved.
        if not found and not faults.are_finite(model.trainable_variables):
            found = "the weights are no numbers"
        return found

    def restore(self) -> None:
        """Goes back to the newest whole checkpoint; rollbacks are not forgotten."""
        state, rollbacks = self.state, self.state.rollbacks
        found = self.track.restore(self.checkpoints)
        vars(state).update(found.record)
        self.metrics = found.metrics
        state.rollbacks = max(rollbacks, state.rollbacks)
        if state.rollbacks:
            rate = self.prepared.stage.faults.slower**state.rollbacks
            faults.slow_down(self.prepared.network.model.optimizer, rate)

    def on_inside(self, step: int, inside: int, ends: bool) -> None:
        """Saves in the middle of an interval, its unfinished metrics too."""
        model, state = self.prepared.network.model, self.state
        sums = self.trained.network.model.metrics_variables
        if not ends and not all(np.isfinite(to_host(x.value)).all() for x in sums):
            # Numbers went wrong: nothing to go back to. The interval's end will tell.
            return
        state.step, state.inside = step, inside
        state.seconds = time.perf_counter() - self.began
        self.checkpoints.save(
            step,
            model,
            optimizer=model.optimizer,
            record=dataclasses.asdict(state),
            metrics=self.trained.network.model.metrics_variables,
        )
        self._put()
        if ends:
            raise interruption.Stopped(self._saved())

    def _put(self) -> None:
        if processes.is_chief():
            storage.push(self.folder)

    def _saved(self) -> str:
        return f"step {self.state.step} of stage '{self.prepared.stage.name}' is saved"


def scores(prepared: Prepared, state: State) -> dict[int, float]:
    """Returns the headline of every interval by step, higher is better."""
    sign, name = prepared.sign, f"val_{prepared.headline}"
    return {
        int(row["step"]): sign * row[name]
        for row in state.history
        if math.isfinite(row.get(name, math.nan))
    }


def _keep(prepared: Prepared, state: State, kept: Checkpoints, count: int) -> None:
    """Keeps the weights of the best intervals, the earlier of equally good ones."""
    headlines = scores(prepared, state)
    if state.step in headlines:
        kept.save(state.step, prepared.network.model)
    # A process that was killed may have kept steps that are trained again.
    known = [step for step in kept.steps if step in headlines]
    for step in sorted(known, key=lambda x: (-headlines[x], x))[count:]:
        kept.delete(step)


def validate(prepared: Prepared) -> dict[str, float]:
    """Returns the metrics of the validation split as `val_NAME`, if there is one."""
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
    sign = prepared.sign
    # A number compares with no NaN, and nothing is better than one.
    if math.isfinite(value) and (
        state.best is None or sign * value > sign * state.best
    ):
        state.best, state.best_step, state.waited = value, state.step, 0
        if best is not None:
            best.save(state.step, prepared.network.model)
    patience = prepared.stage.patience
    if patience is None or state.waited < patience:
        return False
    state.stopped = f"no better val_{headline} in {patience} validations"
    return True


def rewrite_log(path: pathlib.Path, state: State) -> None:
    """Brings the log to the state: rows behind the checkpoint are trained again."""
    files.write_text(path, "".join(_line(row) for row in state.history))


def _append(path: pathlib.Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(row))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
