"""Measuring what a run forgets, and starting from what an earlier run learnt."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from tflearn.backbones import Backbone, load_model, read_weights
from tflearn.backbones.encoder_files import Encoder, same_vocabulary
from tflearn.backbones.transfer import transfer
from tflearn.backbones.weight_files import arrays_by_path
from tflearn.data import Data, Dataset
from tflearn.distribution import processes
from tflearn.regimes import adapters
from tflearn.support import storage
from tflearn.support.console import say
from tflearn.support.errors import ConfigError, RunError, nearest
from tflearn.training import assessment, export, preparation
from tflearn.training import probe as probes
from tflearn.training.export import MODEL_FILE
from tflearn.training.finished import read_labels
from tflearn.training.probe import Probe
from tflearn.training.stage import Prepared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A task or corpus whose metric is measured before and after each stage.

    Exactly one of `stage`, `data` and `probe` is given.

    Args:
        name: Its name in the report.
        stage: A stage of the experiment: its own test metric, by the head it ended
            with and whatever the backbone has become since.
        data: Data of the stages' own task with the same classes, such as those an
            earlier run was trained on: the metric of the network of each stage.
        probe: Labelled data: the accuracy of a probe on the backbone's features.
    """

    name: str
    stage: str | None = None
    data: Callable[[], Data] | None = None
    probe: Callable[[], Probe] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched:
    """A source that is ready to be measured.

    Args:
        source: The declaration.
        measure: Called with the stage that has just ended, None before the first;
            returns a row `metric`, `lower_is_better`, `split`, `value`, `low`,
            `high`, `count`, or None where there is nothing to measure yet.
    """

    source: Source
    measure: Callable[[Prepared | None], dict[str, Any] | None]


def watch(
    sources: Sequence[Source], stages: Sequence[Prepared], backbone: Backbone
) -> tuple[Watched, ...]:
    """Prepares the measurements of all sources.

    Args:
        sources: The declarations.
        stages: The experiment's stages, ready to train.
        backbone: Their backbone.

    Returns:
        One for each source.

    Raises:
        ConfigError: A source names no stage, or nothing or several things to measure.
        DataError: Its data cannot be used.
    """
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ConfigError("two sources have one name", received=", ".join(names))
    made = []
    for source in sources:
        given = [x for x in (source.stage, source.data, source.probe) if x is not None]
        if len(given) != 1:
            raise ConfigError(
                f"source '{source.name}' takes exactly one of stage, data and probe",
                received=f"{len(given)} of them",
            )
        if source.probe is not None:
            measure = _of_probe(source.probe(), backbone)
        elif source.data is not None:
            measure = _of_data(source.name, source.data(), stages)
        else:
            measure = _of_stage(source.stage or "", stages)
        made.append(Watched(source=source, measure=measure))
    return tuple(made)


def point(
    watched: Sequence[Watched], after: Prepared | None, file: pathlib.Path
) -> list[dict[str, Any]]:
    """Measures all sources at one point of a run, once.

    Args:
        watched: The sources.
        after: The stage that has just ended; None before the first.
        file: Where the rows are kept for a process that goes on with the run.

    Returns:
        One row a source that can be measured: `source`, `after` and those of
        `Watched.measure`.
    """
    if not watched:
        return []
    name = "start" if after is None else after.stage.name

    def measure() -> list[dict[str, Any]]:
        return [
            {"source": each.source.name, "after": name, **row}
            for each in watched
            if (row := each.measure(after)) is not None
        ]

    return processes.once(file, measure)


def start_from(folder: str, stage: Prepared) -> str:
    """Gives the first stage the weights of a finished run.

    The backbone has to be the same. The head is carried over where task and classes
    are equal.

    Args:
        folder: The run directory.
        stage: The first stage.

    Returns:
        One line on what was done.

    Raises:
        RunError: There is no finished run, or its vocabulary is another one.
        BackboneError: Its backbone is another one.
    """
    labels = read_labels(folder)
    run = storage.fetched(folder)
    model = run / "model"
    same = (labels["task"], labels["classes"]) == (
        stage.task,
        list(stage.dataset.classes),
    )
    _check_encoders(stage, model, all_of_them=same)
    if same:
        network = stage.network.deployed
        log = transfer(arrays_by_path(load_model(model / MODEL_FILE)), network)
    else:
        log = transfer(read_weights(run), stage.network.backbone.model)
    said = ["head carried over" if same else "new head: other task or classes"]
    if same:
        said += export.load_objective(stage, model)
    line = f"started from {folder}: {log}; {'; '.join(said)}"
    say(line)
    return line


