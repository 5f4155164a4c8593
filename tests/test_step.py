"""The compiled step: what it does not compute, and what is kept of compiling it."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest

from tflearn import config, experiment
from tflearn.backbones import graph
from tflearn.distribution import convolutions, precision
from tflearn.support import compiled
from tflearn.training import loop, precision_trial

DIGITS = "quickstart/digits.gin"


# --- What XLA compiled, kept for the next start ---------------------------------------


def environment(folder: pathlib.Path) -> dict[str, str]:
    """An environment as a user has it: the tests' own cache is none of it."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_COMPILATION", "JAX_PERSISTENT", "KERAS_BACKEND"))
    }
    return plain | {"TFLEARN_CACHE": str(folder)}


@pytest.mark.first_on("jax")
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, True),
        ({"JAX_ENABLE_COMPILATION_CACHE": "0"}, False),
        ({"JAX_COMPILATION_CACHE_DIR": "/elsewhere"}, False),
    ],
)
def test_compiled_steps_are_kept_under_the_users_cache_unless_told_otherwise(
    given: dict[str, str], kept: bool, tmp_path: pathlib.Path
) -> None:
    code = "from tflearn.support import compiled; print(compiled.keep())"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path) | given,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    folder = tmp_path / "compiled" / compiled.machine()
    assert said == (str(folder) if kept else "None")
    assert folder.is_dir() is kept


def test_the_files_used_last_stay_when_room_runs_out(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    for age in range(5):
        path = folder / f"file_{age}"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    assert compiled.prune(tmp_path, most_bytes=250) == 3
    assert sorted(path.name for path in folder.iterdir()) == ["file_0", "file_1"]


# --- Precision chosen by measurement --------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"float32": 1.0, "mixed_bfloat16": 0.5}, "mixed_bfloat16"),
        ({"float32": 1.0, "mixed_bfloat16": 0.95}, "float32"),
        ({"float32": 1.0, "mixed_bfloat16": None}, "float32"),
        ({"float32": None, "mixed_float16": 2.0}, "mixed_float16"),
        ({"float32": None, "mixed_float16": None}, "float32"),
    ],
)
def test_the_fastest_precision_wins_if_it_is_clearly_faster(
    seconds: dict[str, float | None], chosen: str
) -> None:
    assert precision_trial.choose(seconds) == chosen


