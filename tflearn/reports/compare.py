"""Several arms side by side: `compare.json`, `compare.html` and a plot.

The interval of an arm reaches from the lowest to the highest bound of its seeds'
bootstrap intervals. That is wider than the interval of a mean: it claims a difference
late rather than early, and arms whose intervals overlap may still differ.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tflearn.reports.report import estimate_text, plain
from tflearn.support import files, secrets
from tflearn.support.errors import RunError

Curve = Sequence[tuple[float, float]]

_INTERVAL_NOTE = (
    "An interval reaches from the lowest to the highest bound of the seeds' 95 % "
    "bootstrap intervals. It is wider than the interval of a mean: where two "
    "overlap, the arms may still differ."
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
        """Mean over the seeds, with the envelope of the seeds' intervals.

        Example:

        >>> arm = ArmResult(
        ...     name="full", seeds=(0, 1), metric="accuracy",
        ...     estimates=({"value": 0.5, "low": 0.4, "high": 0.6},
        ...                {"value": 0.7, "low": 0.6, "high": 0.8}),
        ...     trainable_parameters=1, total_parameters=2, seconds=(1.0, 1.0))
        >>> arm.estimate
        {'value': 0.6, 'low': 0.4, 'high': 0.8}
        """
        lows = [estimate.get("low") for estimate in self.estimates]
        highs = [estimate.get("high") for estimate in self.estimates]
        known = all(bound is not None for bound in (*lows, *highs)) and bool(lows)
        return {
            "value": self.mean,
            "low": min(low for low in lows if low is not None) if known else None,
            "high": max(high for high in highs if high is not None) if known else None,
        }


def verdict(arms: Sequence[ArmResult]) -> str:
    """Says which arm is best as far as the intervals carry it.

    Args:
        arms: The arms.

    Returns:
        One or two sentences; they claim a difference only where intervals are apart.
    """
    sign = -1 if any(arm.lower_is_better for arm in arms) else 1
    ranked = sorted(
        (arm for arm in arms if arm.mean is not None),
        key=lambda arm: -sign * (arm.mean or 0),
    )
    if len(ranked) < 2:
        return "There is nothing to compare: fewer than two arms have a result."
    best, *others = ranked
    tied = [arm.name for arm in others if arm.mean == best.mean]
    if tied:
        value = estimate_text({"value": best.mean})
        return f"{_and([best.name, *tied])} are equal at the top ({value})."
    of_seeds = "in the mean of its seeds " if len(best.seeds) > 1 else ""
    lead = f"{best.name} is best {of_seeds}({estimate_text(best.estimate)})"
    if any(arm.estimate["low"] is None for arm in ranked):
        return f"{lead}; without intervals this says nothing about the difference."
    towards, away = ("low", "high") if sign > 0 else ("high", "low")
    bound = sign * (best.estimate[towards] or 0.0)
    apart = [x.name for x in others if sign * (x.estimate[away] or 0.0) < bound]
    close = [arm.name for arm in others if arm.name not in apart]
    parts = []
    if apart:
        parts.append(
            f"its interval lies {'above' if sign > 0 else 'below'} {_of(apart)}"
        )
    if close:
        parts.append(f"its interval overlaps {_of(close)}: too close to call")
    return f"{lead}; {'; '.join(parts)}."


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
    from tflearn.reports import html, plots

    folder = pathlib.Path(folder)
    _check(arms)
    plot = plots.comparison(arms)
    plot.write(folder / "plots")
    found = plain(
        {
            "title": title,
            "metric": arms[0].metric,
            "split": arms[0].split,
            "verdict": verdict(arms),
            "arms": [dataclasses.asdict(arm) | arm.estimate for arm in arms],
        }
    )
    page = html.render(
        "compare.html.j2",
        title=title,
        verdict=found["verdict"],
        arms=list(arms),
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
    if len(measured) > 1:
        raise RunError(
            "the arms of a comparison do not measure one thing",
            received=", ".join(measured),
            expected="one metric on one split",
        )


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _of(names: Sequence[str]) -> str:
    """Returns `scratch's` or `those of scratch and frozen`."""
    return f"{names[0]}'s" if len(names) == 1 else f"those of {_and(names)}"
