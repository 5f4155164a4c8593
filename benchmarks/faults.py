"""Does a run that is killed at any moment end with the same bits?

Trains tiny experiments straight, then again while SIGKILL strikes at random moments of
a chosen phase: during training, a checkpoint's write, an evaluation, between stages,
while frozen layers are computed once, and while model and reports are written. Each
killed run is started again until it ends, and everything it left is compared with the
straight run, bit by bit.

The processes are forked from one that has imported everything but started no backend:
what is killed is real, only its imports are shared.

Each blow is aimed at the phase that was struck least so far.

Run: python -m benchmarks.faults [--kills 200] [--each 40] [--backend jax]
     [--only text lora] [--json FILE] [--seed 0]
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import json
import mmap
import os
import pathlib
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

_PHASES = (
    "start",
    "training",
    "checkpoint",
    "evaluation",
    "between",
    "report",
    "caching",
)
_KILLS_A_RUN = 6
# How often a process must have entered a phase when the blow falls, one of these.
_TIMES: Mapping[str, tuple[int, ...]] = {
    "start": (0,),
    "training": (1,),
    "checkpoint": (1, 1, 2, 3),
    "evaluation": (1, 1, 2, 3),
    "between": (1,),
    "report": (1, 1, 2),
    "caching": (1,),
}


class Watched:
    """What a child says of itself in memory that its parent sees.

    Bytes 0-3 are the phase, then follow how often each phase was entered.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4 * (1 + len(_PHASES)))

    def clear(self) -> None:
        self._memory[:] = bytes(len(self._memory))

    def enter(self, phase: int) -> None:
        self._put(0, phase)
        self._put(1 + phase, self.entered(phase) + 1)

    def go_back(self, phase: int) -> None:
        self._put(0, phase)

    @property
    def phase(self) -> int:
        return self._get(0)

    def entered(self, phase: int) -> int:
        return self._get(1 + phase)

    def _get(self, place: int) -> int:
        return struct.unpack_from("i", self._memory, 4 * place)[0]

    def _put(self, place: int, value: int) -> None:
        struct.pack_into("i", self._memory, 4 * place, value)


@dataclasses.dataclass
class Tally:
    """What happened to the runs of one experiment."""

    kills: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    runs: int = 0
    lost: list[str] = dataclasses.field(default_factory=list)
    different: list[str] = dataclasses.field(default_factory=list)


def watch_phases(watched: Watched) -> None:
    """Wraps what a phase consists of; nothing else is changed."""
    from tflearn import experiment
    from tflearn.reports import stages
    from tflearn.training import (
        assessment,
        checkpoints,
        execution,
        export,
        intervals,
        loop,
    )

    places: list[tuple[Any, str, str]] = [
        (loop, "train", "training"),
        (checkpoints.Checkpoints, "save", "checkpoint"),
        (assessment, "measure", "evaluation"),
        (intervals, "measure", "evaluation"),
        (stages, "run_stage", "between"),
        (experiment, "run_stage", "between"),
        (export, "carry_head", "between"),
        (execution, "shortcut", "caching"),
        (export, "write_model", "report"),
        (experiment, "write_report", "report"),
    ]
    for owner, name, phase in places:
        setattr(owner, name, _wrapped(getattr(owner, name), watched, phase))


def _wrapped(original: Callable, watched: Watched, phase: str) -> Callable:
    index = _PHASES.index(phase)

    def call(*args: Any, **kwargs: Any) -> Any:
        before = watched.phase
        watched.enter(index)
        try:
            return original(*args, **kwargs)
        finally:
            watched.go_back(before)

    return call


