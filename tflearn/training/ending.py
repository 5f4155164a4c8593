"""The end of a stage: its best or averaged weights, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tflearn.support.console import say
from tflearn.training import averaging, course, faults
from tflearn.training.intervals import Run, scores, validate


def finish(run: Run, start: Mapping[str, np.ndarray]) -> list[str]:
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


def faults_met(run: Run) -> list[str]:
    """Says what went wrong in a stage and did not end it."""
    state, declared = run.state, run.prepared.stage.faults
    optimizer = run.prepared.network.model.optimizer
    left_out = faults.skipped(optimizer, declared)
    overflows = faults.overflowed(optimizer, state.step - run.track.leg.span.start)
    said = [faults.still(state.history)]
    if overflows:
        said.append(f"{overflows} steps were left out: float16 cannot hold gradients")
    if left_out:
        said.append(f"{left_out} steps were left out: their gradients are no numbers")
    if state.rollbacks:
        said.append(f"went back {state.rollbacks} times after a fault")
    said = [line for line in said if line]
    for line in said:
        say(line)
    return said


def _ended(run: Run, start: Mapping[str, np.ndarray]) -> averaging.Ended:
    prepared, kept = run.prepared, run.kept
    sign, headlines = prepared.sign, scores(prepared, run.state)
    return averaging.Ended(
        model=prepared.network.model,
        start=start,
        batches=prepared.batches,
        score=(lambda: sign * validate(run.trained)[f"val_{prepared.headline}"])
        if "validation" in prepared.examples
        else None,
        headline=prepared.headline,
        sign=sign,
        candidates={step: headlines[step] for step in (kept.steps if kept else ())},
        load=lambda step: (
            course.named(prepared.network.model, kept.read(step)) if kept else {}
        ),
    )
