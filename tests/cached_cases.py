"""Trains a frozen probe from features under every layout of eight devices.

    python tests/cached_cases.py RESULT

`test_features.py` starts it. The result holds the losses of 20 steps by layout.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
import tempfile

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

from benchmarks.fault_experiments import EXPERIMENTS
from tflearn import experiment
from tflearn.distribution import Distribution

LAYOUTS = {
    "single": Distribution(kind="single"),
    "data": Distribution(kind="data"),
    "fully_sharded": Distribution(kind="fully_sharded"),
    "tensor": Distribution(kind="tensor", mesh={"data": 4, "model": 2}),
    "cube": Distribution(kind="tensor", mesh={"data": 2, "fsdp": 2, "model": 2}),
}


def losses(cache: str, distribution: Distribution, folder: pathlib.Path) -> list[float]:
    declared = EXPERIMENTS["frozen"]()
    stage = dataclasses.replace(
        declared.stages[0], budget="20 steps", interval=1, cache=cache
    )
    changed = dataclasses.replace(declared, stages=(stage,), distribution=distribution)
    report = experiment.run(changed, output_dir=str(folder)).stages[0]
    assert bool(report.cache) == (cache != "off")
    return [row["loss"] for row in report.history]


def main(path: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        found = {
            layout: losses("memory", declared, root / layout)
            for layout, declared in LAYOUTS.items()
        }
        found["live"] = losses("off", LAYOUTS["single"], root / "live")
    pathlib.Path(path).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
