"""Arms on equal terms: who runs, what they may spend, what is not repeated."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest

from tflearn import backbones, config, experiment, objectives, regimes
from tflearn.comparison import (
    Arm,
    Comparison,
    Tuning,
    curves,
    running,
    settling,
    spending,
    tuning,
    workers,
)
from tflearn.data import Data, sources, splits
from tflearn.reports import html
from tflearn.reports.arms import ArmResult
from tflearn.support.errors import ConfigError, RunError
from tflearn.training import optimizers

line = importlib.import_module("tflearn.run")

WORDS = ("good", "bad")


@pytest.fixture(autouse=True)
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages of the runs have tests of their own, and take half of the time."""
    monkeypatch.setattr(html, "write_html", lambda report, file: None)


def perceptron() -> keras.Model:
    x = inputs = keras.Input((4,), name="features")
    for number in range(4):
        x = keras.layers.Dense(8, activation="tanh", name=f"block_{number}")(x)
    return keras.Model(inputs, x)


def scaling() -> keras.Model:
    """A backbone with weights, and neither blocks nor linear layers."""
    inputs = keras.Input((4,), name="features")
    return keras.Model(inputs, keras.layers.LayerNormalization(name="norm")(inputs))


def pretrained() -> keras.Model:
    """A backbone that is the same for every seed, as one with weights is."""
    inputs = keras.Input((4,), name="features")
    start = keras.initializers.GlorotUniform(seed=1234)
    layer = keras.layers.Dense(8, kernel_initializer=start, name="block_0")
    return keras.Model(inputs, layer(inputs))


def rows() -> dict[str, dict[str, list[Any]]]:
    rng = np.random.default_rng(0)
    made = {}
    for split, count in (("train", 60), ("validation", 20), ("test", 40)):
        points = rng.normal(size=(count, 4)).round(4)
        columns = {f"x{k}": points[:, k].tolist() for k in range(4)}
        labels = ["up" if value > 0 else "down" for value in points[:, 0]]
        made[split] = columns | {"label": labels}
    return made


def data() -> Data:
    return Data(source=lambda: sources.arrays(rows()), input=("x0", "x1", "x2", "x3"))


def texts() -> Data:
    splits_ = {
        split: {
            "text": [f"{filler} {word} " * k for k in range(1, 7) for word in WORDS],
            "label": list(WORDS) * 6,
        }
        for split, filler in (("train", "very"), ("validation", "a"), ("test", "film"))
    }
    return Data(source=lambda: sources.arrays(splits_), max_length=16)


def encoder() -> backbones.Backbone:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return backbones.hub(
        architecture=functools.partial(
            keras_hub.models.BertBackbone,
            vocabulary_size=10,
            num_layers=1,
            num_heads=1,
            hidden_dim=8,
            intermediate_dim=8,
            max_sequence_length=16,
        ),
        tokenizer=functools.partial(
            keras_hub.models.BertTokenizer,
            vocabulary=[*special, *WORDS, "a", "very", "film"],
        ),
    )


def base(
    build: Callable[[], keras.Model] = perceptron, **changes: Any
) -> experiment.Experiment:
    stage = experiment.Stage(
        name="tune",
        data=data,
        objective=objectives.classification,
        regime=regimes.full(),
        optimizer=optimizers.adamw,
        budget="20 steps",
        batch_size=10,
        interval=100,
        bootstrap=20,
    )
    return experiment.Experiment(
        name="tiny",
        backbone=lambda: backbones.function(build=build),
        stages=(dataclasses.replace(stage, **changes),),
    )


FROZEN = Arm(name="frozen", regime=regimes.frozen())
FULL = Arm(name="full", regime=regimes.full())


def compared(
    declared: Comparison,
    folder: pathlib.Path,
    made: experiment.Experiment | None = None,
) -> dict[str, ArmResult]:
    """Runs a comparison and returns its results by arm."""
    made = made or base()
    running.run_all(made, declared, output_dir=str(folder))
    settled = settling.settle(made, declared, folder)
    results = running.results(made, declared, settled, folder)
    return {result.name: result for result in results}


def stamps(folder: pathlib.Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("report.json")
    }


