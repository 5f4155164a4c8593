"""`--mode=resume_test`: a user's own proof that a killed run ends with the same bits.

The experiment is trained twice for a few steps a stage: once straight, and once killed
with SIGKILL in the middle of every stage and started again each time. Then everything
that training changes is compared.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np

from tflearn import config, experiment
from tflearn.commands.arguments import Arguments
from tflearn.support import files
from tflearn.support.console import say
from tflearn.support.errors import ConfigError, RunError
from tflearn.training.checkpoints import Checkpoints

_STEPS = 10
_POLL_SECONDS = 0.02
_CHILD = "from tflearn.commands import resume_test; resume_test.run_short({!r})"


def main(arguments: Arguments) -> int:
    """Trains twice, kills one of the two, and compares.

    Args:
        arguments: The flags. `steps` is N: every stage has 2 N steps and is killed
            after N. With `output_dir` both run directories stay, otherwise only if
            they differ.

    Returns:
        The exit code: 0 if no bit differs, else 1.

    Raises:
        RunError: One of the runs failed.
    """
    steps = _number(arguments.steps)
    declared = config.load_arguments(arguments).experiment()
    stages = [stage.name for stage in declared.stages]
    folder = pathlib.Path(
        arguments.output_dir or tempfile.mkdtemp(prefix="tflearn_resume_test_")
    )
    straight, killed = folder / "straight", folder / "killed"
    say(f"straight: {2 * steps} steps a stage")
    _finish(arguments, straight, steps)
    for stage in stages:
        say(f"killed after step {steps} of stage '{stage}'")
        _kill(arguments, killed, steps, stage)
    say("resumed to the end")
    _finish(arguments, killed, steps)
    found = [line for stage in stages for line in compare(straight, killed, stage)]
    for line in found:
        say(line)
    differs = any(map(is_difference, found))
    if not arguments.output_dir and not differs:
        shutil.rmtree(folder)
    elif not arguments.output_dir:
        say(f"both runs are kept in {folder}")
    return int(differs)


def run_short(text: str) -> None:
    """Runs an experiment for a few steps a stage; the body of a process of its own.

    Args:
        text: JSON of the flags, the run directory and the steps a stage.
    """
    told = json.loads(text)
    steps = told["steps"]
    try:
        declared = config.load_arguments(Arguments(**told["arguments"])).experiment()
        stages = tuple(
            dataclasses.replace(
                stage, budget=f"{2 * steps} steps", interval=max(1, steps // 2)
            )
            for stage in declared.stages
        )
        experiment.run(
            dataclasses.replace(declared, stages=stages), output_dir=told["folder"]
        )
    except Exception as error:
        known = config.explain(error)
        if known is None:
            raise
        sys.exit(str(known))


def compare(straight: pathlib.Path, killed: pathlib.Path, stage: str) -> list[str]:
    """Compares what two runs of one experiment left of a stage, bit by bit.

    Args:
        straight: A run directory.
        killed: Another one.
        stage: Name of the stage.

    Returns:
        A line each for the newest checkpoint, the final weights, the rows of metrics
        and the evaluations.
    """
    return list(_compared(straight, killed, stage))


def is_difference(line: str) -> bool:
    """Tells whether a line of `compare` names a difference."""
    return line.startswith("DIFFERENT")


def _number(text: str | None) -> int:
    steps = _STEPS if text is None else int(text) if text.isdecimal() else 0
    if steps < 1:
        raise ConfigError(
            "--steps is a number of steps", received=text, expected="1 or more"
        )
    return steps


def _finish(arguments: Arguments, folder: pathlib.Path, steps: int) -> None:
    process = _start(arguments, folder, steps)
    _, said = process.communicate()
    _check_ended_well(process.returncode, said)


def _kill(arguments: Arguments, folder: pathlib.Path, steps: int, stage: str) -> None:
    """Kills a run as soon as it has saved the middle of a stage."""
    process = _start(arguments, folder, steps)
    saved = folder / "stages" / stage / "checkpoints"
    while process.poll() is None and not _has_saved(saved, steps):
        time.sleep(_POLL_SECONDS)
    process.kill()
    _, said = process.communicate()
    if process.returncode != -signal.SIGKILL:
        _check_ended_well(process.returncode, said)
        say("note: it had ended before it could be killed; give more --steps")


def _has_saved(folder: pathlib.Path, steps: int) -> bool:
    if not folder.is_dir():
        return False
    return any(int(x.name) >= steps for x in folder.iterdir() if x.name.isdecimal())


def _start(
    arguments: Arguments, folder: pathlib.Path, steps: int
) -> subprocess.Popen[str]:
    told = {
        "arguments": dataclasses.asdict(arguments),
        "folder": str(folder),
        "steps": steps,
    }
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD.format(json.dumps(told))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _check_ended_well(code: int, said: str) -> None:
    if code:
        raise RunError("a run of the test failed", received=said.strip()[-2000:])


def _compared(
    straight: pathlib.Path, killed: pathlib.Path, stage: str
) -> Iterator[str]:
    pairs = [folder / "stages" / stage for folder in (straight, killed)]
    for name in ("checkpoints", "end"):
        yield f"{_variables([pair / name for pair in pairs])} in {stage}/{name}"
    rows = [(pair / "metrics.jsonl").read_text("utf-8").splitlines() for pair in pairs]
    yield f"{_first('row', rows)} in {stage}/metrics.jsonl"
    reports = [files.read_json(pair / "report.json") for pair in pairs]
    metrics = [
        [json.dumps(x, sort_keys=True) for x in report["evaluations"].items()]
        for report in reports
    ]
    yield f"{_first('evaluation', metrics)} in {stage}/report.json"


def _variables(folders: Sequence[pathlib.Path]) -> str:
    """Compares the newest checkpoints of two folders, bit by bit."""
    held = []
    for folder in folders:
        saved = Checkpoints(folder)
        if saved.latest is None:
            raise RunError("a run of the test left no checkpoint", received=str(folder))
        held.append(saved.read(saved.latest))
        saved.close()
    one, two = held
    for path in sorted(set(one) | set(two)):
        if path not in one or path not in two:
            return f"DIFFERENT: {path} is in one of them only"
        if one[path].tobytes() != two[path].tobytes():
            largest = np.abs(one[path].astype("float64") - two[path]).max()
            return f"DIFFERENT: {path} by up to {largest:.3g}"
    return f"{len(one)} variables are bit-identical"


def _first(what: str, rows: Sequence[Sequence[str]]) -> str:
    one, two = rows
    for number, (left, right) in enumerate(zip(one, two, strict=False)):
        if left != right:
            return f"DIFFERENT: {what} {number}: {left[:200]} and {right[:200]}"
    if len(one) != len(two):
        return f"DIFFERENT: {len(one)} and {len(two)} {what}s"
    return f"{len(one)} {what}s are identical"
