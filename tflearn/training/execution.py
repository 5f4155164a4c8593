"""Training one stage: resume, fit, best weights, proof that frozen stayed frozen."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn import regimes
from tflearn.distribution import processes
from tflearn.distribution.arrays import to_host
from tflearn.support import files
from tflearn.support.console import say
from tflearn.support.errors import RunError
from tflearn.training import (
    averaging,
    budgets,
    course,
    faults,
    features,
    interruption,
    loop,
    placement,
)
from tflearn.training.assessment import assess, measure
from tflearn.training.checkpoints import Checkpoints
from tflearn.training.layer_rates import innermost, lines
from tflearn.training.stage import Prepared


@dataclasses.dataclass(kw_only=True)
class State:
    """What a stage remembers between intervals; saved with every checkpoint.

    Args:
        step: Steps trained.
        inside: How many of them belong to an interval that has not ended.
        total_steps: Where the stage ends.
        interval: Steps between validations.
        history: One dict an interval.
        best: Best headline metric on the validation split.
        best_step: Where it was reached.
        waited: Validations since then.
        seconds: Wall-clock time spent training.
        stopped: Why it ended early, or an empty string.
        rollbacks: How often the stage went back after a fault.
        digests: Fingerprints of what is frozen in this phase, from its beginning;
            empty in the first phase, where the stage's beginning tells.
    """

    step: int = 0
    inside: int = 0
    total_steps: int = 0
    interval: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    seconds: float = 0.0
    stopped: str = ""
    rollbacks: int = 0
    digests: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a stage.

    Args:
        state: Steps, history and the best validation.
        proof: Number of frozen layers and parameters found bit-identical.
        seconds: Seconds by what was done.
        notes: Lines on rates by layer, on phases, and on averaged weights.
        cache: What of the model was computed once, if anything was.
    """

    state: State
    proof: dict[str, int]
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    cache: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Observer = Callable[[State], None]


@dataclasses.dataclass(kw_only=True)
class _Run:
    """What the intervals of a stage share."""

    prepared: Prepared
    # The same, or what stands in for it while it trains.
    trained: Prepared
    folder: pathlib.Path
    state: State
    checkpoints: Checkpoints
    best: Checkpoints | None
    kept: Checkpoints | None
    average: averaging.Average | None
    observers: Sequence[Observer]
    # What the metrics of an unfinished interval had added up.
    metrics: Sequence[np.ndarray]
    # When the clock of `state.seconds` showed nothing.
    began: float
    # What is wrong with the newest interval.
    fault: str = ""

    def _probe(self) -> dict[str, float]:
        probe, number = self.prepared.probe, len(self.state.history) + 1
        if probe is None or number % probe.probe.every:
            return {}
        return probe.measure()

    def on_interval(self, step: int, logs: loop.Logs) -> bool:
        prepared, state = self.prepared, self.state
        model = prepared.network.model
        state.step, state.inside = step, 0
        state.seconds = time.perf_counter() - self.began
        row = {"step": step, **{k: float(v) for k, v in logs.items()}}
        row |= _validate(self.trained) | self._probe()
        # What is decided below hangs on these numbers and on the clock.
        row, state.seconds = processes.agree([row, state.seconds])
        state.history.append(row)
        if self._is_faulty():
            return True
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
        interruption.check(self._saved())
        return stop

    def _is_faulty(self) -> bool:
        """Judges the newest interval; what is wrong ends this call of `fit`."""
        declared, model = self.prepared.stage.faults, self.prepared.network.model
        left_out = faults.skipped(model.optimizer, declared)
        if left_out > declared.most:
            raise RunError(
                "too many steps had gradients that are no numbers",
                received=f"{left_out} steps left out",
                expected=f"at most {declared.most}: faults.Faults.most",
            )
        self.fault = faults.find(self.state.history, declared)
        return bool(self.fault)

    def recover(self) -> None:
        """Goes back to the last checkpoint after a fault, or stops the run.

        Raises:
            RunError: The policy is to stop, or it went back too often.
        """
        state, stage = self.state, self.prepared.stage
        fault, end, times = self.fault, state.step, state.rollbacks
        declared, self.fault = stage.faults, ""
        if declared.policy == "stop" or times == declared.most:
            raise self._stopped(fault)
        self._restore()
        state.rollbacks = times + 1
        rate = declared.slower**state.rollbacks
        faults.slow_down(self.prepared.network.model.optimizer, rate)
        say(
            f"warning: {fault} at step {end}; back to step {state.step}, the learning "
            f"rate is {rate:.4g} of the declared one from there on"
        )

    def _restore(self) -> None:
        model, saved = self.prepared.network.model, self.checkpoints
        vars(self.state).update(saved.restore(model, optimizer=model.optimizer))
        self.metrics = saved.metrics(self.state.step) if self.state.inside else ()

    def _stopped(self, fault: str) -> RunError:
        """Finds the step of a fault, and its rows, for the error that ends the run."""
        end, found = self.state.step, {}
        # A checkpoint may be of an earlier phase, which this optimizer does not fit.
        if not self.prepared.stage.phases and processes.count() == 1:
            self._restore()
            found = faults.locate(self.prepared, start=self.state.step, end=end)
        told = {"fault": fault, "by": end, **found}
        path = self.folder / "fault.json"
        if processes.is_chief():
            files.write_json(path, told)
        where = f"step {found['step']}" if found else f"by step {end}"
        rows = f", rows {', '.join(found['rows'][:4])} ..." if found else ""
        return RunError(
            f"numbers went wrong in stage '{self.prepared.stage.name}'",
            received=f"{fault}; {where}{rows}",
            expected="a finite loss",
            fix=f"look at {path}; a lower learning rate, clipping, or "
            "faults.Faults.policy = 'rollback' or 'skip'",
        )

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
        if ends:
            raise interruption.Stopped(self._saved())

    def _saved(self) -> str:
        return f"step {self.state.step} of stage '{self.prepared.stage.name}' is saved"


