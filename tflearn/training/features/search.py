"""The search over the grid of a head, and the candidate that goes on.

The candidates are trained from features that lie on the device: all at once on JAX, one
after the other on TensorFlow. The stage then trains as the best of them declares, with
its history, checkpoints and early stopping, as if nothing had been searched: a
candidate is what the stage would be with those values.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflearn.backbones import graph
from tflearn.support import files
from tflearn.support.console import say
from tflearn.support.errors import ConfigError
from tflearn.support.units import duration_text
from tflearn.training import loop
from tflearn.training.assessment import assess, measure
from tflearn.training.features import resident, together
from tflearn.training.features.candidates import (
    check,
    head_values,
    make_optimizer,
    seeded,
    with_optimizer,
)
from tflearn.training.features.gather import Gathered, gather
from tflearn.training.features.grid import Candidate
from tflearn.training.features.plan import plan
from tflearn.training.features.ranking import (
    best,
    describe,
    judged,
    row_text,
    size_text,
)
from tflearn.training.features.shortcut import feature_batches, standin
from tflearn.training.stage import Prepared

_RESULT = "grid.json"


def settle(
    prepared: Prepared, folder: pathlib.Path, *, total_steps: int
) -> tuple[Prepared, Gathered | None, list[dict[str, Any]]]:
    """Searches the grid of a stage, or reads what an earlier process found.

    Args:
        prepared: The stage, its regime applied.
        folder: The stage's folder: the result is kept there.
        total_steps: Length of the stage.

    Returns:
        The stage as the best candidate declares it, its head as that one starts; the
        features, if they were computed; and every candidate with its score. A stage
        without a grid is returned as it is.
    """
    grid, gathered, path = prepared.stage.grid, None, folder / _RESULT
    if grid is None:
        return prepared, None, []
    if path.exists():
        rows = files.read_json(path)["candidates"]
    else:
        planned = plan(prepared, total_steps=total_steps)
        check(prepared, planned)
        if isinstance(planned, str):
            raise ConfigError("a grid needs cached features", received=planned)
        gathered = gather(prepared, planned, declared=None)
        rows = _search(prepared, gathered, total_steps)
        files.write_json(path, {"candidates": rows})
    place = best(prepared, rows)
    chosen = grid.candidates[place]
    say(f"the best of {len(rows)} candidates: {row_text(prepared, rows[place])}")
    return seeded(with_optimizer(prepared, chosen), chosen.seed), gathered, rows


def check_declared(prepared: Prepared) -> None:
    """Refuses a cache or a grid that is demanded and not possible.

    Args:
        prepared: The stage, its regime applied.

    Raises:
        ConfigError: It is not possible, or the declaration makes no sense.
    """
    stage = prepared.stage
    if stage.cache in ("memory", "disk") or stage.cache_views or stage.grid is not None:
        check(prepared, plan(prepared))


def _search(
    prepared: Prepared, gathered: Gathered, total_steps: int
) -> list[dict[str, Any]]:
    """Trains all candidates; leaves the head as it was."""
    grid: Any = prepared.stage.grid
    began, before = time.perf_counter(), head_values(prepared)
    try:
        scores = _at_once(prepared, gathered, total_steps)
        if scores is None:
            scores = _in_turn(prepared, gathered, total_steps, before)
    finally:
        _assign(prepared, before)
    rows = [
        {
            **dataclasses.asdict(candidate),
            # JSON has no number for what is none.
            "scores": [x if math.isfinite(x) else None for x in values],
            **judged(prepared, values),
        }
        for candidate, values in zip(grid.candidates, scores, strict=True)
    ]
    seconds = duration_text(time.perf_counter() - began)
    say(f"grid: {size_text(prepared)}, took {seconds}")
    for line in describe(prepared, rows)[1:]:
        say(line)
    return rows


def _at_once(
    prepared: Prepared, gathered: Gathered, total_steps: int
) -> list[list[float]] | None:
    """Returns the scores of all candidates; None where it has to be done in turn."""
    grid: Any = prepared.stage.grid
    if not together.is_possible():
        return None
    # What is left of the optimizer is the schedule; each candidate scales it.
    unit = Candidate(
        rate=1.0 if grid.rates else None,
        weight_decay=1.0 if grid.weight_decays else None,
    )
    made = _compiled(prepared, gathered, unit, total_steps)
    first = resident.of(made, gathered.views, head_only=True)
    if first is None:
        return None
    return together.train(
        prepared,
        made,
        grid,
        first,
        order=lambda x: first.over(feature_batches(x, gathered), gathered.views),
        total_steps=total_steps,
        score=lambda outputs: _score(prepared, outputs),
    )


def _in_turn(
    prepared: Prepared,
    gathered: Gathered,
    total_steps: int,
    before: Mapping[str, np.ndarray],
) -> list[list[float]]:
    grid: Any = prepared.stage.grid
    scores = []
    for candidate in grid.candidates:
        _assign(prepared, before)
        chosen = seeded(prepared, candidate.seed)
        made = _compiled(chosen, gathered, candidate, total_steps)
        values: list[float] = []

        def on_interval(
            step: int, logs: Any, made: Prepared = made, values: list[float] = values
        ) -> bool:
            del step
            fine = math.isfinite(logs["loss"])
            outputs = np.asarray(measure(made, "validation")) if fine else None
            values.append(math.nan if outputs is None else _score(made, outputs))
            return False

        loop.train(
            made.network.model,
            made.batches,
            schedule=loop.Schedule(
                total_steps=total_steps, interval_steps=made.interval
            ),
            on_interval=on_interval,
            fit=resident.of(made, gathered.views, head_only=True),
        )
        scores.append(values)
    return scores


def _compiled(
    prepared: Prepared, gathered: Gathered, candidate: Candidate, total_steps: int
) -> Prepared:
    """Returns the stand-in, compiled with the optimizer of a candidate."""
    loop.compile_model(
        prepared.network.model,
        optimizer=make_optimizer(prepared, candidate, total_steps),
        loss=prepared.loss(),
        metrics=prepared.metrics(),
        jit_compile=prepared.stage.jit_compile,
    )
    return standin(prepared, gathered)


def _assign(prepared: Prepared, values: Mapping[str, np.ndarray]) -> None:
    variables = graph.variables_by_path(prepared.network.model)
    for path, value in values.items():
        variables[path].assign(value)


def _score(prepared: Prepared, outputs: np.ndarray) -> float:
    """Returns the headline, not a number where outputs are none."""
    if not np.isfinite(outputs).all():
        return math.nan
    found = assess(prepared, "validation", bootstrap=0, values=outputs)
    value = found.metrics[prepared.headline].value
    return math.nan if value is None else float(value)
