"""Sources are measured before and after every stage; updates start from a run."""

from __future__ import annotations

import functools
import json

import keras
import numpy as np
import pytest
from sklearn.datasets import load_iris

from tflearn import backbones, experiment, objectives, regimes
from tflearn.data import Data, sources
from tflearn.run import main
from tflearn.support import files
from tflearn.support.errors import ConfigError, RunError
from tflearn.training import finished, optimizers
from tflearn.training.forgetting import Source
from tflearn.training.probe import Probe


def make_backbone() -> keras.Model:
    inputs = keras.Input((4,), name="features")
    x = keras.layers.Dense(8, activation="tanh", name="block_0")(inputs)
    return keras.Model(inputs, x)


def iris(**changes) -> Data:
    fields = {
        "source": functools.partial(sources.sklearn, "iris"),
        "input": "vector",
        "splits": {"train": 0.6, "validation": 0.2, "test": 0.2},
    }
    return Data(**(fields | changes))


def shifted() -> Data:
    """The same classes with other numbers."""
    found = load_iris()
    rows = [
        {"vector": np.roll(x, 1), "label": str(found.target_names[y])}
        for x, y in zip(found.data, found.target, strict=True)
    ]
    return iris(source=lambda: rows)


def stage(name: str, data=iris, **changes) -> experiment.Stage:
    fields = {
        "name": name,
        "data": data,
        "objective": objectives.classification,
        "regime": regimes.full(),
        "optimizer": functools.partial(optimizers.adamw, learning_rate=0.05),
        "budget": "12 epochs",
        "batch_size": 16,
        "bootstrap": 20,
    }
    return experiment.Stage(**(fields | changes))


def declare(*stages, **changes) -> experiment.Experiment:
    return experiment.Experiment(
        backbone=functools.partial(backbones.function, make_backbone),
        stages=stages,
        **changes,
    )


def by_point(report, source: str) -> dict[str, float]:
    return {r["after"]: r["value"] for r in report.sources if r["source"] == source}


@pytest.mark.first_on("jax")
def test_a_stage_is_measured_again_after_each_later_one(tmp_path) -> None:
    declared = declare(
        stage("old"),
        stage("new", shifted),
        sources=(Source(name="the first task", stage="old"),),
    )
    report = experiment.run(declared, output_dir=str(tmp_path))
    found = by_point(report, "the first task")
    own = report.stages[0].evaluations["test"]["metrics"]["accuracy"]["value"]
    # Nothing before the stage that gives the head its meaning.
    assert list(found) == ["old", "new"]
    assert found["old"] == own > 0.9
    assert found["new"] < own
    page = (tmp_path / "report.html").read_text()
    assert "What must not be forgotten" in page and "the first task" in page


def test_other_data_of_the_task_are_measured_from_the_start(tmp_path) -> None:
    declared = declare(
        stage("tune", shifted), sources=(Source(name="unshifted", data=iris),)
    )
    report = experiment.run(declared, output_dir=str(tmp_path))
    assert list(by_point(report, "unshifted")) == ["start", "tune"]
    row = report.sources[-1]
    assert row["low"] <= row["value"] <= row["high"] and row["count"] == 30
    # A second process finds the rows.
    again = experiment.run(declared, output_dir=str(tmp_path))
    assert again.sources == report.sources


def test_a_source_can_be_probed_without_a_head(tmp_path) -> None:
    probe = functools.partial(Probe, data=iris)
    declared = declare(
        stage("tune", shifted, probe=probe),
        sources=(Source(name="unshifted", probe=probe),),
    )
    report = experiment.run(declared, output_dir=str(tmp_path))
    found = by_point(report, "unshifted")
    assert list(found) == ["start", "tune"]
    history = report.stages[0].history
    assert history[-1]["probe_accuracy"] == found["tune"] > 0.8


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source(name="a", stage="tunne"), "Did you mean 'tune'"),
        (Source(name="a"), "exactly one of stage, data and probe"),
        (Source(name="a", stage="tune", data=iris), "exactly one of"),
        (
            Source(
                name="a",
                data=functools.partial(iris, only_classes=("setosa", "virginica")),
            ),
            "no stage has the task and the classes",
        ),
        (
            Source(name="a", data=functools.partial(iris, splits={"train": 1.0})),
            "needs a test or a validation split",
        ),
    ],
)
def test_a_source_that_means_nothing_is_refused(tmp_path, source, message) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment.run(
            declare(stage("tune"), sources=(source,)), output_dir=str(tmp_path / "r")
        )
    assert not (tmp_path / "r").exists()


