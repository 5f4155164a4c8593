"""What was planned: a table for the terminal, `plan.json` and `plan.html`.

Every figure says where it comes from; one that nothing could tell is left out.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import rich.table

from tflearn.reports.advice import PRIOR, Advice
from tflearn.reports.report import plain
from tflearn.support import environment, files, secrets
from tflearn.support.units import bytes_text, count_text, duration_text

#: Where a figure may come from, and what that means.
ORIGINS: Mapping[str, str] = MappingProxyType(
    {
        "compiler": "XLA's own analysis of the compiled program",
        "counted": "counted in the program or in the shapes of what it holds",
        "measured here": "a few real steps of the compiled program on this machine",
        "documented peak": "at best: the program's counts over the maker's peak rates",
        "declared": "as you declared it",
    }
)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A number with its origin.

    Args:
        value: The number.
        origin: One of `ORIGINS`.
    """

    value: float
    origin: str

    def __post_init__(self) -> None:
        """Checks the origin."""
        if self.origin not in ORIGINS:
            raise ValueError(f"no such origin: {self.origin}")


@dataclasses.dataclass(frozen=True)
class _Kind:
    title: str
    text: Callable[[float], str]


def _count(value: float) -> str:
    return count_text(round(value))


def _operations(value: float) -> str:
    return f"{value:.3g}"


def _seconds(value: float) -> str:
    return f"{1e3 * value:.3g} ms" if value < 1 else duration_text(value)


def _plain(value: float) -> str:
    return f"{value:.3g}"


#: The figures of a plan in the order in which they are shown.
KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "parameters": _Kind("parameters", _count),
        "trainable_parameters": _Kind("trained parameters", _count),
        "weight_bytes": _Kind("weights", bytes_text),
        "gradient_bytes": _Kind("gradients", bytes_text),
        "optimizer_bytes": _Kind("optimizer", bytes_text),
        "temporary_bytes": _Kind("activations, gradients", bytes_text),
        "device_bytes": _Kind("memory of a device", bytes_text),
        "program_bytes": _Kind("compiled programs", bytes_text),
        "process_bytes": _Kind("memory of the process", bytes_text),
        "steps": _Kind("steps", _count),
        "flops_per_step": _Kind("FLOPs a step", _operations),
        "flops": _Kind("FLOPs", _operations),
        "step_seconds": _Kind("step", _seconds),
        "cache_seconds": _Kind("frozen layers, once", _seconds),
        "evaluation_seconds": _Kind("evaluations", _seconds),
        "compile_seconds": _Kind("compiling", _seconds),
        "run_seconds": _Kind("run", _seconds),
        "device_hours": _Kind("device-hours", _plain),
        "kilowatt_hours": _Kind("kWh at TDP", _plain),
        "cost": _Kind("cost", _plain),
        "checkpoint_bytes": _Kind("checkpoints", bytes_text),
        "cache_bytes": _Kind("kept features", bytes_text),
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A stage in one regime on one kind of hardware.

    Args:
        stage: The stage.
        arm: The regime.
        hardware: The hardware.
        figures: What was found out, by the names of `KINDS`.
        batch: Shapes of the largest batch.
        limit_bytes: Memory that a device has for it; None: not known.
        fits: Whether it does; None: not known, or not applicable.
        fixes: What else was compiled, and whether that fits.
        notes: What the figures leave out.
        error: Why there is no plan.
    """

    stage: str
    arm: str
    hardware: str
    figures: Mapping[str, Figure] = dataclasses.field(default_factory=dict)
    batch: str = ""
    limit_bytes: float | None = None
    fits: bool | None = None
    fixes: Sequence[str] = ()
    notes: Sequence[str] = ()
    error: str = ""

    def text(self, name: str, missing: str = "–") -> str:
        """Returns a figure as a person reads it.

        Args:
            name: One of `KINDS`.
            missing: What stands for one that is not known.
        """
        found = self.figures.get(name)
        return missing if found is None else KINDS[name].text(found.value)

    def origin(self, name: str) -> str:
        """Returns where a figure comes from; nothing if it is not known."""
        found = self.figures.get(name)
        return "" if found is None else found.origin

    @property
    def verdict(self) -> str:
        """Whether it fits, in a word."""
        words = {True: "fits", False: "does not fit", None: "not known"}
        return words[self.fits]


def plan_table(runs: Sequence[PlannedRun]) -> rich.table.Table:
    """Shows what a stage takes on one kind of hardware.

    Args:
        runs: Its regimes.

    Returns:
        The table, a line a regime.
    """
    from tflearn.reports.tables import cell, plain_table

    first = runs[0]
    table = plain_table(f"stage {first.stage} on {first.hardware}")
    table.add_column("regime", overflow="fold")
    for name in ("trained", "memory", "FLOPs", "step", "run"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fits", no_wrap=True)
    memory = "process_bytes" if _any(runs, "process_bytes") else "device_bytes"
    shown = ("trainable_parameters", memory, "flops", "step_seconds", "run_seconds")
    for run in runs:
        cells = [] if run.error else [run.text(name) for name in shown]
        answer = {True: "yes", False: "no", None: "–"}[run.fits]
        last = "" if run.error else answer
        padded = [*cells, *[""] * (len(shown) - len(cells)), last]
        table.add_row(*map(cell, (run.arm, *padded)))
    return table


def grouped(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Puts the regimes of a stage on one kind of hardware together."""
    groups: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault((run.hardware, run.stage), []).append(run)
    return list(groups.values())