def execute(
    prepared: Prepared,
    folder: pathlib.Path,
    *,
    census: regimes.Census,
    callbacks: Callable[[State], Sequence[keras.callbacks.Callback]] = lambda _: (),
    observers: Sequence[Observer] = (),
    earlier: Mapping[str, Prepared] | None = None,
) -> Outcome:
    """Trains a stage, or goes on where an earlier process stopped.

    Args:
        prepared: The stage.
        folder: Its folder in the run directory.
        census: What applying the stage's regime gave.
        callbacks: Makes further Keras callbacks, given the state at the start.
        observers: Called with the state after every interval.
        earlier: The stages before this one by name, for an anchor that needs one.

    Returns:
        What became of it; the network's model holds the final weights.
    """
    model, stage = prepared.network.model, prepared.stage
    regimes.reinitialize(model, census)
    length = _settled_length(prepared, folder)
    legs = course.plan(prepared, length["total_steps"])
    average = stage.average() if stage.average is not None else None
    needed = stage.anchor is not None or average is not None
    start = course.start_weights(prepared, folder) if needed else {}
    hold = course.make_hold(prepared, folder, start, earlier or {})
    never = course.always_frozen(legs)
    frozen = regimes.frozen_digests(model, never)
    with contextlib.ExitStack() as opened:

        def checkpoints(name: str, keep: int | None = 2, **more: Any) -> Checkpoints:
            made = Checkpoints(folder / name, keep=keep, **more)
            opened.callback(made.close)
            return made

        saved = checkpoints(
            "checkpoints", stage.keep_last, keep_every=stage.keep_every, background=True
        )
        first = course.leg_at(legs, saved.latest or 0)
        digests = regimes.frozen_digests(model, legs[first].census)
        course.enter(prepared, legs[first], hold, total_steps=length["total_steps"])
        lies = placement.census(model, model.optimizer)
        if lies:
            say(placement.describe(lies))
        rates = lines(model.optimizer)
        for line in rates:
            say(line)
        state = _restore(prepared, saved, length)
        short = features.shortcut(prepared, folder, total_steps=length["total_steps"])
        run = _Run(
            prepared=prepared,
            trained=short.prepared if short else prepared,
            folder=folder,
            state=state,
            checkpoints=saved,
            best=checkpoints("best") if stage.restore_best else None,
            kept=checkpoints("soup", None) if average and average.candidates else None,
            average=average,
            observers=observers,
            metrics=saved.metrics(state.step) if state.inside else (),
            began=time.perf_counter() - state.seconds,
        )
        if saved.latest is None:
            # A fault in the first interval goes back to here.
            saved.save(
                0,
                model,
                optimizer=model.optimizer,
                record=dataclasses.asdict(state),
            )
        if processes.is_chief():
            _rewrite_log(folder / "metrics.jsonl", state)
        _train(run, legs[first:], hold, state.digests or digests, callbacks)
        notes = list(rates)
        notes += [course.describe(leg) for leg in legs] if len(legs) > 1 else []
        notes += _finish(run, start)
        notes += _faults_met(run)
        cached = short.finish(prepared) if short else {}
    return Outcome(
        state=state,
        proof=regimes.check_unchanged(model, never, frozen),
        seconds={"train": state.seconds} | ({"cache": short.seconds} if short else {}),
        notes=tuple(notes),
        cache=cached,
    )


