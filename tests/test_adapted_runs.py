"""Whole runs with adapters: what they report, save and hand on."""

from __future__ import annotations

import functools

import keras
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.data import Data, sources
from tflearn.regimes import adapters
from tflearn.support import files
from tflearn.support.errors import RegimeError
from tflearn.training import finished, optimizers


def make_backbone() -> keras.Model:
    x = inputs = keras.Input((4,), name="features")
    for index in range(2):
        x = keras.layers.Dense(8, activation="tanh", name=f"block_{index}")(x)
    return keras.Model(inputs, x)


def iris() -> Data:
    return Data(
        source=functools.partial(sources.sklearn, "iris"),
        input="vector",
        splits={"train": 0.6, "validation": 0.2, "test": 0.2},
    )


LOW_RANK = regimes.low_rank(targets="backbone/block_*", rank=2)
SHIFTED = regimes.bitfit()


def stage(name: str, regime=LOW_RANK, **changes) -> experiment.Stage:
    fields = {
        "name": name,
        "data": iris,
        "objective": objectives.classification,
        "regime": regime,
        "optimizer": functools.partial(optimizers.adamw, learning_rate=0.05),
        "budget": "6 epochs",
        "batch_size": 16,
        "bootstrap": 10,
    }
    return experiment.Stage(**(fields | changes))


def run(folder, *stages):
    declared = experiment.Experiment(
        backbone=functools.partial(backbones.function, make_backbone), stages=stages
    )
    return experiment.run(declared, output_dir=str(folder))


@pytest.mark.parametrize("regime", [LOW_RANK, SHIFTED], ids=["lora", "bitfit"])
def test_a_run_saves_its_adapter_alone_and_a_model_that_needs_none(
    tmp_path, regime
) -> None:
    report = run(tmp_path, stage("tune", regime))
    roles = {row["role"] for row in report.stages[0].census}
    assert "adapter" in roles and "trained" in roles
    again = finished.open_run(tmp_path)
    data = iris()
    split = data.load(target_kind="class").splits["test"]
    predicted = again.outputs(split, data).argmax(axis=1)
    found = report.stages[0].evaluations["test"]["metrics"]["accuracy"]["value"]
    assert float((predicted == split.targets).mean()) == pytest.approx(found)
    stored = (tmp_path / "model" / "adapter.safetensors").stat().st_size
    assert stored < (tmp_path / "model" / "model.keras").stat().st_size
    # The weights of the backbone that the run loads elsewhere are the merged ones.
    assert set(backbones.read_weights(tmp_path)) == {
        f"block_{i}/{name}" for i in range(2) for name in ("kernel", "bias")
    }


@pytest.mark.first_on("jax")
def test_a_later_stage_goes_on_with_an_adapter_or_merges_it(tmp_path) -> None:
    merged = (regimes.merge("backbone/*"), *regimes.full())
    report = run(tmp_path / "a", stage("first"), stage("second"), stage("all", merged))
    trained = [sum(row["trainable"] for row in s.census) for s in report.stages]
    assert trained[0] == trained[1] < trained[2]
    assert {row["role"] for row in report.stages[2].census} == {"trained"}
    assert not (tmp_path / "a" / "model" / "adapter.safetensors").exists()


def test_an_adapter_that_a_later_stage_forgets_is_an_error(tmp_path) -> None:
    with pytest.raises(RegimeError):
        run(tmp_path / "r", stage("first"), stage("second", regimes.full()))
    assert not (tmp_path / "r").exists()


def test_the_adapter_of_a_run_fits_a_fresh_backbone(tmp_path) -> None:
    run(tmp_path, stage("tune"))
    file = tmp_path / "model" / "adapter.safetensors"
    backbone = backbones.function(make_backbone).model
    inputs = keras.Input((4,))
    model = keras.Model(
        inputs, keras.layers.Dense(3, name="head")(backbone(inputs)), name="whole"
    )
    adapters.load_adapter(model, file)
    found = adapters.adapters_of(model)
    assert [path for path in found] == ["backbone/block_0", "backbone/block_1"]
    assert files.read_json(tmp_path / "model" / "labels.json")["task"] == "class"


def test_an_adapter_of_the_head_goes_on_inside_its_weights(tmp_path, capsys) -> None:
    head = (regimes.lora("head/*", rank=2), *regimes.frozen())
    short = {"budget": "2 steps", "bootstrap": 0}
    run(tmp_path, stage("first", head, **short), stage("second", head, **short))
    assert "head carried from 'first' to 'second'" in capsys.readouterr().out
    # The file of adapters is that of the backbone, which has none.
    assert not (tmp_path / "model" / "adapter.safetensors").exists()
    assert finished.open_run(tmp_path).model.count_params() > 0


@pytest.mark.first_on("jax")
def test_a_head_whose_adapter_cannot_be_merged_starts_anew(tmp_path, capsys) -> None:
    head = (regimes.bottleneck("head/*", size=2), *regimes.frozen())
    short = {"budget": "1 step", "bootstrap": 0}
    plain = stage("second", regimes.frozen(), **short)
    run(tmp_path, stage("first", head, **short), plain)
    assert "new head: not carried from 'first'" in capsys.readouterr().out