def start(name: str, folder: pathlib.Path, watched: Watched) -> int:
    """Starts a run in a process of its own; returns its number."""
    watched.clear()
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    log = os.open(f"{folder}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        from benchmarks.fault_experiments import EXPERIMENTS
        from tflearn import experiment

        # Of its own: what another run has computed must not spare it the work.
        os.environ["TFLEARN_CACHE"] = f"{folder}.cache"
        watch_phases(watched)
        experiment.run(EXPERIMENTS[name](), output_dir=str(folder))
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def kill_in(child: int, watched: Watched, phase: int, rng: random.Random) -> bool:
    """Kills a child somewhere in a phase; returns whether it lived until then."""
    wanted = rng.choice(_TIMES[_PHASES[phase]])
    # Half of the blows strike early in the phase, the others anywhere.
    delay = rng.choice((rng.uniform(0, 0.01), rng.uniform(0, 0.3)))
    if not wanted:
        delay = rng.uniform(0, 3)
    while watched.entered(phase) < wanted:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    time.sleep(delay)
    if os.waitpid(child, os.WNOHANG)[0]:
        return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def strike(
    name: str,
    straight: pathlib.Path,
    folder: pathlib.Path,
    watched: Watched,
    tallies: Mapping[str, Tally],
    rng: random.Random,
) -> None:
    """Kills one run several times, lets it end, and compares."""
    tally = tallies[name]
    tally.runs += 1
    for _ in range(_KILLS_A_RUN):
        child = start(name, folder, watched)
        if kill_in(child, watched, _least_struck(name, tallies), rng):
            # A process that is slow to die may be struck in the phase behind.
            tally.kills[_PHASES[watched.phase]] += 1
        else:
            break
    child = start(name, folder, watched)
    if os.waitpid(child, 0)[1]:
        text = pathlib.Path(f"{folder}.log").read_text(errors="replace")
        tally.lost.append(f"{folder}: {text.strip()[-600:]}")
        return
    tally.different += differences(straight, folder)


def kills_by_phase(tallies: Mapping[str, Tally]) -> dict[str, int]:
    return {
        phase: sum(tally.kills[phase] for tally in tallies.values())
        for phase in _PHASES
    }


def _least_struck(name: str, tallies: Mapping[str, Tally]) -> int:
    """Returns the phase this experiment has that was struck least in all of them."""
    kills = kills_by_phase(tallies)
    # Only one experiment has layers that are computed once.
    own = [phase for phase in _PHASES if phase != "caching" or name == "frozen"]
    return _PHASES.index(min(own, key=kills.__getitem__))


def differences(straight: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Compares two runs in a process of its own: this one must start no backend."""
    found = pathlib.Path(f"{folder}.differences")
    child = os.fork()
    if not child:
        from tflearn.commands import resume_test

        code = 1
        try:
            names = sorted(x.name for x in (straight / "stages").iterdir())
            lines = [
                f"{folder}: {line}"
                for name in names
                for line in resume_test.compare(straight, folder, name)
                if resume_test.is_difference(line)
            ]
            found.write_text(json.dumps(lines))
            code = 0
        finally:
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        return [f"{folder} cannot be compared"]
    return json.loads(found.read_text())


def main() -> None:
    flags = _flags()
    root = pathlib.Path(tempfile.mkdtemp(prefix="tflearn_faults_"))
    os.environ["KERAS_BACKEND"] = flags.backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # What is compiled once need not be by every child; JAX reads this when imported.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root / "compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    from benchmarks.fault_experiments import EXPERIMENTS
    from tflearn.backbones import import_keras_hub
    from tflearn.support import environment

    import_keras_hub()
    rng, watched = random.Random(flags.seed), Watched()
    names = flags.only or list(EXPERIMENTS)
    tallies = {name: Tally() for name in names}
    for name in names:
        straight = root / name / "straight"
        straight.parent.mkdir()
        if os.waitpid(start(name, straight, watched), 0)[1]:
            sys.exit(pathlib.Path(f"{straight}.log").read_text())
    for name in itertools.cycle(names):
        tally = tallies[name]
        folder = root / name / f"killed_{tally.runs:03}"
        strike(name, root / name / "straight", folder, watched, tallies, rng)
        if not tally.lost and not tally.different:
            shutil.rmtree(folder)
            # Only a run whose layers are computed once has one.
            shutil.rmtree(f"{folder}.cache", ignore_errors=True)
        kills = kills_by_phase(tallies)
        print(_row(name, tally), kills, flush=True)
        fewest = min(n for x, n in kills.items() if x != "caching" or "frozen" in names)
        if sum(kills.values()) >= flags.kills and fewest >= flags.each:
            break
    for name, tally in tallies.items():
        print(_row(name, tally), *tally.lost, *tally.different, sep="\n")
    if flags.json:
        found = {
            "backend": flags.backend,
            "versions": environment.versions(),
            "hardware": environment.hardware(),
            "experiments": {name: vars(tally) for name, tally in tallies.items()},
        }
        pathlib.Path(flags.json).write_text(json.dumps(found, indent=2) + "\n")
    failed = any(tally.lost or tally.different for tally in tallies.values())
    if not failed:
        shutil.rmtree(root)
    sys.exit(int(failed))


def _row(name: str, tally: Tally) -> str:
    return (
        f"{name}: {tally.kills.total()} kills in {tally.runs} runs, "
        f"{len(tally.lost)} lost, {len(tally.different)} differences"
    )


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--each", type=int, default=40, help="kills in each phase")
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--json")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
