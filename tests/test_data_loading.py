"""Splits, classes, targets and notes."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from tflearn import data
from tflearn.data import splits, targets
from tflearn.support.errors import DataError

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def _rows(count: int, *, classes: int = 3) -> list[dict[str, Any]]:
    return [
        {"text": f"text {i}", "label": i % classes, "topic": "ab"[i % 2]}
        for i in range(count)
    ]


def _load(rows: Any, *, kind: str = "class", **declared: Any) -> data.Dataset:
    return data.Data(source=lambda: rows, **declared).load(target_kind=kind)


def test_drawn_splits_are_stratified_and_hold_every_row_once() -> None:
    loaded = _load(_rows(300), splits=SHARES)
    sizes = {split: len(made) for split, made in loaded.splits.items()}
    assert sizes == {"train": 240, "validation": 30, "test": 30}
    rows = np.concatenate([made.rows for made in loaded.splits.values()])
    assert sorted(rows.tolist()) == list(range(300))
    for made in loaded.splits.values():
        counts = np.bincount(made.targets)
        assert counts.max() - counts.min() <= 1


def test_drawn_splits_do_not_depend_on_the_order_of_the_rows() -> None:
    rows = _rows(100)
    first = _load(rows, splits=SHARES)
    second = _load(rows[::-1], splits=SHARES)
    for split in SHARES:
        assert set(first.splits[split].inputs) == set(second.splits[split].inputs)


def test_another_seed_draws_other_splits() -> None:
    first = _load(_rows(100), splits=SHARES)
    second = _load(_rows(100), splits=SHARES, split_seed=1)
    assert list(first.splits["test"].inputs) != list(second.splits["test"].inputs)


def test_repeated_rows_are_drawn_into_one_split() -> None:
    loaded = _load(_rows(60) * 3, splits={"train": 0.5, "test": 0.5})
    assert not set(loaded.splits["train"].inputs) & set(loaded.splits["test"].inputs)
    assert any("rows repeat another training row" in note for note in loaded.notes)


@hypothesis.given(
    strategies.lists(strategies.integers(0, 4), min_size=1, max_size=60),
    strategies.integers(0, 3),
)
def test_drawing_divides_rows_whatever_the_strata(strata: list[int], seed: int) -> None:
    digests = [splits.content_digest(f"{i}") for i in range(len(strata))]
    drawn = splits.draw(digests, strata, SHARES, seed=seed)
    rows = np.concatenate(list(drawn.values()))
    assert sorted(rows.tolist()) == list(range(len(strata)))
    trained = {strata[row] for row in drawn["train"].tolist()}
    assert trained == set(strata)
    for stratum, count in collections.Counter(strata).items():
        for split, share in SHARES.items():
            inside = sum(strata[row] == stratum for row in drawn[split].tolist())
            assert abs(inside - share * count) < 2


def test_a_validation_split_can_be_drawn_from_given_training_rows() -> None:
    rows = {"train": _rows(50), "test": [{"text": "other", "label": 1}]}
    loaded = _load(rows, splits={"train": 0.8, "dev": 0.2})
    sizes = {split: len(made) for split, made in loaded.splits.items()}
    assert sizes["test"] == 1
    assert 38 <= sizes["train"] <= 42 and sizes["train"] + sizes["validation"] == 50


def test_few_training_rows_a_class_are_chosen_by_hash() -> None:
    loaded = _load(_rows(90), splits=SHARES, examples_per_class=4)
    assert np.bincount(loaded.splits["train"].targets).tolist() == [4, 4, 4]
    again = _load(_rows(90), splits=SHARES, examples_per_class=4)
    assert again.fingerprint == loaded.fingerprint
    fewer = _load(_rows(90), splits=SHARES, examples_per_class=2)
    assert set(fewer.splits["train"].inputs) < set(loaded.splits["train"].inputs)
    assert len(loaded.splits["test"]) == len(fewer.splits["test"])


def test_a_class_with_fewer_rows_than_asked_for_is_named() -> None:
    rows = {"train": [*_rows(9), {"text": "odd", "label": "rare"}]}
    loaded = _load(rows, examples_per_class=3)
    assert "train: fewer than 3 rows of rare" in loaded.notes


def test_rows_of_other_classes_are_left_out_and_counted() -> None:
    loaded = _load({"train": _rows(9)}, only_classes=(2, 0))
    assert loaded.classes == ("0", "2")
    assert len(loaded.splits["train"]) == 6
    assert "train: 3 of 9 rows are of other classes than 2, 0" in loaded.notes


def test_declared_classes_set_the_order() -> None:
    loaded = _load({"train": _rows(3)}, classes=("2", "0", "1"))
    assert loaded.splits["train"].targets.tolist() == [1, 2, 0]


def test_classes_that_are_numbers_are_sorted_as_numbers() -> None:
    loaded = _load({"train": _rows(12, classes=12)})
    assert loaded.classes == tuple(map(str, range(12)))


def test_the_order_of_a_source_that_defines_one_is_kept() -> None:
    loaded = data.Data(
        source=lambda: data.sources.sklearn("breast_cancer"),
        input="vector",
        splits={"train": 0.5, "test": 0.5},
    ).load(target_kind="class")
    assert loaded.classes == ("malignant", "benign")


def test_several_labels_become_ones_and_zeros() -> None:
    rows = {
        "train": [
            {"text": "a", "label": ["x", "y"]},
            {"text": "b", "label": []},
            {"text": "c", "label": ["z"]},
        ]
    }
    loaded = _load(rows, kind="multi_label")
    made = loaded.splits["train"].targets
    assert made.dtype == np.float32
    assert made.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_labels_in_a_text_need_a_separator() -> None:
    rows = {"train": [{"text": "a", "label": "x| y"}, {"text": "b", "label": ""}]}
    loaded = _load(rows, kind="multi_label", label_separator="|")
    assert loaded.classes == ("x", "y")
    assert loaded.splits["train"].targets.tolist() == [[1, 1], [0, 0]]
    with pytest.raises(DataError, match="declare label_separator"):
        _load(rows, kind="multi_label")


def test_arrays_of_ones_and_zeros_are_labels_by_place() -> None:
    rows = {"train": {"text": ["a", "b"], "label": np.asarray([[1, 0], [1, 1]])}}
    declared = data.Data(
        source=lambda: data.sources.arrays(rows), classes=("sharp", "dark")
    )
    loaded = declared.load(target_kind="multi_label")
    assert loaded.splits["train"].targets.tolist() == [[1, 0], [1, 1]]


def test_numbers_are_targets_of_a_regression() -> None:
    rows = {"train": [{"text": "a", "label": "1.5"}, {"text": "b", "label": 2}]}
    loaded = _load(rows, kind="number")
    assert loaded.splits["train"].targets.dtype == np.float32
    assert loaded.splits["train"].targets.tolist() == [1.5, 2.0]
    assert loaded.classes == ()
    rows["train"].append({"text": "c", "label": "nan"})
    with pytest.raises(DataError, match=r"train\[2\]: nan instead of a number"):
        _load(rows, kind="number")


def test_two_columns_of_texts_are_pairs() -> None:
    rows = {"train": [{"a": "x", "b": "y", "label": 1}]}
    split = _load(rows, input=("a", "b")).splits["train"]
    assert split.kind == "pair"
    assert list(split.inputs) == [("x", "y")]


def test_numeric_columns_are_put_together() -> None:
    rows = {"train": [{"a": "1", "b": "2.5", "c": "3", "label": 1}]}
    split = _load(rows, input=("a", "b", "c")).splits["train"]
    assert split.kind == "vector"
    assert split.inputs.tolist() == [[1.0, 2.5, 3.0]]


def test_slices_are_texts_of_the_rows() -> None:
    split = _load({"train": _rows(4)}, slices=("topic",)).splits["train"]
    assert split.slices["topic"].tolist() == ["a", "b", "a", "b"]


def test_targets_may_be_left_unread() -> None:
    declared = data.Data(source=lambda: {"test": [{"text": "a"}]}, target=None)
    loaded = declared.load(target_kind="none", require_train=False)
    assert loaded.splits["test"].targets is None
    with pytest.raises(DataError, match="no target column is declared"):
        declared.load(target_kind="class", require_train=False)


def test_held_out_rows_alone_need_declared_classes() -> None:
    rows = {"test": _rows(3)}
    declared = data.Data(source=lambda: rows, classes=("0", "1", "2"))
    loaded = declared.load(target_kind="class", require_train=False)
    assert loaded.splits["test"].targets.tolist() == [0, 1, 2]
    undeclared = dataclasses.replace(declared, classes=None)
    with pytest.raises(DataError, match="classes are not known"):
        undeclared.load(target_kind="class", require_train=False)


@pytest.mark.parametrize("value", [None, "", " "])
def test_rows_that_are_all_unusable_can_be_looked_at(value: Any) -> None:
    rows = {"test": [{"text": value}, {"text": value}]}
    declared = data.Data(source=lambda: rows, target=None, bad_row_tolerance=1.0)
    split = declared.load(target_kind="none", require_train=False).splits["test"]
    assert len(split) == 0
    assert [row.ordinal for row in split.bad] == [0, 1]


def test_a_split_of_another_name_is_left_out_and_counted() -> None:
    loaded = _load({"train": _rows(3), "unsupervised": _rows(5)})
    assert "split 'unsupervised' is not used: 5 rows" in loaded.notes


def test_the_fingerprint_notices_every_change() -> None:
    rows = _rows(6)
    changed_text = [*rows[:-1], rows[-1] | {"text": "text 5."}]
    changed_label = [*rows[:-1], rows[-1] | {"label": 0}]
    prints = {
        _load({"train": case}).fingerprint
        for case in (rows, changed_text, changed_label, rows[:-1], rows[::-1])
    }
    assert len(prints) == 5
    assert _load({"train": rows}).fingerprint in prints


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("pos", "pos"),
        (3, "3"),
        (3.0, "3"),
        (2.5, "2.5"),
        (True, "True"),
        (np.int64(7), "7"),
        (np.float32(1), "1"),
        (np.str_("a"), "a"),
        (b"bytes", "bytes"),
        (10**18 + 1, "1000000000000000001"),
    ],
)
def test_labels_of_all_types_have_a_name(value: Any, name: str) -> None:
    assert targets.class_name(value) == name


@pytest.mark.parametrize("value", [None, "", " ", float("nan"), ["a"]])
def test_what_is_no_label_has_no_name(value: Any) -> None:
    with pytest.raises(targets.Fault):
        targets.class_name(value)
