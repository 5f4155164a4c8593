"""One stage from its regime to its report."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tflearn import regimes
from tflearn.data.waiting import WorkerLost
from tflearn.distribution import processes
from tflearn.evaluation import Evaluation, calibration, worst_errors
from tflearn.reports import resamples, trackers
from tflearn.reports.html import png_uri
from tflearn.reports.outbox import Outbox
from tflearn.reports.report import StageReport
from tflearn.reports.tables import census_table
from tflearn.support import files, system
from tflearn.support.console import console, say
from tflearn.training import assessment, budgets, course, input_clock, memory
from tflearn.training.checkpoints import Checkpoints
from tflearn.training.execution import Outcome, State, execute
from tflearn.training.faults import row_name
from tflearn.training.intervals import Observer
from tflearn.training.progress import Progress
from tflearn.training.stage import Prepared

_WORST = 12


def run_stage(
    prepared: Prepared,
    folder: pathlib.Path,
    *,
    earlier: Mapping[str, Prepared] | None = None,
    outbox: Outbox | None = None,
) -> StageReport:
    """Trains and evaluates a stage, or reads what an earlier process finished.

    Args:
        prepared: The stage; its model holds the final weights afterwards.
        folder: The stage's folder in the run directory.
        earlier: The stages before this one by name.
        outbox: Where rows go on their way to a tracker.

    Returns:
        The stage's report, as written to its `report.json`.
    """
    path = folder / "report.json"
    end = Checkpoints(folder / "end")
    census = prepared.apply_regime()
    if processes.on_first(path.exists):
        if prepared.stage.phases:
            # A phase may have given layers adapters that the last regime freezes.
            length = files.read_json(folder / "length.json")
            course.plan(prepared, length["total_steps"])
        end.restore(prepared.network.model)
        say(f"stage '{prepared.stage.name}' is finished")
        return StageReport.from_json(files.read_json(path))
    for note in prepared.notes:
        say(f"note: {note}")
    console.print(census_table(census.to_json()))
    with contextlib.ExitStack() as bars, _named(prepared):
        outcome = execute(
            prepared,
            folder,
            census=census,
            earlier=earlier,
            callbacks=lambda state: [
                input_clock.Waiting(prepared.batches.clock),
                _progress(prepared, state, bars),
            ],
            observers=_observers(prepared, folder, outbox),
        )
    report, evaluations = _report(prepared, census, outcome)
    end.save(outcome.state.step, prepared.network.model)
    if processes.is_chief():
        resamples.write(folder, prepared, evaluations)
        files.write_json(path, report.to_json())
    return report


def _observers(
    prepared: Prepared, folder: pathlib.Path, outbox: Outbox | None
) -> list[Observer]:
    found: list[Observer] = [trackers.observer(folder / "tensorboard")]
    if outbox is not None:
        name = prepared.stage.name
        found.append(lambda state: outbox.observe(name, state.history))
    return found


@contextlib.contextmanager
def _named(prepared: Prepared) -> Iterator[None]:
    """Lets an error of the system say which stage and batch it met."""
    try:
        yield
    except WorkerLost as error:
        raise error.named([row_name(prepared, x) for x in error.rows]) from error
    except Exception as error:
        stage = prepared.stage
        error.add_note(f"stage '{stage.name}', batch_size {stage.batch_size}:")
        if system.is_memory(error):
            error.add_note(system.FITS + memory.what_fits(prepared))
        raise


def _progress(prepared: Prepared, state: State, bars: contextlib.ExitStack) -> Progress:
    progress = Progress(
        state.total_steps,
        description=prepared.stage.name,
        start_step=state.step,
        interval_steps=state.interval,
        history=state.history,
    )
    # A run that fails must not leave its bar under the error message.
    bars.callback(progress.close)
    return progress


def _report(
    prepared: Prepared, census: regimes.Census, outcome: Outcome
) -> tuple[StageReport, dict[str, Evaluation]]:
    started = time.perf_counter()
    evaluations, worst, temperature = _evaluate(prepared, outcome)
    state = outcome.state
    epoch = budgets.steps_per_epoch(
        len(prepared.examples["train"]), prepared.stage.new_per_step
    )
    fed = input_clock.describe(prepared.batches)
    for line in input_clock.notes(fed):
        say(f"note: {line}")
    stopped = [f"stopped early: {state.stopped}"] if state.stopped else []
    report = StageReport(
        name=prepared.stage.name,
        census=census.to_json(),
        steps=state.step,
        epochs=state.step / epoch,
        examples_seen=state.step * prepared.stage.batch_size,
        budget=prepared.stage.budget,
        seconds=outcome.seconds | {"evaluate": time.perf_counter() - started},
        history=state.history,
        evaluations={name: x.to_json() for name, x in evaluations.items()},
        worst=worst,
        notes=[
            *prepared.notes,
            *outcome.notes,
            *outcome.cache.get("notes", ()),
            *stopped,
        ],
        frozen_proof=outcome.proof,
        temperature=temperature,
        cache=dict(outcome.cache),
        input=fed,
        flops=outcome.flops,
    )
    return report, evaluations


def _evaluate(
    prepared: Prepared, outcome: Outcome
) -> tuple[dict[str, Evaluation], list[dict[str, Any]], float | None]:
    """Returns evaluations by split, the worst errors of the last, and a temperature."""
    values = {
        split: assessment.measure(outcome.measured, split)
        for split in prepared.stage.report_splits
        if split in prepared.examples
    }
    temperature = assessment.fit_temperature(prepared, values.get("validation"))
    evaluations: dict[str, Evaluation] = {}
    worst: list[dict[str, Any]] = []
    for split, found in values.items():
        evaluations[split] = assessment.assess(
            prepared,
            split,
            bootstrap=prepared.stage.bootstrap,
            values=found,
            temperature=temperature,
        )
        if isinstance(found, np.ndarray):
            worst = _worst(prepared, split, found)
    return evaluations, worst, temperature


def _worst(prepared: Prepared, split: str, values: np.ndarray) -> list[dict[str, Any]]:
    """Describes the examples with the highest loss among the errors."""
    rows, kind = prepared.dataset.splits[split], prepared.objective.target_kind
    if rows.targets is None:
        return []
    scores = values
    if kind != "number":
        scores = calibration.probabilities(values, multi_label=kind == "multi_label")
    return [
        {
            "location": rows.locate(index),
            "input": _shown(rows.inputs[index]),
            "target": _name(prepared, rows.targets[index]),
            "prediction": _name(prepared, _decision(kind, scores[index])),
            "probability": None if kind == "number" else float(scores[index].max()),
        }
        for index in worst_errors(rows.targets, scores, _WORST).tolist()
    ]


def _decision(kind: str, scores: np.ndarray) -> Any:
    if kind == "class":
        return scores.argmax()
    return (scores > 0.5).astype("float32") if kind == "multi_label" else scores[0]


def _name(prepared: Prepared, target: Any) -> str:
    classes = prepared.dataset.classes
    if prepared.objective.target_kind == "class":
        return classes[int(target)]
    if prepared.objective.target_kind == "multi_label":
        return ", ".join(name for name, on in zip(classes, target, strict=True) if on)
    return f"{float(target):.4g}"


def _shown(value: Any) -> str:
    """Returns an input as text, an image as a PNG data URI."""
    if isinstance(value, np.ndarray) and value.ndim == 3:
        return png_uri(value)
    if isinstance(value, np.ndarray):
        return np.array2string(value, precision=3, threshold=8)
    return " ⟂ ".join(value) if isinstance(value, tuple) else str(value)
