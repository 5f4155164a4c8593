"""A point of a comparison: an arm at a number of labels, its folders and its runs."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Sequence

import keras

from tflearn import experiment
from tflearn.comparison import arms, curves, spending
from tflearn.comparison.declaration import Arm, Comparison
from tflearn.experiment import Experiment, Stage
from tflearn.reports import Report
from tflearn.support import files, storage
from tflearn.support.console import say
from tflearn.support.errors import ConfigError
from tflearn.training import run_directory
from tflearn.training.features.candidates import tuned
from tflearn.training.features.grid import Candidate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """An arm at a number of labels.

    Args:
        base: The experiment, the arm's overrides applied.
        arm: The arm, as that declaration has it.
        comparison: What it belongs to.
        folder: The folder of the whole comparison.
        labels: How many labels; None: all, and no learning curve.
    """

    base: Experiment
    arm: Arm
    comparison: Comparison
    folder: pathlib.Path
    labels: int | None

    @property
    def home(self) -> pathlib.Path:
        """The folder of the arm, or of the arm at this number of labels."""
        own = self.folder / "arms" / self.arm.name
        return own if self.labels is None else own / f"labels{self.labels}"

    @property
    def name(self) -> str:
        """What it is called in a line."""
        at = "" if self.labels is None else f", {self.labels:,} labels"
        return f"arm '{self.arm.name}'{at}"

    @property
    def last(self) -> Stage:
        """The last stage of the arm, with all its labels."""
        return arms.last(self.base, self.arm)

    @property
    def allowance(self) -> spending.Allowance:
        """What it may spend."""
        return self.comparison.allowance(self.arm, self.last)

    @property
    def own_stages(self) -> tuple[str, ...]:
        """Names of the stages whose costs are the arm's."""
        return (*(stage.name for stage in self.arm.stages), self.last.name)

    def seed_folder(self, seed: int) -> pathlib.Path:
        """Returns the run directory of a seed."""
        return self.home / f"seed{seed}"

    def seed_budget(self) -> str:
        """Returns the budget of the last stage of a seed: what all others leave.

        Raises:
            ConfigError: The stages of the arm are counted in another unit, or nothing
                is left.
        """
        allowed = self.allowance
        if self.comparison.budget is None and self.comparison.arms:
            # Each stage trains as long as it declares.
            return allowed.declared or spending.text(allowed.each, allowed.unit)
        taken = sum(_amount(stage, allowed.unit) for stage in self.arm.stages)
        if allowed.declared is not None and not taken:
            return allowed.declared
        return spending.text(allowed.each - taken, allowed.unit)


def _amount(stage: Stage, unit: str) -> float:
    budget = spending.allowance(stage.budget, None)
    # An epoch of other data is another amount.
    if budget.unit != unit or unit == "epochs":
        raise ConfigError(
            f"stage '{stage.name}' of an arm is not counted in the budget's unit",
            received=stage.budget,
            expected="steps" if unit == "epochs" else unit,
            fix="count all of an arm in one unit, such as steps",
        )
    return budget.amount


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Declared:
    """The written form of one run: that of the comparison, and which run it is."""

    text: str
    base: experiment.Declaration | None

    def operative_text(self) -> str:
        """Returns the declaration with every default that was used."""
        return "" if self.base is None else self.base.operative_text()

    def check_all_used(self) -> None:
        """Asks for nothing: a run uses what its arm needs of the whole declaration."""

    def with_bindings(self, bindings: Sequence[str]) -> experiment.Declaration:
        """Refuses: a run changes nothing of its declaration."""
        raise ConfigError("a run of a comparison has no bindings", received=bindings)

    def comparison(self) -> object:
        """Refuses: a run compares nothing."""
        raise ConfigError("a run of a comparison declares no comparison")

    def experiment(self) -> Experiment:
        """Refuses: what runs is made from the arm."""
        raise ConfigError("a run of a comparison is made from its arm")


