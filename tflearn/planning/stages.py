"""A stage in one regime on one kind of hardware: all its figures."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from tflearn.distribution import Distribution, layouts, products, topology
from tflearn.distribution.ahead import Compiled, OutOfMemory
from tflearn.distribution.hardware import Hardware
from tflearn.planning import calibration, memory, programs, timing
from tflearn.planning.programs import Entered, Shape, Step
from tflearn.planning.timing import Forward
from tflearn.reports.plan import Figure, PlannedRun
from tflearn.support.errors import ConfigError
from tflearn.training.stage import Prepared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """Devices that a stage is planned for.

    Args:
        hardware: The hardware.
        distribution: How a stage lies on it; the kind is settled.
        is_here: Whether it is this machine, so that steps can be measured.
        baseline: Memory that this process held when everything was built.
    """

    hardware: Hardware
    distribution: Distribution
    is_here: bool = False
    baseline: int | None = None

    def mesh(self) -> Any:
        """Returns a mesh over the devices, real ones or not.

        Raises:
            ConfigError: This process has no devices to compile for so many.
        """
        hardware = self.hardware
        axes = layouts.axis_sizes(self.distribution, hardware.devices)
        if hardware.slice_name is not None:
            return topology.mesh(topology.parse(hardware.slice_name), axes)
        platform = None if self.is_here else "cpu"
        mesh = programs.host_mesh(hardware.devices, axes=axes, platform=platform)
        if mesh is None:
            raise ConfigError(
                "a program for several devices is compiled for as many of the host",
                received=f"{hardware.devices} devices of '{hardware.name}'",
                fix="plan with the command line, which makes them before JAX starts",
            )
        return mesh


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Programs:
    step: Step
    smallest: Step | None
    once: Forward | None
    evaluated: Forward | None
    kept_bytes: int

    @property
    def forwards(self) -> list[tuple[Any, Compiled]]:
        both = (self.once, self.evaluated)
        return [(x.model, x.compiled) for x in both if x is not None]


def plan_stage(prepared: Prepared, target: Target, *, arm: str) -> PlannedRun:
    """Plans a stage as it is declared.

    Args:
        prepared: The stage, built.
        target: The devices.
        arm: Name of its regime.

    Returns:
        All that could be told.

    Raises:
        ConfigError: The batch does not divide over the devices.
    """
    with _entered(prepared, target) as entered:
        shapes = programs.shapes(entered.trained)
        counts, notes = memory.counted(entered), _notes(entered, target)
        common: dict[str, Any] = {
            "stage": prepared.stage.name,
            "arm": arm,
            "hardware": target.hardware.name,
            "limit_bytes": target.hardware.memory_bytes,
            "batch": _shapes_text(shapes[-1].batch),
        }
        try:
            compiled = _compile(entered, target, shapes)
        except OutOfMemory as error:
            counts |= timing.counted(entered, shapes)[0]
            notes.append(f"the compiler says: {error}")
            return PlannedRun(**common, figures=counts, fits=False, notes=notes)
        found = counts | _memory(entered, target, compiled)
        measures = target.is_here and _has_room(entered, found, target)
        if target.is_here and not measures:
            notes.append("not timed: there is no room for steps on a copy of the state")
        found |= _times(entered, target, compiled, shapes, measures=measures)
        found |= timing.totals(entered, found, target.hardware)
    return PlannedRun(**common, figures=found, fits=fits(found, target), notes=notes)


def _times(
    entered: Entered,
    target: Target,
    compiled: _Programs,
    shapes: Sequence[Shape],
    *,
    measures: bool,
) -> dict[str, Figure]:
    """Counts operations, and measures steps or says what is possible at best."""
    counts, by_shape = timing.counted(
        entered, shapes, step=compiled.step[0], once=compiled.once
    )
    if target.is_here and not measures:
        return counts
    if target.is_here:
        return counts | timing.here(
            entered,
            shapes,
            by_shape,
            largest=compiled.step,
            smallest=compiled.smallest,
            once=compiled.once,
            evaluated=compiled.evaluated,
        )
    return counts | timing.away(
        entered,
        target.hardware,
        flops=counts["flops_per_step"].value,
        step=compiled.step[0],
        dtype=_compute_dtype(),
    )


def needed(prepared: Prepared, target: Target) -> float | None:
    """Compiles a stage and returns what a device would hold.

    Args:
        prepared: The stage, built.
        target: The devices.

    Returns:
        Bytes; None where the compiler of the device finds no room.
    """
    with _entered(prepared, target) as entered:
        try:
            compiled = _compile(entered, target, programs.shapes(entered.trained))
        except OutOfMemory:
            return None
        return _held(_memory(entered, target, compiled)).value


@contextlib.contextmanager
def _entered(prepared: Prepared, target: Target) -> Iterator[Entered]:
    stage, devices = prepared.stage, target.hardware.devices
    layouts.check_batch_size(
        stage.batch_size,
        axes=layouts.axis_sizes(target.distribution, devices),
        name=f"batch_size of stage '{stage.name}' on {target.hardware.name}",
    )
    with programs.entered(
        prepared, distribution=target.distribution, mesh=target.mesh()
    ) as entered:
        yield entered


def fits(found: dict[str, Figure], target: Target) -> bool | None:
    """Tells whether a stage fits; None where the memory is not known."""
    limit = target.hardware.memory_bytes
    return None if limit is None else _held(found).value <= limit


def _has_room(entered: Entered, found: dict[str, Figure], target: Target) -> bool:
    """Tells whether steps can be measured: the model keeps its weights beside them."""
    limit = target.hardware.memory_bytes
    copied = memory.num_bytes(x for group in entered.groups for x in group)
    return limit is None or _held(found).value + copied <= limit


def _held(found: dict[str, Figure]) -> Figure:
    return found.get("process_bytes") or found["device_bytes"]


def _compile(entered: Entered, target: Target, shapes: Sequence[Shape]) -> _Programs:
    """Compiles what a run would, and sees how much memory the process keeps for it."""
    held = [_resident(target)]

    def after(found: Any) -> Any:
        held.append(_resident(target))
        return found

    step = after(entered.load_step(shapes[-1].batch))
    several = target.is_here and len(shapes) > 1
    smallest = after(entered.load_step(shapes[0].batch) if several else None)
    # Other lengths are compiled too, and take about as much as the second.
    others = max(0, held[2] - held[1]) * max(0, len(shapes) - 2)
    once = after(timing.frozen_layers(entered))
    # The compiler of TPUs takes a minute for each.
    brief = target.hardware.slice_name is not None
    evaluated = after(None if brief else timing.evaluation(entered))
    return _Programs(
        step=step,
        smallest=smallest,
        once=once,
        evaluated=evaluated,
        kept_bytes=max(0, held[-1] - held[0] + others),
    )


def _resident(target: Target) -> int:
    return calibration.resident_bytes() or 0 if target.is_here else 0


def _memory(entered: Entered, target: Target, compiled: _Programs) -> dict[str, Figure]:
    step, forwards = compiled.step[0], compiled.forwards
    held = memory.device_bytes(entered, step=step, forwards=forwards)
    found = {
        "temporary_bytes": Figure(step.temporary_bytes, "compiler"),
        "device_bytes": Figure(held, "compiler"),
    }
    if target.baseline is not None:
        kept = compiled.kept_bytes
        found["program_bytes"] = Figure(kept, "measured here")
        whole = memory.process_bytes(
            entered, target.baseline + kept, step=step, forwards=forwards
        )
        found["process_bytes"] = Figure(whole, "measured here")
    return found


def _notes(entered: Entered, target: Target) -> list[str]:
    stage = entered.whole.stage
    found = []
    if entered.gathered is not None:
        found.append(f"computed once: {entered.gathered.planned}")
    elif entered.reason:
        found.append(f"not computed once: {entered.reason}")
    if stage.phases:
        found.append("planned as its phase that trains the most weights")
    if stage.anchor is not None:
        found.append("the pull of the anchor is left out")
    if stage.grid is not None:
        found.append("the candidates of the grid are left out")
    if entered.trained.pretext is not None:
        found.append("evaluations are left out: the objective makes its own targets")
    if not target.is_here:
        found.append("at best: no evaluation, no input, no compiling")
    found += _precision_notes(target)
    if target.hardware.slice_name is not None:
        found.append("evaluations are not compiled for TPUs")
    elif target.hardware.platform == "gpu" and not target.is_here:
        found.append("memory is that of the program compiled for a CPU")
    return found


def _precision_notes(target: Target) -> list[str]:
    name, peaks = _compute_dtype(), target.hardware.peak_tflops
    if target.hardware.platform == "gpu" and peaks and name not in peaks:
        return [f"no rate is documented in {name}: it may want 'mixed_float16'"]
    alone = not target.is_here or programs.host_count() == 1
    if name == "float32" or alone or not products.has_matrix_units():
        return []
    return ["planned beside GPUs: alone, products of bfloat16 have a faster form here"]


def _compute_dtype() -> str:
    return keras.config.dtype_policy().compute_dtype or "float32"


def _shapes_text(batch: Any) -> str:
    found = (f"{x.dtype} {x.shape}" for x in programs.arrays(batch))
    return ", ".join(dict.fromkeys(found))
