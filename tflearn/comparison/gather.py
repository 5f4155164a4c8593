"""From the run directories of an arm to what the report is made of."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tflearn.comparison import spending, tuning
from tflearn.comparison.points import Point
from tflearn.reports import Report, resamples
from tflearn.reports.arms import ArmResult, LabelPoint
from tflearn.reports.report import leading_split
from tflearn.support import files, storage
from tflearn.training import run_directory
from tflearn.training.export import ADAPTER_FILE, MODEL_FILE

_CALIBRATION = "expected_calibration_error"
# The metric of fewer examples says little about a slice.
_SMALLEST_SLICE = 10
_FLOAT_BYTES = 4


def result(points: Sequence[Point]) -> ArmResult:
    """Gathers what an arm has reached.

    Args:
        points: The arm at its numbers of labels, ascending; all their runs are
            finished.

    Returns:
        The result at the largest number, the others beside it as a curve.
    """
    *_, point = points
    reports = _reports(point)
    stages = [report.stages[-1] for report in reports]
    split = leading_split(stages[0]) or "test"
    evaluations = [stage.evaluations[split] for stage in stages]
    headline = evaluations[0]["headline"]
    rows = stages[0].census
    kept = _resamples(point, reports, split)
    memory = [x.peak_memory_bytes for x in reports if x.peak_memory_bytes]
    choice = _chosen(point)
    return ArmResult(
        name=point.arm.name,
        seeds=tuple(report.seed for report in reports),
        metric=headline,
        lower_is_better=evaluations[0].get("lower_is_better", False),
        split=split,
        folders=tuple(storage.shown(point.seed_folder(x.seed)) for x in reports),
        resampled=tuple(values for _, values in kept),
        drawn_from=tuple(sorted({told for told, _ in kept})),
        estimates=tuple(found["metrics"][headline] for found in evaluations),
        trainable_parameters=sum(row["trainable"] for row in rows),
        total_parameters=sum(row["parameters"] for row in rows),
        seconds=tuple(_seconds(point, x) for x in reports),
        curves=_curves(stages, headline),
        # Of one process that runs all arms, the most is that of the largest so far.
        peak_memory_bytes=max(memory, default=None) if _is_alone(point) else None,
        flops=tuple(spending.spent(x, "flops", own=point.own_stages) for x in reports),
        storage_bytes=_storage(point, reports[0]),
        calibration=tuple(_value(x["metrics"], _CALIBRATION) for x in evaluations),
        worst_slice=_worst_slice(evaluations, headline),
        forgetting=_forgetting(point, reports),
        labels=point.labels,
        tuned=choice,
        spent=spent(points),
        budget=None if point.comparison.budget is None else point.allowance.text,
        points=tuple(_label_point(x) for x in points) if point.labels else (),
    )


def spent(points: Sequence[Point]) -> dict[str, float]:
    """Returns what an arm has spent in the unit of its budget, all points together.

    Args:
        points: The arm at its numbers of labels.

    Returns:
        Amounts by `tuning` and `training`. A pretraining that several runs share is
        counted in each of them, as if it were run for it.
    """
    found = {"tuning": 0.0, "training": 0.0}
    for point in points:
        unit = point.allowance.unit
        last = (point.last.name,)
        for report in tuning.trials(point):
            found["tuning"] += spending.spent(report, unit, own=last) or 0.0
        for report in _reports(point):
            amount = spending.spent(report, unit, own=point.own_stages)
            found["training"] += amount or 0.0
    return found


def _reports(point: Point) -> list[Report]:
    folders = [point.seed_folder(seed) for seed in point.comparison.seeds]
    return [
        Report.from_json(files.read_json(x / run_directory.REPORT)) for x in folders
    ]


def _seconds(point: Point, report: Report) -> float:
    """Returns the time of the stages whose costs are the arm's."""
    own = [stage for stage in report.stages if stage.name in point.own_stages]
    return sum(sum(stage.seconds.values()) for stage in own)


def _is_alone(point: Point) -> bool:
    return point.comparison.workers > 0


