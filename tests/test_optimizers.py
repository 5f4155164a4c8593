"""Optimizers and their schedules."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tflearn.support.errors import ConfigError
from tflearn.training import optimizers


@pytest.mark.parametrize("schedule", optimizers.SCHEDULES)
def test_every_schedule_warms_up_and_reaches_its_peak(schedule: str) -> None:
    rate = optimizers.rate_schedule(
        100, learning_rate=2.0, schedule=schedule, warmup=0.1
    )
    assert float(rate(0)) == 0.0
    assert float(rate(5)) == pytest.approx(1.0)
    assert float(rate(10)) == pytest.approx(2.0)
    end = {"linear": 0.0, "cosine": 0.0, "constant": 2.0}[schedule]
    assert float(rate(100)) == pytest.approx(end, abs=1e-6)
    assert float(rate(1000)) == pytest.approx(end, abs=1e-6)


def test_the_halfway_points_of_the_decays() -> None:
    for schedule in ("linear", "cosine"):
        rate = optimizers.rate_schedule(
            100, learning_rate=1.0, schedule=schedule, warmup=0.0
        )
        assert float(rate(50)) == pytest.approx(0.5)
    assert float(rate(25)) == pytest.approx(0.5 * (1 + np.cos(np.pi / 4)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"learning_rate": float("nan")}, "above 0"),
        ({"warmup": 1.0}, "share of the run"),
    ],
)
def test_wrong_values_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        optimizers.adamw(10, **arguments)


def test_an_optimizer_with_a_schedule_can_be_saved() -> None:
    optimizer = optimizers.adamw(100, learning_rate=1e-3)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert float(again.learning_rate) == float(optimizer.learning_rate)
    assert again.get_config() == optimizer.get_config()


def test_build_passes_total_steps_only_to_those_who_take_it() -> None:
    with_steps = optimizers.build(optimizers.sgd, total_steps=40)
    assert with_steps.get_config()["learning_rate"]["config"]["total_steps"] == 40
    plain = optimizers.build(keras.optimizers.Lion, total_steps=40)
    assert float(plain.learning_rate) == pytest.approx(1e-3)
    with pytest.raises(ConfigError, match="returned no optimizer"):
        optimizers.build(lambda: 3, total_steps=40)


def test_any_keras_optimizer_takes_a_schedule() -> None:
    optimizer = optimizers.scheduled(10, method=keras.optimizers.Lion, warmup=0.0)
    assert isinstance(optimizer, keras.optimizers.Lion)
    assert float(optimizer.learning_rate) == pytest.approx(1e-3)


def test_weight_decay_spares_biases_and_norms() -> None:
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.LayerNormalization()]
    )
    model.layers[0].bias.assign([1.0, 1.0, 1.0])
    optimizer = keras.optimizers.AdamW(learning_rate=0.1, weight_decay=0.5)
    assert optimizers.exclude_bias_and_norm(optimizer, model) == 3
    model.compile(optimizer=optimizer, loss="mse")
    before = [keras.ops.convert_to_numpy(w.value) for w in model.trainable_variables]
    # A constant output has no gradient, so that only decay can move a weight.
    model.layers[1].gamma.assign([0.0, 0.0, 0.0])
    model.train_on_batch(np.zeros((2, 4), "float32"), np.zeros((2, 3), "float32"))
    after = {
        w.path: keras.ops.convert_to_numpy(w.value) for w in model.trainable_variables
    }
    kernel, bias = model.layers[0].kernel.path, model.layers[0].bias.path
    assert np.all(np.abs(after[kernel]) < np.abs(before[0]))
    np.testing.assert_array_equal(after[bias], before[1])


def test_describe_names_rate_and_decay() -> None:
    text = optimizers.describe(optimizers.adamw(100))
    assert "AdamW" in text
    assert "peak=5e-05" in text
    assert "weight_decay=0.01" in text
