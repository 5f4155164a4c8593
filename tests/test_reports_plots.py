"""Figures: as files and inline, the same bytes for the same numbers."""

from __future__ import annotations

import pathlib
import xml.etree.ElementTree

import numpy as np
import pytest

from tflearn.reports import plots
from tflearn.reports.report import StageReport


def matrix_of(classes: int) -> dict[str, object]:
    counts = np.full((classes, classes), 1) + 20 * np.eye(classes, dtype=int)
    return {
        "classes": [f"class {i}" for i in range(classes)],
        "confusion": counts.tolist(),
    }


def test_files_are_complete_and_valid(tmp_path: pathlib.Path) -> None:
    plot = plots.confusion(matrix_of(3))
    assert plot is not None
    plot.write(tmp_path / "plots")
    root = xml.etree.ElementTree.parse(tmp_path / "plots" / "confusion.svg").getroot()
    assert root.tag.endswith("svg")
    assert (tmp_path / "plots" / "confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_no_file_names_a_date_or_a_version() -> None:
    plot = plots.confusion(matrix_of(2))
    assert plot is not None
    assert "dc:date" not in plot.svg and "Matplotlib" not in plot.svg
    assert b"Software" not in plot.png


def test_inline_takes_ink_and_colours_from_the_page() -> None:
    history = [{"step": i, "loss": 1 / i, "val_loss": 2 / i} for i in (1, 2, 3)]
    plot = plots.learning_curves(StageReport(name="a", history=history))
    assert plot is not None
    assert plot.inline.startswith('<svg role="img" aria-label="Learning curves"')
    assert "currentColor" in plot.inline and "var(--grid)" in plot.inline
    assert "var(--series-1" in plot.inline and "http" not in plot.inline


def test_up_to_twenty_classes_are_all_drawn() -> None:
    plot = plots.confusion(matrix_of(20))
    assert plot is not None
    assert plot.title == "Confusion matrix"
    assert "class 19" in plot.svg


def test_of_more_classes_only_the_most_confused_and_it_says_so() -> None:
    plot = plots.confusion(matrix_of(77))
    assert plot is not None
    assert plot.title == "Confusion matrix: the 20 most confused of 77 classes"
    assert "class 19" in plot.svg and "class 20" not in plot.svg


def test_the_most_confused_have_most_errors_in_row_and_column() -> None:
    matrix = np.zeros((5, 5), int)
    matrix[4, 1] = 3
    matrix[2, 3] = 1
    assert plots.most_confused(matrix, 2) == [1, 4]
    assert plots.most_confused(matrix, 5) == [0, 1, 2, 3, 4]


def test_dollars_in_class_names_are_no_formula() -> None:
    evaluation = matrix_of(2) | {"classes": ["$a_{", "b$"]}
    plot = plots.confusion(evaluation)
    assert plot is not None and "$a_{" in plot.svg


@pytest.mark.parametrize("evaluation", [{}, {"confusion": None}, {"reliability": []}])
def test_what_is_not_there_is_not_drawn(evaluation: dict[str, object]) -> None:
    assert plots.confusion(evaluation) is None
    assert plots.reliability(evaluation) is None


def test_empty_bins_are_left_out() -> None:
    bins = [
        {"low": 0.0, "high": 0.5, "confidence": None, "accuracy": None, "count": 0},
        {"low": 0.5, "high": 1.0, "confidence": 0.8, "accuracy": 0.7, "count": 10},
    ]
    assert plots.reliability({"reliability": bins}) is not None


def test_validation_loss_goes_by_its_own_name() -> None:
    history = [{"step": i, "loss": 1 / i, "val_cross_entropy": 2 / i} for i in (1, 2)]
    plot = plots.learning_curves(StageReport(name="a", history=history))
    assert plot is not None and "validation cross-entropy" in plot.svg


def test_drawing_leaves_the_settings_of_the_process_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.confusion(matrix_of(2))
    assert dict(matplotlib.rcParams) == before
