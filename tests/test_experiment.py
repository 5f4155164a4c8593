"""Whole runs on small data: order, resume, proof, report, export."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib

import keras
import numpy as np
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.data import Data, sources
from tflearn.support.errors import ConfigError, RegimeError, RunError
from tflearn.training import execution, finished, optimizers


def make_backbone() -> keras.Model:
    x = inputs = keras.Input((4,), name="features")
    for index in range(2):
        x = keras.layers.Dense(8, activation="tanh", name=f"block_{index}")(x)
        x = keras.layers.Dropout(0.2, name=f"dropout_{index}")(x)
    return keras.Model(inputs, x)


def iris(**changes) -> Data:
    fields = {
        "source": functools.partial(sources.sklearn, "iris"),
        "input": "vector",
        "splits": {"train": 0.6, "validation": 0.2, "test": 0.2},
    }
    return Data(**(fields | changes))


def make_stage(**changes) -> experiment.Stage:
    fields = {
        "name": "tune",
        "data": iris,
        "objective": objectives.classification,
        "regime": regimes.full(),
        "optimizer": functools.partial(optimizers.adamw, learning_rate=0.02),
        "budget": "8 epochs",
        "batch_size": 16,
        "bootstrap": 50,
    }
    return experiment.Stage(**(fields | changes))


def make_experiment(*stages: experiment.Stage, seed: int = 0) -> experiment.Experiment:
    return experiment.Experiment(
        backbone=functools.partial(backbones.function, make_backbone),
        stages=stages or (make_stage(),),
        seed=seed,
    )


def weights(folder: pathlib.Path) -> list[np.ndarray]:
    return finished.open_run(folder).model.get_weights()


def assert_same(first: pathlib.Path, second: pathlib.Path) -> None:
    for old, new in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(old, new)


def without_times(report) -> dict:
    """What must be equal in two runs of one declaration."""
    found = report.to_json()
    for key in ("seconds", "peak_memory_bytes", "command"):
        found.pop(key)
    for stage in found["stages"]:
        stage.pop("seconds")
        # Where features came from, and how long they took.
        stage.pop("cache")
        # How long steps waited, and the shapes that the last process met.
        stage.pop("input")
        stage["notes"] = [x for x in stage["notes"] if not x.startswith("cached:")]
    return found


def test_a_run_learns_reports_and_exports(tmp_path) -> None:
    declared = make_experiment(make_stage(budget="24 epochs"))
    report = experiment.run(declared, output_dir=str(tmp_path / "run"))
    stage = report.stages[0]
    assert stage.steps == 24 * 6
    assert stage.evaluations["test"]["metrics"]["accuracy"]["value"] > 0.85
    assert [row["step"] for row in stage.history] == list(range(6, 145, 6))
    lines = (tmp_path / "run/stages/tune/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == stage.history
    for name in (
        "config.gin",
        "environment.json",
        "report.json",
        "report.html",
        "model/model.keras",
        "model/labels.json",
        "stages/tune/checkpoints",
        "stages/tune/tensorboard",
        "plots",
    ):
        assert (tmp_path / "run" / name).exists(), name
    run = finished.open_run(tmp_path / "run")
    dataset = iris().load(target_kind="class")
    outputs = run.outputs(dataset.splits["test"], iris())
    accuracy = (outputs.argmax(axis=1) == dataset.splits["test"].targets).mean()
    assert accuracy == stage.evaluations["test"]["metrics"]["accuracy"]["value"]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path) -> None:
    reports = [
        experiment.run(make_experiment(seed=seed), output_dir=str(tmp_path / name))
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert without_times(reports[0]) == without_times(reports[1])
    assert_same(tmp_path / "a", tmp_path / "b")
    first, other = weights(tmp_path / "a"), weights(tmp_path / "c")
    assert not all(map(np.array_equal, first, other))


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing cleans up behind it."""


ON_JAX = pytest.mark.first_on("jax")


@pytest.mark.parametrize(
    "after", [pytest.param(1, marks=ON_JAX), 3, pytest.param(5, marks=ON_JAX)]
)
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, after) -> None:
    stages = (
        make_stage(name="probe", regime=regimes.frozen(), budget="2 epochs"),
        make_stage(name="tune", budget="20 steps", interval=7, restore_best=True),
    )
    straight = experiment.run(
        make_experiment(*stages), output_dir=str(tmp_path / "straight")
    )
    saved = execution.Checkpoints.save
    calls = []

    def save_then_die(self, step, *arguments, **keywords):
        saved(self, step, *arguments, **keywords)
        calls.append(step)
        if len(calls) == after:
            raise Killed

    monkeypatch.setattr(execution.Checkpoints, "save", save_then_die)
    with pytest.raises(Killed):
        experiment.run(make_experiment(*stages), output_dir=str(tmp_path / "killed"))
    monkeypatch.setattr(execution.Checkpoints, "save", saved)
    resumed = experiment.run(
        make_experiment(*stages), output_dir=str(tmp_path / "killed")
    )
    assert without_times(resumed) == without_times(straight)
    assert_same(tmp_path / "straight", tmp_path / "killed")


def test_a_finished_run_is_left_alone(tmp_path) -> None:
    folder = tmp_path / "run"
    first = experiment.run(make_experiment(), output_dir=str(folder))
    stamp = (folder / "report.json").stat().st_mtime_ns
    assert experiment.run(make_experiment(), output_dir=str(folder)) == first
    assert (folder / "report.json").stat().st_mtime_ns == stamp


