"""What comparisons share: contenders in turn, medians with spread, one JSON each.

A contender is a process of its own: it prepares (imports, data, compiling, warm-up),
says so, and then measures once for every line it reads. So each can have its own
libraries, what is compiled is compiled once, and the rounds alternate: a slow moment of
the machine falls on all. Nothing but the standard library is imported here, because the
peers' environments have no tflearn.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_READY, _RESULT = "CONTENDER READY ", "CONTENDER RESULT "

Numbers = dict[str, Any]
#: Measures once; returns at least `per_second` or `seconds`.
Measure = Callable[[], Numbers]
#: Prepares a contender; returns what is said once, and what measures.
Prepare = Callable[[argparse.Namespace], tuple[Numbers, Measure]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """Someone who takes part.

    Args:
        name: Such as `transformers`.
        prepare: Name of the function in the script's table.
        python: The interpreter; that of tflearn by default.
        flags: Further flags for it.
        environment: Further variables.
    """

    name: str
    prepare: str
    python: str = sys.executable
    flags: Sequence[str] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


class _Process:
    """A contender that runs."""

    def __init__(self, module: str, contender: Contender, flags: Sequence[str]) -> None:
        command = [contender.python, "-m", module, *flags, *contender.flags]
        self._process = subprocess.Popen(
            [*command, f"--contender={contender.prepare}"],
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **contender.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = contender.name
        self.said = self._read(_READY)

    def measure(self) -> Numbers:
        assert self._process.stdin is not None
        self._process.stdin.write("measure\n")
        self._process.stdin.flush()
        return self._read(_RESULT)

    def end(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.terminate()
        self._process.wait()

    def _read(self, mark: str) -> Numbers:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(mark):
                return json.loads(line[len(mark) :])
        raise SystemExit(f"{self.name} ended with {self._process.wait()}")


def serve(prepare: Prepare, flags: argparse.Namespace) -> None:
    """Runs a contender: prepares, then measures once a line of standard input."""
    said, measure = prepare(flags)
    print(_READY + json.dumps(said), flush=True)
    for _ in sys.stdin:
        print(_RESULT + json.dumps(measure()), flush=True)


def compare(
    module: str,
    contenders: Sequence[Contender],
    *,
    repeats: int,
    flags: Sequence[str] = (),
) -> Numbers:
    """Lets contenders measure in turn.

    Args:
        module: The script, such as `benchmarks.lora`.
        contenders: Who takes part; the first one is what the others are held to.
        repeats: Rounds.
        flags: Flags for all.

    Returns:
        By contender what it said and its rounds.
    """
    running: list[_Process] = []
    try:
        for contender in contenders:
            began = time.perf_counter()
            running.append(_Process(module, contender, flags))
            seconds = time.perf_counter() - began
            print(f"{contender.name} is ready after {seconds:.0f} s", flush=True)
        rounds: dict[str, list[Numbers]] = {x.name: [] for x in running}
        for number in range(repeats):
            for process in running:
                rounds[process.name].append(process.measure())
            shown = {name: shorten(found[-1]) for name, found in rounds.items()}
            print(f"round {number + 1} of {repeats}: {json.dumps(shown)}", flush=True)
    finally:
        for process in running:
            process.end()
    return {x.name: {"said": x.said, "rounds": rounds[x.name]} for x in running}


def gaps(ends: Sequence[float]) -> list[float]:
    """Returns how long each epoch took but the first, which compiles."""
    return [later - end for end, later in itertools.pairwise(ends)]


def extrapolated(seconds: float, epochs: Sequence[float], missing: int) -> float:
    """Adds the median of a contender's epochs for each that it did not train."""
    return seconds + missing * statistics.median(epochs)


def shorten(found: Mapping[str, Any]) -> Numbers:
    """Returns numbers with three figures behind the point."""
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()}


def summarize(found: Mapping[str, Numbers], key: str = "per_second") -> Numbers:
    """Computes medians, and how much better than each peer the first contender is.

    Args:
        found: What `compare` returned.
        key: What is compared: `per_second` (more is better) or `seconds` (less is).

    Returns:
        By contender `median`, `lowest`, `highest`, and `ratio` with its spread: above 1
        where the first is better. Ratios are of one round each.
    """
    first = [x[key] for x in next(iter(found.values()))["rounds"]]
    summary = {}
    for name, entry in found.items():
        own = [x[key] for x in entry["rounds"]]
        ratios = [
            a / b if key == "per_second" else b / a
            for a, b in zip(first, own, strict=True)
        ]
        summary[name] = {
            "median": statistics.median(own),
            "lowest": min(own),
            "highest": max(own),
            "ratio": statistics.median(ratios),
            "ratio_lowest": min(ratios),
            "ratio_highest": max(ratios),
        }
    return summary


def show(title: str, summary: Mapping[str, Numbers], unit: str) -> None:
    """Prints a summary as a table."""
    print(f"\n{title}, {unit}; ratio: how many times better the first one is")
    for name, row in summary.items():
        print(
            f"{name:28s} {row['median']:10.2f} [{row['lowest']:.2f}, "
            f"{row['highest']:.2f}]  ratio {row['ratio']:.2f} "
            f"[{row['ratio_lowest']:.2f}, {row['ratio_highest']:.2f}]",
            flush=True,
        )


def write(name: str, record: Mapping[str, Any], *, results: str | None = None) -> None:
    """Writes a question's answer with hardware and versions.

    Args:
        name: Of the file under `benchmarks/results`, without `.json`.
        record: At least `question`, `unit` and `summary`.
        results: Another folder.
    """
    from tflearn.support import environment

    folder = pathlib.Path(results) if results else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    full = {
        **record,
        "date": time.strftime("%Y-%m-%d"),
        "hardware": environment.hardware(),
        "versions": environment.versions(),
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(full, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")


def parser(text: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the flags that all scripts take."""
    made = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--torch_python", help="interpreter with torch and transformers")
    made.add_argument("--backend", default="jax", choices=("jax", "tensorflow"))
    made.add_argument("--results", help="folder of the JSON (benchmarks/results)")
    made.add_argument("--contender", help=argparse.SUPPRESS)
    return made
