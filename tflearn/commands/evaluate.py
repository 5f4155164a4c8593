"""`--mode=evaluate`: the metrics of a finished run on a split or a new file."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Callable
from typing import Any

import keras

from tflearn import backbones, experiment, regimes
from tflearn.commands.arguments import Arguments
from tflearn.commands.written import open_declaration
from tflearn.data import Data, Dataset, Split
from tflearn.data.spec import TARGET_KINDS
from tflearn.evaluation import Evaluation, evaluate
from tflearn.experiment import Experiment
from tflearn.reports.tables import metrics_table
from tflearn.support import files, storage
from tflearn.support.console import console, say
from tflearn.support.errors import ConfigError, DataError, nearest
from tflearn.training import assessment, finished, forgetting


def main(arguments: Arguments) -> int:
    """Evaluates a finished run and writes the metrics as JSON.

    Args:
        arguments: The flags. Bindings change the run's declaration, such as its data.
            Without `output`, the file is `evaluations/<name>.json` in the run
            directory.

    Returns:
        The exit code.
    """
    run_dir = arguments.run_dir or ""
    declared = open_declaration(
        run_dir,
        bindings=arguments.gin_bindings,
        search_paths=arguments.gin_search_paths,
    ).experiment()
    # Only after the declaration, which imports the modules of the user's own layers.
    labels = finished.read_labels(run_dir)
    measure = _with_labels if labels["task"] in TARGET_KINDS else _without_labels
    name, dataset, found = measure(declared, labels, arguments)
    evaluation = found.to_json()
    label = pathlib.Path(arguments.input).name if arguments.input else name
    console.print(metrics_table({label: evaluation}))
    target = pathlib.Path(
        arguments.output or storage.local(run_dir) / "evaluations" / f"{label}.json"
    )
    files.write_json(target, {"notes": list(dataset.notes), **evaluation})
    storage.push(target)
    say(f"written: {storage.shown(target)}")
    return 0


_Measured = tuple[str, Dataset, Evaluation]


def _with_labels(
    declared: Experiment, labels: dict[str, Any], arguments: Arguments
) -> _Measured:
    """Measures what the run's model says against targets."""
    run = finished.open_run(arguments.run_dir or "")
    stage = declared.stages[-1]
    data = dataclasses.replace(stage.data(), classes=tuple(labels["classes"]) or None)
    if data.max_length == "auto":
        cut = {name: labels[name] for name in ("max_length", "truncate")}
        data = dataclasses.replace(data, **cut)
    if arguments.input:
        data = _on_file(data, arguments.input)
    dataset = data.load(target_kind=run.task, require_train=False)
    split = _split(dataset, arguments.split)
    if split.targets is None:
        raise DataError(f"the split '{split.name}' has nothing to evaluate")
    return (
        split.name,
        dataset,
        evaluate(
            run.task,
            split.targets,
            run.outputs(split, data, batch_size=stage.eval_batch_size),
            classes=dataset.classes,
            slices=split.slices,
            bootstrap=stage.bootstrap,
            temperature=labels["temperature"],
        ),
    )


def _without_labels(
    declared: Experiment, labels: dict[str, Any], arguments: Arguments
) -> _Measured:
    """Measures the run's last stage, built again with its weights, as it was then.

    The backbone comes from the run, and its tokenizer with it: one made from other
    data would give tokens of another meaning.
    """
    run_dir = arguments.run_dir or ""
    # What only training needs is left out, and may need what is no longer there.
    stage = dataclasses.replace(
        declared.stages[-1],
        regime=regimes.full(),
        optimizer=keras.optimizers.SGD,
        phases=(),
        anchor=None,
        average=None,
        rehearsal=None,
        probe=None,
    )
    built = experiment.build(
        dataclasses.replace(
            declared,
            backbone=functools.partial(backbones.from_run, run_dir),
            stages=(stage,),
            start_from=run_dir,
            sources=(),
            declaration=None,
        )
    )
    (prepared,) = built.stages
    with built.devices.scope():
        if arguments.input:
            data = _on_file(prepared.data, arguments.input)
            kind = prepared.objective.target_kind
            dataset = data.load(target_kind=kind, require_train=False)
            prepared = forgetting.on_data(prepared, dataset)
        name = _split(prepared.dataset, arguments.split).name
        values = assessment.measure(prepared, name)
        evaluation = assessment.assess(
            prepared, name, bootstrap=stage.bootstrap, values=values
        )
    return name, prepared.dataset, evaluation


def _split(dataset: Dataset, name: str | None) -> Split:
    """Returns the split that is asked for; the test split, else validation."""
    name = name or ("test" if "test" in dataset.splits else "validation")
    if name not in dataset.splits:
        raise ConfigError(
            "the data have no such split",
            received=name,
            expected=", ".join(dataset.splits),
            nearest=nearest(name, dataset.splits),
        )
    if not len(dataset.splits[name]):
        raise DataError(f"the split '{name}' has nothing to evaluate")
    return dataset.splits[name]


def _on_file(data: Data, path: str) -> Data:
    """Points the declared source at another file, all of it to be evaluated."""
    return dataclasses.replace(
        data,
        source=functools.partial(
            _read, data.source, str(pathlib.Path(path).absolute())
        ),
        splits=None,
        examples_per_class=None,
        balance="none",
    )


def _read(source: Callable[..., Any], path: str) -> Any:
    parameters = inspect.signature(source).parameters
    if "paths" not in parameters:
        raise ConfigError(
            "the run's data source reads no files",
            received=getattr(source, "__name__", str(source)),
            expected="a source with a parameter `paths`",
            fix="evaluate one of the run's own splits with --split",
        )
    # All of the file is to be evaluated, none of it cut off for other splits.
    whole = {"shares": None} if "shares" in parameters else {}
    return source(paths={"test": path}, **whole)