@pytest.mark.first_on("jax")
def test_a_long_run_measures_once_and_a_resumed_one_keeps_the_choice(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(precision_trial, "LEAST_FLOPS", 0.0)
    both = ("float32", "mixed_bfloat16")
    monkeypatch.setattr(precision, "candidates", lambda platform: both)
    times = {"float32": 1.0, "mixed_bfloat16": 0.1}
    asked = []

    def seconds(build: object, name: str) -> float:
        asked.append(name)
        return times[name]

    monkeypatch.setattr(precision_trial, "_seconds", seconds)
    bindings = ["EPOCHS = '2 steps'", "STEPS = '2 steps'"]
    declared = config.load([DIGITS], bindings).experiment()
    report = experiment.run(declared, output_dir=str(tmp_path / "run"))
    assert report.model["precision"] == "mixed_bfloat16"
    assert asked == list(both)
    assert "mixed_bfloat16: 100.0 ms a step, chosen" in capsys.readouterr().out
    kept = json.loads((tmp_path / "run" / "precision.json").read_text())
    assert kept == {"precision": "mixed_bfloat16", "seconds_per_step": times}
    # As after a kill: the stage is not finished, so it is built again.
    (tmp_path / "run" / "report.json").unlink()
    again = experiment.run(
        config.load([DIGITS], bindings).experiment(), output_dir=str(tmp_path / "run")
    )
    assert again.model["precision"] == "mixed_bfloat16"
    assert asked == list(both)


def test_a_trial_times_real_steps_and_a_short_run_has_none(
    tmp_path: pathlib.Path,
) -> None:
    bindings = ["EPOCHS = '20 steps'"]
    built = experiment.build(config.load([DIGITS], bindings).experiment())
    prepared = built.stages[0]
    assert not precision_trial.pays(prepared, "gpu", tmp_path)
    longer = dataclasses.replace(prepared, total_steps=40)
    work = precision_trial.training_flops(prepared)
    assert precision_trial.training_flops(longer) == pytest.approx(2 * work)
    assert work > 0
    seconds = precision_trial._seconds(lambda name: prepared, "float32")
    assert seconds is not None
    assert seconds > 0


# --- Products in bfloat16 -------------------------------------------------------------

_PRODUCTS = """
import keras, numpy as np
from tflearn.distribution import products

keras.config.set_dtype_policy("mixed_bfloat16")

def make():
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((24, 64)),
        layers.EinsumDense("abc,cde->abde", output_shape=(None, 4, 16), bias_axes="de"),
        layers.EinsumDense("abde,def->abf", output_shape=(None, 64), bias_axes="f"),
        layers.Dense(128, activation="gelu"), layers.LayerNormalization(),
        layers.Dropout(0.1), layers.Dense(64), layers.GlobalAveragePooling1D(),
        layers.Dense(3),
    ])
    model.compile("adamw", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model

plain, fast = make(), make()
changed = products.install(fast)
x = np.random.default_rng(0).normal(size=(8, 24, 64)).astype("float32")
y = np.arange(8) % 3
losses = [[float(m.train_on_batch(x, y)) for _ in range(4)] for m in (plain, fast)]
print(changed, products.has_matrix_units())
print(np.abs(np.subtract(*losses)).max(), losses[0][0] - losses[0][-1])
"""


def test_products_for_matrix_units_give_the_same_losses() -> None:
    if keras.backend.backend() != "jax":
        pytest.skip("TensorFlow's products use the units by themselves")
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", _PRODUCTS],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.strip().splitlines()[-2:]
    changed, units = first.split()
    assert changed == units
    difference, learned = map(float, second.split())
    assert difference < 0.01 * learned


# --- Convolutions of images smaller than their kernel ---------------------------------


@pytest.mark.parametrize(
    ("pixels", "kernel", "strides", "padding", "dilation", "small"),
    [
        ((2, 2), (3, 3), 1, "same", 1, True),
        ((1, 1), (3, 3), 1, "same", 1, True),
        ((4, 4), (3, 3), 2, "same", 1, True),
        ((3, 5), (2, 4), (1, 3), "valid", 1, True),
        ((3, 4), (3, 5), 1, "same", 2, True),
        ((2, 3, 2), (3, 3, 3), 1, "same", 1, True),
        ((8, 8), (3, 3), 1, "same", 1, False),
    ],
)
def test_small_images_are_convolved_as_products(
    pixels, kernel, strides, padding, dilation, small
) -> None:
    kind = getattr(keras.layers, f"Conv{len(pixels)}D")
    layer = kind(6, kernel, strides=strides, padding=padding, dilation_rate=dilation)
    images = np.random.default_rng(0).normal(size=(3, *pixels, 5)).astype("float32")
    expected = keras.ops.convert_to_numpy(layer(images))
    on_jax = keras.backend.backend() == "jax"
    assert convolutions.install([layer]) == int(on_jax)
    np.testing.assert_allclose(layer(images), expected, rtol=1e-5, atol=1e-5)
    if on_jax:
        import jax

        def loss(images: Any) -> Any:
            return (layer(images) ** 2).sum()

        text = str(jax.make_jaxpr(jax.grad(loss))(images))
        assert ("conv_general_dilated" in text) == (not small)
    again = kind.from_config(layer.get_config())
    assert again(images).shape == expected.shape


def test_convolutions_of_another_kind_stay_as_they_are() -> None:
    layers = [
        keras.layers.Conv2D(4, 1),
        keras.layers.Conv2D(4, 3, groups=2),
        keras.layers.Conv2D(4, 3, data_format="channels_first"),
        keras.layers.Conv1D(4, 3, padding="causal"),
        keras.layers.DepthwiseConv2D(3),
        keras.layers.Dense(3),
    ]
    assert convolutions.install(layers) == 0


def test_a_backbone_convolves_small_images_as_products() -> None:
    if keras.backend.backend() != "jax":
        pytest.skip("TensorFlow convolves small images fast")
    built = experiment.build(config.load([DIGITS], []).experiment())
    layers = graph.layers_by_path(built.stages[0].network.backbone.model).values()
    taken = [x for x in layers if "convolution_op" in vars(x)]
    assert taken
    assert all(x.kernel_size != (1, 1) for x in taken)


# --- What a step does not compute -----------------------------------------------------


def lowered(*, frozen: int) -> tuple[str, int]:
    """The step of an embedding and three layers, as JAX hands it to XLA."""
    import jax

    layers = [
        keras.layers.Embedding(50, 8),
        keras.layers.Dense(16),
        keras.layers.Dense(16),
        keras.layers.Dense(2),
    ]
    for layer in layers[:frozen]:
        layer.trainable = False
    model = keras.Sequential([keras.Input((5,), dtype="int32"), *layers])
    loop.compile_model(
        model,
        optimizer=keras.optimizers.AdamW(1e-3),
        loss=keras.losses.MeanSquaredError(),
        metrics=[],
    )
    batch = (np.ones((4, 5), "int32"), np.ones((4, 5, 2), "float32"))
    anything: Any = model
    anything._symbolic_build(data_batch=batch)
    state = anything._get_jax_state(
        trainable_variables=True,
        non_trainable_variables=True,
        optimizer_variables=True,
        metrics_variables=True,
    )
    text = jax.jit(model.train_step).lower(state, (*batch, None)).as_text()
    return text, len(model.optimizer.variables)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="reads what JAX lowers")
