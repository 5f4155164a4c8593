"""The arms of a comparison as files: `compare.json`, `resamples.json`, `compare.csv`.

What is read back equals what was written, so that a comparison is drawn again, or laid
beside another one, without training anything.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tflearn.reports.arms import ArmResult, LabelPoint
from tflearn.support import files, secrets
from tflearn.support.errors import RunError

FILE = "compare.json"
RESAMPLES = "resamples.json"

_COLUMNS = (
    *("arm", "labels", "seed", "step", "split", "metric", "value", "low", "high"),
    *("seconds", "flops"),
)


def told(arm: ArmResult) -> dict[str, Any]:
    """Returns what `compare.json` holds of an arm: all but the resamples.

    Args:
        arm: The arm.

    Returns:
        Its fields, and its mean with the interval.
    """
    points = [_without_resamples(point) | point.estimate for point in arm.points]
    return _without_resamples(arm) | {"points": points} | arm.estimate


def write_resamples(arms: Sequence[ArmResult], folder: pathlib.Path) -> None:
    """Writes what differences are judged by, `(resamples,)` a seed.

    Args:
        arms: The arms.
        folder: The comparison's folder.
    """
    found = {
        arm.name: {
            "all": [_listed(x) for x in arm.resampled],
            "labels": {
                str(point.labels): [_listed(x) for x in point.resampled]
                for point in arm.points
            },
        }
        for arm in arms
    }
    files.write_json(folder / RESAMPLES, secrets.redact_all(found))


def read(folder: pathlib.Path) -> tuple[dict[str, Any], list[ArmResult]]:
    """Reads a comparison back.

    Args:
        folder: The comparison's folder.

    Returns:
        What `compare.json` holds, and the arms in their order.

    Raises:
        RunError: There is no comparison, or it was written by another version.
    """
    path = folder / FILE
    if not path.is_file():
        raise RunError(
            "this folder holds no comparison",
            received=str(folder),
            expected=f"a folder with {FILE}",
            fix="name the folder that --mode=compare wrote",
        )
    found = files.read_json(path)
    kept = folder / RESAMPLES
    if not kept.is_file():
        raise RunError(
            "the resamples of this comparison are missing",
            received=str(folder),
            expected=RESAMPLES,
            fix="run --mode=compare again: finished arms are not trained again",
        )
    resampled = files.read_json(kept)
    return found, [_arm(row, resampled) for row in found["arms"]]


def points_csv(arms: Sequence[ArmResult]) -> str:
    """Returns all points as CSV: a row a seed and label count, and a row a validation.

    Args:
        arms: The arms.

    Returns:
        The text, with a header. `step` is empty where training had ended.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for arm in arms:
        writer.writerows(_final_rows(arm, arm, arm.labels, arm.flops))
        # The arm itself is the point with the most labels.
        for point in (x for x in arm.points if x.labels != arm.labels):
            writer.writerows(_final_rows(arm, point, point.labels, ()))
        writer.writerows(_curve_rows(arm))
    return text.getvalue()


def _final_rows(
    arm: ArmResult,
    found: ArmResult | LabelPoint,
    labels: int | None,
    flops: Sequence[float | None],
) -> Iterator[dict[str, Any]]:
    for place, (seed, estimate) in enumerate(
        zip(found.seeds, found.estimates, strict=True)
    ):
        yield {
            "arm": arm.name,
            "labels": labels,
            "seed": seed,
            "split": arm.split,
            "metric": arm.metric,
            "value": estimate.get("value"),
            "low": estimate.get("low"),
            "high": estimate.get("high"),
            "seconds": _at(found.seconds, place),
            "flops": _at(flops, place),
        }


def _curve_rows(arm: ArmResult) -> Iterator[dict[str, Any]]:
    for seed, curve in zip(arm.seeds, arm.curves, strict=False):
        for step, value in curve:
            yield {
                "arm": arm.name,
                "labels": arm.labels,
                "seed": seed,
                "step": step,
                "split": "validation",
                "metric": arm.metric,
                "value": value,
            }


def _at(values: Sequence[Any], place: int) -> Any:
    return values[place] if place < len(values) else None


def _without_resamples(found: ArmResult | LabelPoint) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(found)]
    return {name: getattr(found, name) for name in names if name != "resampled"}


def _arm(row: Mapping[str, Any], resampled: Mapping[str, Any]) -> ArmResult:
    kept = resampled.get(row["name"], {"all": (), "labels": {}})
    points = tuple(
        LabelPoint(
            **_fields(LabelPoint, point),
            resampled=_arrays(kept["labels"].get(str(point["labels"]), ())),
        )
        for point in row["points"]
    )
    found = ArmResult(**_fields(ArmResult, row))
    return dataclasses.replace(found, points=points, resampled=_arrays(kept["all"]))


def _fields(cls: type, row: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)} - {"resampled"}
    missing = sorted(names - set(row))
    if missing:
        raise RunError(
            "a comparison lacks what this version reads",
            received=f"no {missing[0]} in {FILE}",
            fix="run --mode=compare again: finished arms are not trained again",
        )
    return {name: _frozen(row[name]) for name in names}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _listed(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(x) else float(x) for x in values]


def _arrays(rows: Sequence[Sequence[float | None]]) -> tuple[np.ndarray, ...]:
    return tuple(
        np.array([np.nan if x is None else x for x in row], "float64") for row in rows
    )
