"""Objectives that make their own targets, through whole runs."""

from __future__ import annotations

import functools
import json

import keras
import numpy as np
import pytest

from tflearn import backbones, evaluation, experiment, objectives, regimes
from tflearn.data import Data, sources
from tflearn.objectives import Pretext, SelfSupervised
from tflearn.support.errors import ConfigError, DataError, RunError
from tflearn.training import optimizers


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


def noisy(examples, indices, rng):
    rows = examples.batch(indices)
    noise = rng.normal(size=rows.shape).astype("float32")
    return rows + 0.1 * noise, rows


def squared(outputs, targets, weights):
    assert weights is None
    return {"squared_error": keras.ops.mean((outputs - targets) ** 2, axis=-1)}


def bind(backbone: backbones.Backbone) -> Pretext:
    inputs = backbone.new_inputs()
    outputs = keras.layers.Dense(4, name="decoder")(backbone.outputs(inputs))
    return Pretext(
        model=keras.Model(inputs, outputs),
        make_batch=noisy,
        loss=keras.losses.MeanSquaredError,
        statistics=squared,
        summarize=lambda mean: {"rmse": np.sqrt(mean["squared_error"])},
        features="vector",
    )


def denoising(inputs: tuple[str, ...] = ("vector",)) -> SelfSupervised:
    return SelfSupervised(name="denoising", inputs=inputs, bind=bind, headline="rmse")


def stage(**changes) -> experiment.Stage:
    fields = {
        "name": "pretrain",
        "data": iris,
        "objective": denoising,
        "regime": regimes.full(),
        "optimizer": functools.partial(optimizers.adamw, learning_rate=0.02),
        "budget": "6 epochs",
        "batch_size": 16,
        "bootstrap": 50,
    }
    return experiment.Stage(**(fields | changes))


def declare(*stages: experiment.Stage) -> experiment.Experiment:
    return experiment.Experiment(
        backbone=functools.partial(backbones.function, make_backbone), stages=stages
    )


def test_pretraining_is_measured_and_hands_its_backbone_on(tmp_path) -> None:
    tune = stage(
        name="tune", objective=objectives.classification, regime=regimes.frozen()
    )
    report = experiment.run(declare(stage(), tune), output_dir=str(tmp_path))
    first, second = report.stages
    losses = [row["loss"] for row in first.history]
    assert losses[-1] < 0.5 * losses[0]
    test = first.evaluations["test"]
    assert test["headline"] == "rmse" and test["lower_is_better"]
    found = test["metrics"]["rmse"]
    assert found["low"] < found["value"] < found["high"]
    assert found["count"] == 30
    assert first.history[-1]["val_rmse"] < first.history[0]["val_rmse"]
    assert second.evaluations["test"]["headline"] == "accuracy"
    assert "new head: not carried" not in json.dumps(first.to_json())


def test_the_best_of_a_metric_that_falls_is_the_lowest(tmp_path) -> None:
    worse = functools.partial(optimizers.adamw, learning_rate=3.0)
    report = experiment.run(
        declare(stage(optimizer=worse, restore_best=True, patience=2)),
        output_dir=str(tmp_path),
    )
    values = [row["val_rmse"] for row in report.stages[0].history]
    found = report.stages[0].evaluations["validation"]["metrics"]["rmse"]["value"]
    assert found == pytest.approx(min(values), rel=1e-6)


def test_averages_and_the_best_weights_exclude_each_other(tmp_path, capsys) -> None:
    averaged = functools.partial(keras.optimizers.Adam, 0.01, use_ema=True)
    with pytest.raises(ConfigError, match="use_ema"):
        experiment.build(declare(stage(optimizer=averaged, restore_best=True)))
    unsplit = functools.partial(iris, splits={"train": 0.8, "test": 0.2})
    experiment.build(declare(stage(data=unsplit, restore_best=True, patience=2)))
    assert "restore_best and patience do nothing" in capsys.readouterr().out


def test_a_pretrained_run_says_what_it_is(tmp_path) -> None:
    experiment.run(declare(stage(budget="1 epochs")), output_dir=str(tmp_path))
    labels = json.loads((tmp_path / "model" / "labels.json").read_text())
    assert labels["task"] == "denoising"
    weights = backbones.read_weights(tmp_path)
    assert set(weights) == {"block_0/kernel", "block_0/bias"}


def test_inputs_of_another_kind_are_refused(tmp_path) -> None:
    wrong = stage(objective=functools.partial(denoising, ("text",)))
    with pytest.raises(ConfigError, match="does not take these inputs"):
        experiment.run(declare(wrong), output_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_statistics_become_metrics_of_means_with_slices() -> None:
    rows = {"nll": np.array([1.0, 3.0, 8.0]), "tokens": np.array([1.0, 1.0, 2.0])}
    found = evaluation.evaluate_statistics(
        "lm",
        rows,
        lambda mean: {"nats": mean["nll"] / mean["tokens"]},
        headline="nats",
        slices={"part": np.array(["a", "a", "b"])},
        bootstrap=20,
    )
    # The ratio of sums, not the mean of ratios.
    assert found.metrics["nats"].value == 3.0
    assert found.slices["part"]["a"]["nats"].value == 2.0
    assert found.slices["part"]["b"]["nats"].value == 4.0


def test_nothing_to_measure_is_an_error() -> None:
    rows = {"nll": np.zeros(2), "tokens": np.zeros(2)}
    with np.errstate(invalid="ignore"), pytest.raises(RunError, match="to measure"):
        evaluation.evaluate_statistics(
            "lm", rows, lambda x: {"nats": x["nll"] / x["tokens"]}, headline="nats"
        )


def test_a_statistic_that_is_no_number_ends_the_run() -> None:
    with pytest.raises(RunError, match="nll"):
        evaluation.evaluate_statistics(
            "lm", {"nll": np.array([np.nan])}, dict, headline="nll"
        )


def test_targets_can_be_texts() -> None:
    rows = [{"vector": [float(i)] * 4, "caption": f"number {i}"} for i in range(6)]
    data = Data(
        source=lambda: rows,
        input="vector",
        target="caption",
        splits={"train": 0.5, "test": 0.5},
    )
    loaded = data.load(target_kind="text")
    train = loaded.splits["train"]
    assert train.targets.tolist() == [f"number {int(row[0])}" for row in train.inputs]
    assert loaded.classes == ()
    assert data.load(target_kind="text").fingerprint == loaded.fingerprint


def test_a_missing_text_is_a_bad_row() -> None:
    rows = [{"vector": [0.0], "caption": "one"}, {"vector": [1.0], "caption": None}]
    data = Data(source=lambda: {"train": rows}, input="vector", target="caption")
    with pytest.raises(DataError, match="no text as a target"):
        data.load(target_kind="text")
