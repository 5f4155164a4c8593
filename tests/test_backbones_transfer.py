"""Weights move into a backbone whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from tflearn import backbones
from tflearn.backbones import graph
from tflearn.backbones.transfer import check_finite_weights, transfer
from tflearn.support.errors import BackboneError

hub = backbones.import_keras_hub()


def make(units: int = 4, blocks: int = 2) -> keras.Model:
    x = inputs = keras.Input((3,))
    for index in range(blocks):
        x = keras.layers.Dense(units, name=f"block_{index}")(x)
        x = keras.layers.BatchNormalization(name=f"norm_{index}")(x)
        x = keras.layers.Dropout(0.1)(x)
    return keras.Model(inputs, x, name="backbone")


def vit() -> keras.Model:
    return hub.models.ViTBackbone(
        image_shape=(16, 16, 3),
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
    )


def arrays(model: keras.Model) -> dict[str, np.ndarray]:
    return {
        path: graph.value_of(weight)
        for path, weight in graph.weights_by_path(model).items()
    }


def numbered(model: keras.Model) -> keras.Model:
    """Gives every weight values of its own, so that a mix-up shows."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model


def check_equal(model: keras.Model, expected: dict[str, np.ndarray]) -> None:
    found = arrays(model)
    assert list(found) == list(expected)
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


def test_all_weights_move_and_the_log_counts_them() -> None:
    source, target = arrays(numbered(make())), make()
    log = transfer(source, target)
    check_equal(target, source)
    assert len(log.loaded) == len(source) == 12
    assert log.parameters == target.count_params()
    assert str(log) == f"12 weights ({log.parameters} values) transferred"


def test_mismatches_are_listed_both_ways_and_nothing_is_changed() -> None:
    source, target = arrays(numbered(make(5, 3))), make(4, 2)
    source["other/kernel"] = np.zeros(1, "float32")
    del source["block_0/bias"]
    before = arrays(target)
    with pytest.raises(BackboneError) as failure:
        transfer(source, target)
    message = str(failure.value)
    assert "1 missing in the source: block_0/bias" in message
    assert "of the source that the backbone does not have: block_2/bias" in message
    assert "block_0/kernel (3, 5) instead of (3, 4)" in message
    check_equal(target, before)


def test_each_mismatch_can_be_allowed_by_itself() -> None:
    source, target = arrays(numbered(make(4, 3))), make(4, 2)
    before = arrays(target)
    log = transfer(source, target, skip=["block_2", "norm_2", "block_0/kernel"])
    assert log.skipped == ("block_0/kernel",)
    assert set(log.unused) >= {"block_2/kernel", "norm_2/gamma", "block_0/kernel"}
    after = arrays(target)
    np.testing.assert_array_equal(after["block_0/kernel"], before["block_0/kernel"])
    np.testing.assert_array_equal(after["block_1/kernel"], source["block_1/kernel"])
    assert "1 of the backbone kept" in str(log)


def test_paths_are_renamed_by_their_beginning() -> None:
    source = {f"encoder/{k}": v for k, v in arrays(numbered(make())).items()}
    target = make()
    transfer(source, target, rename=[("encoder/block_0", "block_0"), ("encoder", "")])
    check_equal(target, {k.removeprefix("encoder/"): v for k, v in source.items()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip": ["blok_0/*"]}, "pattern in skip matches no weight.*blok_0"),
        ({"rename": [("encoder", "x")]}, "names nothing of the source.*encoder"),
        ({"rename": [("block_0", "block_1")]}, "get the same path"),
    ],
)
def test_a_pattern_that_names_nothing_is_refused(options, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        transfer(arrays(make()), make(), **options)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    source, target = arrays(make()), make()
    source["block_1/kernel"][0, 0] = value
    with pytest.raises(BackboneError, match="NaN or infinite. Received: block_1/ker"):
        transfer(source, target)
    target.get_layer("norm_0").gamma.assign(np.full(4, value))
    with pytest.raises(BackboneError, match="NaN or infinite.*norm_0/gamma of here"):
        check_finite_weights(target, origin="here")


def save_keras(model: keras.Model, folder) -> str:
    model.save(folder / "model.keras")
    return str(folder / "model.keras")


def save_h5(model: keras.Model, folder) -> str:
    model.save_weights(folder / "model.weights.h5")
    return str(folder / "model.weights.h5")


def save_whole(model: keras.Model, folder) -> str:
    """A classifier with the model as its layer `backbone`, as a `.keras` file."""
    whole(model).save(folder / "whole.keras")
    return str(folder / "whole.keras")


def save_whole_h5(model: keras.Model, folder) -> str:
    whole(model).save_weights(folder / "whole.weights.h5")
    return str(folder / "whole.weights.h5")


def save_run(model: keras.Model, folder) -> str:
    (folder / "run" / "model").mkdir(parents=True)
    whole(model).save(folder / "run" / "model" / "model.keras")
    return str(folder / "run")


def save_preset(model: keras.Model, folder) -> str:
    model.save_to_preset(str(folder / "preset"))
    return str(folder / "preset")


def whole(model: keras.Model) -> keras.Model:
    model = backbones.function(lambda: model).model
    inputs = keras.Input(model.inputs[0].shape[1:])
    outputs = keras.layers.Dense(2, name="head")(model(inputs))
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("build", [make, vit], ids=["functional", "keras_hub"])
@pytest.mark.parametrize(
    "save", [save_keras, save_h5, save_whole, save_whole_h5, save_run, save_preset]
)
def test_weights_come_from_every_kind_of_file(save: Callable, build, tmp_path) -> None:
    if save is save_preset and build is make:
        pytest.skip("a preset is KerasHub's")
    trained = numbered(build())
    path = save(trained, tmp_path)
    backbone = backbones.with_weights(lambda: backbones.function(build), weights=path)
    check_equal(backbone.model, arrays(trained))
    assert backbone.log is not None and backbone.log.source == path
    assert path in backbone.origin


def test_a_smaller_weights_file_is_no_silent_success(tmp_path) -> None:
    path = save_h5(numbered(make(4, 3)), tmp_path)
    source = backbones.read_weights(path, like=make(4, 2))
    with pytest.raises(BackboneError, match=r"does not have: .*layers/dense_2/vars/0"):
        transfer(source, make(4, 2))


def test_damaged_and_strange_files_are_refused(tmp_path) -> None:
    for name, message in (
        ("a.keras", "Keras cannot load this model file"),
        ("a.weights.h5", "no HDF5 file"),
        ("a.bin", "cannot be read from this kind of file"),
    ):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(BackboneError, match=message):
            backbones.read_weights(tmp_path / name, like=make())
    with pytest.raises(BackboneError, match="no such weights file"):
        backbones.read_weights(tmp_path / "b.weights.h5", like=make())
    with pytest.raises(BackboneError, match="no such model file"):
        backbones.read_weights(tmp_path / "b.keras")
    with pytest.raises(BackboneError, match="like=model"):
        save_h5(make(), tmp_path)
        backbones.read_weights(tmp_path / "model.weights.h5")
