"""A comparison claims no more than its intervals carry."""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
import re
import shutil
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tflearn.reports import comparison_page, label_claims, pareto, resamples
from tflearn.reports.compare import (
    ArmResult,
    LabelPoint,
    read_comparison,
    redraw,
    write_comparison,
    write_judged,
)
from tflearn.reports.side_by_side import write_side_by_side
from tflearn.reports.verdict import judge
from tflearn.run import main
from tflearn.support.errors import ConfigError, RunError


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
        assert "scratch (0.200) is worse than the best" in found.text

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
    rng, called, comparisons, examples = np.random.default_rng(0), 0, 300, 200
    for _ in range(comparisons):
        hard = 0.7 * rng.random(examples)
        weights = rng.multinomial(examples, np.ones(examples) / examples, size=200)
        found = []
        for name in "abcd"[:arms]:
            skill = 0.7 + 0.02 * rng.normal(size=(3, 1))
            right = hard + 0.3 * rng.random((3, examples)) < skill
            values = right.mean(axis=1)
            resampled = right @ weights.T / examples
            found.append(arm(name, *values, resampled=tuple(resampled), curves=()))
        called += judge(found).winner is not None
    assert called / comparisons <= 0.05


@pytest.mark.parametrize("best", ["scratch", "frozen", "full"])
def test_a_planted_winner_is_named(best: str) -> None:
    """An arm that gets about 17 more of a hundred examples right is found."""
    rng, named, comparisons, examples = np.random.default_rng(1), 0, 40, 400
    for _ in range(comparisons):
        hard = 0.7 * rng.random(examples)
        weights = rng.multinomial(examples, np.ones(examples) / examples, size=200)
        found = []
        for name in ("scratch", "frozen", "full"):
            skill = 0.7 + 0.12 * (name == best) + 0.01 * rng.normal(size=(3, 1))
            right = hard + 0.3 * rng.random((3, examples)) < skill
            resampled = tuple(right @ weights.T / examples)
            found.append(arm(name, *right.mean(axis=1), resampled=resampled, curves=()))
        winner = judge(found).winner
        assert winner in (best, None)
        named += winner == best
    assert named / comparisons >= 0.95


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


def point(labels: int, *values: float, width: float = 0.01) -> LabelPoint:
    """An arm at fewer labels, on resamples of the same test examples."""
    rng = np.random.default_rng(labels)
    return LabelPoint(
        labels=labels,
        seeds=tuple(range(len(values))),
        estimates=tuple({"value": value} for value in values),
        resampled=value_resamples(values, width, rng),
        seconds=(0.5,) * len(values),
    )


def rising(*ends: float) -> tuple[tuple[tuple[int, float], ...], ...]:
    """A curve a seed that rises by `end` in the last quarter of its steps."""
    return tuple(
        tuple((step, 0.5 + end * max(0, step - 75) / 25) for step in range(5, 101, 5))
        for end in ends
    )


class TestLabels:
    """The order changes only if it is sure at the fewest and at the most labels."""

    frozen = arm("frozen", 0.80, 0.81, 0.80, labels=900)
    few = (point(30, 0.70, 0.71, 0.70), point(300, 0.79, 0.79, 0.80))

    def full(self, *at_30: float) -> ArmResult:
        points = (point(30, *at_30), point(300, 0.78, 0.77, 0.78))
        return arm("full", 0.90, 0.91, 0.90, labels=900, points=points)

    def judged(self, *at_30: float) -> str:
        frozen = dataclasses.replace(self.frozen, points=self.few)
        return judge([frozen, self.full(*at_30)]).text

    def test_an_order_that_changes_is_told_with_its_span(self) -> None:
        text = self.judged(0.50, 0.51, 0.50)
        assert "With 30 labels frozen is better than full by 0.200 [" in text
        assert "they change places between 300 and 900 labels (p = " in text

    def test_what_is_unsure_at_one_end_is_not_shown(self) -> None:
        text = self.judged(0.60, 0.75, 0.70)
        assert "full and frozen change places between 300 and 900 labels, but" in text
        assert "is not shown: it is not significant at both ends" in text

    def test_arms_that_keep_their_order_do_not_change_places(self) -> None:
        assert "no two arms are shown to change places" in self.judged(0.8, 0.81, 0.8)

    def test_the_last_step_to_more_labels_is_judged_on_shared_examples(self) -> None:
        text = self.judged(0.50, 0.51, 0.50)
        assert "still brought 0.127 (full), so further labels would likely" in text

    def test_arms_without_points_say_nothing_of_labels(self) -> None:
        assert "labels" not in judge([arm("a", 0.5, 0.5), arm("b", 0.9, 0.9)]).text
        assert label_claims.by_labels(self.frozen) == {}

    def test_of_a_metric_that_falls_the_order_turns_round(self) -> None:
        arms = [
            dataclasses.replace(self.frozen, points=self.few),
            self.full(0.5, 0.5, 0.5),
        ]
        (order,) = label_claims.orders(
            [dataclasses.replace(x, lower_is_better=True) for x in arms]
        )
        assert order.crossing.first.better == "full" and order.between == (300, 900)


