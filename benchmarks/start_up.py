"""How long from the command to the first step, and the second time?

The same small network and rows: a bare Keras script, and tflearn's quickstart with its
run directory, validation and report switched to one step. Every start is a process of
its own; `first` has an empty cache of compiled steps, `second` the one `first` left.

Run: python -m benchmarks.start_up [--repeats 5] [--backend jax]
     [--gin_file quickstart/digits.gin]

With `--gin_file=runs/text/sst2_full.gin --binding="FOLDER = 'sst2'"` compiling rules;
there is no bare script for it, so only `first` and `second` are told.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

from benchmarks import measuring
from benchmarks.measuring import ROOT, Numbers

# Says when the first step is done, then ends: what comes behind is no start.
_MARK = "FIRST STEP"
_BARE = f"""
import os
import keras
import numpy as np
from sklearn.datasets import load_digits

x, y = load_digits(return_X_y=True)
keras.utils.set_random_seed(0)
model = keras.Sequential([
    keras.Input((64,)),
    keras.layers.Dense(64, activation="gelu"),
    keras.layers.Dense(64, activation="gelu"),
    keras.layers.Dense(10),
])
model.compile(
    keras.optimizers.AdamW(1e-3),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    weighted_metrics=["accuracy"],
)
model.fit(x[:32].astype("float32"), y[:32], batch_size=32, verbose=0)
print("{_MARK}", flush=True)
os._exit(0)
"""
_OURS = f"""
import os, sys
from tflearn.run import main
from tflearn.training import loop

train = loop.train

def once(model, batches, *, schedule, **rest):
    import dataclasses
    short = dataclasses.replace(schedule, total_steps=1, interval_steps=1)
    train(model, batches, schedule=short, on_interval=lambda step, logs: True)
    print("{_MARK}", flush=True)
    os._exit(0)

loop.train = once
sys.exit(main(sys.argv[1:]))
"""


def start(command: list[str], environment: dict[str, str]) -> float:
    """Returns seconds from the command to the end of the first step."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if _MARK in line:
            seconds = time.perf_counter() - began
            process.wait()
            return seconds
    raise SystemExit(f"no first step: exit code {process.wait()}")


def one_round(flags: argparse.Namespace) -> dict[str, float]:
    common = {"KERAS_BACKEND": flags.backend}
    found = {}
    with tempfile.TemporaryDirectory() as work:
        ours = common | {"TFLEARN_CACHE": f"{work}/cache"}
        base = [sys.executable, "-c", _OURS, f"--gin_file={flags.gin_file}"]
        base += [f"--gin_bindings={x}" for x in flags.binding]
        for name in ("first", "second"):
            command = [*base, f"--output_dir={work}/{name}"]
            found[f"tflearn {name}"] = start(command, ours)
        if not flags.binding:
            found["keras"] = start([sys.executable, "-c", _BARE], common)
    return found


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--gin_file", default="quickstart/digits.gin")
    parser.add_argument("--binding", action="append", default=[])
    flags = parser.parse_args()
    rounds = []
    for number in range(flags.repeats):
        rounds.append(one_round(flags))
        shown = measuring.shorten(rounds[-1])
        print(f"round {number + 1} of {flags.repeats}: {shown}", flush=True)
    contenders: dict[str, Numbers] = {
        name: {"said": {}, "rounds": [{"seconds": x[name]} for x in rounds]}
        for name in rounds[0]
    }
    summary = measuring.summarize(contenders, "seconds")
    measuring.show("from command to first step", summary, "s")
    name = flags.gin_file.rsplit("/", 1)[-1].removesuffix(".gin")
    measuring.write(
        f"start_up_{name}_{flags.backend}",
        {
            "question": f"from the command to the first step, {name}",
            "unit": "s",
            "summary": summary,
            "contenders": contenders,
        },
        results=flags.results,
    )


if __name__ == "__main__":
    main()
