"""Operations of a train step, counted on both backends."""

from __future__ import annotations

import pathlib

import keras
import keras_hub
import numpy as np
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.data import Data, sources
from tflearn.training import flops, optimizers


def convolutions() -> tuple[keras.Model, tuple[np.ndarray, np.ndarray]]:
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.DepthwiseConv2D(3)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(10)(x))
    return model, (np.zeros((16, 8, 8, 1), "float32"), np.zeros(16, "int32"))


def attention() -> tuple[keras.Model, tuple[dict[str, np.ndarray], np.ndarray]]:
    body = keras_hub.models.BertBackbone(
        vocabulary_size=10,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=16,
    )
    outputs = keras.layers.Dense(2)(body(body.input)["sequence_output"][:, 0])
    batch = {name: np.ones((4, 16), "int32") for name in body.input}
    body.get_layer("pooled_dense").trainable = False
    return keras.Model(body.input, outputs), (batch, np.zeros(4, "int32"))


# By hand: 16 images; the first convolution has no gradient of its input.
FIRST, DEPTHWISE, HEAD = 2 * 64 * 4 * 9, 2 * 36 * 4 * 9, 2 * 4 * 10
# 64 tokens; a block has four 8 x 8 and two 8 x 16 matrices, and two products of
# attention of 16 places; three times for the gradients of inputs and weights. The head
# sees 4 tokens.
BLOCK = 2 * 64 * (4 * 8 * 8 + 2 * 8 * 16 + 2 * 16 * 8)
EXPECTED = {
    convolutions: 16 * (2 * FIRST + 3 * DEPTHWISE + 3 * HEAD),
    attention: 3 * (2 * BLOCK + 2 * 4 * 8 * 2),
}


@pytest.mark.parametrize("make", EXPECTED)
def test_a_step_takes_what_its_products_take(make) -> None:
    model, batch = make()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.optimizer.build(model.trainable_variables)
    assert flops.of_step(model, batch) == pytest.approx(EXPECTED[make], rel=0.01)


def perceptron() -> keras.Model:
    inputs = keras.Input((64,), name="features")
    return keras.Model(inputs, keras.layers.Dense(32, name="block_0")(inputs))


@pytest.mark.parametrize("budget", ["2e6 flops", "12 steps"])
def test_a_stage_is_budgeted_by_operations_and_reports_them(
    budget: str, tmp_path: pathlib.Path
) -> None:
    rng = np.random.default_rng(0)
    columns = {f"x{k}": rng.normal(size=60).tolist() for k in range(64)}
    rows = columns | {"label": ["a", "b"] * 30}
    stage = experiment.Stage(
        name="tune",
        data=lambda: Data(
            source=lambda: sources.arrays({"train": rows, "test": rows}),
            input=tuple(columns),
            allow_overlap=True,
        ),
        objective=objectives.classification,
        regime=regimes.full(),
        optimizer=optimizers.adamw,
        budget=budget,
        batch_size=20,
        bootstrap=0,
        count_flops=True,
    )
    declared = experiment.Experiment(
        backbone=lambda: backbones.function(build=perceptron), stages=(stage,)
    )
    (found,) = experiment.run(declared, output_dir=str(tmp_path / "run")).stages
    # The first layer has no gradient of its input, the head of two classes has.
    step = 20 * (2 * 2 * 64 * 32 + 3 * 2 * 32 * 2)
    assert found.flops == found.steps * step
    if budget.endswith("flops"):
        assert 2e6 <= found.flops < 2e6 + step
