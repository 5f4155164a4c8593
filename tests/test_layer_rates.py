"""Learning rates and weight decay by layer, against hand computations."""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from tflearn.backbones import graph
from tflearn.support.errors import ConfigError
from tflearn.training import layer_rates, loop, optimizers

BLOCKS = ("block_0", "block_1")


def make_model(dtype: str | None = None) -> keras.Model:
    """A backbone of an embedding layer, two blocks and a norm, and a head."""
    keras.utils.set_random_seed(1)
    make = functools.partial(keras.layers.Dense, 4, dtype=dtype)
    inner = x = keras.Input((4,))
    for name in ("embed", *BLOCKS):
        x = make(name=name)(x)
    x = keras.layers.LayerNormalization(name="norm", dtype=dtype)(x)
    backbone = keras.Model(inner, x, name="backbone")
    inputs = keras.Input((4,))
    head = keras.layers.Dense(2, name="head", dtype=dtype)
    return keras.Model(inputs, head(backbone(inputs)))


def train(model: keras.Model, optimizer, steps: int = 3, batch: int = 8) -> None:
    optimizers.configure(optimizer, model, blocks=BLOCKS)
    loop.compile_model(
        model, optimizer=optimizer, loss=keras.losses.MeanSquaredError(), metrics=[]
    )
    x = np.random.default_rng(0).normal(size=(batch, 4)).astype("float32")
    for _ in range(steps):
        model.train_on_batch(x, x[:, :2])


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {
        path: graph.value_of(weight)
        for path, weight in layer_rates.weight_paths(model).items()
    }


def moved(make_optimizer, steps: int = 1, dtype: str | None = None):
    """How far every weight moves, by path."""
    model = make_model(dtype)
    before = weights(model)
    train(model, make_optimizer(), steps)
    after = weights(model)
    return {path: after[path] - before[path] for path in before}


def plain_sgd(rate: float = 0.5) -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(rate)


def test_factors_fall_from_block_to_block() -> None:
    factors = layer_rates.block_factors(make_model(), BLOCKS, 0.5)
    assert {path.rsplit("/", 1)[0]: value for path, value in factors.items()} == {
        "backbone/embed": 0.125,
        "backbone/block_0": 0.25,
        "backbone/block_1": 0.5,
        "backbone/norm": 1.0,
        "head": 1.0,
    }


def test_sgd_moves_every_weight_by_its_factor() -> None:
    plain = moved(plain_sgd)
    scaled = moved(lambda: optimizers.layerwise(9, optimizer=plain_sgd, decay=0.7))
    factors = layer_rates.block_factors(make_model(), BLOCKS, 0.7)
    for path, factor in factors.items():
        # A difference of weights near 1 is known to about 1e-7.
        np.testing.assert_allclose(
            scaled[path], factor * plain[path], rtol=1e-4, atol=2e-7, err_msg=path
        )


def test_the_factor_of_adamw_scales_step_and_decay() -> None:
    rate, decay, factor = 0.1, 0.2, 0.25
    model = make_model()
    before = weights(model)
    optimizer = optimizers.by_pattern(
        9,
        optimizer=lambda: keras.optimizers.AdamW(
            rate, weight_decay=decay, epsilon=1e-12
        ),
        rates={"backbone/block_0": factor},
    )
    train(model, optimizer, steps=1)
    after = weights(model)
    for path, scale in (("backbone/block_0", factor), ("backbone/block_1", 1.0)):
        kernel = f"{path}/kernel"
        # The first step of Adam is the rate times the sign of the gradient.
        step = after[kernel] - before[kernel] * (1 - rate * scale * decay)
        np.testing.assert_allclose(np.abs(step), rate * scale, rtol=1e-3)
        step = after[f"{path}/bias"] - before[f"{path}/bias"]
        np.testing.assert_allclose(np.abs(step), rate * scale, rtol=1e-3)


