"""The report of a run: plain data, one sentence, and a page that stands alone."""

from __future__ import annotations

import html.parser
import json
import pathlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tflearn.evaluation import metrics
from tflearn.reports import Report, StageReport, write_html, write_report
from tflearn.reports.html import png_uri
from tflearn.reports.report import estimate_text, leading_split, plain
from tflearn.support.errors import RunError

EVIL = "<script>alert('x')</script>\"&'"


def evaluation(
    kind: str = "class", classes: tuple[str, ...] = ("no", "yes"), **slices: Any
) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    if kind == "number":
        targets, outputs = rng.normal(size=40), rng.normal(size=(40, 1))
    elif kind == "multi_label":
        outputs = rng.normal(size=(40, len(classes)))
        targets = (outputs + rng.normal(size=outputs.shape) > 0).astype("float32")
    else:
        targets = np.arange(40) % len(classes)
        outputs = (
            rng.normal(size=(40, len(classes))) + 2 * np.eye(len(classes))[targets]
        )
    found = metrics.evaluate(
        kind,
        targets,
        outputs,
        classes=() if kind == "number" else classes,
        slices=slices,
        bootstrap=20,
    )
    return found.to_json()


CENSUS = [
    {
        "path": "backbone/block_0",
        "layers": 2,
        "parameters": 1000,
        "trainable": 0,
        "frozen": 1000,
        "role": "frozen",
        "rule": "freeze('backbone')",
    },
    {
        "path": "head/logits",
        "layers": 1,
        "parameters": 24,
        "trainable": 24,
        "frozen": 0,
        "role": "fresh",
        "rule": "train('head')",
    },
]
HISTORY = [
    {"step": 5 * i, "loss": 1 / i, "accuracy": 0.5, "val_accuracy": 1 - 1 / (i + 1)}
    for i in range(1, 4)
]


def stage(**changes: Any) -> StageReport:
    values: dict[str, Any] = {
        "name": "tune",
        "census": CENSUS,
        "steps": 15,
        "epochs": 3.0,
        "examples_seen": 480,
        "budget": "3 epochs",
        "seconds": {"train": 240.0, "evaluate": 10.0},
        "history": HISTORY,
        "evaluations": {"test": evaluation(source=np.array(["web", "book"] * 20))},
        "worst": [
            {
                "location": "test.tsv:17",
                "input": "a fine film",
                "target": "yes",
                "prediction": "no",
                "probability": 0.987,
            }
        ],
        "notes": ["2 of 42 rows were left out"],
        "frozen_proof": {"layers": 2, "parameters": 1000},
    }
    return StageReport(**values | changes)


def report(*stages: StageReport, **changes: Any) -> Report:
    values: dict[str, Any] = {
        "name": "films",
        "seed": 7,
        "versions": {"backend": "jax", "python": "3.11.2"},
        "hardware": {"processor": "Some CPU", "memory_bytes": 2**34, "devices": "CPU"},
        "command": "python -m tflearn.run --gin_file=films.gin",
        "stages": list(stages) or [stage()],
        "seconds": {"data": 2.0},
        "peak_memory_bytes": 3 * 2**30,
        "model": {"parameters": 1024, "origin": "from scratch"},
    }
    return Report(**values | changes)


