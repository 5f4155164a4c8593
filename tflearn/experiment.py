"""An experiment's declaration, and the only place that knows the order of a run."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras

from tflearn import distribution as distributions
from tflearn import regimes
from tflearn.backbones import Backbone
from tflearn.distribution import Devices, Distribution, layouts, processes, tf_strategy
from tflearn.reports import outbox
from tflearn.reports.html import write_report
from tflearn.reports.report import Report, StageReport
from tflearn.reports.stages import run_stage
from tflearn.support import environment, files, seeds, storage
from tflearn.support.console import say
from tflearn.support.errors import ConfigError
from tflearn.support.tensorflow import hidden_tensorflow
from tflearn.training import (
    course,
    export,
    interruption,
    maintenance,
    placement,
    precision_trial,
    run_directory,
    unchanged,
)
from tflearn.training.features import search
from tflearn.training.forgetting import Source, Watched, point, start_from, watch
from tflearn.training.preparation import prepare
from tflearn.training.rematerialization import rematerialize
from tflearn.training.stage import Prepared, Stage

__all__ = ["Experiment", "Stage", "build", "run"]


class Declaration(Protocol):
    """Where an experiment was written down; `tflearn.config` provides it."""

    text: str

    def operative_text(self) -> str:
        """Returns the declaration with every default that was used."""
        ...

    def check_all_used(self) -> None:
        """Raises if something was declared that nothing asked for."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run is: backbone, stages, devices, precision, seed.

    Args:
        backbone: Makes the backbone. A factory, because the devices and the
            precision must be settled before any Keras object exists.
        stages: The training runs in order; each starts from the weights the one
            before ended with.
        name: Name of the experiment, and of its folder by default.
        seed: Seed of everything random.
        distribution: How the run lies on devices.
        precision: `auto`, `float32`, `mixed_bfloat16` or `mixed_float16`.
        start_from: A finished run whose weights the first stage starts from; its
            head too where task and classes are the same.
        sources: Tasks or corpora that must not be forgotten: measured before and
            after each stage; see `tflearn.training.forgetting`.
        grace_seconds: How long a run that is asked to end may take to finish its step
            and save.
        tracker: Where the rows of metrics are sent, such as `reports.mlflow.Mlflow`;
            one that cannot be reached gets them later.
        export: Whether the finished model is written, to `model/`.
        declaration: Where it was written down, if it was.
    """

    backbone: Callable[[], Backbone]
    stages: Sequence[Stage]
    name: str = "experiment"
    seed: int = 0
    distribution: Distribution = Distribution()
    precision: str = "auto"
    start_from: str | None = None
    sources: Sequence[Source] = ()
    grace_seconds: float = interruption.GRACE_SECONDS
    tracker: outbox.Tracker | None = None
    export: bool = True
    declaration: Declaration | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """An experiment whose every part exists, nothing trained yet."""

    experiment: Experiment
    devices: Devices
    precision: str
    backbone: Backbone
    stages: tuple[Prepared, ...]
    watched: tuple[Watched, ...]
    seconds: dict[str, float]


# Keras imports TensorFlow, where it is installed, to seed it and to serialize a layer.
@hidden_tensorflow()
def build(experiment: Experiment) -> Built:
    """Builds everything of an experiment without training.

    Args:
        experiment: The declaration.

    Returns:
        Devices, backbone and stages, ready to train inside `devices.scope()`.

    Raises:
        TflearnError: The declaration, the data or the weights are wrong.
    """
    _check_stages(experiment)
    started = time.perf_counter()
    devices = distributions.resolve(experiment.distribution)
    _check_batches(experiment, devices)
    with devices.scope():
        return _build(experiment, devices, started)


def _build(experiment: Experiment, devices: Devices, started: float) -> Built:
    precision = distributions.set_precision(
        experiment.precision, platform=devices.platform
    )
    keras.utils.set_random_seed(seeds.derive(experiment.seed, "backbone"))
    backbone = experiment.backbone()
    loaded = time.perf_counter()
    stages = tuple(
        prepare(stage, backbone, seed=experiment.seed) for stage in experiment.stages
    )
    pattern = experiment.distribution.rematerialize
    for prepared in stages if pattern is not None else ():
        paths = rematerialize(prepared.network.model, str(pattern))
        say(f"computed again in the backward pass: {len(paths)} layers, {paths[0]} ...")
    _rehearse(stages)
    if experiment.start_from is not None:
        start_from(experiment.start_from, stages[0])
    watched = watch(experiment.sources, stages, backbone)
    if experiment.declaration is not None:
        experiment.declaration.check_all_used()
    return Built(
        experiment=experiment,
        devices=devices,
        precision=precision,
        backbone=backbone,
        stages=stages,
        watched=watched,
        seconds={
            "backbone": loaded - started,
            "data": time.perf_counter() - loaded,
        },
    )


def _rehearse(stages: Sequence[Prepared]) -> None:
    """Goes through the stages without training.

    Rules that do not fit, factories that fail and bindings that only they would reach
    show up now, not when the stage's turn comes.
    """
    sizes = []
    with regimes.rehearsal():
        for number, prepared in enumerate(stages):
            prepared.apply_regime()
            sizes.append(placement.shapes(prepared.network.model))
            optimizer = prepared.make_optimizer(prepared.total_steps or 1)
            for line in tf_strategy.check(
                prepared.network.model,
                optimizer=optimizer,
                loss=prepared.loss(),
                jit_compile=prepared.stage.jit_compile,
                batch_size=prepared.stage.batch_size,
            ):
                say(f"note: {line}")
            earlier = [before.stage.name for before in stages[:number]]
            search.check_declared(prepared)
            for line in course.check(prepared, earlier=earlier):
                say(f"note: {line}")
    placement.check(sizes)


@hidden_tensorflow()
def run(
    experiment: Experiment, *, output_dir: str, allow: Sequence[str] = ()
) -> Report:
    """Runs an experiment, goes on with it, or says that it is finished.

    The order of things:

    1. the other processes are joined, if there are any; the run directory must be new
       or hold this experiment;
    2. devices, precision, seeds, backbone, data, heads: everything is built, so
       that a mistake in the last stage shows before the first one trains;
    3. the declaration and the environment are written;
    4. each stage: regime, optimizer, resume, fit, proof, evaluation, stage report;
    5. export, report.

    Args:
        experiment: The declaration.
        output_dir: The run directory; a URL such as `gs://bucket/run`, too.
        allow: What may have changed since an earlier process of the run: `data`,
            `versions`.

    Returns:
        The report, as written to `report.json`.

    Raises:
        TflearnError: The declaration, the data or the run directory are wrong.
    """
    folder = storage.local(output_dir)
    processes.start(experiment.distribution)
    if run_directory.is_finished(folder, experiment.declaration):
        shown = storage.shown(folder)
        say(f"{shown} is finished; its report is {shown}/report.html")
        with outbox.sending(experiment.tracker, folder, experiment.name):
            pass
        return Report.from_json(files.read_json(folder / run_directory.REPORT))
    for line in environment.untested():
        say(f"warning: {line}")
    built, measured = _built(experiment, folder)
    _check_same(built)
    say(built.devices.note + f", precision {built.precision}")
    with (
        run_directory.locked(folder),
        built.devices.scope(),
        interruption.listening(grace_seconds=experiment.grace_seconds),
        maintenance.watching(),
        outbox.sending(experiment.tracker, folder, experiment.name) as box,
    ):
        fingerprints = {x.stage.name: x.dataset.fingerprint for x in built.stages}
        unchanged.check(folder, fingerprints, allow=allow)
        run_directory.write_start(folder, experiment.declaration)
        precision_trial.keep(folder, measured)
        reports, sources = _train_stages(built, folder, box)
        started = time.perf_counter()
        if experiment.export:
            temperature = reports[-1].temperature
            export.write_model(
                built.stages[-1], folder / "model", temperature=temperature
            )
        run_directory.write_operative(folder, experiment.declaration)
        seconds = built.seconds | {"export": time.perf_counter() - started}
        report = _report(built, reports, sources, seconds)
        write_report(report, folder)
        # A process that ends earlier would be taken for lost.
        processes.meet()
    return report


def _built(
    experiment: Experiment, folder: pathlib.Path
) -> tuple[Built, dict[str, Any] | None]:
    """Builds in the precision the run began with, or in the fastest if that pays."""

    def make(precision: str) -> Built:
        # The first one's names again, so that a resumed run finds its checkpoints.
        keras.utils.clear_session()
        return build(dataclasses.replace(experiment, precision=precision))

    if experiment.precision != "auto":
        return build(experiment), None
    kept = precision_trial.recall(folder)
    built = build(dataclasses.replace(experiment, precision=kept or "auto"))
    first, platform = built.stages[0], built.devices.platform
    if kept or not precision_trial.pays(first, platform, folder):
        return built, None
    found = precision_trial.settle(platform, lambda name: make(name).stages[0])
    return make(found["precision"]), found


def _check_same(built: Built) -> None:
    """Checks that all processes of the run have the same rows and weights."""
    for prepared in built.stages:
        processes.check_same(prepared.dataset.fingerprint, "rows of data")
    processes.check_same(str(getattr(built.devices.strategy, "values", "")), "weights")


def _train_stages(
    built: Built, folder: pathlib.Path, box: outbox.Outbox | None
) -> tuple[list[StageReport], list[dict[str, Any]]]:
    """Trains the stages in order, each from where the one before ended."""
    previous: Prepared | None = None
    reports, done = [], {}
    sources = point(built.watched, None, folder / "sources.json")
    for prepared in built.stages:
        name = prepared.stage.name
        interruption.check(f"stage '{name}' is not begun, or not ended")
        if previous is not None:
            export.carry_head(previous, prepared)
        own = folder / "stages" / prepared.stage.name
        reports.append(run_stage(prepared, own, earlier=done, outbox=box))
        done[prepared.stage.name] = prepared
        sources += point(built.watched, prepared, own / "sources.json")
        previous = prepared
    return reports, sources


def _report(
    built: Built,
    stages: Sequence[StageReport],
    sources: Sequence[dict[str, Any]],
    seconds: dict[str, float],
) -> Report:
    model = built.stages[-1].network.deployed
    return Report(
        name=built.experiment.name,
        seed=built.experiment.seed,
        versions=environment.versions() | {"backend": keras.backend.backend()},
        hardware=environment.hardware() | {"devices": built.devices.note},
        command=" ".join(sys.argv),
        stages=list(stages),
        sources=list(sources),
        seconds=seconds,
        peak_memory_bytes=environment.peak_memory_bytes(),
        model={
            "parameters": model.count_params(),
            "origin": built.backbone.origin,
            "precision": built.precision,
        },
    )


def _check_batches(experiment: Experiment, devices: Devices) -> None:
    for stage in experiment.stages:
        for field in ("batch_size", "eval_batch_size"):
            layouts.check_batch_size(
                getattr(stage, field),
                axes=devices.axes,
                name=f"{field} of stage '{stage.name}'",
            )


def _check_stages(experiment: Experiment) -> None:
    names = [stage.name for stage in experiment.stages]
    if not names:
        raise ConfigError(
            "an experiment needs at least one stage",
            fix="experiment.Experiment.stages = (@tune/experiment.Stage(),)",
        )
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError("two stages have one name", received=", ".join(sorted(twice)))