def test_frozen_layers_cost_no_gradient_and_no_optimizer_state() -> None:
    # Forward 3; a gradient of weights and one of inputs for each layer that trains, but
    # for the inputs of the first.
    for frozen, products, scatters in ((0, 9, True), (1, 8, False), (3, 4, False)):
        text, slots = lowered(frozen=frozen)
        assert text.count("stablehlo.dot_general") == products
        # The embedding's gradient is scattered into a table: never where it is frozen.
        assert ('"stablehlo.scatter"' in text) is scatters
        trained = {0: 7, 1: 6, 3: 2}[frozen]
        assert slots == 2 * trained + 2


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX has donation")
def test_a_step_writes_over_the_weights_and_the_state_it_read() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    loop.compile_model(
        model,
        optimizer=keras.optimizers.AdamW(1e-3),
        loss=keras.losses.MeanSquaredError(),
        metrics=[],
    )
    x, y = np.ones((8, 4), "float32"), np.ones((8, 3), "float32")
    slots = model.optimizer.variables
    before = [x.value for x in (*model.trainable_variables, *slots)]
    model.train_on_batch(x, y)
    after = [x.value for x in (*model.trainable_variables, *slots)]
    replaced = [
        a for a, b in zip(before, after, strict=True) if a is not b and a.ndim > 0
    ]
    assert replaced
    assert all(array.is_deleted() for array in replaced)


def test_accumulated_gradients_move_weights_as_the_large_batch_does() -> None:
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    ends = []
    for batch, accumulated in ((16, None), (4, 4)):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        loop.compile_model(
            model,
            optimizer=keras.optimizers.SGD(
                0.1, gradient_accumulation_steps=accumulated
            ),
            loss=keras.losses.MeanSquaredError(),
            metrics=[],
        )
        for start in range(0, 16, batch):
            rows = x[start : start + batch]
            model.train_on_batch(rows, rows[:, :3])
        ends.append(model.get_weights())
    for once, parts in zip(*ends, strict=True):
        np.testing.assert_allclose(once, parts, rtol=1e-5, atol=1e-7)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow reads them")
def test_metrics_stay_on_the_device_between_the_ends_of_intervals() -> None:
    seen: list[dict[str, Any]] = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(dict(logs or {}))

    declared = config.load([DIGITS]).experiment()
    prepared = experiment.build(declared).stages[0]
    prepared.apply_regime()
    model = prepared.network.model
    loop.compile_model(
        model,
        optimizer=prepared.make_optimizer(4),
        loss=prepared.loss(),
        metrics=prepared.metrics(),
    )
    ends: list[dict[str, float]] = []
    loop.train(
        model,
        prepared.batches,
        schedule=loop.Schedule(total_steps=4, interval_steps=2),
        on_interval=lambda step, logs: ends.append(logs) or False,
        callbacks=[Watch()],
    )
    assert len(seen) == 4
    assert not any(isinstance(value, float) for logs in seen for value in logs.values())
    assert ends[-1]["loss"] == pytest.approx(float(seen[-1]["loss"]), rel=1e-5)