def _train(
    run: _Run,
    legs: Sequence[course.Leg],
    hold: course.Hold | None,
    digests: Mapping[str, str],
    callbacks: Callable[[State], Sequence[keras.callbacks.Callback]],
) -> None:
    """Trains the phases that remain, the first of them entered and restored."""
    prepared, state, model = run.prepared, run.state, run.prepared.network.model
    for number, leg in enumerate(legs):
        if number:
            course.go_on(prepared, leg, hold, total_steps=state.total_steps)
            state.digests = regimes.frozen_digests(model, leg.census)
            digests = state.digests
        _train_leg(run, leg, callbacks)
        while run.fault:
            run.recover()
            _train_leg(run, leg, callbacks)
        regimes.check_unchanged(model, leg.census, digests)
        if state.stopped or state.step < leg.span.end:
            return
        if number + 1 < len(legs) and innermost(model.optimizer).use_ema:
            # `fit` ended with the averages; the next phase goes on from the weights.
            run.checkpoints.restore(model, optimizer=model.optimizer)


def _train_leg(
    run: _Run,
    leg: course.Leg,
    callbacks: Callable[[State], Sequence[keras.callbacks.Callback]],
) -> None:
    """Trains a phase from where the state stands, until its end or a fault."""
    prepared, state = run.prepared, run.state
    loop.train(
        run.trained.network.model,
        run.trained.batches,
        schedule=loop.Schedule(
            total_steps=state.step if state.stopped else leg.span.end,
            interval_steps=state.interval,
            start_step=state.step,
            seconds=_seconds_left(prepared, state),
            inside=state.inside,
            metrics=run.metrics if state.inside else (),
            save_steps=prepared.stage.save_steps,
        ),
        on_interval=run.on_interval,
        on_inside=run.on_inside,
        # The bar of a phase ends with the phase.
        callbacks=callbacks(dataclasses.replace(state, total_steps=leg.span.end)),
    )


def _finish(run: _Run, start: Mapping[str, np.ndarray]) -> list[str]:
    """Brings the best weights back and averages, as declared; says what it did."""
    model, state = run.prepared.network.model, run.state
    said = []
    if run.best is not None and state.best_step not in (0, state.step):
        run.best.restore(model, step=state.best_step)
        said.append(f"restored the best weights, of step {state.best_step}")
    if run.average is not None:
        said.append(run.average.finish(_ended(run, start)))
    for line in said:
        say(line)
    return said[-1:] if run.average is not None else []


def _faults_met(run: _Run) -> list[str]:
    """Says what went wrong in a stage and did not end it."""
    state, declared = run.state, run.prepared.stage.faults
    left_out = faults.skipped(run.prepared.network.model.optimizer, declared)
    said = [faults.still(state.history)]
    if left_out:
        said.append(f"{left_out} steps were left out: their gradients are no numbers")
    if state.rollbacks:
        said.append(f"went back {state.rollbacks} times after a fault")
    said = [line for line in said if line]
    for line in said:
        say(line)
    return said


def _ended(run: _Run, start: Mapping[str, np.ndarray]) -> averaging.Ended:
    prepared, kept = run.prepared, run.kept
    sign, scores = prepared.sign, _scores(prepared, run.state)
    return averaging.Ended(
        model=prepared.network.model,
        start=start,
        batches=prepared.batches,
        score=(lambda: sign * _validate(run.trained)[f"val_{prepared.headline}"])
        if "validation" in prepared.examples
        else None,
        headline=prepared.headline,
        sign=sign,
        candidates={step: scores[step] for step in (kept.steps if kept else ())},
        load=lambda step: (
            course.named(prepared.network.model, kept.read(step)) if kept else {}
        ),
    )


def _scores(prepared: Prepared, state: State) -> dict[int, float]:
    """Returns the headline of every interval by step, higher is better."""
    sign, name = prepared.sign, f"val_{prepared.headline}"
    return {
        int(row["step"]): sign * row[name]
        for row in state.history
        if math.isfinite(row.get(name, math.nan))
    }


def _keep(prepared: Prepared, state: State, kept: Checkpoints, count: int) -> None:
    """Keeps the weights of the best intervals, the earlier of equally good ones."""
    scores = _scores(prepared, state)
    if state.step in scores:
        kept.save(state.step, prepared.network.model)
    # A process that was killed may have kept steps that are trained again.
    known = [step for step in kept.steps if step in scores]
    for step in sorted(known, key=lambda x: (-scores[x], x))[count:]:
        kept.delete(step)


def _settled_length(prepared: Prepared, folder: pathlib.Path) -> dict[str, int]:
    """Returns the length of the stage that its first process settled on."""
    return processes.once(folder / "length.json", lambda: _length(prepared))


def _restore(prepared: Prepared, saved: Checkpoints, length: dict[str, int]) -> State:
    """Restores the newest checkpoint, if there is one."""
    if saved.latest is None:
        return State(total_steps=length["total_steps"], interval=length["interval"])
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
    loop.compile_model(
        prepared.network.model,
        optimizer=prepared.make_optimizer(1000),
        loss=prepared.loss(),
        metrics=prepared.metrics(),
        jit_compile=prepared.stage.jit_compile,
    )
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