def lines(runs: Sequence[PlannedRun]) -> list[str]:
    """Says in lines what a table has no room for.

    Args:
        runs: The regimes of a stage on one kind of hardware.

    Returns:
        Where the columns come from, what does not fit and what would, and notes.
    """
    found = [f"{run.arm}: {run.error}" for run in runs if run.error]
    for name in ("device_bytes", "process_bytes", "flops", "step_seconds"):
        origins = dict.fromkeys(run.origin(name) for run in runs if run.origin(name))
        if origins:
            found.append(f"{KINDS[name].title}: {', '.join(origins)}")
    for run in runs:
        found += [f"{run.arm}: {fix}" for fix in run.fixes]
    notes: dict[str, list[str]] = {}
    for run in runs:
        for note in run.notes:
            notes.setdefault(note, []).append(run.arm)
    for note, arms in notes.items():
        where = "" if len(arms) == len(runs) else f"{', '.join(arms)}: "
        found.append(f"{where}{note}")
    return found


def write_plan(
    title: str,
    runs: Sequence[PlannedRun],
    folder: pathlib.Path,
    *,
    hardware: Sequence[Mapping[str, Any]],
    advice: Advice | None = None,
) -> dict[str, Any]:
    """Writes `plan.json` and `plan.html`.

    Args:
        title: The experiment's name.
        runs: What was planned.
        folder: Where to write; made if need be.
        hardware: What the documented peaks are, one a kind.
        advice: Which arms are worth running.

    Returns:
        What `plan.json` holds.
    """
    from tflearn.reports import html

    folder.mkdir(parents=True, exist_ok=True)
    found = plain(
        {
            "title": title,
            "origins": dict(ORIGINS),
            "runs": [dataclasses.asdict(run) for run in runs],
            "hardware": list(hardware),
            "advice": advice and advice.to_json(),
            "versions": environment.versions(),
            "machine": environment.hardware(),
        }
    )
    page = html.render(
        "plan.html.j2",
        title=title,
        groups=[_card(group) for group in grouped(runs)],
        hardware=hardware,
        origins=ORIGINS,
        advice=advice,
        prior=PRIOR,
    )
    files.write_text(folder / "plan.html", page)
    files.write_json(folder / "plan.json", secrets.redact_all(found))
    return found


def _card(group: Sequence[PlannedRun]) -> dict[str, Any]:
    """Returns what the page shows of a stage on one kind of hardware."""
    return {
        "stage": group[0].stage,
        "hardware": group[0].hardware,
        "runs": [run for run in group if not run.error],
        "kinds": [(x, KINDS[x].title) for x in KINDS if _any(group, x)],
        "lines": lines(group),
    }


def _any(runs: Sequence[PlannedRun], name: str) -> bool:
    return any(name in run.figures for run in runs)