def test_a_run_starts_from_the_weights_of_another(tmp_path, capsys) -> None:
    first = tmp_path / "first"
    experiment.run(declare(stage("tune")), output_dir=str(first))
    still = stage(
        "still",
        budget="1 steps",
        optimizer=functools.partial(keras.optimizers.SGD, learning_rate=0.0),
    )
    experiment.run(
        declare(still, start_from=str(first)), output_dir=str(tmp_path / "second")
    )
    assert "head carried over" in capsys.readouterr().out
    pairs = zip(
        finished.open_run(first).model.get_weights(),
        finished.open_run(tmp_path / "second").model.get_weights(),
        strict=True,
    )
    for old, new in pairs:
        np.testing.assert_array_equal(old, new)


def test_other_classes_take_the_backbone_alone(tmp_path, capsys) -> None:
    first = tmp_path / "first"
    experiment.run(declare(stage("tune", budget="1 epochs")), output_dir=str(first))
    two = functools.partial(iris, only_classes=("setosa", "virginica"))
    experiment.build(declare(stage("two", two), start_from=str(first)))
    assert "new head: other task or classes" in capsys.readouterr().out


def test_there_must_be_a_run_to_start_from(tmp_path) -> None:
    with pytest.raises(RunError, match="holds no finished run"):
        experiment.build(declare(stage("tune"), start_from=str(tmp_path)))


GIN = """
from __gin__ import dynamic_registration
import keras
from tflearn import backbones
from tflearn import data
from tflearn import experiment
from tflearn import objectives
from tflearn import regimes
from tflearn.training import optimizers

experiment.Experiment.name = 'update'
experiment.Experiment.backbone = @backbones.function
backbones.function.build = @keras.Sequential
keras.Sequential.layers = [@keras.layers.InputLayer(), @keras.layers.Dense()]
keras.layers.InputLayer.shape = (2,)
keras.layers.Dense.units = 8
keras.layers.Dense.name = 'hidden'
experiment.Experiment.stages = (@experiment.Stage(),)
experiment.Stage.name = 'tune'
experiment.Stage.data = @data.Data
experiment.Stage.objective = @objectives.classification
experiment.Stage.regime = @regimes.full()
experiment.Stage.optimizer = @optimizers.adamw
optimizers.adamw.learning_rate = 0.05
experiment.Stage.budget = '6 epochs'
experiment.Stage.batch_size = 16
experiment.Stage.bootstrap = 10
data.Data.source = @data.sources.csv
data.Data.input = ('a', 'b')
data.Data.splits = {'train': 0.7, 'test': 0.3}
data.Data.allow_overlap = True
data.sources.csv.paths = 'old.csv'
"""


def write_rows(path, *, shift: float) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(120, 2))
    lines = [f"{a + shift},{b},{'pos' if a > 0 else 'neg'}" for a, b in rows]
    files.write_text(path, "a,b,label\n" + "\n".join(lines) + "\n")


def test_a_finished_run_is_updated_with_new_data(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "old.csv", shift=0.0)
    write_rows(tmp_path / "new.csv", shift=2.0)
    files.write_text(tmp_path / "old.gin", GIN)
    assert main(["--gin_file=old.gin", "--output_dir=first"]) == 0
    update = [
        "--run_dir=first",
        "--gin_bindings=data.sources.csv.paths = 'new.csv'",
        "--output_dir=second",
    ]
    assert main(update) == 0
    report = json.loads((tmp_path / "second" / "report.json").read_text())
    found = {row["after"]: row["value"] for row in report["sources"]}
    # What the run knew before is measured on its own data, at the start unchanged.
    old = json.loads((tmp_path / "first" / "report.json").read_text())
    metrics = old["stages"][0]["evaluations"]["test"]["metrics"]
    assert found["start"] == metrics["accuracy"]["value"]
    assert list(found) == ["start", "tune"]
    assert "sources: before and after" in capfd.readouterr().out
    # The first run is left as it was, and the same command finds the second finished.
    assert main(update) == 0
    assert main(update[:2]) == 2
    assert "an update needs a run directory" in capfd.readouterr().err