def _resamples(
    point: Point, reports: Sequence[Report], split: str
) -> list[tuple[str, Any]]:
    found = [
        resamples.read(
            point.seed_folder(report.seed) / "stages" / report.stages[-1].name, split
        )
        for report in reports
    ]
    return [one for one in found if one is not None]


def _curves(stages: Sequence[Any], headline: str) -> tuple[Any, ...]:
    name = f"val_{headline}"
    return tuple(
        tuple((row["step"], row[name]) for row in stage.history if name in row)
        for stage in stages
    )


def _chosen(point: Point) -> dict[str, float]:
    candidate = tuning.tune(point)
    if candidate is None:
        return {}
    values = {"learning_rate": candidate.rate, "weight_decay": candidate.weight_decay}
    return {name: value for name, value in values.items() if value is not None}


def _label_point(point: Point) -> LabelPoint:
    reports = _reports(point)
    stages = [report.stages[-1] for report in reports]
    split = leading_split(stages[0]) or "test"
    evaluations = [stage.evaluations[split] for stage in stages]
    return LabelPoint(
        labels=point.labels or 0,
        seeds=tuple(report.seed for report in reports),
        estimates=tuple(x["metrics"][x["headline"]] for x in evaluations),
        resampled=tuple(values for _, values in _resamples(point, reports, split)),
        seconds=tuple(_seconds(point, x) for x in reports),
    )


def _storage(point: Point, report: Report) -> int | None:
    """Returns what one more task costs: the model, or what lies beside the backbone."""
    model = point.seed_folder(report.seed) / "model"
    rows = report.stages[-1].census
    moved = any(
        row["path"].startswith("backbone/") and row["role"] in ("trained", "fresh")
        for row in rows
    )
    if moved:
        path = model / MODEL_FILE
        return path.stat().st_size if path.is_file() else None
    head = sum(x["parameters"] for x in rows if x["path"].startswith("head/"))
    adapter = model / ADAPTER_FILE
    beside = adapter.stat().st_size if adapter.is_file() else 0
    return beside + _FLOAT_BYTES * head


def _value(metrics: Mapping[str, Any], name: str) -> float | None:
    return (metrics.get(name) or {}).get("value")


def _worst_slice(
    evaluations: Sequence[Mapping[str, Any]], headline: str
) -> dict[str, Any] | None:
    """Finds the slice whose mean over the seeds is worst."""
    found = []
    for column, values in (evaluations[0].get("slices") or {}).items():
        for name, metrics in values.items():
            estimate = metrics.get(headline) or {}
            count = estimate.get("count") or 0
            each = [_value(x["slices"][column][name], headline) for x in evaluations]
            known = [value for value in each if value is not None]
            if count >= _SMALLEST_SLICE and known:
                mean = statistics.fmean(known)
                told = {"slice": f"{column}={name}", "value": mean, "count": count}
                found.append(told)
    choose = max if evaluations[0].get("lower_is_better") else min
    return choose(found, key=lambda row: row["value"], default=None)


def _forgetting(point: Point, reports: Sequence[Report]) -> tuple[dict[str, Any], ...]:
    """Compares every source before what the arm trained and after it."""
    earlier = point.base.stages[:-1]
    start = earlier[-1].name if earlier else "start"
    names = dict.fromkeys(row["source"] for x in reports for row in x.sources)
    found = []
    for name in names:
        pairs = [
            (before, after)
            for report in reports
            if (before := _at(report, name, start))
            and (after := _at(report, name, report.stages[-1].name))
        ]
        if not pairs:
            continue
        first = pairs[0][0]
        found.append(
            {
                "source": name,
                "before": statistics.fmean(x["value"] for x, _ in pairs),
                "after": statistics.fmean(x["value"] for _, x in pairs),
                "metric": first["metric"],
                "lower_is_better": first["lower_is_better"],
            }
        )
    return tuple(found)


def _at(report: Report, source: str, after: str) -> Mapping[str, Any] | None:
    """Returns the row of a source at a point of a run, if it was measured."""
    for row in report.sources:
        if (row["source"], row["after"]) == (source, after) and row[
            "value"
        ] is not None:
            return row
    return None
