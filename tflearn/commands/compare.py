"""`--mode=compare`: arms of one experiment on equal terms, and what follows from them.

Each run of an arm is an ordinary run directory under `arms/<name>`; what the arms
share lies under `shared`. Running it again repeats nothing and draws the report anew.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from tflearn import config
from tflearn.commands.arguments import Arguments
from tflearn.comparison import Arm, Comparison, Tuning, running, settling, workers
from tflearn.experiment import Experiment
from tflearn.planning import advising
from tflearn.reports import advice as advices
from tflearn.reports import side_by_side
from tflearn.reports.tables import comparison_table
from tflearn.support import storage
from tflearn.support.console import console, say
from tflearn.support.declarations import permissions

# Files of earlier versions name them here.
__all__ = ["Arm", "Comparison", "Tuning", "main"]


def main(arguments: Arguments) -> int:
    """Runs all arms, prints the table, writes `compare.json` and `compare.html`.

    Args:
        arguments: The flags.

    Returns:
        The exit code.
    """
    workers.end_with_parent()
    if arguments.beside:
        return _lay_side_by_side(arguments)
    declaration = config.load_arguments(arguments)
    base: Experiment = declaration.experiment()
    comparison: Comparison = declaration.comparison()
    name = arguments.output_dir or f"runs/{base.name}_compare"
    folder = storage.fetched(name)
    if comparison.workers and not arguments.only:
        settled = _run_beside(arguments, comparison, base, folder)
    else:
        only = [x for x in (arguments.only or "").split(",") if x]
        settled = running.run_shared_stages(base, comparison, folder, only=only)
        if not only or running.SHARED in only:
            for line in advices.lines(
                advising.advised(base, comparison, settled, folder)
            ):
                say(line)
        running.run_arms(settling.points(base, comparison, settled, folder, only=only))
        if only:
            return 0
    results, found = running.draw(base, comparison, settled, folder)
    console.print(comparison_table(results))
    say(found["verdict"])
    say(f"report: {storage.shown(folder)}/compare.html")
    return 0


def _lay_side_by_side(arguments: Arguments) -> int:
    """Draws comparisons that are there in one table; nothing is trained."""
    folder = storage.fetched(str(arguments.output_dir))
    kept = [storage.fetched(name) for name in arguments.beside]
    found = side_by_side.write_side_by_side(kept, folder)
    storage.push(folder)
    for line in (*found["notes"], found["verdict"]):
        say(line)
    say(f"report: {storage.shown(folder)}/compare.html")
    return 0


def _run_beside(
    arguments: Arguments,
    comparison: Comparison,
    base: Experiment,
    folder: pathlib.Path,
) -> settling.Settled:
    """Runs every arm in a process of its own; this one touches no device."""
    logs = folder / "logs"

    def start(names: Sequence[str], count: int) -> None:
        workers.run(
            names,
            lambda name: _command(arguments, name, folder),
            workers=count,
            logs={name: logs / f"{name}.txt" for name in names},
        )
        # Of a bucket every process has a copy, which knows nothing of the others'.
        storage.push(folder)
        storage.fetched(storage.shown(folder))

    if not _has_shared(comparison, base, folder):
        start([running.SHARED], 1)
    settled = settling.settle(base, comparison, folder)
    said = advices.read(folder)
    for line in advices.lines(said) if said else ():
        say(line)
    points = settling.points(base, comparison, settled, folder)
    unfinished = {
        x.arm.name: None for x in points if not (x.home / running.SPENT).is_file()
    }
    start(list(unfinished), comparison.workers)
    return settled


def _has_shared(comparison: Comparison, base: Experiment, folder: pathlib.Path) -> bool:
    """Tells whether there is all that is made before the arms."""
    seeds = comparison.seeds if base.stages[:-1] else ()
    reports = [f"{running.SHARED}/seed{seed}/report.json" for seed in seeds]
    made = (settling.FILE, advices.FILE, *reports)
    return all((folder / name).is_file() for name in made)


def _command(arguments: Arguments, only: str, folder: pathlib.Path) -> list[str]:
    """Returns the command line that runs one arm of this comparison."""
    named = {
        "--gin_file": arguments.gin_files,
        "--gin_bindings": arguments.gin_bindings,
        "--gin_search_path": arguments.gin_search_paths,
    }
    flags = [f"{flag}={value}" for flag, values in named.items() for value in values]
    if arguments.gin_allow_imports is not None:
        allowed = ",".join(arguments.gin_allow_imports)
        flags.append(f"{permissions.FLAG}={allowed}")
    return [
        *(sys.executable, "-m", "tflearn.run", "--mode=compare"),
        *(f"--backend={arguments.backend}", *flags),
        *(f"--output_dir={storage.shown(folder)}", f"--only={only}"),
    ]