class TestBudget:
    def judged(self, **curves: Any) -> str:
        values = {"full": 0.9, "frozen": 0.8}
        return judge(
            [arm(x, *[values[x]] * len(c), curves=c) for x, c in curves.items()]
        ).text

    def test_an_end_that_still_rises_is_told_with_its_rise(self) -> None:
        text = self.judged(full=rising(0.039, 0.041), frozen=rising(0.0, 0.0))
        assert "validation still improved by 0.040 (full), so more budget" in text
        assert "change the order" not in text

    def test_one_that_may_catch_up_is_told(self) -> None:
        text = self.judged(full=rising(0.0, 0.0), frozen=rising(0.039, 0.041))
        assert "would likely help frozen, which may change the order" in text

    def test_a_flat_end_does_not_promise_anything(self) -> None:
        text = self.judged(full=rising(0.02, -0.02), frozen=rising(0.01, -0.01))
        assert "that more budget would help is not shown" in text

    def test_one_seed_does_not_tell(self) -> None:
        text = self.judged(full=rising(0.04), frozen=rising(0.0))
        assert "+0.040 (full)" in text and "more than chance" in text

    def test_a_loss_that_falls_improves(self) -> None:
        curves = rising(-0.039, -0.041)
        arms = [
            arm(x, 0.5, 0.5, curves=curves, metric="loss", lower_is_better=True)
            for x in ("a", "bb")
        ]
        assert "still improved by 0.040 (a) and 0.040 (bb)" in judge(arms).text


