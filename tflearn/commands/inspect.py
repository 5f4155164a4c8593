"""`--mode=inspect`: how far a run is, and whether its checkpoints are whole."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator

from tflearn.commands.arguments import Arguments
from tflearn.reports.tables import cell, plain_table
from tflearn.support import files, storage
from tflearn.support.console import console, say
from tflearn.support.errors import RunError
from tflearn.support.units import bytes_text
from tflearn.training import run_directory, unchanged
from tflearn.training.checkpoints import Checkpoints, Damaged

# Those of a stage: on the way, the best, those of a soup, its end.
_FOLDERS = ("checkpoints", "best", "soup", "end")


def main(arguments: Arguments) -> int:
    """Prints stages and checkpoints of a run; reads every array and changes nothing.

    Args:
        arguments: The flags.

    Returns:
        The exit code: 0, or 1 if a checkpoint is damaged.
    """
    folder = storage.local(arguments.run_dir or "")
    storage.pull(folder)
    if not (folder / run_directory.CONFIG).is_file():
        raise RunError("there is no run here", received=storage.shown(folder))
    table = plain_table(f"checkpoints of {storage.shown(folder)}")
    for name in ("stage", "kept as", "state"):
        table.add_column(name)
    for name in ("step", "variables", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    damaged: list[Damaged] = []
    for stage in _stages(folder):
        for kind in _FOLDERS:
            for row in _rows(stage, kind, damaged):
                table.add_row(*map(cell, row))
    console.print(table)
    for error in damaged:
        say(str(error))
    finished = (folder / run_directory.REPORT).is_file()
    say(f"the run is {'finished' if finished else 'not finished'}")
    return int(bool(damaged))


def _stages(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders of the stages that were begun, in their order."""
    found = [x for x in (folder / "stages").glob("*") if (x / "length.json").is_file()]
    order = {name: i for i, name in enumerate(unchanged.stages(folder))}
    # Of a run that an early version wrote no order is known.
    return sorted(found, key=lambda x: (order.get(x.name, len(order)), x.name))


def _rows(
    stage: pathlib.Path, kind: str, damaged: list[Damaged]
) -> Iterator[tuple[str, ...]]:
    """Gives a row for every checkpoint; adds what is wrong with those that are not."""
    if not storage.checkpoint_folder(stage / kind).is_dir():
        return
    checkpoints = Checkpoints(stage / kind, keep=None, read_only=True)
    total = files.read_json(stage / "length.json").get("total_steps")
    for step in checkpoints.steps:
        shown = (stage.name, kind)
        at = f"{step} of {total}"
        try:
            held = checkpoints.check(step)
        except Damaged as error:
            damaged.append(error)
            yield (*shown, "damaged", at, "", "")
            continue
        size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in held.values())
        yield (*shown, "whole", at, str(len(held)), bytes_text(size))
    checkpoints.close()
