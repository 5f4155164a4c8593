"""How do the seconds and the memory of a step grow with tokens and with weights?

A BERT of random weights, sequences of 64 tokens, AdamW, float32; every point a process
of its own. Tokens a step grow from 64 to 65,536 at 0.4 M weights; weights from 0.1 M to
100 M at 512 tokens. Writes a plot, and the slope of the line through the last decade of
each in logarithms: 1 is linear growth.

Run: python -m benchmarks.scaling [--repeats 5] [--backend jax]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

from benchmarks import measuring
from benchmarks.measuring import ROOT, Numbers

LENGTH, WORDS = 64, 512
#: Sequences a step, at a width of 96 with 3 layers.
SEQUENCES = (1, 4, 16, 64, 256, 1024)
#: Width and layers, at 8 sequences a step.
SHAPES = ((48, 2), (96, 3), (192, 4), (384, 6), (768, 6), (768, 12))
PLOT = "images/scaling.png"


def point(sequences: int, width: int, layers: int, repeats: int) -> Numbers:
    """Measures a step: seconds, weights, and the memory above that of the imports."""
    import keras
    import numpy as np

    from tflearn.backbones.libraries import import_keras_hub
    from tflearn.support import compiled, environment
    from tflearn.training import loop, optimizers

    compiled.keep()
    keras_hub = import_keras_hub()
    before = environment.peak_memory_bytes()
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=WORDS,
        num_layers=layers,
        num_heads=max(1, width // 64),
        hidden_dim=width,
        intermediate_dim=4 * width,
        max_sequence_length=LENGTH,
    )
    outputs = keras.layers.Dense(2)(backbone.output["pooled_output"])
    model = keras.Model(backbone.input, outputs)
    loop.compile_model(
        model,
        optimizer=optimizers.adamw(1000),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[],
    )
    rng = np.random.default_rng(0)
    shape = (sequences, LENGTH)
    batch = (
        {
            "token_ids": rng.integers(0, WORDS, shape).astype("int32"),
            "segment_ids": np.zeros(shape, "int32"),
            "padding_mask": np.ones(shape, "int32"),
        },
        rng.integers(0, 2, sequences),
    )
    model.train_on_batch(*batch)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        model.train_on_batch(*batch)
        times.append(time.perf_counter() - began)
    return {
        "tokens": sequences * LENGTH,
        "parameters": model.count_params(),
        "seconds": statistics.median(times),
        "seconds_lowest": min(times),
        "seconds_highest": max(times),
        "memory_bytes": environment.peak_memory_bytes() - before,
    }


def measure(backend: str, repeats: int, case: tuple[int, int, int]) -> Numbers:
    command = [sys.executable, "-m", "benchmarks.scaling", f"--repeats={repeats}"]
    done = subprocess.run(
        [*command, f"--contender={json.dumps(case)}"],
        check=True,
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(json.dumps(measuring.shorten(found)), flush=True)
    return found


def slope(rows: list[Numbers], x: str, y: str) -> float:
    """Returns the growth of `y` with `x` over the last decade, in logarithms."""
    last = max(row[x] for row in rows)
    used = [row for row in rows if row[x] >= last / 10]
    points = [(math.log(row[x]), math.log(row[y])) for row in used]
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def plot(series: dict[str, list[Numbers]], path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 7), constrained_layout=True)
    for column, (x, rows) in enumerate(series.items()):
        for row, (y, unit) in enumerate((("seconds", 1), ("memory_bytes", 1e9))):
            axis = axes[row][column]
            axis.loglog([r[x] for r in rows], [r[y] / unit for r in rows], "o-")
            axis.set_xlabel(f"{x} a step" if x == "tokens" else x)
            axis.set_ylabel("seconds a step" if unit == 1 else "memory (GB)")
            axis.set_title(f"slope of the last decade {slope(rows, x, y):.2f}")
            axis.grid(visible=True, which="both", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"written: {path}")


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--points", type=int, default=6, help="of each series")
    parser.add_argument("--plot", default=str(ROOT / "docs" / PLOT))
    flags: argparse.Namespace = parser.parse_args()
    if flags.contender:
        sequences, width, layers = json.loads(flags.contender)
        print(json.dumps(point(sequences, width, layers, flags.repeats)))
        return
    cases = {
        "tokens": [(n, 96, 3) for n in SEQUENCES[: flags.points]],
        "parameters": [(8, *shape) for shape in SHAPES[: flags.points]],
    }
    series = {
        x: [measure(flags.backend, flags.repeats, case) for case in found]
        for x, found in cases.items()
    }
    plot(series, pathlib.Path(flags.plot))
    summary = {}
    for x, rows in series.items():
        for y in ("seconds", "memory_bytes"):
            found = slope(rows, x, y)
            summary[f"{y} by {x}"] = dict.fromkeys(
                ("median", "lowest", "highest"), found
            ) | dict.fromkeys(("ratio", "ratio_lowest", "ratio_highest"), found)
    for name, row in summary.items():
        print(f"{name:28s} slope {row['median']:.2f}")
    measuring.write(
        f"scaling_{flags.backend}",
        {
            "question": "growth of a step with tokens and weights (1: linear)",
            "unit": "slope",
            "summary": summary,
            "series": series,
            "plot": PLOT,
        },
        results=flags.results,
    )


if __name__ == "__main__":
    main()
