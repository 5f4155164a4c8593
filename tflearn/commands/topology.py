"""`--mode=check --topology=v5e:2x4`: compile every stage for a TPU slice.

The experiment is built on this machine without a value for any weight, entered as a run
enters it, and its train step goes through the compiler of TPUs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import rich.table

from tflearn import config, experiment
from tflearn.commands.arguments import Arguments
from tflearn.distribution import Distribution, ahead, layouts, topology
from tflearn.distribution.ahead import Compiled, OutOfMemory
from tflearn.planning import programs
from tflearn.support.console import console, say
from tflearn.support.errors import ConfigError, RunError
from tflearn.support.tensorflow import hidden_tensorflow
from tflearn.support.units import bytes_text
from tflearn.training.stage import Prepared

#: How many smaller batches are tried where one does not fit.
_TRIED = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A stage as it is compiled.

    Args:
        kind: Kind of the distribution, never `auto`.
        batch_size: Examples a step.
    """

    kind: str
    batch_size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A stage that was compiled.

    Args:
        stage: Its name.
        variant: How it was compiled.
        shapes: Shapes of the batch by name.
        compiled: What it takes.
    """

    stage: str
    variant: Variant
    shapes: str
    compiled: Compiled


def main(arguments: Arguments) -> int:
    """Prints what every stage takes on a chip of the slice.

    Args:
        arguments: The flags; `topology` names the slice.

    Returns:
        The exit code.

    Raises:
        ConfigError: There is no such slice, or nothing to compile for it with.
        RunError: A stage does not fit into the memory of a chip.
    """
    wanted = topology.parse(arguments.topology or "")
    if arguments.backend != "jax":
        raise ConfigError(
            "only JAX compiles for TPUs: TensorFlow 2.19.1 was the last that did",
            received=f"--backend={arguments.backend}",
            fix="--backend=jax",
        )
    topology.prepare()
    declared = config.load_arguments(arguments).experiment()
    say(f"experiment  {declared.name}, seed {declared.seed}")
    say(f"topology    {wanted.name}, {wanted.chips} chips of {_limit(wanted)}")
    for result in compile_experiment(declared, wanted):
        _print(result, wanted)
    say("nothing was trained and nothing was written")
    return 0


def compile_experiment(
    declared: experiment.Experiment, wanted: topology.Slice
) -> Iterator[Result]:
    """Compiles the stages of an experiment for a slice.

    Args:
        declared: The experiment.
        wanted: The slice.

    Yields:
        A result a stage, of the phase that trains the most weights.

    Raises:
        ConfigError: The batch or a layout does not fit the slice.
        RunError: A stage does not fit into the memory of a chip.
    """
    target = _on_slice(declared.distribution, wanted)
    for stage in declared.stages:
        layouts.check_batch_size(
            stage.batch_size,
            axes=layouts.axis_sizes(target, wanted.chips),
            name=f"batch_size of stage '{stage.name}' on {wanted.name}",
        )
    here = dataclasses.replace(
        declared,
        distribution=Distribution(
            kind="single", rematerialize=declared.distribution.rematerialize
        ),
        precision="mixed_bfloat16"
        if declared.precision == "auto"
        else declared.precision,
    )
    with hidden_tensorflow(), ahead.unallocated_variables():
        built = experiment.build(here)
        say(f"backbone    {built.backbone.origin}")
        say(f"layout      {_layout_text(target, wanted)}, precision {built.precision}")
        for prepared in built.stages:
            yield _compile_stage(prepared, target, wanted)


def _on_slice(declared: Distribution, wanted: topology.Slice) -> Distribution:
    """Settles what `auto` is, and drops what is said about this machine."""
    kind = declared.kind
    if kind == "auto":
        kind = "data" if wanted.chips > 1 else "single"
    if declared.devices is not None and declared.devices != wanted.chips:
        raise ConfigError(
            "the declared number of devices is not that of the slice",
            received=f"devices = {declared.devices}, {wanted.name}",
        )
    return dataclasses.replace(declared, kind=kind, devices=None)


def _compile_stage(
    prepared: Prepared, target: Distribution, wanted: topology.Slice
) -> Result:
    variant = Variant(kind=target.kind, batch_size=prepared.stage.batch_size)
    batch = programs.largest_batch(prepared)
    _apply(prepared)
    try:
        compiled = _compile(prepared, target, wanted, batch, variant)
    except OutOfMemory as error:
        raise _does_not_fit(prepared, target, wanted, batch, error) from error
    return Result(
        stage=prepared.stage.name,
        variant=variant,
        shapes=_shapes(batch),
        compiled=compiled,
    )


def _apply(prepared: Prepared) -> None:
    """Applies the regime of a stage as a run does when the stage begins."""
    prepared.apply_regime()
    if prepared.stage.anchor is not None:
        say(f"note: the anchor of stage '{prepared.stage.name}' is not compiled")


def _compile(
    prepared: Prepared,
    target: Distribution,
    wanted: topology.Slice,
    batch: Any,
    variant: Variant,
) -> Compiled:
    """Enters the largest phase of a stage and compiles its train step."""
    target = _with_kind(target, variant.kind)
    mesh = topology.mesh(wanted, layouts.axis_sizes(target, wanted.chips))
    with programs.entered(
        prepared, distribution=target, mesh=mesh, cached=False
    ) as entered:
        return entered.load_step(batch, batch_size=variant.batch_size)[0]


def _with_kind(target: Distribution, kind: str) -> Distribution:
    return target if kind == target.kind else Distribution(kind=kind)


def _shapes(batch: Any) -> str:
    found = (f"{x.dtype} {x.shape}" for x in programs.arrays(batch))
    return ", ".join(dict.fromkeys(found))


def _does_not_fit(
    prepared: Prepared,
    target: Distribution,
    wanted: topology.Slice,
    batch: Any,
    error: OutOfMemory,
) -> RunError:
    """Looks for what does fit, by compiling it, and says so."""
    size, stage = prepared.stage.batch_size, prepared.stage.name
    say(f"stage '{stage}' does not fit, looking for what does: {error}")
    found = None
    for variant in _alternatives(target, wanted, size):
        try:
            compiled = _compile(prepared, target, wanted, batch, variant)
        except OutOfMemory as other:
            say(f"  {_variant_text(variant)}: {other}")
            continue
        found = f"{_variant_text(variant)} takes {bytes_text(compiled.total_bytes)}"
        say(f"  {found}")
        break
    fixes = [found] if found else ["a larger slice, or a smaller model"]
    if target.rematerialize is None:
        fixes.append(
            "not tried: rematerialisation, distribution.Distribution.rematerialize = "
            "'backbone/*layer_*', and shorter texts or smaller images"
        )
    return RunError(
        f"the train step of stage '{stage}' does not fit into a chip of {wanted.name}",
        received=str(error),
        expected=f"at most {_limit(wanted)} a chip",
        fix="; ".join(fixes),
    )


def _alternatives(
    target: Distribution, wanted: topology.Slice, batch_size: int
) -> Iterator[Variant]:
    """Yields what takes less, the least change first."""
    kind = target.kind
    if kind in ("data", "single") and wanted.chips > 1:
        kind = "fully_sharded"
        yield Variant(kind=kind, batch_size=batch_size)
    axes = layouts.axis_sizes(_with_kind(target, kind), wanted.chips)
    parts = layouts.data_parallel_size(axes)
    size = batch_size
    for _ in range(_TRIED):
        size = size // 2 // parts * parts
        if not size:
            return
        yield Variant(kind=kind, batch_size=size)


def _variant_text(variant: Variant) -> str:
    return f"kind '{variant.kind}' with batch_size {variant.batch_size}"


def _layout_text(target: Distribution, wanted: topology.Slice) -> str:
    axes = layouts.axis_sizes(target, wanted.chips)
    return f"{target.kind} on {' x '.join(f'{n} {s}' for n, s in axes.items())}"


def _limit(wanted: topology.Slice) -> str:
    return bytes_text(wanted.memory_bytes)


def _print(result: Result, wanted: topology.Slice) -> None:
    compiled = result.compiled
    console.rule(f"stage {result.stage}", align="left")
    say(f"batch       {result.shapes}")
    say(
        f"memory      {bytes_text(compiled.total_bytes)} a chip of {_limit(wanted)}: "
        f"{bytes_text(compiled.argument_bytes)} arguments (weights, optimizer, batch), "
        f"{bytes_text(compiled.temporary_bytes)} temporaries, "
        f"{bytes_text(compiled.output_bytes)} other results, "
        f"{bytes_text(compiled.code_bytes)} program"
    )
    say(
        f"work        {compiled.product_flops:.3g} FLOPs a chip and step in products "
        f"and convolutions; XLA counts {compiled.flops:.3g}, loops once"
    )
    console.print(_traffic_table(compiled))
    say(f"compiled in {compiled.seconds:.0f} s")


def _traffic_table(compiled: Compiled) -> rich.table.Table:
    table = rich.table.Table("collective", "a step", "bytes", box=None)
    for kind, traffic in compiled.collectives.items():
        table.add_row(kind, str(traffic.count), bytes_text(traffic.num_bytes))
    if not compiled.collectives:
        table.add_row("none", "0", "0 B")
    return table
