"""What would fit where a stage does not: every candidate is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from tflearn import experiment, regimes
from tflearn.backbones import Backbone
from tflearn.comparison import Arm
from tflearn.distribution import Distribution, topology
from tflearn.distribution.hardware import find
from tflearn.planning import arms
from tflearn.planning.arms import Change
from tflearn.planning.stages import Target, needed
from tflearn.regimes.adapter_rules import ATTENTION
from tflearn.regimes.trainability import layer_paths
from tflearn.support.errors import TflearnError
from tflearn.support.patterns import matches
from tflearn.support.units import bytes_text

#: Parts of a batch, and devices, that are tried.
_PARTS = (2, 4, 8, 16)
_DEVICES = (2, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """Something else to try.

    Args:
        kind: What it changes; of one kind the first that fits is enough.
        text: What it is, as one would declare it.
        change: The change of the stage.
        target: The devices.
    """

    kind: str
    text: str
    change: Change
    target: Target


#: Builds and compiles a candidate; returns the bytes a device would hold.
Needed = Callable[[Candidate], float | None]


def what_fits(candidates: Sequence[Candidate], needs: Needed) -> list[str]:
    """Tries candidates, of each kind until one fits.

    Args:
        candidates: What is tried, the least change first.
        needs: Compiles one.

    Returns:
        A line a kind: what fits, or the least that was still too much.
    """
    found: dict[str, str] = {}
    done: set[str] = set()
    for candidate in candidates:
        if candidate.kind in done:
            continue
        limit = candidate.target.hardware.memory_bytes
        try:
            taken = needs(candidate)
        except TflearnError as error:
            found.setdefault(candidate.kind, f"not possible: {candidate.text}: {error}")
            continue
        if taken is not None and (limit is None or taken <= limit):
            done.add(candidate.kind)
            found[candidate.kind] = f"fits: {candidate.text}, {bytes_text(taken)}"
        else:
            size = "no room" if taken is None else bytes_text(taken)
            found[candidate.kind] = f"too large: {candidate.text}, {size}"
    return list(found.values())


def candidates(
    base: experiment.Experiment, arm: Arm, target: Target, backbone: Backbone
) -> Iterator[Candidate]:
    """Yields what takes less memory than a stage as declared, the least change first.

    Args:
        base: The experiment.
        arm: The regime.
        target: The devices that it does not fit on.
        backbone: Its backbone.
    """
    stage = base.stages[-1]
    pattern = "|".join(f"backbone/{x}" for x in backbone.blocks)
    again = base.distribution.rematerialize is None and bool(pattern)
    if again:
        yield Candidate(
            kind="rematerialize",
            text=f"distribution.Distribution.rematerialize = '{pattern}'",
            change=Change(rematerialize=pattern),
            target=target,
        )
    yield from _parted(stage, target, "parts", None)
    if again:
        yield from _parted(stage, target, "both", pattern)
    yield from _sharded(target)
    # Without attention, as the arms of a comparison have it.
    targets = ATTENTION if _attends(backbone) else "backbone/*"
    also = "" if targets == ATTENTION else f", its targets '{targets}'"
    for kind, text in (
        ("lora", "LoRA: regimes.low_rank()"),
        ("qlora", "an 8-bit base: regimes.low_rank.kind = 'qlora'"),
    ):
        if arm.name != kind:
            change = Change(regime=regimes.low_rank(kind=kind, targets=targets))
            yield Candidate(kind=kind, text=text + also, change=change, target=target)


def _attends(backbone: Backbone) -> bool:
    paths = layer_paths(backbone.model)
    return any(matches(ATTENTION, f"backbone/{path}") for path in paths)


def _parted(
    stage: experiment.Stage, target: Target, kind: str, rematerialize: str | None
) -> Iterator[Candidate]:
    for parts in _PARTS:
        if stage.batch_size % parts:
            continue
        change = Change(parts=parts, rematerialize=rematerialize)
        also = ", rematerialised" if rematerialize else ""
        yield Candidate(
            kind=kind,
            text=f"batch_size {stage.batch_size // parts} with "
            f"gradient_accumulation_steps {parts} and eval_batch_size "
            f"{arms.eval_batch_size(stage, parts)}{also}",
            change=change,
            target=target,
        )


def _sharded(target: Target) -> Iterator[Candidate]:
    hardware = target.hardware
    for name in _larger(target) if hardware.platform != "cpu" else ():
        more = dataclasses.replace(
            find(name, (dataclasses.replace(hardware, name=_kind(hardware.name)),)),
            name=name,
        )
        yield Candidate(
            kind="sharded",
            text=f"fully_sharded over {name}",
            change=Change(),
            target=dataclasses.replace(
                target,
                hardware=more,
                distribution=Distribution(kind="fully_sharded"),
                is_here=False,
                baseline=None,
            ),
        )


def _larger(target: Target) -> list[str]:
    """Returns names of the same hardware with the same and more devices."""
    hardware = target.hardware
    kind = _kind(hardware.name)
    if hardware.slice_name is not None:
        chips = topology.parse(hardware.slice_name).chips
        examples = [topology.parse(x) for x in topology.examples(kind)]
        return [x.name for x in examples if 1 < x.chips >= chips][:3]
    return [f"{kind}:{x}" for x in _DEVICES if x >= hardware.devices]


def _kind(name: str) -> str:
    return name.partition(":")[0]


def needs_of(base: experiment.Experiment, arm: Arm, precision: str) -> Needed:
    """Returns what builds and compiles candidates for a stage.

    Args:
        base: The experiment.
        arm: The regime.
        precision: What it computes in.
    """

    def needs(candidate: Candidate) -> float | None:
        declared = arms.changed(base, arm, candidate.change)
        is_here = candidate.target.is_here
        with arms.built(declared, precision=precision, is_here=is_here) as built:
            return needed(built.stages[-1], candidate.target)

    return needs