def page(of: Report, tmp_path: pathlib.Path) -> str:
    write_html(of, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


class TestData:
    def test_json_and_back_gives_the_same_report(self) -> None:
        first = report(stage(), stage(name="second", temperature=1.3))
        text = json.dumps(first.to_json(), allow_nan=False)
        assert Report.from_json(json.loads(text)) == first

    def test_what_json_does_not_know_becomes_what_it_does(self) -> None:
        values = {
            "nan": float("nan"),
            "inf": np.float32("inf"),
            "array": np.arange(2),
            "path": pathlib.PurePosixPath("a/b"),
            "flag": np.bool_(True),
        }
        assert plain(values) == {
            "nan": None,
            "inf": None,
            "array": [0, 1],
            "path": "a/b",
            "flag": True,
        }

    def test_an_unknown_field_is_refused_with_the_nearest_name(self) -> None:
        with pytest.raises(RunError, match="unknown field.*Did you mean 'seconds'"):
            StageReport.from_json({"name": "tune", "second": {}})

    def test_a_missing_name_is_refused(self) -> None:
        with pytest.raises(RunError, match="lacks its name"):
            Report.from_json({"seed": 1})


class TestSummary:
    def test_one_sentence_says_what_came_out(self) -> None:
        found = {"value": 0.8731, "low": 0.8567, "high": 0.8884, "count": 1821}
        tune = stage(
            evaluations={
                "test": {"headline": "accuracy", "metrics": {"accuracy": found}}
            }
        )
        assert report(tune).summary() == (
            "test accuracy 0.873 [0.857, 0.888] on 1,821 examples after 3 epochs "
            "in 4m 12s on JAX, CPU"
        )

    def test_without_a_test_split_it_quotes_validation(self) -> None:
        tune = stage(evaluations={"validation": evaluation()})
        assert leading_split(tune) == "validation"
        assert report(tune).summary().startswith("validation accuracy 0.")

    def test_without_an_evaluation_it_says_how_far_it_went(self) -> None:
        text = report(stage(evaluations={}, epochs=0.0)).summary()
        assert text.startswith("trained for 15 steps in 4m 12s")

    def test_without_a_stage(self) -> None:
        assert "no stage has run" in Report(name="empty").summary()

    def test_numbers_keep_three_figures_or_more(self) -> None:
        assert estimate_text({"value": 123.456}) == "123.5"
        assert estimate_text({"value": None}) == "–"
        assert estimate_text(None) == "–"


class TestPage:
    def test_everything_the_report_knows_is_on_it(self, tmp_path: pathlib.Path) -> None:
        text = page(report(), tmp_path)
        for wanted in (
            "films",
            "Learning curves",
            "Confusion matrix",
            "Reliability",
            "By source",
            "Worst errors",
            "a fine film",
            "test.tsv:17",
            "Census",
            "24 of 1,024 parameters were trained (2.3 %)",
            "2 of 42 rows were left out",
            "Seconds per phase",
            "252.0",
            "Some CPU",
            "16.0 GiB",
            "3.11.2",
            "python -m tflearn.run --gin_file=films.gin",
            "95 % bootstrap intervals of 20 resamples",
        ):
            assert wanted in text, wanted

    def test_it_asks_nobody_for_anything(self, tmp_path: pathlib.Path) -> None:
        text = page(report(), tmp_path)
        assert "http:" not in text and "https:" not in text
        assert "@import" not in text and "<link" not in text
        assert "<script" not in text
        sources = re.findall(r'(?:src|href)="([^"]*)"', text)
        assert all(s.startswith(("data:image/png", "#")) for s in sources)
        assert re.findall(r"url\((?!#)", text) == []

    def test_strings_from_data_are_escaped_everywhere(
        self, tmp_path: pathlib.Path
    ) -> None:
        worst = {
            "location": EVIL,
            "input": EVIL,
            "target": EVIL,
            "prediction": EVIL,
            "probability": 0.9,
        }
        evil = stage(
            worst=[worst],
            notes=[EVIL],
            budget=EVIL,
            census=[{**CENSUS[0], "path": EVIL, "rule": EVIL}],
            evaluations={
                "test": evaluation(
                    classes=(EVIL, "$x_{y"), **{EVIL: np.array([EVIL, "b"] * 20)}
                )
            },
        )
        changes = {"name": EVIL, "command": EVIL, "hardware": {EVIL: EVIL}}
        text = page(report(evil, versions={EVIL: EVIL}, **changes), tmp_path)
        assert "<script" not in text
        assert text.count("&lt;script&gt;") > 12
        assert "$x_{y" in text

    def test_it_is_well_formed(self, tmp_path: pathlib.Path) -> None:
        open_tags: list[str] = []

        class Checker(html.parser.HTMLParser):
            def handle_starttag(self, tag: str, attrs: Any) -> None:
                if tag not in ("meta", "br", "img", "!doctype"):
                    open_tags.append(tag)

            def handle_endtag(self, tag: str) -> None:
                assert open_tags.pop() == tag

            def handle_startendtag(self, tag: str, attrs: Any) -> None:
                pass

        Checker().feed(page(report(), tmp_path))
        assert open_tags == []

    def test_parts_of_two_figures_share_no_name(self, tmp_path: pathlib.Path) -> None:
        text = page(report(stage(), stage(name="second")), tmp_path)
        names = re.findall(r'\bid="([^"]*)"', text)
        assert len(names) == len(set(names))

    def test_images_are_inside_and_labelled(self, tmp_path: pathlib.Path) -> None:
        image = png_uri(np.arange(48, dtype="uint8").reshape(4, 4, 3))
        row = {
            "location": "a.jpg",
            "input": image,
            "target": "cat",
            "prediction": "dog",
        }
        text = page(report(stage(worst=[row])), tmp_path)
        assert f'<img src="{image}" alt="cat, taken for dog">' in text

    def test_a_text_that_only_begins_like_an_image_is_text(
        self, tmp_path: pathlib.Path
    ) -> None:
        row = {
            "location": "a:1",
            "input": 'data:image/png;base64,AA" onerror="x',
            "target": "cat",
            "prediction": "dog",
        }
        text = page(report(stage(worst=[row])), tmp_path)
        assert "<img" not in text and "onerror=&#34;x" in text

    @pytest.mark.parametrize("kind", ["class", "multi_label", "number"])
    def test_every_kind_of_target_has_a_page(
        self, kind: str, tmp_path: pathlib.Path
    ) -> None:
        text = page(report(stage(evaluations={"test": evaluation(kind)})), tmp_path)
        assert ("Confusion matrix" in text) == (kind == "class")
        assert ("Reliability" in text) == (kind != "number")

    def test_an_empty_stage_has_a_page(self, tmp_path: pathlib.Path) -> None:
        text = page(Report(name="bare", stages=[StageReport(name="tune")]), tmp_path)
        assert "bare" in text and "Learning curves" not in text

    def test_a_diverged_run_has_a_page(self, tmp_path: pathlib.Path) -> None:
        history = [{"step": 5, "loss": float("nan")}, {"step": 10, "loss": None}]
        text = page(report(stage(history=history, evaluations={})), tmp_path)
        assert "Learning curves" not in text

    def test_the_same_report_gives_the_same_bytes(self, tmp_path: pathlib.Path) -> None:
        assert page(report(), tmp_path / "a") == page(report(), tmp_path / "b")
        for first in (tmp_path / "a" / "plots").iterdir():
            second = tmp_path / "b" / "plots" / first.name
            assert first.read_bytes() == second.read_bytes()


class TestFiles:
    def test_page_plots_and_json_are_written(self, tmp_path: pathlib.Path) -> None:
        write_report(report(), tmp_path / "run")
        names = {
            str(path.relative_to(tmp_path / "run"))
            for path in (tmp_path / "run").rglob("*")
            if path.is_file()
        }
        plots = ("confusion", "learning_curves", "reliability")
        assert names == {"report.json", "report.html"} | {
            f"plots/tune_{plot}.{suffix}" for plot in plots for suffix in ("svg", "png")
        }
        read = json.loads((tmp_path / "run" / "report.json").read_text())
        assert Report.from_json(read) == report()

    def test_no_heavy_library_before_a_report_is_drawn(self) -> None:
        code = (
            "import sys, keras; before = set(sys.modules); "
            "import tflearn.reports.tables, tflearn.reports.trackers; "
            "heavy = {'matplotlib', 'jinja2', 'tensorboard', 'sklearn', 'PIL'}; "
            "print(sorted(heavy & set(sys.modules) - before))"
        )
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == "[]"
