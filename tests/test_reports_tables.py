"""Tables on the terminal: 80 columns, no markup from data."""

from __future__ import annotations

import io
from typing import Any

import keras
import numpy as np
import rich.console
import rich.table

from tflearn.data.spec import Spec, TensorSpec
from tflearn.reports import tables
from tflearn.reports.compare import ArmResult


def shown(table: rich.table.Table, width: int = 80) -> str:
    file = io.StringIO()
    rich.console.Console(file=file, width=width, highlight=False).print(table)
    text = file.getvalue()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= width
    return text


def row(path: str, parameters: int, trainable: int, role: str) -> dict[str, Any]:
    return {
        "path": path,
        "layers": 1,
        "parameters": parameters,
        "trainable": trainable,
        "frozen": parameters - trainable,
        "role": role,
        "rule": "freeze('backbone/*')" if role == "frozen" else "train('*[head]*')",
    }


CENSUS = [
    row("backbone/token_and_position_embedding", 11_720_448, 0, "frozen"),
    *[row(f"backbone/transformer_layer_{i}", 1_774_464, 0, "frozen") for i in range(6)],
    row("head/logits", 770, 770, "fresh"),
]


def spec(classes: int) -> Spec:
    names = tuple(f"[b]class {i}" for i in range(classes))
    counts = {name: 10 + i for i, name in enumerate(names)}
    return Spec(
        inputs={"token_ids": TensorSpec(shape=(None,), dtype="int32")},
        target="class",
        classes=names,
        num_outputs=classes,
        num_examples={"train": 6920, "test": 1821},
        class_counts={"train": counts, "test": counts},
    )


def test_census_gathers_equal_blocks_and_sums() -> None:
    text = shown(tables.census_table(CENSUS))
    assert "backbone/transformer_layer_{0…5}" in text and "10,646,784" in text
    assert "total" in text and "22,368,002" in text and "0.0%" in text
    assert "rule 2: train('*[head]*')" in text


def test_blocks_that_differ_stay_apart() -> None:
    rows = [row("b/layer_0", 5, 0, "frozen"), row("b/layer_1", 5, 5, "trained")]
    assert [r["path"] for r in tables.merge_census(rows)] == ["b/layer_0", "b/layer_1"]


def test_paths_that_differ_in_two_numbers_stay_apart() -> None:
    rows = [row("b/1_1", 5, 0, "frozen"), row("b/2_2", 5, 0, "frozen")]
    assert len(tables.merge_census(rows)) == 2


def test_spec_shows_counts_by_class_and_split() -> None:
    text = shown(tables.spec_table(spec(2)))
    assert "[b]class 0" in text and "6,920" in text and "1,821" in text
    assert "input token_ids: (?) int32" in text


def test_spec_of_many_classes_shows_the_largest_and_the_smallest() -> None:
    text = shown(tables.spec_table(spec(100)))
    assert "[b]class 99" in text and "[b]class 0 " in text
    assert "… 76 more classes" in text and "[b]class 50" not in text


def test_spec_without_classes() -> None:
    numbers = Spec(
        inputs={},
        target="number",
        classes=(),
        num_outputs=1,
        num_examples={"train": 12},
        class_counts={},
    )
    assert "examples" in shown(tables.spec_table(numbers))


def test_model_shows_nested_layers_and_gathers_equal_ones() -> None:
    inputs = keras.Input((4,), name="vector")
    x = inputs
    for i in range(3):
        x = keras.layers.Dense(4, name=f"block_{i}")(x)
    backbone = keras.Model(inputs, x, name="backbone")
    outer = keras.Input((4,), name="input")
    head = keras.layers.Dense(2, name="logits")
    text = shown(tables.model_table(keras.Model(outer, head(backbone(outer)))))
    assert "  block_{0…2}" in text and "3 × 20" in text
    assert "logits" in text and "(?, 2)" in text and "70" in text


def test_metrics_show_intervals_of_every_split() -> None:
    def split(value: float, count: int) -> dict[str, Any]:
        found = {"value": value, "low": value - 0.1, "high": value + 0.1}
        metrics = {"accuracy": found, "auc": {"value": None}}
        return {"count": count, "headline": "accuracy", "metrics": metrics}

    table = tables.metrics_table({"validation": split(0.5, 872), "test": split(0.6, 9)})
    text = shown(table)
    assert "validation (872)" in text and "test (9)" in text
    assert "0.500 [0.400, 0.600]" in text and "–" in text


def test_comparison_shows_mean_and_interval() -> None:
    arm = ArmResult(
        name="full",
        seeds=(0, 1),
        metric="accuracy",
        estimates=(
            {"value": 0.90},
            {"value": 0.92},
        ),
        resampled=tuple(np.full(9, x) for x in (0.90, 0.92)),
        trainable_parameters=93_000,
        total_parameters=93_000,
        seconds=(10.0, 14.0),
    )
    text = shown(tables.comparison_table([arm]))
    assert "0.910 [0.783, 1.037]" in text and "93,000" in text and "12.0s" in text
    assert "memory" not in text
