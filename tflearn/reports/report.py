"""The report of a run as plain data: what `report.json` holds.

Everything in it is made of what JSON knows, so a report read back equals the one
written, and any tool can use it. Figures and pages are drawn from it alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self, TypeVar

import numpy as np

from tflearn.support import secrets
from tflearn.support.errors import RunError, nearest
from tflearn.support.units import count_text, duration_text

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageReport:
    """What became of one stage.

    Args:
        name: Name of the stage.
        census: What the regime did: rows with `path`, `layers`, `parameters`,
            `trainable`, `frozen`, `role` and `rule`.
        steps: Steps trained.
        epochs: The same as passes over the training rows.
        examples_seen: The same as examples, repeated ones included.
        budget: The budget as declared.
        seconds: Wall-clock seconds by phase.
        history: One row an interval: `step`, training metrics, `val_...`.
        evaluations: By split, what `Evaluation.to_json` gives.
        worst: The most confident errors: `location`, `input` (text, or an image as a
            PNG data URI), `target`, `prediction`, `probability`.
        notes: What the reader must know, such as rows that were left out.
        frozen_proof: How many frozen layers and parameters were found unchanged.
        temperature: Divides the logits before the calibration figures, if fitted.
        cache: What of the model was computed once instead of at every step: `layers`,
            `share` of the work, `features`, `bytes`, `place`, `seconds`, and `sample`,
            a metric from features and the same live. Empty where nothing was.
        input: What steps were fed: `shapes` of batches, `waiting_share` of the time of
            training and `waiting_seconds`; of texts also `lengths` that batches are
            padded to and `padding_share` of their tokens.
        flops: Operations of the training, where `Stage.count_flops` asks for them.
    """

    name: str
    census: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    steps: int = 0
    epochs: float = 0.0
    examples_seen: int = 0
    budget: str = ""
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    evaluations: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    worst: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    frozen_proof: dict[str, Any] = dataclasses.field(default_factory=dict)
    temperature: float | None = None
    cache: dict[str, Any] = dataclasses.field(default_factory=dict)
    input: dict[str, Any] = dataclasses.field(default_factory=dict)
    flops: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON knows it; NaN and infinities become null."""
        return secrets.redact_all(plain(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Reads what `to_json` gave.

        Args:
            value: The parsed JSON.

        Returns:
            The report.

        Raises:
            RunError: A field is missing or unknown.

        Example:

        >>> stage = StageReport(name="tune", steps=3)
        >>> StageReport.from_json(stage.to_json()) == stage
        True
        """
        return _read(cls, value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a run.

    Args:
        name: Name of the experiment.
        seed: Its seed.
        versions: Versions of Python and libraries; `backend` names the Keras backend.
        hardware: Processor, cores, memory, devices.
        command: The command line that repeats the run.
        stages: The stages in order.
        sources: What must not be forgotten, measured at points of the run: rows
            `source`, `after` (`start` or a stage), `metric`, `lower_is_better`,
            `split`, `value`, `low`, `high`, `count`.
        seconds: Wall-clock seconds of the phases around the stages.
        peak_memory_bytes: The most host memory the process held.
        model: Facts about the model, such as `parameters` and `origin`.
    """

    name: str
    seed: int = 0
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    hardware: dict[str, Any] = dataclasses.field(default_factory=dict)
    command: str = ""
    stages: list[StageReport] = dataclasses.field(default_factory=list)
    sources: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    peak_memory_bytes: int | None = None
    model: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON knows it; NaN and infinities become null."""
        return secrets.redact_all(plain(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Reads what `to_json` gave.

        Args:
            value: The parsed JSON.

        Returns:
            The report.

        Raises:
            RunError: A field is missing or unknown.
        """
        stages = [StageReport.from_json(stage) for stage in value.get("stages", ())]
        return _read(cls, {**value, "stages": stages})

    @property
    def total_seconds(self) -> float:
        """Wall-clock seconds of all phases of all stages."""
        phases = [self.seconds, *(stage.seconds for stage in self.stages)]
        return sum(sum(part.values()) for part in phases)

    def summary(self) -> str:
        """Says in one sentence what came out.

        Returns:
            Such as `test accuracy 0.873 [0.857, 0.888] on 1,821 examples after 3
            epochs in 4m 12s on JAX, CPU`.
        """
        ran = f"in {duration_text(self.total_seconds)} on {self._where()}"
        if not self.stages:
            return f"no stage has run, {ran}"
        last = self.stages[-1]
        result = _headline_text(last)
        length = f"{'after' if result else 'trained for'} {_epochs_text(last)}"
        return " ".join([*([result] if result else []), length, ran])

    def _where(self) -> str:
        backend = str(self.versions.get("backend", ""))
        known = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
        devices = str(self.hardware.get("devices", ""))
        parts = [known.get(backend, backend), devices]
        return ", ".join(part for part in parts if part) or "an unnamed machine"


def headline(evaluation: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Returns the name and the estimate of the metric that an evaluation leads with.

    Args:
        evaluation: What `Evaluation.to_json` gives.

    Returns:
        The metric named by `headline`, else the first one; None without metrics.
    """
    metrics = evaluation.get("metrics") or {}
    if not metrics:
        return None
    named = evaluation.get("headline")
    name = str(named) if named in metrics else next(iter(metrics))
    return name, metrics[name]


def leading_split(stage: StageReport) -> str | None:
    """Returns the split that results are quoted from: `test` if there is one."""
    for split in ("test", "validation", *stage.evaluations):
        if split in stage.evaluations:
            return split
    return None


def estimate_text(estimate: Mapping[str, Any] | None) -> str:
    """Formats a metric with its interval.

    Example:

    >>> estimate_text({"value": 0.8731, "low": 0.8567, "high": 0.8884})
    '0.873 [0.857, 0.888]'
    >>> estimate_text({"value": 12.5, "low": None, "high": None})
    '12.50'
    """
    if estimate is None or estimate.get("value") is None:
        return "–"
    value, low, high = (estimate.get(key) for key in ("value", "low", "high"))
    digits = _digits(value, low, high)
    text = f"{value:.{digits}f}"
    if low is None or high is None:
        return text
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def plain(value: Any) -> Any:
    """Returns a value with only what JSON knows; NaN and infinities become None.

    Args:
        value: Nested mappings, sequences, arrays, NumPy scalars and plain values.

    Returns:
        The same with dicts, lists, strings, numbers, booleans and None.

    Example:

    >>> plain({"loss": float("nan"), "steps": np.int64(3), "shape": (1, 2)})
    {'loss': None, 'steps': 3, 'shape': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return str(value)


def _read(cls: type[T], value: Mapping[str, Any]) -> T:
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore
    unknown = [name for name in value if name not in fields]
    if unknown:
        raise RunError(
            f"a {cls.__name__} has an unknown field",
            received=unknown[0],
            fix="read it with the version of tflearn that wrote it",
            nearest=nearest(unknown[0], fields),
        )
    if "name" not in value:
        raise RunError(f"a {cls.__name__} lacks its name", received=sorted(value))
    return cls(**value)


def _headline_text(stage: StageReport) -> str | None:
    split = leading_split(stage)
    found = headline(stage.evaluations[split]) if split else None
    if found is None:
        return None
    name, estimate = found
    count = estimate.get("count") or stage.evaluations[str(split)].get("count") or 0
    shown = name.replace("_", " ")
    return f"{split} {shown} {estimate_text(estimate)} on {count_text(count)} examples"


def _epochs_text(stage: StageReport) -> str:
    epochs = round(stage.epochs, 1)
    if epochs < 0.1:
        return f"{count_text(stage.steps)} steps"
    return f"{epochs:g} epoch" + ("" if epochs == 1 else "s")


def _digits(*values: float | None) -> int:
    size = max((abs(value) for value in values if value is not None), default=0.0)
    return 3 if size < 10 else 2 if size < 100 else 1
