"""Tasks with known answers, for the declarations of `test_planted_verdicts.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from benchmarks.planted_verdicts import HIDDEN, INPUTS, Examples, make_task
from tflearn.data import sources
from tflearn.data.table import Table


def source(kind: str = "", seed: int = 0) -> Mapping[str, Table]:
    """Rows of a task: 64 columns of numbers and a class."""
    task = make_task(kind, seed)
    return sources.arrays({"train": _columns(task.train), "test": _columns(task.test)})


def backbone(kind: str = "", seed: int = 0) -> keras.Model:
    """The pretrained backbone of a task."""
    task = make_task(kind, seed)
    inputs = keras.Input((INPUTS,))
    layer = keras.layers.Dense(HIDDEN, activation="tanh", name="hidden")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([task.kernel, task.bias])
    return model


def columns() -> tuple[str, ...]:
    """Names of the columns of numbers."""
    return tuple(f"x{place}" for place in range(INPUTS))


def _columns(examples: Examples) -> dict[str, Sequence[Any]]:
    x, y = examples
    named: dict[str, Sequence[Any]] = {
        name: x[:, place].tolist() for place, name in enumerate(columns())
    }
    return named | {"label": ["ab"[label] for label in y]}
