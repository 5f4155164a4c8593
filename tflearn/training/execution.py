"""Training one stage: resume, fit, best weights, proof that frozen stayed frozen."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn import regimes
from tflearn.distribution import processes
from tflearn.support import storage
from tflearn.support.console import say
from tflearn.training import (
    averaging,
    course,
    ending,
    flops,
    length,
    loop,
    placement,
    recovery,
)
from tflearn.training.checkpoints import Checkpoints
from tflearn.training.features import search
from tflearn.training.features.shortcut import shortcut
from tflearn.training.intervals import Run, rewrite_log
from tflearn.training.layer_rates import innermost, lines
from tflearn.training.stage import Prepared
from tflearn.training.state import Observer, State
from tflearn.training.track import Track


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a stage.

    Args:
        state: Steps, history and the best validation.
        proof: Number of frozen layers and parameters found bit-identical.
        seconds: Seconds by what was done.
        notes: Lines on rates by layer, on phases, and on averaged weights.
        cache: What of the model was computed once, if anything was.
        measured: What the splits are measured on: the stage, or features in its place.
        flops: Operations of the training, if they were to be counted.
    """

    state: State
    proof: dict[str, int]
    seconds: dict[str, float]
    notes: tuple[str, ...] = ()
    cache: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    measured: Prepared
    flops: float | None = None


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
    state = length.settled(prepared, folder)
    prepared, gathered, tried = search.settle(
        prepared, folder, total_steps=state.total_steps
    )
    legs = course.plan(prepared, state.total_steps)
    average = stage.average() if stage.average is not None else None
    needed = stage.anchor is not None or average is not None
    start = course.start_weights(prepared, folder) if needed else {}
    hold = course.make_hold(prepared, folder, start, earlier or {})
    never = course.always_frozen(legs)
    frozen = regimes.frozen_digests(model, never)
    digests = regimes.frozen_digests(model, legs[0].census)
    track = Track(prepared, legs, hold, total_steps=state.total_steps)
    with contextlib.ExitStack() as opened:
        stores = _open(prepared, average, folder, opened)
        saved = stores["checkpoints"]
        state, metrics = _enter(track, saved, state, stage=stage.name)
        rates = _announce(model)
        short = shortcut(
            prepared, folder, total_steps=state.total_steps, gathered=gathered
        )
        run = Run(
            **stores,
            prepared=prepared,
            trained=short.prepared if short else prepared,
            folder=folder,
            state=state,
            track=track,
            average=average,
            observers=observers,
            metrics=metrics,
            began=time.perf_counter() - state.seconds,
            fit=short.fit if short else None,
        )
        _begin(run)
        _train(run, digests, callbacks)
        phases = [course.describe(leg) for leg in legs] if len(legs) > 1 else []
        notes = [*rates, *phases, *ending.finish(run, start), *ending.faults_met(run)]
        cached, agree = short.finish(prepared) if short else ({}, False)
    counted, why = flops.of_training(prepared, run.trained, steps=state.step)
    notes += [*search.describe(prepared, tried), *([why] if why else [])]
    return Outcome(
        state=state,
        proof=regimes.check_unchanged(model, never, frozen),
        seconds={"train": state.seconds} | ({"cache": short.seconds} if short else {}),
        notes=tuple(notes),
        cache=cached | ({"grid": tried} if tried else {}),
        measured=run.trained if agree else prepared,
        flops=counted,
    )


def _open(
    prepared: Prepared,
    average: averaging.Average | None,
    folder: pathlib.Path,
    opened: contextlib.ExitStack,
) -> dict[str, Any]:
    """Opens what a stage saves weights in: to go on, the best, those to average."""

    def checkpoints(name: str, keep: int | None = 2, **more: Any) -> Checkpoints:
        made = Checkpoints(folder / name, keep=keep, **more)
        return opened.enter_context(contextlib.closing(made))

    stage = prepared.stage
    return {
        "checkpoints": checkpoints(
            "checkpoints", stage.keep_last, keep_every=stage.keep_every, background=True
        ),
        "best": checkpoints("best") if stage.restore_best else None,
        "kept": checkpoints("soup", None) if average and average.candidates else None,
    }


def _enter(
    track: Track, saved: Checkpoints, state: State, *, stage: str
) -> tuple[State, Sequence[np.ndarray]]:
    """Enters the first phase, or the one that an earlier process was in.

    Returns:
        The state, and what the metrics of an unfinished interval had added up.
    """
    if saved.latest is None:
        track.enter(0)
        return state, ()
    found = track.restore(saved)
    state = State(**found.record)
    say(f"resumed stage '{stage}' at step {state.step} of {state.total_steps}")
    return state, found.metrics


def _announce(model: keras.Model) -> tuple[str, ...]:
    """Says where the weights lie, and what rates layers have; returns the latter."""
    lies = placement.census(model, model.optimizer)
    if lies:
        say(placement.describe(lies))
    rates = lines(model.optimizer)
    for line in rates:
        say(line)
    return rates


def _begin(run: Run) -> None:
    """Writes what a later process needs to go on from the start."""
    if processes.is_chief():
        # What was settled is in the bucket before a checkpoint that relies on it.
        storage.push(run.folder)
    if run.checkpoints.latest is None:
        # A fault in the first interval goes back to here.
        model = run.prepared.network.model
        run.checkpoints.save(
            0,
            model,
            optimizer=model.optimizer,
            record=dataclasses.asdict(run.state),
        )
    if processes.is_chief():
        rewrite_log(run.folder / "metrics.jsonl", run.state)


def _train(
    run: Run,
    digests: Mapping[str, str],
    callbacks: Callable[[State], Sequence[keras.callbacks.Callback]],
) -> None:
    """Trains the phases that remain, the first of them entered and restored."""
    track, state, model = run.track, run.state, run.prepared.network.model
    while True:
        _train_leg(run, track.leg, callbacks)
        if run.fault:
            recovery.recover(run)
            continue
        before = digests if track.is_first else state.digests
        regimes.check_unchanged(model, track.leg.census, before)
        if state.stopped or state.step < track.leg.span.end or track.is_last:
            return
        if innermost(model.optimizer).use_ema:
            # `fit` ended with the averages; the next phase goes on from the weights.
            run.restore()
            if state.step < track.leg.span.end:
                # The newest checkpoint was damaged: its steps are trained again.
                continue
        track.go_on()
        state.digests = regimes.frozen_digests(model, track.leg.census)


def _train_leg(
    run: Run,
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
            seconds=length.seconds_left(prepared, state),
            inside=state.inside,
            metrics=run.metrics if state.inside else (),
            save_steps=prepared.stage.save_steps,
        ),
        on_interval=run.on_interval,
        on_inside=run.on_inside,
        # The bar of a phase ends with the phase.
        callbacks=callbacks(dataclasses.replace(state, total_steps=leg.span.end)),
        fit=run.fit,
    )
