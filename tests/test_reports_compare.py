"""A comparison claims no more than its intervals carry."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from tflearn.reports import compare
from tflearn.reports.compare import ArmResult, verdict, write_comparison
from tflearn.support.errors import RunError


def arm(
    name: str, *values: float, width: float | None = 0.02, **more: Any
) -> ArmResult:
    return ArmResult(
        **{
            "name": name,
            "seeds": tuple(range(len(values))),
            "metric": "accuracy",
            "estimates": tuple(
                {
                    "value": value,
                    "low": None if width is None else value - width,
                    "high": None if width is None else value + width,
                    "count": 100,
                }
                for value in values
            ),
            "trainable_parameters": 10,
            "total_parameters": 100,
            "seconds": (1.0,) * len(values),
            "curves": tuple(((10, v - 0.2), (20, v)) for v in values),
        }
        | more
    )


class TestVerdict:
    def test_apart_is_said(self) -> None:
        assert verdict([arm("scratch", 0.5), arm("full", 0.9)]) == (
            "full is best (0.900 [0.880, 0.920]); its interval lies above scratch's."
        )

    def test_of_a_metric_that_falls_the_lowest_is_best(self) -> None:
        found = [arm("a", 0.9, lower_is_better=True), arm("b", 0.5), arm("c", 0.51)]
        assert verdict(found) == (
            "b is best (0.500 [0.480, 0.520]); its interval lies below a's; "
            "its interval overlaps c's: too close to call."
        )

    def test_overlap_is_too_close_to_call(self) -> None:
        text = verdict([arm("frozen", 0.89), arm("full", 0.9)])
        assert text.endswith("its interval overlaps frozen's: too close to call.")

    def test_both_at_once(self) -> None:
        text = verdict([arm("scratch", 0.5), arm("frozen", 0.89), arm("full", 0.9)])
        assert "lies above scratch's; its interval overlaps frozen's: too" in text

    def test_touching_intervals_are_not_apart(self) -> None:
        found = [arm("a", 0.5, width=0.25), arm("b", 1.0, width=0.25)]
        assert "too close to call" in verdict(found)

    def test_one_seed_that_overlaps_is_enough_to_overlap(self) -> None:
        text = verdict([arm("a", 0.5, 0.89), arm("b", 0.9, 0.9)])
        assert "best in the mean of its seeds" in text and "overlaps a's" in text

    def test_without_intervals_there_is_no_claim(self) -> None:
        text = verdict([arm("a", 0.1, width=None), arm("b", 0.9)])
        assert "without intervals this says nothing" in text

    def test_equal_means_are_equal(self) -> None:
        text = verdict([arm("a", 0.9), arm("b", 0.9), arm("c", 0.1)])
        assert text == "a and b are equal at the top (0.900)."

    def test_one_arm_is_no_comparison(self) -> None:
        assert "nothing to compare" in verdict([arm("a", 0.9)])

    def test_a_seed_without_a_value_takes_its_arm_out(self) -> None:
        broken = arm("a", 0.9, 0.9)
        estimates = (broken.estimates[0], {"value": None, "low": None, "high": None})
        assert "nothing to compare" in verdict(
            [arm("a", 0.9, 0.9, estimates=estimates), arm("b", 0.5)]
        )


def test_files_are_written(tmp_path: pathlib.Path) -> None:
    arms = [arm("<script>", 0.5, 0.6), arm("full", 0.9, 0.92)]
    found = write_comparison("digits & more", arms, tmp_path / "out")
    assert found == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [a["value"] for a in found["arms"]] == [0.55, pytest.approx(0.91)]
    text = (tmp_path / "out" / "compare.html").read_text()
    assert "<script" not in text and "http:" not in text
    assert "digits &amp; more" in text and found["verdict"].split("(")[0] in text
    for suffix in ("svg", "png"):
        assert (tmp_path / "out" / "plots" / f"compare.{suffix}").stat().st_size > 1000


def test_arms_without_curves_or_intervals_can_be_drawn(tmp_path: pathlib.Path) -> None:
    arms = [arm("a", 0.5, width=None, curves=()), arm("b", 0.9, curves=((),))]
    write_comparison("plain", arms, tmp_path)
    assert "0.900" in (tmp_path / "compare.html").read_text()


def test_arms_must_measure_one_thing(tmp_path: pathlib.Path) -> None:
    arms = [arm("a", 0.5), arm("b", 0.9, metric="f1")]
    with pytest.raises(RunError, match="do not measure one thing.*test f1"):
        write_comparison("mixed", arms, tmp_path)
    with pytest.raises(RunError, match="no arms"):
        write_comparison("none", [], tmp_path)


def test_the_note_says_what_an_interval_is() -> None:
    assert "lowest to the highest bound" in compare._INTERVAL_NOTE
