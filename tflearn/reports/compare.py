"""Several arms side by side: `compare.json`, `compare.html` and a plot.

What the figures carry is judged in `tflearn.evaluation.significance` and put into words
in `tflearn.reports.verdict`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflearn.evaluation import significance
from tflearn.reports.report import plain
from tflearn.support import files, secrets
from tflearn.support.errors import RunError

Curve = Sequence[tuple[float, float]]

_INTERVAL_NOTE = (
    "An interval of 95 % is that of the mean over the seeds: it knows how the metric "
    "varies with the test examples and with the seed. Whether two arms differ is told "
    "by the pairs below, which share the test examples."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmResult:
    """What one arm reached.

    Args:
        name: Name of the arm.
        seeds: The seeds it ran with.
        metric: The metric that is compared.
        estimates: One for each seed: `value`, `low`, `high`, `count`.
        trainable_parameters: Number of weights the optimizer moved.
        total_parameters: Number of weights of the model.
        seconds: Wall-clock seconds of each seed.
        curves: For each seed the points `(step, validation metric)`.
        split: Where the metric was measured.
        peak_memory_bytes: The most memory of any seed, if measured.
        folders: The run directory of each seed.
        lower_is_better: Whether a lower metric is better.
        resampled: The metric of each seed on resamples of the test examples that all
            arms share; empty where none were kept.
        drawn_from: What the resamples were drawn from; arms that differ in it were not
            tested on the same examples.
    """

    name: str
    seeds: Sequence[int]
    metric: str
    estimates: Sequence[Mapping[str, Any]]
    trainable_parameters: int
    total_parameters: int
    seconds: Sequence[float]
    curves: Sequence[Curve] = ()
    split: str = "test"
    peak_memory_bytes: int | None = None
    folders: Sequence[str] = ()
    lower_is_better: bool = False
    resampled: Sequence[np.ndarray] = dataclasses.field(default=(), repr=False)
    drawn_from: Sequence[str] = ()

    @property
    def values(self) -> list[float | None]:
        """The metric of each seed."""
        return [estimate.get("value") for estimate in self.estimates]

    @property
    def mean(self) -> float | None:
        """Mean of the metric over the seeds; None if a seed has none."""
        values = [value for value in self.values if value is not None]
        complete = values and len(values) == len(self.estimates)
        return statistics.fmean(values) if complete else None

    @property
    def mean_seconds(self) -> float:
        """Mean wall-clock seconds of a seed."""
        return statistics.fmean(self.seconds) if self.seconds else 0.0

    @property
    def estimate(self) -> dict[str, float | None]:
        """Mean over the seeds with its interval, where there is one.

        Example:

        >>> arm = ArmResult(
        ...     name="full", seeds=(0, 1), metric="accuracy",
        ...     estimates=({"value": 0.5}, {"value": 0.75}),
        ...     trainable_parameters=1, total_parameters=2, seconds=(1.0, 1.0))
        >>> arm.estimate
        {'value': 0.625, 'low': None, 'high': None}
        """
        low, high = significance.interval(self.scores) if self.scores else (None, None)
        return {"value": self.mean, "low": low, "high": high}

    @property
    def scores(self) -> significance.Scores | None:
        """The metric by seed and resample as it was measured; None without."""
        if self.mean is None or len(self.resampled) != len(self.seeds):
            return None
        return significance.Scores(
            values=np.array(self.values, "float64"), resampled=np.stack(self.resampled)
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
    return fields | arm.estimate
