"""What `test_injected_faults.py` runs; the gin files it writes import this.

Faults of what a run is made of are here (a reader that dies, hangs or finds no file, a
process that may take no more memory). Readers are struck by what `FAULT` says, once the
file `FAULT_WHEN` holds something, as often as the file `FAULT_TIMES` says.
"""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import pathlib
import resource
import signal
import threading

import keras
import numpy as np
from PIL import Image

from tflearn import backbones
from tflearn.data import Data, images, sources

GIN = """
from __gin__ import dynamic_registration
import fault_cases
from tflearn import experiment
from tflearn import objectives
from tflearn import regimes
from tflearn.training import optimizers

experiment.Experiment.name = 'faults'
experiment.Experiment.seed = 3
experiment.Experiment.stages = (@experiment.Stage(),)
experiment.Stage.name = 'tune'
experiment.Stage.objective = @objectives.classification
experiment.Stage.regime = @regimes.full()
experiment.Stage.optimizer = @optimizers.adamw
experiment.Stage.budget = '12 steps'
experiment.Stage.interval = 4
experiment.Stage.batch_size = 8
experiment.Stage.bootstrap = 0
optimizers.adamw.learning_rate = 0.01
"""
POINTS = """
experiment.Experiment.backbone = @fault_cases.perceptron
experiment.Stage.data = @fault_cases.points
"""
PICTURES = """
experiment.Experiment.backbone = @fault_cases.convolutions
experiment.Stage.data = @fault_cases.pictures
fault_cases.pictures.workers = 0
"""
SIZE = 8
# Nobody sets it, but a test at its end.
HANGING = threading.Event()


def write_points(path: pathlib.Path, seed: int = 0, scale: float = 1.0) -> None:
    """Writes two clouds of points as a table."""
    rng = np.random.default_rng(seed)
    rows = [
        f"{scale * (x + 3 * (i % 2)):.4f},{scale * y:.4f},{i % 2}"
        for i, (x, y) in enumerate(rng.normal(size=(96, 2)))
    ]
    path.write_text("x,y,label\n" + "\n".join(rows) + "\n")


def points(path: str = "points.csv") -> Data:
    return Data(
        source=functools.partial(sources.csv, path),
        input=("x", "y"),
        target="label",
        splits={"train": 0.7, "validation": 0.15, "test": 0.15},
    )


def perceptron(width: int = 8, room: int = 0) -> backbones.Backbone:
    if room:
        # From here on this process may take so many bytes more.
        status = pathlib.Path("/proc/self/status").read_text()
        taken = int(status.split("VmSize:")[1].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (taken + room, taken + room))

    def build() -> keras.Model:
        inputs = keras.Input((2,))
        hidden = keras.layers.Dense(width, "relu", name="dense")(inputs)
        return keras.Model(inputs, keras.layers.Dropout(0.1, name="drop")(hidden))

    return backbones.function(build)


class Reader:
    """An image that some process does not live to read."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> bytes:
        if self.number == 37 and os.environ.get("FAULT"):
            strike()
        rng = np.random.default_rng(self.number)
        pixels = rng.integers(0, 120, (SIZE, SIZE, 3)) + 120 * (self.number % 2)
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
        return file.getvalue()


def strike() -> None:
    left = pathlib.Path(os.environ["FAULT_TIMES"])
    times = int(left.read_text())
    when = pathlib.Path(os.environ["FAULT_WHEN"])
    if not times or not when.exists() or not when.stat().st_size:
        return
    if os.environ["FAULT"] == "die":
        if multiprocessing.parent_process() is None:
            return
        left.write_text(str(times - 1))
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ["FAULT"] == "hang":
        HANGING.wait()
    if os.environ["FAULT"] == "vanish":
        raise FileNotFoundError(2, "No such file or directory", f"{37}.png")


def pictures(workers: int = 0, stall_seconds: float = 300.0) -> Data:
    def rows(numbers: range) -> dict[str, list]:
        made = [images.Image(Reader(x), f"{x}.png") for x in numbers]
        return {"image": made, "label": [str(x % 2) for x in numbers]}

    parts = {"train": range(48), "validation": range(48, 64)}
    columns = {name: rows(numbers) for name, numbers in parts.items()}
    return Data(
        source=lambda: sources.arrays(columns),
        input="image",
        target="label",
        cache_bytes=0,
        disk_bytes=0,
        workers=workers,
        stall_seconds=stall_seconds,
    )


def convolutions() -> backbones.Backbone:
    def build() -> keras.Model:
        x = inputs = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Conv2D(4, 3, name="conv")(x)
        return keras.Model(inputs, keras.layers.ReLU(name="out")(x))

    return backbones.function(build)
