"""`--mode=plan`: what a run would take, regime by regime, before anything is trained.

On this machine a few steps of the compiled programs are measured; for hardware that is
not here they are compiled, and its maker's peak rates say what is possible at best.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tflearn import config, experiment
from tflearn.backbones import Backbone
from tflearn.commands.arguments import Arguments
from tflearn.comparison import Arm, Comparison, curves
from tflearn.distribution import Distribution, precision
from tflearn.distribution import hardware as hardwares
from tflearn.distribution.hardware import HERE, Hardware
from tflearn.planning import arms, calibration, machine, search, survey
from tflearn.planning.advice import advise
from tflearn.planning.arms import DECLARED, Change
from tflearn.planning.situation import Situation
from tflearn.planning.stages import Target, plan_stage
from tflearn.reports import advice as advices
from tflearn.reports import plan as reports
from tflearn.reports.advice import Advice
from tflearn.reports.plan import PlannedRun
from tflearn.support import storage
from tflearn.support.console import console, say
from tflearn.support.errors import ConfigError, TflearnError, nearest
from tflearn.training.stage import Prepared

__all__ = ["Plan", "main"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is planned, and for which hardware.

    Args:
        arms: Regimes of the last stage; without, those of the declared comparison,
            else the usual five and the declared one.
        hardware: Names such as `here`, `a100-80gb:8` or `v5e:2x4`.
        table: Hardware of your own, or documented one with your prices.
        search: Whether what would fit is searched for where a stage does not.
    """

    arms: Sequence[Arm] = ()
    hardware: Sequence[str] = (HERE,)
    table: Sequence[Hardware] = ()
    search: bool = True

    def __post_init__(self) -> None:
        """Checks names."""
        for what, names in (
            ("arms", [x.name for x in self.arms]),
            ("kinds of hardware", [x.name for x in self.table]),
        ):
            if len(set(names)) < len(names):
                raise ConfigError(
                    f"two {what} of a plan have one name", received=", ".join(names)
                )


def main(arguments: Arguments) -> int:
    """Plans all regimes on all hardware; writes `plan.json` and `plan.html`.

    Args:
        arguments: The flags.

    Returns:
        The exit code.

    Raises:
        ConfigError: The backend has no compiler that tells, or a name is unknown.
    """
    if arguments.backend != "jax":
        raise ConfigError(
            "on TensorFlow no compiler says what a step takes before it runs",
            received=f"--backend={arguments.backend}",
            fix="plan with --backend=jax: weights, optimizer and FLOPs are the same on "
            "TensorFlow, activations and times are not",
        )
    declaration = config.load_arguments(arguments)
    base = declaration.experiment()
    plan: Plan = declaration.plan()
    plan = dataclasses.replace(plan, hardware=arguments.hardware or plan.hardware)
    comparison: Comparison = declaration.comparison()
    if plan.arms:
        comparison = dataclasses.replace(
            comparison, arms=plan.arms, unlabelled=None, unlabelled_objective=None
        )
    wanted = [hardwares.find(x, plan.table) for x in plan.hardware if x != HERE]
    away, missing = machine.prepare(wanted)
    runs, situations = [], []
    for targets in _groups(plan, base.distribution, away):
        group = _Group(base, comparison, targets, arguments.regimes, plan.search)
        runs += group.plan()
        situations.append(group.situation)
    runs += [_missing(base, x, why) for x, why in missing]
    folder = storage.local(arguments.output_dir or f"runs/{base.name}_plan")
    documented = [dataclasses.asdict(x) for x in wanted]
    advice = _advise(situations, runs)
    reports.write_plan(base.name, runs, folder, hardware=documented, advice=advice)
    storage.push(folder)
    _print(runs)
    for line in advices.lines(advice) if advice else ():
        say(line)
    shown = storage.shown(folder)
    say(f"nothing was trained; written: {shown}/plan.json, {shown}/plan.html")
    return 0


def _groups(
    plan: Plan, declared: Distribution, away: Sequence[Hardware]
) -> list[list[Target]]:
    """Puts what computes in one precision together: this machine, and the others."""
    groups = []
    if HERE in plan.hardware:
        here = machine.this(plan.table)
        say(f"here        {here.source}")
        groups.append([_here(here)])
    if away:
        groups.append([_away(x, declared) for x in away])
    return groups


def _here(hardware: Hardware) -> Target:
    return Target(
        hardware=hardware, distribution=Distribution(kind="single"), is_here=True
    )


def _away(hardware: Hardware, declared: Distribution) -> Target:
    """Settles how a stage lies on hardware that is not here."""
    kind = declared.kind
    if kind in ("auto", "single"):
        kind = "data" if hardware.devices > 1 else "single"
    distribution = dataclasses.replace(declared, kind=kind, devices=None)
    return Target(hardware=hardware, distribution=distribution)


def _missing(base: experiment.Experiment, hardware: Hardware, why: str) -> PlannedRun:
    return PlannedRun(
        stage=base.stages[-1].name, arm="all", hardware=hardware.name, error=why
    )


