"""What one arm of a comparison reached: its metric, what it cost, what it lost."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflearn.evaluation import significance

Curve = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelPoint:
    """What an arm reached with a part of the labels.

    Args:
        labels: Number of labelled examples that it was trained on.
        seeds: The seeds it ran with.
        estimates: One for each seed: `value`, `low`, `high`, `count`.
        resampled: The metric of each seed on resamples of the test examples, the very
            resamples of `ArmResult.resampled`; empty where none were kept.
        seconds: Wall-clock seconds of each seed.
    """

    labels: int
    seeds: Sequence[int]
    estimates: Sequence[Mapping[str, Any]]
    resampled: Sequence[np.ndarray] = dataclasses.field(default=(), repr=False)
    seconds: Sequence[float] = ()

    @property
    def values(self) -> list[float | None]:
        """The metric of each seed."""
        return [estimate.get("value") for estimate in self.estimates]

    @property
    def mean(self) -> float | None:
        """Mean of the metric over the seeds; None if a seed has none."""
        return _mean(self.values)

    @property
    def estimate(self) -> dict[str, float | None]:
        """Mean over the seeds with its interval, where there is one."""
        return _estimate(self.mean, self.scores)

    @property
    def scores(self) -> significance.Scores | None:
        """The metric by seed and resample as it was measured; None without."""
        return _scores(self.values, self.resampled)


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
        flops: Of the training of each seed, where known.
        storage_bytes: What one more task costs in storage.
        calibration: Expected calibration error of each seed, in [0, 1].
        worst_slice: The slice of the test examples with the worst metric: `slice`
            ("column=value"), `value`, `count`.
        forgetting: What became of earlier tasks: rows of `source`, `before`, `after`,
            `metric`, `lower_is_better`.
        labels: Number of labelled examples that it was trained on.
        tuned: What was chosen for this arm by search, such as its learning rate.
        spent: Amount of the budget by what it went into: `tuning`, `training`.
        budget: What `spent` counts and how much there was, such as "600 steps".
        points: The same arm with fewer labels.
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
    flops: Sequence[float | None] = ()
    storage_bytes: int | None = None
    calibration: Sequence[float | None] = ()
    worst_slice: Mapping[str, Any] | None = None
    forgetting: Sequence[Mapping[str, Any]] = ()
    labels: int | None = None
    tuned: Mapping[str, float] = dataclasses.field(default_factory=dict)
    spent: Mapping[str, float] = dataclasses.field(default_factory=dict)
    budget: str | None = None
    points: Sequence[LabelPoint] = ()

    @property
    def values(self) -> list[float | None]:
        """The metric of each seed."""
        return [estimate.get("value") for estimate in self.estimates]

    @property
    def mean(self) -> float | None:
        """Mean of the metric over the seeds; None if a seed has none."""
        return _mean(self.values)

    @property
    def mean_seconds(self) -> float:
        """Mean wall-clock seconds of a seed."""
        return statistics.fmean(self.seconds) if self.seconds else 0.0

    @property
    def mean_flops(self) -> float | None:
        """Mean FLOPs of the training of a seed; None where a seed's are not known."""
        return _mean(self.flops)

    @property
    def mean_calibration(self) -> float | None:
        """Mean expected calibration error; None where a seed's is not known."""
        return _mean(self.calibration)

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
        return _estimate(self.mean, self.scores)

    @property
    def scores(self) -> significance.Scores | None:
        """The metric by seed and resample as it was measured; None without."""
        return _scores(self.values, self.resampled)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _scores(
    values: Sequence[float | None], resampled: Sequence[np.ndarray]
) -> significance.Scores | None:
    if _mean(values) is None or len(resampled) != len(values):
        return None
    return significance.Scores(
        values=np.array(values, "float64"), resampled=np.stack(resampled)
    )


def _estimate(
    mean: float | None, scores: significance.Scores | None
) -> dict[str, float | None]:
    low, high = significance.interval(scores) if scores else (None, None)
    return {"value": mean, "low": low, "high": high}
