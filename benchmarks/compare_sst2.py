"""What does a comparison of six arms on SST-2 take, beside running them by hand?

Runs the shipped `compare/sst2_minilm.gin`: scratch, frozen, partial, LoRA, full and
hybrid at 32, 128, 512 and 6,920 labels, three seeds, each arm's own search for a rate
included; its wall-clock is that of the command.

By hand stands a script with transformers and PEFT (`benchmarks.compare_sst2_peer`) that
is started for every run of every arm. A few steps of each regime, the start of the
process and the evaluation of both splits are measured; the total is **extrapolated**:
runs times start and evaluations, plus steps times seconds a step.

Run: python -m benchmarks.compare_sst2 --data=FOLDER --output_dir=RUN
     [--torch_python=PYTHON] [--bindings "BUDGET = '600 steps'"] [--steps 30]
     [--precision=mixed_bfloat16]

PYTHON is the interpreter of an environment with torch, transformers and peft. What was
interrupted goes on; its seconds are those of all starts, which `benchmark.json` in RUN
keeps, and what a start repeats counts twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

from benchmarks import measuring
from benchmarks.sst2 import weights_folder

GIN = "compare/sst2_minilm.gin"
_PEER = "benchmarks.compare_sst2_peer"
# What the steps of a stage are called by the peer, where it is not the arm's name.
_MASKED = {"adapt": "masked_lm", "tune": "full"}


def ours(flags: argparse.Namespace) -> dict[str, Any]:
    """Runs the comparison and returns its seconds and what it says."""
    folder = pathlib.Path(flags.output_dir)
    bindings = [
        f"FOLDER = '{flags.data}'",
        f"experiment.Experiment.precision = '{flags.precision}'",
        *flags.bindings,
    ]
    command = [
        *(sys.executable, "-m", "tflearn.run", "--mode=compare"),
        *(f"--gin_file={GIN}", f"--backend={flags.backend}"),
        *(f"--gin_bindings={x}" for x in bindings),
        f"--output_dir={folder}",
    ]
    starts = timed(command, folder)
    found = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    arms = {
        arm["name"]: {
            "tuned": arm["tuned"],
            "spent": arm["spent"],
            "points": [
                {key: point.get(key) for key in ("labels", "value", "low", "high")}
                for point in arm["points"]
            ],
        }
        for arm in found["arms"]
    }
    return {
        "seconds": sum(starts),
        "starts": len(starts),
        "verdict": found["verdict"],
        "arms": arms,
    }


def timed(command: list[str], folder: pathlib.Path) -> list[float]:
    """Runs a command and returns the seconds of all its starts, killed ones too."""
    kept = folder / "benchmark.json"
    before = json.loads(kept.read_text()) if kept.exists() else []
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=measuring.ROOT)
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        seconds = time.perf_counter() - started
        # The comparison takes an empty folder alone.
        if (folder / "arms").is_dir():
            kept.write_text(json.dumps([*before, seconds]))
    if process.returncode:
        raise SystemExit(process.returncode)
    return json.loads(kept.read_text())


def runs(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns every run of the comparison: its arm, and the steps of its stages."""
    found = []
    for path in sorted((folder / "arms").rglob("report.json")):
        inside = path.relative_to(folder / "arms")
        # Stages have reports of their own.
        if "stages" in inside.parts:
            continue
        stages = json.loads(path.read_text(encoding="utf-8"))["stages"]
        # What the runs of a seed share is trained once, by hand as well.
        own = stages if "shared" in inside.parts else stages[-1:]
        steps = {stage["name"]: stage["steps"] for stage in own}
        found.append({"arm": inside.parts[0], "steps": steps})
    return found


def by_hand(flags: argparse.Namespace, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Extrapolates what the same runs take with transformers and PEFT."""
    command = [
        *(flags.torch_python, "-m", _PEER),
        *(f"--data={flags.data}", f"--weights={weights_folder()}"),
        *(f"--steps={flags.steps}", f"--precision={flags.precision}"),
    ]
    started = time.perf_counter()
    told = subprocess.run(
        [*command, "--only_start"], check=True, cwd=measuring.ROOT, capture_output=True
    )
    start = time.perf_counter() - started
    told = subprocess.run(command, check=True, cwd=measuring.ROOT, capture_output=True)
    measured = json.loads(told.stdout.splitlines()[-1])
    training = 0.0
    for run in found:
        for stage, steps in run["steps"].items():
            hybrid = run["arm"] == "hybrid"
            regime = _MASKED[stage] if hybrid else run["arm"]
            training += steps * measured["step_seconds"][regime]
    around = len(found) * (start + measured["evaluate_seconds"])
    return {
        "extrapolated": True,
        "seconds": training + around,
        "runs": len(found),
        "start_seconds": start,
        **measured,
    }


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--data", required=True, help="folder of SST-2's three files")
    parser.add_argument("--output_dir", required=True, help="folder of the comparison")
    parser.add_argument("--bindings", action="append", default=[], help="more bindings")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--steps", type=int, default=30, help="of the peer's regimes")
    flags = parser.parse_args()
    flags.data = str(pathlib.Path(flags.data).absolute())
    summary: dict[str, Any] = {"tflearn": ours(flags)}
    if flags.torch_python:
        folder = pathlib.Path(flags.output_dir)
        summary["by hand"] = by_hand(flags, runs(folder))
    for name, numbers in summary.items():
        told = " (extrapolated)" if numbers.get("extrapolated") else ""
        print(f"{name}: {numbers['seconds']:.0f} s{told}")
    print(summary["tflearn"]["verdict"])
    measuring.write(
        f"compare_sst2_{flags.backend}",
        {
            "question": "Six arms on SST-2 at four numbers of labels, three seeds",
            "settings": {"precision": flags.precision, "bindings": flags.bindings},
            "unit": "s",
            "summary": summary,
        },
        results=flags.results,
    )


if __name__ == "__main__":
    main()
