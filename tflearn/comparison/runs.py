"""The runs of a comparison: ordinary run directories, shared stages copied in."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import keras

from tflearn import experiment
from tflearn.comparison import arms, curves
from tflearn.comparison.points import Point
from tflearn.experiment import Experiment, Stage
from tflearn.reports import Report
from tflearn.support import files, storage
from tflearn.support.console import say
from tflearn.training import run_directory
from tflearn.training.features.candidates import tuned
from tflearn.training.features.grid import Candidate


@dataclasses.dataclass(kw_only=True)
class _Declared:
    """The written form of one run: that of the comparison, and which run it is."""

    text: str
    base: experiment.Declaration | None

    def operative_text(self) -> str:
        """Returns the declaration with every default that was used."""
        return "" if self.base is None else self.base.operative_text()

    def check_all_used(self) -> None:
        """Asks for nothing: a run uses what its arm needs of the whole declaration."""


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
    stage = _stage(point, seed, budget, candidate, is_trial)
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
        # Of a trial, what counts is its score.
        export=not is_trial,
        declaration=declared,
    )
    if before and not (folder / "stages").exists():
        shared = run_shared(point, seed=seed)
        run_directory.write_start(folder, declared)
        storage.copy_tree(shared / "stages", folder / "stages")
    found = _run(whole, folder)
    _lighten(folder, weights=False)
    return found


def _stage(
    point: Point, seed: int, budget: str, candidate: Candidate | None, is_trial: bool
) -> Stage:
    """Returns the last stage as a run has it."""
    stage = dataclasses.replace(point.last, budget=budget)
    stage = curves.at(stage, point.labels, seed=seed)
    if candidate is not None:
        stage = tuned(stage, candidate, what="Tuning")
    if not is_trial:
        return dataclasses.replace(stage, count_flops=True)
    counted = point.allowance.unit == "flops"
    # Nothing is chosen by the test split, so a trial does not look at it.
    return dataclasses.replace(
        stage, count_flops=counted, bootstrap=0, report_splits=("validation",)
    )


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
        # What the arms begin with is looked at before they do.
        _lighten(folder, weights=True)


def _lighten(folder: pathlib.Path, *, weights: bool) -> None:
    """Deletes what a finished run needs no more: there are many, with optimizers.

    Args:
        folder: The run directory.
        weights: Whether later stages start from the weights that its stages end with.
    """
    if storage.is_copy(folder):
        return
    names = ("checkpoints", "best", "soup", *(() if weights else ("end",)))
    for stage in (folder / "stages").iterdir():
        for name in names:
            shutil.rmtree(stage / name, ignore_errors=True)


def _run(whole: Experiment, folder: pathlib.Path) -> Report:
    # Keras counts the layers it names through the life of a process; a run that goes
    # on in another process looks for its checkpoints under the same names.
    keras.utils.clear_session()
    return experiment.run(whole, output_dir=storage.shown(folder))


def _declare(point: Point, told: str) -> _Declared:
    base = point.base.declaration
    text = "# declared in Python\n" if base is None else base.text
    return _Declared(text=f"# {told}\n{text}", base=base)