def test_a_folder_with_other_things_is_refused_untouched(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no run"):
        experiment.run(make_experiment(), output_dir=str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_left_by_a_process_that_was_killed_at_once_is_taken(tmp_path) -> None:
    (tmp_path / ".lock").touch()
    experiment.run(make_experiment(), output_dir=str(tmp_path))
    assert (tmp_path / "report.json").exists()


def test_a_mistake_in_the_last_stage_shows_before_anything_is_written(tmp_path) -> None:
    bad = make_stage(name="last", regime=(regimes.freeze("nothing/*"),))
    with pytest.raises(RegimeError, match="matches no layer"):
        experiment.run(
            make_experiment(make_stage(), bad), output_dir=str(tmp_path / "run")
        )
    assert not (tmp_path / "run").exists()


def test_stages_share_the_backbone_and_carry_an_equal_head(tmp_path, capsys) -> None:
    stages = (
        make_stage(name="probe", regime=regimes.frozen()),
        make_stage(name="tune", budget="1 step"),
    )
    report = experiment.run(make_experiment(*stages), output_dir=str(tmp_path / "run"))
    assert "head carried from 'probe' to 'tune'" in capsys.readouterr().out
    probe, tune = report.stages
    assert probe.frozen_proof["layers"] == 2
    # One small step from a trained probe leaves its accuracy about where it was.
    before = probe.evaluations["test"]["metrics"]["accuracy"]["value"]
    after = tune.evaluations["test"]["metrics"]["accuracy"]["value"]
    assert abs(after - before) < 0.2


def test_a_head_for_other_classes_starts_anew(tmp_path, capsys) -> None:
    other = functools.partial(iris, only_classes=("setosa", "virginica"))
    stages = (make_stage(budget="1 step"), make_stage(name="two", data=other))
    experiment.run(make_experiment(*stages), output_dir=str(tmp_path / "run"))
    assert "new head: not carried" in capsys.readouterr().out


def test_patience_stops_early_and_best_weights_come_back(tmp_path) -> None:
    stage = make_stage(budget="200 epochs", patience=3, restore_best=True, interval=6)
    report = experiment.run(make_experiment(stage), output_dir=str(tmp_path / "run"))
    found = report.stages[0]
    best = max(row["val_accuracy"] for row in found.history)
    assert found.steps < 200 * 6
    assert any("stopped early" in note for note in found.notes)
    assert found.evaluations["validation"]["metrics"]["accuracy"]["value"] == best


def test_a_budget_of_time_stops_in_time(tmp_path) -> None:
    stage = make_stage(budget="2 seconds")
    report = experiment.run(make_experiment(stage), output_dir=str(tmp_path / "run"))
    assert report.stages[0].steps > 0
    assert report.stages[0].seconds["train"] > 0


@pytest.mark.first_on("jax")
@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        (functools.partial(keras.optimizers.Adam, 0.02, use_ema=True), "ema"),
        (
            functools.partial(
                keras.optimizers.Adam, 0.02, gradient_accumulation_steps=2
            ),
            "accumulation",
        ),
        (functools.partial(keras.optimizers.Adam, 0.02, clipnorm=1.0), "clipping"),
        (functools.partial(optimizers.sgd, learning_rate=0.1), "sgd"),
    ],
)
def test_optimizers_resume_exactly(tmp_path, optimizer, name) -> None:
    stage = make_stage(optimizer=optimizer, budget="12 steps", interval=5)
    experiment.run(make_experiment(stage), output_dir=str(tmp_path / "straight"))
    folder = tmp_path / "again"
    experiment.run(make_experiment(stage), output_dir=str(folder))
    # As if the process had died behind the last checkpoint.
    (folder / "report.json").unlink()
    (folder / "stages/tune/report.json").unlink()
    experiment.run(make_experiment(stage), output_dir=str(folder))
    assert_same(tmp_path / "straight", folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size of stage 'tune' is too small"),
        ({"interval": 0}, "interval of stage 'tune'"),
        ({"name": "a/b"}, "a folder's name"),
        ({"budget": "long"}, "a budget cannot be read"),
        ({"report_splits": ("tests",)}, "no such report_splits.*'test'"),
    ],
)
def test_wrong_values_of_a_stage(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment.build(make_experiment(make_stage(**changes)))


def test_an_experiment_has_stages_with_different_names() -> None:
    with pytest.raises(ConfigError, match="at least one stage"):
        experiment.build(dataclasses.replace(make_experiment(), stages=()))
    with pytest.raises(ConfigError, match="two stages have one name"):
        experiment.build(make_experiment(make_stage(), make_stage()))


# Of 150 flowers a fifth validates, 30: with batches of 6 as many as 5 steps train on.
# 400 examples are 67 steps: a tenth is 6, of which eleven fit.
@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"budget": "40 steps"}, 5),
        ({"budget": "400 examples"}, 7),
        ({"budget": "3 steps"}, 3),
        ({"budget": "40 steps", "interval": 2}, 2),
        ({"budget": "40 steps", "labels": None}, 15),
    ],
    ids=str,
)
def test_few_labels_are_not_validated_at_every_step(changes, steps) -> None:
    labels = changes.pop("labels", 6)
    few = functools.partial(iris, labels=labels)
    stage = make_stage(data=few, batch_size=6, **changes)
    assert experiment.build(make_experiment(stage)).stages[0].interval == steps


@pytest.mark.parametrize("budget", ["9 seconds", "1e7 flops"])
def test_few_labels_are_validated_twenty_times_in_a_measured_budget(budget) -> None:
    few = functools.partial(iris, labels=6)
    stage = make_stage(data=few, budget=budget, batch_size=6)
    (prepared,) = experiment.build(make_experiment(stage)).stages
    assert prepared.total_steps is None
    assert prepared.interval > 10_000
