"""Adapters in files: what does not fit is refused, several are switched."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from tflearn.regimes import adapters
from tflearn.support.errors import RegimeError

X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


def make_backbone(width: int = 5, name: str = "block_0") -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(width, activation="tanh", name=name)(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="last")(x), name="backbone")


def with_head(backbone: keras.Model) -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(backbone(inputs)))


def adapt(model: keras.Model, *, seed: int, name: str = "default") -> None:
    rng = np.random.default_rng(seed)
    for layer in ("block_0", "last"):
        lora = adapters.LoRA(rank=2, alpha=4.0)
        adapters.attach(model.get_layer(layer), lora, name=name)
        for weight in lora.weights:
            weight.assign(rng.normal(size=weight.shape))


def outputs(model: keras.Model) -> np.ndarray:
    return np.asarray(model.predict_on_batch(X))


@pytest.fixture
def file(tmp_path) -> pathlib.Path:
    model = make_backbone()
    adapt(model, seed=1)
    adapters.save_adapter(model, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def rewrite(file: pathlib.Path, change) -> None:
    """Changes the weights and keeps the declaration, digest included where told."""
    with safetensors.safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    change(tensors)
    metadata["digest"] = adapters.files._digest(tensors)
    file.write_bytes(safetensors.numpy.save(tensors, metadata=metadata))


def test_a_file_holds_the_adapters_alone_by_layer_path(file) -> None:
    with safetensors.safe_open(file, framework="numpy") as opened:
        assert sorted(opened.keys()) == [
            "block_0/a",
            "block_0/b",
            "last/a",
            "last/b",
        ]


def test_adapters_trained_under_a_head_fit_the_bare_backbone(tmp_path) -> None:
    model = with_head(make_backbone())
    adapt(model.get_layer("backbone"), seed=1)
    assert adapters.save_adapter(model, tmp_path / "a.safetensors") == 18 + 16
    fresh = make_backbone()
    assert adapters.load_adapter(fresh, tmp_path / "a.safetensors") == (
        "block_0",
        "last",
    )
    np.testing.assert_array_equal(outputs(fresh), outputs(model.get_layer("backbone")))


def test_several_adapters_are_loaded_and_switched(file, tmp_path) -> None:
    other = make_backbone()
    adapt(other, seed=2, name="french")
    adapters.save_adapter(other, tmp_path / "b.safetensors", name="french")
    model = make_backbone()
    bare = outputs(model)
    adapters.load_adapter(model, file, name="german")
    german = outputs(model)
    adapters.load_adapter(model, tmp_path / "b.safetensors", name="french")
    np.testing.assert_array_equal(outputs(model), outputs(other))
    assert adapters.switch(model, "german") == ("block_0", "last")
    np.testing.assert_array_equal(outputs(model), german)
    assert adapters.switch(model, None) == ()
    np.testing.assert_array_equal(outputs(model), bare)
    with pytest.raises(RegimeError, match="Did you mean 'german'"):
        adapters.switch(model, "germn")
    with pytest.raises(RegimeError, match="several adapters"):
        adapters.merge(model)


def drop(tensors: dict) -> None:
    del tensors["last/b"]


def add(tensors: dict) -> None:
    tensors["last/c"] = np.ones(2, "float32")


def reshape(tensors: dict) -> None:
    tensors["last/a"] = np.ascontiguousarray(tensors["last/a"][:, :1])


def spoil(tensors: dict) -> None:
    tensors["last/a"][0, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "missing: last/b"),
        (add, "extra: last/c"),
        (reshape, r"wrongly shaped: last/a \(5, 1\) instead of \(5, 2\)"),
        (spoil, "not finite. Received: last/a"),
    ],
)
def test_entries_that_do_not_fit_are_errors(file, change, message: str) -> None:
    rewrite(file, change)
    model = make_backbone()
    with pytest.raises(RegimeError, match=message):
        adapters.load_adapter(model, file)
    assert not adapters.adapters_of(model)


def test_another_backbone_or_a_damaged_file_is_refused(file, tmp_path) -> None:
    with pytest.raises(RegimeError, match="Did you mean 'block_1'"):
        adapters.load_adapter(make_backbone(name="block_1"), file)
    with pytest.raises(RegimeError, match="wrongly shaped: block_0/b"):
        adapters.load_adapter(make_backbone(width=6), file)
    model = make_backbone()
    adapters.load_adapter(model, file)
    with pytest.raises(RegimeError, match="adapter of this name already"):
        adapters.load_adapter(model, file)
    damaged = bytearray(file.read_bytes())
    damaged[-3] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(RegimeError, match="not those that were saved"):
        adapters.load_adapter(make_backbone(), file)
    (tmp_path / "other").write_bytes(safetensors.numpy.save({"x": X}))
    with pytest.raises(RegimeError, match="not a file of adapters"):
        adapters.load_adapter(make_backbone(), tmp_path / "other")
    with pytest.raises(RegimeError, match="cannot read adapters"):
        adapters.load_adapter(make_backbone(), tmp_path / "absent")


def test_weights_that_are_not_finite_are_not_saved(tmp_path) -> None:
    model = make_backbone()
    adapt(model, seed=1)
    adapters.attached(model.get_layer("last"))["default"].a.assign(
        np.full((5, 2), np.inf)
    )
    with pytest.raises(RegimeError, match="not finite"):
        adapters.save_adapter(model, tmp_path / "a.safetensors")
    with pytest.raises(RegimeError, match="no adapter of this name"):
        adapters.save_adapter(model, tmp_path / "a.safetensors", name="other")
    assert not list(tmp_path.iterdir())


def test_saving_a_model_as_it_is_would_lose_its_adapters_and_is_refused(tmp_path):
    model = make_backbone()
    adapt(model, seed=1)
    with pytest.raises(RegimeError, match="exportable"):
        model.save(tmp_path / "model.keras")
    with adapters.exportable(model) as plain:
        plain.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(outputs(loaded), outputs(model), atol=1e-5)