def full_arms() -> list[ArmResult]:
    """Two arms of which everything is known."""
    known: dict[str, Any] = {
        "drawn_from": ("accuracy abc 0 400",),
        "labels": 900,
        "peak_memory_bytes": 2**30,
        "storage_bytes": 2**20,
        "calibration": (0.03, 0.05),
        "budget": "600 steps",
        "spent": {"tuning": 200.0, "training": 400.0},
        "worst_slice": {"slice": "length=40+", "value": 0.41, "count": 55},
        "folders": ("a/0", "a/1"),
    }
    forgotten = {"source": "wiki", "before": 2.25, "after": 3.5, "metric": "perplexity"}
    return [
        arm(
            *("frozen", 0.8, 0.81),
            **known,
            flops=(2e13, 2e13),
            tuned={"learning_rate": 0.01},
            points=(point(30, 0.7, 0.71),),
        ),
        arm(
            *("full", 0.9, 0.91),
            **known,
            flops=(3.04e14, 3.04e14),
            seconds=(9.0, 10.0),
            forgetting=({**forgotten, "lower_is_better": True},),
            points=(point(30, 0.5, 0.51),),
        ),
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A comparison of which everything is known."""
    folder = tmp_path_factory.mktemp("written")
    arms = full_arms()
    # A resample of which the metric is undefined.
    arms[0].resampled[0][3] = np.nan
    write_comparison("all", arms, folder)
    return folder


class TestFiles:
    def test_all_that_is_known_is_shown(self, written: pathlib.Path) -> None:
        page = (written / "compare.html").read_text()
        for told in ("3.04e14", "1.0 GiB", "1.0 MiB", "0.040", "length=40+", "0.410"):
            assert f">{told}<" in page, told
        for told in ("3.500", "learning_rate 0.01", "tuning 200, training 400"):
            assert f">{told}<" in page, told
        for name in ("compare", "pareto", "labels"):
            assert (written / "plots" / f"{name}.png").stat().st_size > 1000
            assert f'id="{name}-' in page
        svg = (written / "plots" / "labels.svg").read_text()
        assert "order changes" in svg and ">900<" in svg

    def test_what_is_not_known_has_no_column(self, tmp_path: pathlib.Path) -> None:
        write_comparison("few", [arm("a", 0.5, 0.6), arm("b", 0.9, 0.92)], tmp_path)
        page = (tmp_path / "compare.html").read_text()
        for column in ("FLOPs", "memory", "storage", "slice", "forgotten", "Budget"):
            assert column not in page

    def test_drawn_again_it_is_the_same(
        self, written: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        again = shutil.copytree(written, tmp_path / "again")
        for name in ("compare.html", "compare.csv", "plots/compare.svg"):
            (again / name).unlink()
        redraw(again)
        for path in written.rglob("*.*"):
            copy = again / path.relative_to(written)
            assert copy.read_bytes() == path.read_bytes(), path.name

    def test_drawn_again_it_keeps_its_notes(self, tmp_path: pathlib.Path) -> None:
        arms = [arm("a", 0.5, 0.6), arm("b", 0.9, 0.92)]
        judged = judge(arms)
        write_judged("few", arms, judged, folder=tmp_path, notes=("one is left out",))
        assert redraw(tmp_path)["notes"] == ["one is left out"]
        assert "one is left out" in (tmp_path / "compare.html").read_text()

    def test_a_table_holds_all_points(self, written: pathlib.Path) -> None:
        with (written / "compare.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 2 * (2 + 2 + 2 * 2)
        last = [x for x in rows if x["arm"] == "full" and x["labels"] == "900"]
        assert [x["value"] for x in last if not x["step"]] == ["0.9", "0.91"]
        assert {x["flops"] for x in last if not x["step"]} == {"304000000000000.0"}
        assert {x["split"] for x in rows if x["step"]} == {"validation"}

    def test_what_is_no_comparison_is_refused(
        self, written: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        with pytest.raises(RunError, match="holds no comparison"):
            read_comparison(tmp_path)
        shutil.copy(written / "compare.json", tmp_path)
        with pytest.raises(RunError, match="resamples of this comparison are missing"):
            read_comparison(tmp_path)

    def test_every_sentence_names_its_figures(self, written: pathlib.Path) -> None:
        found = json.loads((written / "compare.json").read_text())
        assert found["verdict"] == " ".join(x["sentence"] for x in found["claims"])
        page = (written / "compare.html").read_text()
        for place, claim in enumerate(found["claims"], start=1):
            assert claim["rests_on"] in page
            assert f'<li id="claim-{place}"' in page
            assert f'href="#claim-{place}"' in page
        notes = re.findall(r'<li id="claim-.*?</li>', page)
        for claim, note in zip(found["claims"], notes, strict=True):
            for number in re.findall(r"\d+\.\d+", claim["sentence"]):
                assert number in note, claim["sentence"]
        (pair,) = found["pairs"]
        figures = found["claims"][0]["figures"]
        assert figures["full over frozen"]["p"] == pair["corrected"]


def test_other_labels_of_the_same_row_numbers_are_other_examples(
    tmp_path: pathlib.Path,
) -> None:
    def told(*labels: int) -> str:
        split = SimpleNamespace(rows=np.arange(3), targets=np.array(labels), digest="")
        data = SimpleNamespace(splits={"test": split}, classes=("a", "b"))
        metric = SimpleNamespace(samples=np.ones(5))
        prepared: Any = SimpleNamespace(dataset=data)
        evaluation: Any = SimpleNamespace(
            headline="accuracy", seed=0, metrics={"accuracy": metric}
        )
        resamples.write(tmp_path, prepared, {"test": evaluation})
        found = resamples.read(tmp_path, "test")
        assert found is not None
        return found[0]

    assert told(0, 1, 0) == told(0, 1, 0)
    assert told(0, 1, 0) != told(0, 1, 1)


class TestSideBySide:
    def write(self, folder: pathlib.Path, *arms: ArmResult, drawn: str) -> pathlib.Path:
        known = [dataclasses.replace(x, drawn_from=(drawn,)) for x in arms]
        write_comparison(folder.name, known, folder)
        return folder

    def test_the_same_examples_are_judged_together(
        self, tmp_path: pathlib.Path
    ) -> None:
        one = self.write(tmp_path / "one", arm("full", 0.9, 0.91), drawn="x")
        two = self.write(tmp_path / "two", arm("full", 0.7, 0.71), drawn="x")
        found = write_side_by_side([one, two], tmp_path / "both")
        assert found["winner"] == "one: full" and len(found["pairs"]) == 1
        assert [x["name"] for x in found["beside"]] == ["one", "two"]
        assert "one: full" in (tmp_path / "both" / "compare.html").read_text()

    def test_other_examples_are_not_judged_and_it_says_so(
        self, tmp_path: pathlib.Path
    ) -> None:
        arms = [arm("full", 0.9, 0.91), arm("frozen", 0.7, 0.71)]
        one = self.write(tmp_path / "one", *arms, drawn="x")
        two = self.write(tmp_path / "two", *arms, drawn="y")
        found = write_side_by_side([one, two], tmp_path / "both")
        assert found["winner"] is None and len(found["pairs"]) == 2
        assert "one and two were not tested on the same examples" in found["verdict"]
        assert "two: full is best" in found["verdict"]
        with pytest.raises(RunError, match="drawn from their own folders"):
            redraw(tmp_path / "both")

    def test_unequal_terms_are_told(self, tmp_path: pathlib.Path) -> None:
        one = self.write(tmp_path / "one", arm("a", 0.9, budget="600 steps"), drawn="x")
        two = self.write(tmp_path / "two", arm("a", 0.8, budget="9 steps"), drawn="x")
        (note,) = write_side_by_side([one, two], tmp_path / "both")["notes"]
        assert "not on equal terms in budget (one: 600 steps; two: 9 steps)" in note

    def test_one_folder_is_no_pair_and_none_is_overwritten(
        self, tmp_path: pathlib.Path
    ) -> None:
        one = self.write(tmp_path / "one", arm("a", 0.9), drawn="x")
        two = self.write(tmp_path / "two", arm("a", 0.9), drawn="x")
        with pytest.raises(ConfigError, match="at least two different folders"):
            write_side_by_side([one, one], tmp_path / "both")
        with pytest.raises(ConfigError, match="overwrite one of the comparisons"):
            write_side_by_side([one, two], two)


def test_comparisons_are_laid_side_by_side_from_the_command_line(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("one", 0.9), ("two", 0.7)):
        write_comparison(name, [arm("full", value, value)], tmp_path / name)
    flags = [f"--beside={tmp_path / name}" for name in ("one", "two")]
    assert main(["--mode=compare", *flags]) == 2
    assert "--beside needs --output_dir" in capsys.readouterr().err
    assert main(["--mode=compare"]) == 2
    assert "needs --gin_file, or --beside" in capsys.readouterr().err
    assert main(["--mode=compare", *flags, f"--output_dir={tmp_path / 'b'}"]) == 0
    assert "were not tested on the same examples" in capsys.readouterr().out
    assert (tmp_path / "b" / "compare.html").is_file()


def test_names_in_a_figure_are_moved_apart() -> None:
    heights = pareto.spread(np.array([0.1, 0.5, 0.51, 0.52]), 0.1)
    assert (np.diff(heights) >= 0.1 - 1e-6).all()
    assert heights.mean() == pytest.approx(0.4075)