def _advise(
    situations: Sequence[Situation | None], runs: Sequence[PlannedRun]
) -> Advice | None:
    """Advises on the first hardware, by what was compiled for it."""
    found = next((x for x in situations if x is not None), None)
    if found is None:
        return None
    first = [x for x in runs if x.hardware == runs[0].hardware]
    known = dataclasses.replace(
        found,
        too_large=[x.arm for x in first if x.fits is False],
        is_compiled=any(x.fits is not None for x in first),
    )
    return advise(known)


class _Group:
    """Hardware that computes in one precision, so that one build serves all of it."""

    def __init__(
        self,
        base: experiment.Experiment,
        comparison: Comparison,
        targets: Sequence[Target],
        names: Sequence[str],
        searches: bool,
    ) -> None:
        self._base = base
        self._comparison = comparison
        self._targets = list(targets)
        self._names = names
        self._searches = searches
        self._is_here = targets[0].is_here
        self.situation: Situation | None = None
        platform = targets[0].hardware.platform if self._is_here else "gpu"
        self._precision = (
            precision.by_rule(platform) if base.precision == "auto" else base.precision
        )

    def plan(self) -> list[PlannedRun]:
        """Plans all regimes."""
        say(f"precision   {self._precision}")
        runs: list[PlannedRun] = []
        with self._built(self._base) as built:
            if self._is_here and self._targets[0].hardware.platform == "cpu":
                baseline = calibration.resident_bytes()
                self._targets = [
                    dataclasses.replace(x, baseline=baseline) for x in self._targets
                ]
            found, left_out = arms.settle(self._base, self._comparison, built)
            self.situation = self._read(built, [x.name for x in found])
            runs += [
                self._leading(prepared, target)
                for target in self._targets
                for prepared in built.stages[:-1]
            ]
        for arm in _named(found, left_out, self._names):
            runs += self._arm(arm)
        for name, why in left_out if not self._names else ():
            runs += [self._failed(name, x, why) for x in self._targets]
        return runs

    def _leading(self, prepared: Prepared, target: Target) -> PlannedRun:
        try:
            return plan_stage(prepared, target, arm=DECLARED)
        except TflearnError as error:
            # The last stage may be possible on it, and others on other hardware.
            failed = self._failed(DECLARED, target, str(error))
            return dataclasses.replace(failed, stage=prepared.stage.name)

    def _read(self, built: experiment.Built, names: Sequence[str]) -> Situation:
        dataset = built.stages[-1].dataset
        counts = curves.counts(
            self._comparison,
            rows=len(dataset.splits["train"]),
            classes=len(dataset.classes),
        )
        found = survey.read(
            built,
            names,
            seeds=len(self._comparison.seeds),
            labels=min(counts, default=None),
            has_values=self._is_here,
        )
        if self._is_here:
            return found
        first = self._targets[0].hardware
        return dataclasses.replace(
            found, device=first.name, memory_bytes=first.memory_bytes
        )

    def _arm(self, arm: Arm) -> list[PlannedRun]:
        say(f"planning    {arm.name}")
        try:
            with self._built(arms.changed(self._base, arm, Change())) as built:
                found = [
                    plan_stage(built.stages[-1], target, arm=arm.name)
                    for target in self._targets
                ]
                backbone = built.backbone
        except TflearnError as error:
            return [self._failed(arm.name, x, str(error)) for x in self._targets]
        return [
            self._with_fixes(run, arm, target, backbone)
            for run, target in zip(found, self._targets, strict=True)
        ]

    def _with_fixes(
        self, run: PlannedRun, arm: Arm, target: Target, backbone: Backbone
    ) -> PlannedRun:
        if run.fits is not False or not self._searches:
            return run
        say(f"searching   what fits {target.hardware.name} for {arm.name}")
        tried = search.candidates(self._base, arm, target, backbone)
        needs = search.needs_of(self._base, arm, self._precision)
        fixes = search.what_fits(list(tried), needs)
        return dataclasses.replace(run, fixes=fixes)

    def _built(self, declared: experiment.Experiment) -> Any:
        return arms.built(declared, precision=self._precision, is_here=self._is_here)

    def _failed(self, name: str, target: Target, why: str) -> PlannedRun:
        return PlannedRun(
            stage=self._base.stages[-1].name,
            arm=name,
            hardware=target.hardware.name,
            error=why,
        )


def _named(
    found: Sequence[Arm],
    left_out: Sequence[tuple[str, str]],
    names: Sequence[str],
) -> list[Arm]:
    """Returns the arms of some names, all without names."""
    known, reasons = {x.name: x for x in found}, dict(left_out)
    known.setdefault(DECLARED, Arm(name=DECLARED))
    for name in names:
        if name not in known:
            raise ConfigError(
                "--regimes names none of the plan",
                received=f"{name}: {reasons[name]}" if name in reasons else name,
                expected=", ".join(known),
                nearest=nearest(name, known),
            )
    return [known[name] for name in names] or list(found)


def _print(runs: Sequence[PlannedRun]) -> None:
    for found in reports.grouped(runs):
        console.print(reports.plan_table(found))
        for line in reports.lines(found):
            say(f"  {line}")