class TestArms:
    def test_the_default_ones_are_those_the_backbone_allows(self, tmp_path) -> None:
        settled = settling.settle(base(), Comparison(), tmp_path)
        names = [arm.name for arm in settled.arms]
        assert names == ["scratch", "frozen", "partial", "lora", "full"]
        # A quarter of four blocks.
        assert str(settled.arms[2].regime[0]) == "train_last(1)"
        assert not settled.left_out

    def test_one_that_cannot_be_is_left_out_visibly_and_counted(
        self, tmp_path, capsys
    ) -> None:
        settled = settling.settle(base(scaling), Comparison(), tmp_path)
        assert [one.name for one in settled.left_out] == ["partial", "lora"]
        shown = capsys.readouterr().out
        assert "2 of 5 default arms cannot be built:" in shown
        assert "partial: the backbone does not have so many blocks" in shown
        assert settled.notes[0] in shown
        assert "lora: " in shown
        # Read back, they are the same, and said again.
        again = settling.settle(base(scaling), Comparison(), tmp_path)
        assert again == settled
        assert "2 of 5" in capsys.readouterr().out

    def test_a_declared_one_that_cannot_be_fails_before_anything_trains(
        self, tmp_path
    ) -> None:
        wrong = Arm(name="few", regime=regimes.partial(last=9))
        with pytest.raises(ConfigError, match="arm 'few' cannot be built.*1 to 4"):
            compared(Comparison(arms=(FULL, wrong)), tmp_path)
        assert not list(tmp_path.rglob("*.json"))

    def test_backbones_are_arms_too(self, tmp_path) -> None:
        other = Arm(name="other", backbone=lambda: backbones.function(build=scaling))
        found = compared(Comparison(arms=(other,)), tmp_path)
        # Scale and shift of four features, and a head of two classes.
        assert found["other"].total_parameters == 2 * 4 + 2 * 4 + 2

    def test_data_without_labels_add_hybrid_or_say_why_not(self, tmp_path) -> None:
        declared = Comparison(unlabelled=data, budget="60 steps")
        settled = settling.settle(base(), declared, tmp_path)
        (left_out,) = settled.left_out
        assert left_out.name == "hybrid"
        assert "texts or images" in left_out.reason

    def test_hybrid_is_left_out_where_its_budget_cannot_be_counted(
        self, tmp_path
    ) -> None:
        made = base(data=texts, batch_size=4)
        made = dataclasses.replace(made, backbone=encoder)
        unlabelled = lambda: dataclasses.replace(texts(), target=None)  # noqa: E731
        declared = Comparison(unlabelled=unlabelled, budget="12 epochs")
        settled = settling.settle(made, declared, tmp_path)
        (left_out,) = settled.left_out
        assert left_out.name == "hybrid"
        assert "Expected: steps" in left_out.reason
        assert "full" in [arm.name for arm in settled.arms]

    def test_hybrid_learns_masked_words_before_labels(self, tmp_path) -> None:
        made = base(data=texts, batch_size=4)
        made = dataclasses.replace(made, backbone=encoder)
        unlabelled = lambda: dataclasses.replace(texts(), target=None)  # noqa: E731
        declared = Comparison(unlabelled=unlabelled, budget="12 steps")
        settled = settling.settle(made, declared, tmp_path)
        hybrid = settled.arms[-1]
        assert (hybrid.name, hybrid.stages[0].budget) == ("hybrid", "6 steps")
        running.run_arms(
            settling.points(made, declared, settled, tmp_path, only=("hybrid",))
        )
        path = tmp_path / "arms/hybrid/seed0/report.json"
        first, second = json.loads(path.read_text())["stages"]
        assert (first["steps"], second["steps"]) == (6, 6)
        assert "masked_accuracy" in first["history"][-1]
        # What another start settles is the same.
        again = settling.settle(made, declared, tmp_path)
        assert again.arms[-1].stages[0].name == hybrid.stages[0].name == "unlabelled"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"arms": (FULL, FULL)}, "different names"),
            ({"seeds": ()}, "and a seed"),
            ({"arms": (Arm(name="shared"),)}, "and not 'shared'"),
            ({"arms": (Arm(name="a,b"),)}, "names of letters"),
            ({"workers": -1}, "run side by side"),
            ({"budget": "3 moons"}, "unknown unit"),
            ({"budget": "3 money"}, "what an hour costs"),
            ({"price_per_hour": 2.0}, "for a budget of money"),
            ({"price_per_hour": 2.0, "budget": "9 steps"}, "for a budget of money"),
            ({"fractions": (0.1,), "labels": (3,)}, "not as both"),
            ({"fractions": (2.0,)}, "parts of a whole"),
            ({"unlabelled": data, "arms": (FULL,)}, "default arms"),
            (
                {"arms": (dataclasses.replace(FULL, budget="3 steps"),)}
                | {"budget": "9 steps"},
                "beside that of the comparison",
            ),
        ],
    )
    def test_mistakes_show_at_once(self, changes, message) -> None:
        with pytest.raises(ConfigError, match=message):
            Comparison(**changes)