def _check_encoders(stage: Prepared, model: pathlib.Path, *, all_of_them: bool) -> None:
    """Checks that the weights mean the same tokens, those of a second encoder too."""
    encoders: dict[str, Encoder] = {"encoder": stage.network.backbone.encoder}
    if all_of_them and stage.pretext is not None:
        encoders |= stage.pretext.encoders
    for name, encoder in encoders.items():
        if not same_vocabulary(encoder, model / name):
            raise RunError(
                "the run was trained with another vocabulary",
                received=f"another {name.replace('_', ' ')} than in {model / name}",
                expected="that of the run",
                fix="take its tokenizer: vocabularies.of_run.path = "
                f"'{model.parent}', vocabularies.of_run.encoder = '{name}'",
            )


def _of_stage(
    name: str, stages: Sequence[Prepared]
) -> Callable[[Prepared | None], dict[str, Any] | None]:
    order = [prepared.stage.name for prepared in stages]
    if name not in order:
        raise ConfigError(
            "a source names no stage of the experiment",
            received=name,
            expected=", ".join(order),
            nearest=nearest(name, order),
        )
    own = stages[order.index(name)]
    _measured_split(own)

    def measure(after: Prepared | None) -> dict[str, Any] | None:
        if after is None or order.index(after.stage.name) < order.index(name):
            return None
        return _row(own)

    return measure


def _of_data(
    name: str, data: Data, stages: Sequence[Prepared]
) -> Callable[[Prepared | None], dict[str, Any] | None]:
    kinds = {x.objective.target_kind for x in stages}
    loaded = {kind: data.load(target_kind=kind, require_train=False) for kind in kinds}
    swapped = {}
    for x in stages:
        dataset = loaded[x.objective.target_kind]
        same = dataset.classes == x.dataset.classes
        swapped[x.stage.name] = on_data(x, dataset) if same else None
    if not any(swapped.values()):
        raise ConfigError(
            f"no stage has the task and the classes of the source '{name}'",
            expected="; ".join(
                f"{x.stage.name}: {x.task} {', '.join(x.dataset.classes[:5])}"
                for x in stages
            ),
            fix="measure it with a probe: forgetting.Source.probe = @probe.Probe",
        )
    for found in filter(None, swapped.values()):
        _measured_split(found)

    def measure(after: Prepared | None) -> dict[str, Any] | None:
        found = swapped.get((after or stages[0]).stage.name)
        return None if found is None else _row(found)

    return measure


def on_data(prepared: Prepared, dataset: Dataset) -> Prepared:
    """Returns a stage with other data to be measured on.

    Args:
        prepared: The stage.
        dataset: Data of its task and classes; their training rows are left out.

    Returns:
        The stage with the examples of the other splits.
    """
    held_out = {k: rows for k, rows in dataset.splits.items() if k != "train"}
    dataset = dataclasses.replace(dataset, splits=held_out)
    backbone = prepared.network.backbone
    examples = preparation.encode(prepared.objective, dataset, backbone)
    pretext = prepared.pretext
    if pretext is not None:
        examples = {
            split: pretext.arrange(part, dataset.splits[split].targets)
            for split, part in examples.items()
        }
    return dataclasses.replace(prepared, dataset=dataset, examples=examples)


def _of_probe(
    declared: Probe, backbone: Backbone
) -> Callable[[Prepared | None], dict[str, Any]]:
    ready = probes.prepare(declared, backbone, batch_size=128)
    count = len(ready.labels[declared.split])

    def measure(after: Prepared | None) -> dict[str, Any]:
        adapters.forget_traces(ready.network)
        ((metric, value),) = ready.measure().items()
        return {
            "metric": metric,
            "lower_is_better": False,
            "split": declared.split,
            "value": value,
            "low": None,
            "high": None,
            "count": count,
        }

    return measure


def _measured_split(prepared: Prepared) -> str:
    """Returns the split that a source is measured on, or raises if there is none."""
    for split in ("test", "validation"):
        if split in prepared.examples:
            return split
    raise ConfigError(
        "a source needs a test or a validation split",
        received=", ".join(prepared.dataset.splits) or "none but train",
    )


def _row(prepared: Prepared) -> dict[str, Any]:
    # A later stage may have given layers adapters that were not there when this
    # network was compiled.
    for model in (prepared.network.deployed, prepared.scorer):
        if model is not None:
            adapters.forget_traces(model)
    split = _measured_split(prepared)
    evaluation = assessment.assess(
        prepared,
        split,
        bootstrap=prepared.stage.bootstrap,
        values=assessment.measure(prepared, split),
    )
    found = evaluation.metrics[evaluation.headline]
    return {
        "metric": evaluation.headline,
        "lower_is_better": evaluation.lower_is_better,
        "split": split,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "count": found.count,
    }
