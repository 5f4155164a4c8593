"""A comparison claims no more than its intervals carry."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tflearn.reports import comparison_page
from tflearn.reports.compare import ArmResult, write_comparison
from tflearn.reports.verdict import judge
from tflearn.support.errors import RunError


def arm(
    name: str, *values: float, width: float | None = 0.01, **more: Any
) -> ArmResult:
    """An arm by its seeds' values; the resamples vary by `width` around them."""
    rng = np.random.default_rng(len(name))
    estimates = [{"value": value, "count": 100} for value in values]
    resampled = () if width is None else value_resamples(values, width, rng)
    return ArmResult(
        **{
            "name": name,
            "seeds": tuple(range(len(values))),
            "metric": "accuracy",
            "estimates": tuple(estimates),
            "trainable_parameters": 10,
            "total_parameters": 100,
            "seconds": (1.0,) * len(values),
            "curves": tuple(((10, v - 0.2), (20, v)) for v in values),
            "resampled": resampled,
        }
        | more
    )


def value_resamples(
    values: Sequence[float], width: float, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    return tuple(value + width * rng.normal(size=400) for value in values)


class TestVerdict:
    def test_one_that_is_better_than_all_others_wins(self) -> None:
        slow = arm("full", 0.90, 0.91, 0.90, seconds=(9.0, 9.0, 9.0))
        quick = arm("frozen", 0.80, 0.81, 0.80)
        found = judge([arm("scratch", 0.5, 0.51, 0.5), quick, slow])
        assert found.winner == "full"
        assert found.text.startswith("full is best (0.903 [0.8")
        assert "better than frozen, the next (p = " in found.text
        assert "frozen takes 11% of its time (1.0s for 9.0s) and gives up 0.1" in (
            found.text
        )

    def test_of_a_metric_that_falls_the_lowest_is_best(self) -> None:
        arms = [arm("a", 0.9, 0.91), arm("b", 0.5, 0.51)]
        found = judge([dataclasses.replace(x, lower_is_better=True) for x in arms])
        assert found.winner == "b" and found.pairs[0].better == "b"

    def test_what_examples_and_seeds_explain_is_too_close_to_call(self) -> None:
        wide = arm("frozen", 0.86, 0.92, 0.89)
        found = judge([wide, arm("full", 0.90, 0.91, 0.90), arm("scratch", 0.2, 0.2)])
        assert found.winner is None
        assert "Too close to call between full and frozen" in found.text
        assert "The cheapest of them is" in found.text
        assert "scratch (0.2) is worse than the best" in found.text

    def test_seeds_that_differ_take_a_claim_back(self) -> None:
        steady = [arm("a", 0.80, 0.80, 0.80), arm("b", 0.85, 0.85, 0.85)]
        restless = [arm("a", 0.70, 0.80, 0.90), arm("b", 0.75, 0.85, 0.95)]
        assert judge(steady).winner == "b"
        assert judge(restless).winner is None

    def test_one_seed_says_what_is_not_known(self) -> None:
        found = judge([arm("a", 0.5), arm("b", 0.9)])
        assert found.winner == "b" and "how much training itself varies" in found.text

    def test_equal_arms_are_equal(self) -> None:
        one = arm("a", 0.9, 0.9)
        two = dataclasses.replace(one, name="b")
        found = judge([one, two])
        assert found.winner is None and "they are equal (0.900" in found.text

    def test_without_resamples_there_is_no_claim(self) -> None:
        found = judge([arm("a", 0.1, width=None), arm("b", 0.9)])
        assert found.winner is None and "says nothing" in found.text

    def test_resamples_without_the_metric_are_left_out(self) -> None:
        one, two = arm("a", 0.5, 0.51), arm("b", 0.9, 0.91)
        one.resampled[0][:10] = np.nan
        found = judge([one, two])
        assert found.winner == "b" and np.isfinite(found.pairs[0].high)

    def test_one_arm_is_no_comparison(self) -> None:
        assert "nothing to compare" in judge([arm("a", 0.9)]).text

    def test_a_seed_without_a_value_takes_its_arm_out(self) -> None:
        estimates = ({"value": 0.9}, {"value": None})
        found = judge([arm("a", 0.9, 0.9, estimates=estimates), arm("b", 0.5)])
        assert "nothing to compare" in found.text


@pytest.mark.parametrize("arms", [2, 4])
def test_planted_ties_are_seldom_called(arms: int) -> None:
    """Of arms that are equally good, at most one comparison in twenty names a winner.

    Examples differ in how hard they are for all, runs in where their seed led them.
    """
    rng, called, comparisons, examples = np.random.default_rng(0), 0, 1000, 300
    for _ in range(comparisons):
        hard = 0.7 * rng.random(examples)
        weights = rng.multinomial(examples, np.ones(examples) / examples, size=200)
        found = []
        for name in "abcd"[:arms]:
            skill = 0.7 + 0.02 * rng.normal(size=(3, 1))
            right = hard + 0.3 * rng.random((3, examples)) < skill
            values = right.mean(axis=1)
            resampled = right @ weights.T / examples
            found.append(arm(name, *values, resampled=tuple(resampled)))
        called += judge(found).winner is not None
    assert called / comparisons <= 0.05


def test_files_are_written(tmp_path: pathlib.Path) -> None:
    arms = [arm("<script>", 0.5, 0.6), arm("full", 0.9, 0.92)]
    found = write_comparison("digits & more", arms, tmp_path / "out")
    assert found == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [a["value"] for a in found["arms"]] == [0.55, pytest.approx(0.91)]
    text = (tmp_path / "out" / "compare.html").read_text()
    assert "<script" not in text and "http:" not in text
    assert (
        "digits &amp; more" in text
        and "Too close to call between full and &lt;script&gt;" in text
    )
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
    arms = [arm("a", 0.5, drawn_from=("x",)), arm("b", 0.9, drawn_from=("y",))]
    with pytest.raises(RunError, match="not tested on the same examples"):
        write_comparison("mixed", arms, tmp_path)
    with pytest.raises(RunError, match="no arms"):
        write_comparison("none", [], tmp_path)


def test_the_note_says_what_an_interval_is() -> None:
    assert "the mean over the seeds" in comparison_page._INTERVAL_NOTE