class TestBudget:
    def test_money_and_minutes_are_time(self) -> None:
        assert spending.allowance("0.50 money", 1.5).amount == 1200
        assert spending.allowance("20 minutes", None).amount == 1200

    def test_rounds_of_a_search_cost_the_same(self) -> None:
        allowed = spending.Allowance(unit="steps", total=400, tuning=120, each=10)
        found = tuning.rounds(allowed, count=5, method="halving")
        assert [(x.count, x.budget) for x in found] == [
            (5, "8 steps"),
            (3, f"{40 / 3:.12g} steps"),
            (2, "20 steps"),
        ]
        (whole,) = tuning.rounds(allowed, count=5, method="grid")
        assert whole.budget == "24 steps"

    def test_one_that_does_not_go_round_fails_before_anything_trains(
        self, tmp_path
    ) -> None:
        declared = Comparison(
            arms=(FULL,), budget="9 steps", tuning=Tuning(rates=(0.1, 0.2, 0.3))
        )
        with pytest.raises(ConfigError, match="does not go round.*0.45 steps"):
            compared(declared, tmp_path)
        assert not list(tmp_path.rglob("report.json"))

    def test_an_optimizer_without_a_rate_fails_before_anything_trains(
        self, tmp_path
    ) -> None:
        stubborn = dataclasses.replace(
            FULL, optimizer=lambda total_steps: keras.optimizers.SGD(0.1)
        )
        declared = Comparison(
            arms=(FROZEN, stubborn),
            budget="60 steps",
            tuning=Tuning(rates=(0.1, 0.2)),
        )
        with pytest.raises(ConfigError, match="does not take what Tuning varies"):
            compared(declared, tmp_path)
        assert not list(tmp_path.rglob("report.json"))

    def test_arms_spend_the_same_steps_tuning_included(self, tmp_path) -> None:
        declared = Comparison(
            arms=(FROZEN, dataclasses.replace(FULL, rates=(0.03, 0.01))),
            budget="60 steps",
            tuning=Tuning(rates=(1e-6, 0.05), share=0.4),
        )
        found = compared(declared, tmp_path)
        for result in found.values():
            assert result.spent == {"tuning": 24.0, "training": 36.0}
            assert result.budget == "60 steps"
        # The frozen arm's own search found that one rate is far too low.
        assert found["frozen"].tuned == {"learning_rate": 0.05}
        assert found["full"].tuned["learning_rate"] in (0.03, 0.01)
        # Two candidates need one round.
        trials = sorted((tmp_path / "arms/frozen/tuning").glob("*/*"))
        assert [path.name for path in trials] == ["rate0.05", "rate1e-06"]
        # Nothing is chosen by the test split: a trial does not look at it.
        report = json.loads((trials[0] / "report.json").read_text())
        assert list(report["stages"][-1]["evaluations"]) == ["validation"]
        assert not (trials[0] / "model").exists()
        spent = json.loads((tmp_path / "arms/full/spent.json").read_text())
        assert (spent["unit"], spent["tuning"]) == ("steps", 24.0)
        header = (trials[0] / "config.gin").read_text().splitlines()[0]
        assert header == "# arm 'frozen', seed 0, 12 steps, rate 0.05"

    def test_arms_spend_the_same_flops(self, tmp_path) -> None:
        declared = Comparison(arms=(FROZEN, FULL), budget="4e5 flops")
        made = base(data=lambda: dataclasses.replace(data(), slices=("label",)))
        found = compared(declared, tmp_path, made)
        _check_gathered(found)
        steps = {name: result.curves[0][-1][0] for name, result in found.items()}
        assert steps["frozen"] > steps["full"]
        for name, result in found.items():
            each = result.spent["training"] / steps[name]
            assert 4e5 <= result.spent["training"] < 4e5 + each
            assert result.flops == (result.spent["training"],)

    def test_own_stages_of_an_arm_count(self, tmp_path) -> None:
        warm = dataclasses.replace(
            base().stages[0], name="warm", regime=regimes.frozen(), budget="12 steps"
        )
        staged = Arm(name="staged", regime=regimes.full(), stages=(warm,))
        found = compared(Comparison(arms=(staged,), budget="30 steps"), tmp_path)
        assert found["staged"].spent["training"] == 30
        report = json.loads((tmp_path / "arms/staged/seed0/report.json").read_text())
        assert [stage["steps"] for stage in report["stages"]] == [12, 18]
        seconds = sum(sum(stage["seconds"].values()) for stage in report["stages"])
        assert found["staged"].seconds == (pytest.approx(seconds),)

    def test_a_rate_that_breaks_the_loss_is_left_out(self, tmp_path, capsys) -> None:
        def fragile(total_steps: int, learning_rate: float = 0.01) -> Any:
            broken = float("nan") if learning_rate > 1 else learning_rate
            return keras.optimizers.SGD(broken)

        declared = Comparison(
            arms=(dataclasses.replace(FULL, optimizer=fragile),),
            budget="40 steps",
            tuning=Tuning(rates=(9.0, 0.1), method="grid"),
        )
        found = compared(declared, tmp_path)
        assert found["full"].tuned == {"learning_rate": 0.1}
        assert "rate 9 is left out, its loss went wrong" in capsys.readouterr().out

    def test_rates_that_all_break_it_end_the_run(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr(tuning, "_try", lambda *_: -math.inf)
        declared = Comparison(arms=(FULL,), tuning=Tuning(rates=(9.0, 8.0)))
        with pytest.raises(RunError, match="no candidate of arm 'full'"):
            compared(declared, tmp_path)


class TestLabels:
    def test_fewer_are_a_part_of_more_with_all_classes(self) -> None:
        digests = [bytes([k]) for k in range(100)]
        strata = ["rare"] * 10 + ["often"] * 90
        sets = [
            set(splits.nested(digests, strata, count, seed=1).tolist())
            for count in (2, 10, 30, 100)
        ]
        assert [len(found) for found in sets] == [2, 10, 30, 100]
        assert sets[0] < sets[1] < sets[2] < sets[3]
        for found in sets:
            share = sum(row < 10 for row in found)
            assert 1 <= share <= max(1, round(len(found) / 10) + 1)
        other = set(splits.nested(digests, strata, 30, seed=2).tolist())
        assert other != sets[2]

    def test_counts_that_cannot_be_are_named(self) -> None:
        fractions = Comparison(fractions=(0.01, 0.1, 1.0))
        assert curves.counts(fractions, rows=200, classes=2) == (2, 20, 200)
        with pytest.raises(ConfigError, match="2 of 200 rows"):
            curves.counts(fractions, rows=200, classes=5)
        with pytest.raises(ConfigError, match="300 of 200 rows"):
            curves.counts(Comparison(labels=(300,)), rows=200, classes=5)

    def test_every_arm_gets_the_same_rows_at_every_point(self, tmp_path) -> None:
        declared = Comparison(arms=(FROZEN, FULL), labels=(6, 30), budget="20 steps")
        found = compared(declared, tmp_path)
        inputs = {
            (arm, labels): json.loads(
                (tmp_path / f"arms/{arm}/labels{labels}/seed0/inputs.json").read_text()
            )
            for arm in ("frozen", "full")
            for labels in (6, 30)
        }
        for labels in (6, 30):
            assert inputs["frozen", labels] == inputs["full", labels]
        result = found["full"]
        assert result.labels == 30
        assert [point.labels for point in result.points] == [6, 30]
        assert list(result.points[1].values) == list(result.values)
        # The whole arm, all points together: twice the budget of one.
        assert result.spent == {"tuning": 0.0, "training": 40.0}

    def test_another_seed_draws_other_rows_and_keeps_the_splits(self) -> None:
        stage = base().stages[0]
        drawn = [
            curves.at(stage, 6, seed=seed).data().load(target_kind="class").splits
            for seed in (0, 1)
        ]
        assert len(drawn[0]["train"]) == 6
        assert set(drawn[0]["train"].rows) != set(drawn[1]["train"].rows)
        assert drawn[0]["test"].digest == drawn[1]["test"].digest


def test_seeds_of_a_frozen_arm_share_its_features(tmp_path) -> None:
    made = base(pretrained, cache="disk", regime=regimes.frozen())
    compared(Comparison(arms=(FROZEN,), seeds=(0, 1)), tmp_path, made)
    found = [
        json.loads((tmp_path / f"arms/frozen/seed{seed}/report.json").read_text())
        for seed in (0, 1)
    ]
    kept = [report["stages"][0]["cache"]["found"]["train"] for report in found]
    assert kept == ["computed", "kept by an earlier start"]


def _check_gathered(found: dict[str, ArmResult]) -> None:
    frozen, full = found["frozen"], found["full"]
    assert frozen.storage_bytes == 4 * (8 * 2 + 2)
    assert full.storage_bytes > 1000
    assert 0 <= full.calibration[0] <= 1
    assert full.worst_slice["slice"] in ("label=up", "label=down")
    assert full.worst_slice["value"] <= full.mean
    # All arms ran in one process, which tells nothing about one of them.
    assert full.peak_memory_bytes is None


DECLARED = """
from __gin__ import dynamic_registration
from examples import own_backbone
from tflearn import backbones
from tflearn import comparison
from tflearn import data
from tflearn import experiment
from tflearn import objectives
from tflearn import regimes
from tflearn.training import optimizers

experiment.Experiment.name = 'tiny'
experiment.Experiment.backbone = @backbones.function
backbones.function.build = @own_backbone.perceptron
own_backbone.perceptron.width = 8
experiment.Experiment.stages = (@first/experiment.Stage(), @last/experiment.Stage())
experiment.Stage.data = @data.Data
experiment.Stage.objective = @objectives.classification
experiment.Stage.regime = @regimes.full()
experiment.Stage.optimizer = @optimizers.adamw
experiment.Stage.batch_size = 8
experiment.Stage.bootstrap = 20
optimizers.adamw.learning_rate = 0.03
first/experiment.Stage.name = 'first'
first/experiment.Stage.budget = '4 steps'
last/experiment.Stage.name = 'last'
last/experiment.Stage.budget = '8 steps'
data.Data.source = @data.sources.csv
data.Data.input = ('x', 'y')
data.sources.csv.paths = {
    'train': 'FOLDER/train.csv',
    'validation': 'FOLDER/dev.csv',
    'test': 'FOLDER/test.csv',
}
comparison.Comparison.arms = (@full/comparison.Arm(), @wide/comparison.Arm())
full/comparison.Arm.name = 'full'
full/comparison.Arm.regime = @regimes.full()
wide/comparison.Arm.name = 'wide'
wide/comparison.Arm.overrides = ("own_backbone.perceptron.width = 12",)
"""


def declare(folder: pathlib.Path) -> list[str]:
    """Writes a declaration and its data; returns the flags that compare it."""
    rng = np.random.default_rng(0)
    for split in ("train", "dev", "test"):
        points = rng.normal(size=(32, 2)).round(4).tolist()
        lines = [f"{x},{y},{'a' if x > y else 'b'}" for x, y in points]
        (folder / f"{split}.csv").write_text("\n".join(["x,y,label", *lines]) + "\n")
    (folder / "tiny.gin").write_text(DECLARED.replace("FOLDER", str(folder)))
    return [
        "--mode=compare",
        f"--gin_file={folder}/tiny.gin",
        f"--output_dir={folder}/out",
    ]


@pytest.mark.slow
def test_some_arms_can_run_alone(tmp_path, capsys) -> None:
    tuned = (
        "comparison.Comparison.tuning = @comparison.Tuning()",
        "comparison.Tuning.rates = (0.01, 0.03)",
        "comparison.Comparison.budget = '20 steps'",
    )
    flags = [*declare(tmp_path), *(f"--gin_bindings={text}" for text in tuned)]
    assert line.main([*flags, "--only=full"]) == 0
    assert sorted(x.name for x in (tmp_path / "out/arms").iterdir()) == ["full"]
    trials = json.loads((tmp_path / "out/arms/full/tuning.json").read_text())["trials"]
    assert [row["candidate"]["rate"] for row in trials] == [0.01, 0.03]
    assert not (tmp_path / "out/compare.json").exists()
    assert line.main([*flags, "--only=fulll"]) == 2
    assert "Did you mean 'full'" in capsys.readouterr().err


def test_an_override_that_is_wrong_is_a_message(tmp_path, capsys) -> None:
    flags = declare(tmp_path)
    wrong = "wide/comparison.Arm.overrides = ('own_backbone.perceptron.widht = 1',)"
    assert line.main([*flags, f"--gin_bindings={wrong}"]) == 2
    assert "widht" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("report.json"))