def test_decays_by_pattern_replace_the_optimizers_own() -> None:
    def make() -> keras.optimizers.Optimizer:
        return optimizers.by_pattern(
            9,
            optimizer=lambda: keras.optimizers.SGD(1.0),
            weight_decays={"backbone/block_0": 0.5, "backbone/*": 0.25},
        )

    model = make_model()
    before, plain = weights(model), moved(lambda: keras.optimizers.SGD(1.0))
    # Decay is applied before the step, whose gradient is that of the old weights.
    decays = {"backbone/block_0/kernel": 0.5, "backbone/block_1/kernel": 0.25}
    for path, delta in moved(make).items():
        expected = plain[path] - decays.get(path, 0.0) * before[path]
        if path == "backbone/embed/kernel":
            expected -= 0.25 * before[path]
        np.testing.assert_allclose(delta, expected, atol=1e-6, err_msg=path)


OPTIMIZERS = {
    "Adadelta": {},
    "Adafactor": {"relative_step": False},
    "Adagrad": {},
    "Adam": {"amsgrad": True},
    "AdamW": {"use_ema": True},
    "Adamax": {"clipnorm": 0.1},
    "Ftrl": {},
    "Lamb": {},
    "Lion": {"global_clipnorm": 0.1},
    "Muon": {},
    "Nadam": {},
    "RMSprop": {"weight_decay": 0.1},
    "SGD": {"momentum": 0.9, "weight_decay": 0.1, "gradient_accumulation_steps": 2},
    "ScheduleFreeAdamW": {},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_half_the_rate_everywhere_is_an_optimizer_with_half_the_rate(name) -> None:
    make = functools.partial(getattr(keras.optimizers, name), **OPTIMIZERS[name])
    if name == "Muon" and keras.backend.backend() == "tensorflow":
        pytest.skip("Muon asks TensorFlow variables for a path they do not have")
    half = moved(lambda: make(learning_rate=0.0625), steps=4)
    scaled = moved(
        lambda: optimizers.by_pattern(
            9, optimizer=lambda: make(learning_rate=0.125), rates={"*": 0.5}
        ),
        steps=4,
    )
    assert any(np.any(delta) for delta in half.values())
    for path, delta in half.items():
        np.testing.assert_allclose(
            scaled[path], delta, rtol=1e-5, atol=1e-6, err_msg=path
        )


@pytest.mark.parametrize(
    "declare",
    [
        lambda made: optimizers.layerwise(9, optimizer=made, decay=1.0),
        lambda made: optimizers.by_pattern(9, optimizer=made, rates={"*": 1.0}),
        # The last two install the scaled steps, the others nothing at all.
        lambda made: optimizers.by_pattern(
            9, optimizer=made, rates={"*": 1.0}, weight_decays={"*": 0.03}
        ),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_factors_of_one_change_no_bit(declare, dtype) -> None:
    make = functools.partial(
        keras.optimizers.AdamW, 0.01, weight_decay=0.03, global_clipnorm=1.0
    )
    plain = moved(make, steps=4, dtype=dtype)
    scaled = moved(lambda: declare(make), steps=4, dtype=dtype)
    for path, delta in plain.items():
        np.testing.assert_array_equal(scaled[path], delta, err_msg=path)


def test_float16_scales_the_loss_and_the_rates() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make_model()
        optimizer = optimizers.layerwise(9, optimizer=plain_sgd, decay=0.5)
        before = weights(model)
        train(model, optimizer, steps=1)
        scaled = weights(model)
        plain = moved(plain_sgd)
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    kernel = "backbone/block_0/kernel"
    np.testing.assert_allclose(
        scaled[kernel] - before[kernel], 0.25 * plain[kernel], rtol=1e-2, atol=1e-6
    )


def test_nested_declarations_multiply() -> None:
    def make() -> keras.optimizers.Optimizer:
        outer = functools.partial(optimizers.layerwise, optimizer=plain_sgd, decay=0.5)
        return optimizers.by_pattern(9, optimizer=outer, rates={"head/*": 2.0})

    plain, scaled = moved(plain_sgd), moved(make)
    for path, factor in (("head/kernel", 2.0), ("backbone/block_1/kernel", 0.5)):
        np.testing.assert_allclose(scaled[path], factor * plain[path], atol=1e-6)


def test_a_restored_optimizer_goes_on_to_the_same_bits() -> None:
    def make() -> keras.optimizers.Optimizer:
        return optimizers.layerwise(9, optimizer=lambda: keras.optimizers.AdamW(0.1))

    straight = make_model()
    train(straight, make(), steps=2)
    other = make_model()
    train(other, make(), steps=0)
    other.set_weights(straight.get_weights())
    values = [graph.value_of(variable) for variable in straight.optimizer.variables]
    for variable, value in zip(other.optimizer.variables, values, strict=True):
        variable.assign(value)
    x = np.random.default_rng(1).normal(size=(8, 4)).astype("float32")
    for model in (straight, other):
        model.train_on_batch(x, x[:, :2])
    for old, new in zip(straight.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


DEVICES = """
import sys
sys.path.insert(0, sys.argv[1])
import keras
import numpy as np
import test_layer_rates as tests
from tflearn.training import anchors, loop, optimizers

def run():
    model = tests.make_model()
    optimizer = optimizers.layerwise(
        9, optimizer=lambda: keras.optimizers.SGD(0.1, weight_decay=0.1), decay=0.5
    )
    optimizers.configure(optimizer, model, blocks=tests.BLOCKS)
    loss = keras.losses.MeanSquaredError()
    loop.compile_model(model, optimizer=optimizer, loss=loss, metrics=[])
    start = {path: value + 1 for path, value in tests.weights(model).items()}
    anchors.hold(optimizer, model, anchors.l2sp(0.1), start=start)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    model.fit(x, x[:, :2], batch_size=8, epochs=2, verbose=0, shuffle=False)
    return tests.weights(model)

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    device = tf.config.LogicalDeviceConfiguration()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [device] * 2)
    alone = run()
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        together = run()
else:
    alone = run()
    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*kernel"] = (None, "model")
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    )
    together = run()
for path, value in alone.items():
    np.testing.assert_allclose(together[path], value, atol=2e-6, err_msg=path)
"""


@pytest.mark.first_on("jax")
def test_rates_and_anchors_are_the_same_on_several_devices() -> None:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(
        [sys.executable, "-c", DEVICES, str(pathlib.Path(__file__).parent)],
        env={**os.environ, **flags, "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_every_layer_got_is_said() -> None:
    optimizer = optimizers.by_pattern(
        9, optimizer=plain_sgd, rates={"head": 3.0}, weight_decays={"backbone/*": 0.1}
    )
    assert optimizers.configure(optimizer, make_model(), blocks=BLOCKS) == (
        "learning rate x 3: head/bias, head/kernel; 1 elsewhere",
        "weight decay 0.1: backbone/block_0, backbone/block_1, backbone/embed, "
        "backbone/norm",
    )
    everywhere = optimizers.by_pattern(9, optimizer=plain_sgd, rates={"*": 0.5})
    assert optimizers.configure(everywhere, make_model(), blocks=BLOCKS) == (
        "learning rate x 0.5 everywhere",
    )
    assert optimizers.configure(plain_sgd(), make_model(), blocks=BLOCKS) == ()


@pytest.mark.parametrize(
    ("declare", "blocks", "message"),
    [
        ({"rates": {"backbone/blok_0": 0.1}}, BLOCKS, "Did you mean 'backbone/block"),
        ({"weight_decays": {"hed/*": 0.1}}, BLOCKS, "matches no weight"),
        ({"weight_decays": {"*/bias": 0.1}}, BLOCKS, "never decay"),
        ({"rates": {"head/*": 0.0}}, BLOCKS, "above 0.*regimes.freeze"),
        ({"weight_decays": {"head/*": -1.0}}, BLOCKS, "negative"),
        (None, (), "blocks of this backbone are not known"),
    ],
)
def test_what_does_not_fit_is_refused(declare, blocks, message) -> None:
    with pytest.raises(ConfigError, match=message):
        if declare is None:
            optimizer = optimizers.layerwise(9, optimizer=plain_sgd)
        else:
            optimizer = optimizers.by_pattern(9, optimizer=plain_sgd, **declare)
        optimizers.configure(optimizer, make_model(), blocks=blocks)


def test_several_optimizers_in_one_are_refused() -> None:
    several = keras.optimizers.MultiOptimizer(lambda variable: plain_sgd())
    assert optimizers.configure(several, make_model(), blocks=BLOCKS) == ()
    with pytest.raises(ConfigError, match="single optimizer"):
        layer_rates.declare(several, layer_rates.Rates(decay=0.5))