def run(
    point: Point,
    folder: pathlib.Path,
    *,
    seed: int,
    budget: str,
    candidate: Candidate | None = None,
    is_trial: bool = False,
) -> Report:
    """Runs a point with one seed, goes on with it, or reads what it has become.

    Args:
        point: The point.
        folder: The run directory.
        seed: The seed.
        budget: Of the last stage.
        candidate: What the search has chosen, or tries.
        is_trial: Whether it is a trial of the search.

    Returns:
        Its report.
    """
    stage = dataclasses.replace(point.last, budget=budget)
    stage = curves.at(stage, point.labels, seed=seed)
    if candidate is not None:
        stage = tuned(stage, candidate, what="Tuning")
    counted = not is_trial or point.allowance.unit == "flops"
    stage = dataclasses.replace(stage, count_flops=counted)
    if is_trial:
        stage = dataclasses.replace(stage, bootstrap=0)
    told = f"{point.name}, seed {seed}, {budget}"
    told += "" if candidate is None else f", {candidate}"
    declared = _declare(point, told)
    report = folder / run_directory.REPORT
    # Claimed before stages are copied in, so that a stranger's folder is refused.
    if run_directory.is_finished(folder, declared):
        say(f"{told} is finished")
        return Report.from_json(files.read_json(report))
    say(told + (", a trial" if is_trial else ""))
    before = arms.leading(point.base, point.arm)
    whole = dataclasses.replace(
        arms.whole(point.base, point.arm),
        stages=(*before, stage),
        seed=seed,
        declaration=declared,
    )
    if before and not (folder / "stages").exists():
        shared = run_shared(point, seed=seed)
        run_directory.write_start(folder, declared)
        storage.copy_tree(shared / "stages", folder / "stages")
    found = _run(whole, folder)
    _lighten(folder, weights=False, model=not is_trial)
    return found


def run_shared(point: Point, *, seed: int) -> pathlib.Path:
    """Runs the stages before the last one, once for all that share them.

    Args:
        point: The point. Its arm shares the experiment's own stages with the others
            unless it changes them; stages of the arm are shared by its runs.
        seed: The seed.

    Returns:
        The run directory.
    """
    folder = point.folder / "shared" / f"seed{seed}"
    own = point.folder / "arms" / point.arm.name / "shared" / f"seed{seed}"
    stages = point.base.stages[:-1]
    whole = dataclasses.replace(
        point.base,
        backbone=point.arm.backbone or point.base.backbone,
        stages=stages,
        seed=seed,
    )
    if point.arm.is_apart:
        folder = own
    elif stages:
        _run_stages(whole, folder, _declare(point, f"shared stages, seed {seed}"))
    if not point.arm.stages and not point.arm.is_apart:
        return folder
    before = (*stages, *(_counted(stage) for stage in point.arm.stages))
    told = f"stages of arm '{point.arm.name}', seed {seed}"
    declared = _declare(point, told)
    run_directory.is_finished(own, declared)
    if folder != own and stages and not (own / "stages").exists():
        run_directory.write_start(own, declared)
        storage.copy_tree(folder / "stages", own / "stages")
    _run_stages(dataclasses.replace(whole, stages=before), own, declared)
    return own


def _counted(stage: Stage) -> Stage:
    return dataclasses.replace(stage, count_flops=True)


def _run_stages(whole: Experiment, folder: pathlib.Path, declared: _Declared) -> None:
    if not run_directory.is_finished(folder, declared):
        say(f"{declared.text.splitlines()[0].removeprefix('# ')}")
        _run(dataclasses.replace(whole, declaration=declared), folder)
        _lighten(folder, weights=True, model=False)


def _lighten(folder: pathlib.Path, *, weights: bool, model: bool) -> None:
    """Deletes what a finished run needs no more: there are many, with optimizers.

    Args:
        folder: The run directory.
        weights: Whether later stages start from the weights that its stages end with.
        model: Whether its model stays.
    """
    if storage.is_copy(folder):
        return
    names = ("checkpoints", "best", "soup", *(() if weights else ("end",)))
    for stage in (folder / "stages").iterdir():
        for name in names:
            shutil.rmtree(stage / name, ignore_errors=True)
    if not model:
        shutil.rmtree(folder / "model", ignore_errors=True)


def _run(whole: Experiment, folder: pathlib.Path) -> Report:
    # Keras counts the layers it names through the life of a process; a run that goes
    # on in another process looks for its checkpoints under the same names.
    keras.utils.clear_session()
    return experiment.run(whole, output_dir=storage.shown(folder))


def _declare(point: Point, told: str) -> _Declared:
    base = point.base.declaration
    text = "# declared in Python\n" if base is None else base.text
    return _Declared(text=f"# {told}\n{text}", base=base)
