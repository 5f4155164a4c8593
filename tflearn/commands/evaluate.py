"""`--mode=evaluate`: the metrics of a finished run on a split or a new file."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Callable
from typing import Any

from tflearn import config
from tflearn.commands.arguments import Arguments
from tflearn.data import Data
from tflearn.evaluation import evaluate
from tflearn.experiment import Experiment
from tflearn.reports.tables import metrics_table
from tflearn.support import files
from tflearn.support.console import console, say
from tflearn.support.errors import ConfigError, DataError, RunError, nearest
from tflearn.training import finished, run_directory


def main(arguments: Arguments) -> int:
    """Evaluates a finished run and writes the metrics as JSON.

    Args:
        arguments: The flags; without `output`, the file is `evaluations/<name>.json`
            in the run directory.

    Returns:
        The exit code.
    """
    declared = _declared(pathlib.Path(arguments.run_dir or ""))
    # Only after the declaration, which imports the modules of the user's own layers.
    run = finished.open_run(arguments.run_dir or "")
    run.check_has_targets()
    stage = declared.stages[-1]
    data = dataclasses.replace(
        stage.data(), classes=tuple(run.labels["classes"]) or None
    )
    if arguments.input:
        data = _on_file(data, arguments.input)
    dataset = data.load(target_kind=run.task, require_train=False)
    name = arguments.split or ("test" if "test" in dataset.splits else "validation")
    if name not in dataset.splits:
        raise ConfigError(
            "the data have no such split",
            received=name,
            expected=", ".join(dataset.splits),
            nearest=nearest(name, dataset.splits),
        )
    split = dataset.splits[name]
    if split.targets is None or not len(split):
        raise DataError(f"the split '{name}' has nothing to evaluate")
    evaluation = evaluate(
        run.task,
        split.targets,
        run.outputs(split, data, batch_size=stage.eval_batch_size),
        classes=dataset.classes,
        slices=split.slices,
        bootstrap=stage.bootstrap,
        temperature=run.labels["temperature"],
    ).to_json()
    label = pathlib.Path(arguments.input).name if arguments.input else name
    console.print(metrics_table({label: evaluation}))
    target = pathlib.Path(
        arguments.output or run.folder / "evaluations" / f"{label}.json"
    )
    files.write_json(target, {"notes": list(dataset.notes), **evaluation})
    say(f"written: {target}")
    return 0


def _declared(folder: pathlib.Path) -> Experiment:
    written = folder / run_directory.CONFIG
    if not written.is_file():
        raise RunError(
            "the directory holds no run", received=str(folder), expected=str(written)
        )
    declaration = config.load([str(written)])
    if not declaration.bindings:
        raise RunError(
            "the run was declared in Python, so its data are not known here",
            received=str(folder),
            fix="use training.finished.open_run and evaluation.evaluate in Python",
        )
    return declaration.experiment()


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
    if "paths" not in inspect.signature(source).parameters:
        raise ConfigError(
            "the run's data source reads no files",
            received=getattr(source, "__name__", str(source)),
            expected="a source with a parameter `paths`",
            fix="evaluate one of the run's own splits with --split",
        )
    return source(paths={"test": path})
