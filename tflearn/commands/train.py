"""`--mode=train`: train, evaluate, report; or update a finished run with new data."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from tflearn import config, experiment
from tflearn.commands.arguments import Arguments
from tflearn.commands.written import open_declaration
from tflearn.data import Data
from tflearn.reports.tables import metrics_table, sources_table
from tflearn.support.console import console, say
from tflearn.support.errors import ConfigError
from tflearn.training.forgetting import Source

_START = "experiment.Experiment.start_from = {!r}"


def main(arguments: Arguments) -> int:
    """Runs the declared experiment.

    Args:
        arguments: The flags. With `run_dir`, the declaration of that finished run is
            taken, changed by the files and bindings given, and training starts from
            its weights; the metric on its data is reported before and after.

    Returns:
        The exit code.
    """
    if arguments.run_dir:
        declared = _update(arguments, arguments.run_dir)
    else:
        declared = config.load_arguments(arguments).experiment()
    declared = _in_processes(declared, arguments)
    folder = arguments.output_dir or f"runs/{declared.name}"
    report = experiment.run(declared, output_dir=folder, allow=arguments.allow)
    for stage in report.stages:
        if stage.evaluations:
            console.print(f"[bold]{stage.name}[/bold]")
            console.print(metrics_table(stage.evaluations))
    if report.sources:
        console.print(sources_table(report.sources))
    say(f"report: {folder}/report.html")
    return 0


def _in_processes(
    declared: experiment.Experiment, arguments: Arguments
) -> experiment.Experiment:
    """Says which process this is; that is no part of the declaration that is kept."""
    found = {
        "coordinator": arguments.coordinator,
        "processes": _whole("processes", arguments.processes),
        "process_id": _whole("process_id", arguments.process_id),
    }
    given = {name: value for name, value in found.items() if value is not None}
    if not given:
        return declared
    distribution = dataclasses.replace(declared.distribution, **given)
    return dataclasses.replace(declared, distribution=distribution)


def _whole(flag: str, given: str | None) -> int | None:
    if given is None:
        return None
    if not given.isdecimal():
        raise ConfigError(
            f"--{flag} takes a whole number", received=given, expected="such as 2"
        )
    return int(given)


def _update(arguments: Arguments, run_dir: str) -> experiment.Experiment:
    """Declares the update of a run; its old data are watched under the run's name."""
    # Before the new declaration is loaded: gin knows one at a time.
    earlier = open_declaration(run_dir).experiment()
    if not arguments.output_dir:
        raise ConfigError(
            "an update needs a run directory of its own",
            fix="--output_dir=runs/NAME; the finished run is left as it is",
        )
    old = _with_rows(earlier.stages[-1].data())
    declared = open_declaration(
        run_dir,
        files=arguments.gin_files,
        bindings=[*arguments.gin_bindings, _START.format(run_dir)],
        search_paths=arguments.gin_search_paths,
    ).experiment()
    before = Source(name=f"data of {run_dir}", data=lambda: old)
    return dataclasses.replace(declared, sources=(*declared.sources, before))


def _with_rows(data: Data) -> Data:
    """Returns data whose rows have been read."""
    return dataclasses.replace(
        data, source=functools.partial(_given, data.source()), augment=()
    )


def _given(rows: Any) -> Any:
    return rows