def test_bindings_over_a_declaration(tmp_path) -> None:
    declare(tmp_path)
    declared = config.load(str(tmp_path / "tiny.gin"))
    changed = declared.with_bindings(["experiment.Experiment.seed = 5"])
    assert changed.experiment().seed == 5
    assert declared.experiment().seed == 0


def test_nothing_is_repeated_after_a_kill_nor_once_all_is_finished(
    tmp_path, capsys
) -> None:
    flags = declare(tmp_path)
    out = tmp_path / "out"
    root = pathlib.Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tflearn.run", *flags], cwd=root, env=os.environ
    )
    deadline = time.monotonic() + 300
    # In the middle of the second arm, whose first stages are its own.
    while not (out / "arms/wide/shared/seed0/stages/first/checkpoints").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = stamps(out)
    assert "arms/full/seed0/report.json" in before
    assert line.main(flags) == 0
    after = stamps(out)
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)
    first = json.loads((out / "compare.json").read_text())
    parameters = {arm["name"]: arm["total_parameters"] for arm in first["arms"]}
    assert parameters["wide"] > parameters["full"]
    # Only what an arm changes is trained for it alone.
    assert (out / "shared/seed0/report.json").exists()
    assert not (out / "arms/full/shared").exists()
    # Drawn again without the data.
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.csv").unlink()
    (out / "compare.html").unlink()
    capsys.readouterr()
    assert line.main(flags) == 0
    assert "is finished" in capsys.readouterr().out
    assert (out / "compare.html").exists()
    assert stamps(out) == after
    assert json.loads((out / "compare.json").read_text()) == first


