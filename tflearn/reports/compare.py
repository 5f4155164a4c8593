"""Several arms side by side: `compare.json`, `compare.html` and a plot.

What the figures carry is judged in `tflearn.evaluation.significance` and put into words
in `tflearn.reports.verdict`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from tflearn.reports.arms import ArmResult, LabelPoint
from tflearn.reports.report import plain
from tflearn.support import files, secrets
from tflearn.support.errors import RunError

__all__ = ["ArmResult", "LabelPoint", "write_comparison"]

_INTERVAL_NOTE = (
    "An interval of 95 % is that of the mean over the seeds: it knows how the metric "
    "varies with the test examples and with the seed. Whether two arms differ is told "
    "by the pairs below, which share the test examples."
)


def write_comparison(
    title: str, arms: Sequence[ArmResult], folder: pathlib.Path
) -> dict[str, Any]:
    """Writes `compare.json`, `compare.html`, `plots/compare.svg` and `.png`.

    Args:
        title: What is compared, such as the experiment's name.
        arms: The arms in the order they are shown.
        folder: Where to write; made if need be.

    Returns:
        What `compare.json` holds.

    Raises:
        RunError: There are no arms, or they do not measure one thing.
    """
    from tflearn.reports import html, plots, verdict

    folder = pathlib.Path(folder)
    _check(arms)
    plot = plots.comparison(arms)
    judged = verdict.judge(arms)
    plot.write(folder / "plots")
    found = plain(
        {
            "title": title,
            "metric": arms[0].metric,
            "split": arms[0].split,
            "verdict": judged.text,
            "winner": judged.winner,
            "pairs": [dataclasses.asdict(pair) for pair in judged.pairs],
            "arms": [_told(arm) for arm in arms],
        }
    )
    page = html.render(
        "compare.html.j2",
        title=title,
        verdict=found["verdict"],
        arms=list(arms),
        pairs=judged.pairs,
        plot=plot,
        interval_note=_INTERVAL_NOTE,
        with_memory=any(arm.peak_memory_bytes for arm in arms),
        with_folders=any(arm.folders for arm in arms),
    )
    files.write_text(folder / "compare.html", page)
    files.write_json(folder / "compare.json", secrets.redact_all(found))
    return found


def _check(arms: Sequence[ArmResult]) -> None:
    if not arms:
        raise RunError("a comparison has no arms")
    measured = sorted({f"{arm.split} {arm.metric}" for arm in arms})
    drawn = {told for arm in arms for told in arm.drawn_from}
    if len(drawn) > 1:
        raise RunError(
            "the arms of a comparison were not tested on the same examples",
            received="; ".join(sorted(drawn)),
            fix="name one test split for all, or split by the same seed",
        )
    if len(measured) > 1:
        raise RunError(
            "the arms of a comparison do not measure one thing",
            received=", ".join(measured),
            expected="one metric on one split",
        )


def _told(arm: ArmResult) -> dict[str, Any]:
    fields = {x.name: getattr(arm, x.name) for x in dataclasses.fields(arm)}
    del fields["resampled"]
    fields["points"] = [_point(point) for point in arm.points]
    return fields | arm.estimate


def _point(point: LabelPoint) -> dict[str, Any]:
    fields = {x.name: getattr(point, x.name) for x in dataclasses.fields(point)}
    del fields["resampled"]
    return fields | point.estimate