class TestWorkers:
    def test_devices_are_divided(self) -> None:
        found = ["0", "1", "2"]
        shares = [workers.share(k, workers=2, found=found) for k in range(2)]
        assert [x["CUDA_VISIBLE_DEVICES"] for x in shares] == ["0,2", "1"]
        assert workers.share(2, workers=3, found=["5"]) == {"CUDA_VISIBLE_DEVICES": "5"}

    def test_some_run_at_a_time_and_a_failure_ends_no_other(
        self, tmp_path, capsys, monkeypatch
    ) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
        text = (
            "import os, sys, time; open(sys.argv[1], 'w').write(str(time.time()));"
            "time.sleep(0.3); print(os.environ['CUDA_VISIBLE_DEVICES']);"
            "sys.exit(sys.argv[1].endswith('b'))"
        )
        names = ["a", "b", "c"]
        with pytest.raises(RunError, match="1 of 3 arms failed.*b .code 1"):
            workers.run(
                names,
                lambda name: [sys.executable, "-c", text, str(tmp_path / name)],
                workers=2,
                logs={name: tmp_path / "logs" / f"{name}.txt" for name in names},
            )
        began = {name: float((tmp_path / name).read_text()) for name in names}
        assert began["c"] - min(began["a"], began["b"]) >= 0.3
        seen = {(tmp_path / f"logs/{name}.txt").read_text().strip() for name in "ab"}
        assert seen == {"4", "7"}
        assert "c: finished" in capsys.readouterr().out

    def test_one_ends_when_its_parent_is_gone(self, tmp_path) -> None:
        text = (
            "import time; from tflearn.comparison import workers;"
            "workers.end_with_parent(); time.sleep(300)"
        )
        command = [sys.executable, "-c", text]
        worker = workers._start("a", command, 0, {}, tmp_path / "a.txt")
        # What the system does with the pipes of a process that is gone.
        worker.process.stdin.close()
        assert worker.process.wait(timeout=200) == -signal.SIGKILL

    @pytest.mark.slow
    def test_arms_run_in_processes_of_their_own(self, tmp_path, capsys) -> None:
        flags = declare(tmp_path)
        beside = "--gin_bindings=comparison.Comparison.workers = 2"
        assert line.main([*flags, beside]) == 0
        found = json.loads((tmp_path / "out/compare.json").read_text())
        assert all(arm["peak_memory_bytes"] for arm in found["arms"])
        shown = capsys.readouterr().out
        for name in ("full", "wide"):
            assert f"{name}: finished" in shown
