"""Regimes: which layers train, what frozen means, and the proof of it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tflearn import regimes
from tflearn.regimes import Rule
from tflearn.regimes.trainability import unit_layers
from tflearn.support.errors import RegimeError

BLOCKS = ("block_0", "block_1", "block_2")

CONTRACT = {
    "scratch": (regimes.scratch(), {"backbone": "fresh", "head": "fresh"}),
    "frozen": (regimes.frozen(), {"backbone": "frozen", "head": "trained"}),
    "full": (regimes.full(), {"backbone": "trained", "head": "trained"}),
    "last": (
        regimes.partial(last=1),
        {
            "backbone": "frozen",
            "backbone/block_2": "trained",
            "backbone/norm_2": "trained",
            "head": "trained",
        },
    ),
    "pattern": (
        regimes.partial(pattern="backbone/norm_?"),
        {"backbone": "frozen", "backbone/norm_": "trained", "head": "trained"},
    ),
    "above": (
        regimes.partial(above="backbone/block_1"),
        {
            "backbone": "frozen",
            "backbone/norm_1": "trained",
            "backbone/block_2": "trained",
            "backbone/norm_2": "trained",
            "head": "trained",
        },
    ),
}


def make_model() -> keras.Model:
    """A backbone of three blocks with normalisation and dropout, and a head."""
    x = inputs = keras.Input((4,))
    for index in range(3):
        x = keras.layers.Dense(5, name=f"block_{index}", activation="tanh")(x)
        x = keras.layers.BatchNormalization(name=f"norm_{index}")(x)
        x = keras.layers.Dropout(0.5, name=f"dropout_{index}")(x)
    backbone = keras.Model(inputs, x, name="backbone")
    whole = keras.Input((4,))
    hidden = keras.layers.Dense(6, name="hidden")(backbone(whole))
    return keras.Model(whole, keras.layers.Dense(2, name="head")(hidden))


def make_data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32")


def values(model: keras.Model) -> dict[str, list[np.ndarray]]:
    return {path: layer.get_weights() for path, layer in unit_layers(model).items()}


def expected_role(path: str, roles: dict[str, str]) -> str:
    found = [prefix for prefix in roles if path.startswith(prefix)]
    return roles[max(found, key=len)]


@pytest.mark.parametrize("name", CONTRACT)
def test_only_what_the_census_calls_trainable_moves(name: str) -> None:
    rules, roles = CONTRACT[name]
    model = make_model()
    census = regimes.apply(model, rules, blocks=BLOCKS)
    assert {row.path: row.role for row in census.rows} == {
        row.path: expected_role(row.path, roles) for row in census.rows
    }
    moving = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert census.trainable == moving
    assert census.parameters == model.count_params()

    regimes.reinitialize(model, census)
    before, proof = values(model), regimes.frozen_digests(model, census)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss=loss)
    x, y = make_data()
    history = model.fit(x, y, epochs=8, batch_size=16, verbose=0).history["loss"]
    assert history[-1] < history[0]
    after = values(model)
    for row in census.rows:
        same = all(map(np.array_equal, before[row.path], after[row.path]))
        assert same == (row.role == "frozen"), row
    checked = regimes.check_unchanged(model, census, proof)
    assert checked["layers"] == len(census.paths("frozen"))


class Tower(keras.Layer):
    """Blocks inside one layer, as a ViT's are in its encoder."""

    def build(self, shape) -> None:
        self.blocks = [keras.layers.Dense(4, name=f"inner_{i}") for i in range(3)]
        for block in self.blocks:
            block.build(shape)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_blocks_inside_a_layer_are_counted_from_the_last() -> None:
    inputs = keras.Input((4,))
    features = keras.layers.LayerNormalization(name="norm")(
        Tower(name="tower")(keras.layers.Dense(4, name="stem")(inputs))
    )
    backbone = keras.Model(inputs, features, name="backbone")
    whole = keras.Input((4,))
    model = keras.Model(whole, keras.layers.Dense(2, name="head")(backbone(whole)))
    blocks = [f"tower/inner_{i}" for i in range(3)]
    census = regimes.apply(model, regimes.partial(last=1), blocks=blocks)
    assert set(census.paths("frozen")) == {
        "backbone/stem",
        "backbone/tower/inner_0",
        "backbone/tower/inner_1",
    }


def test_a_frozen_part_runs_in_inference_mode_and_wakes_up_again() -> None:
    model = make_model()
    backbone = model.get_layer("backbone")
    x, _ = make_data()
    regimes.apply(model, regimes.frozen())
    still = [keras.ops.convert_to_numpy(backbone(x, training=True)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    np.testing.assert_array_equal(
        still[0], keras.ops.convert_to_numpy(backbone(x, training=False))
    )
    regimes.apply(model, regimes.full())
    awake = [keras.ops.convert_to_numpy(backbone(x, training=True)) for _ in range(2)]
    assert not np.array_equal(*awake)


def test_frozen_stays_frozen_after_save_and_load(tmp_path) -> None:
    model = make_model()
    regimes.apply(model, regimes.partial(last=1), blocks=BLOCKS)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [w.shape for w in again.trainable_weights] == [
        w.shape for w in model.trainable_weights
    ]


def test_fresh_values_are_new_and_follow_the_seed() -> None:
    model = make_model()
    census = regimes.apply(model, regimes.scratch())
    before = values(model)
    keras.utils.set_random_seed(5)
    count = regimes.reinitialize(model, census)
    first = values(model)
    assert count == model.count_params()
    kernel = "backbone/block_0"
    assert not np.array_equal(before[kernel][0], first[kernel][0])
    keras.utils.set_random_seed(5)
    regimes.reinitialize(model, census)
    np.testing.assert_array_equal(first[kernel][0], values(model)[kernel][0])


def test_unused_layers_are_frozen_and_called_so() -> None:
    model = make_model()
    census = regimes.apply(model, regimes.full(), unused=["backbone/block_0"])
    assert census.paths("unused") == ("backbone/block_0",)
    assert not unit_layers(model)["backbone/block_0"].trainable


def test_the_first_matching_rule_decides() -> None:
    rules = (
        regimes.train("backbone/block_1"),
        regimes.freeze("backbone/*"),
        regimes.train("*"),
    )
    census = regimes.apply(make_model(), rules)
    assert set(census.paths("trained")) == {
        "backbone/block_1",
        "head/hidden",
        "head",
    }


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((regimes.freeze("backbon/*"), regimes.train()), "Did you mean 'backbone/"),
        ((regimes.train("head/*|head"),), "no rule covers 6 layers"),
        ((), "at least one rule"),
        (regimes.partial(last=4), "1 to 3: block_0, block_1, block_2"),
        (regimes.partial(last=0), "does not have so many blocks"),
        (regimes.partial(above="backbone/blok_1"), "Did you mean 'backbone/block_1'"),
        (regimes.partial(), "exactly one of"),
        (regimes.partial(last=1, pattern="*"), "exactly one of"),
        ((Rule(action="freze", pattern="*"),), "Did you mean 'freeze'"),
        (
            (*regimes.frozen()[:1], regimes.lora("backbone/block_0"), regimes.train()),
            "earlier rules decide",
        ),
    ],
)
def test_rules_that_do_not_fit_are_errors(rules, message: str) -> None:
    with pytest.raises(RegimeError, match=message):
        regimes.apply(make_model(), rules, blocks=BLOCKS)


def test_the_proof_finds_a_frozen_weight_that_moved() -> None:
    model = make_model()
    census = regimes.apply(model, regimes.frozen())
    proof = regimes.frozen_digests(model, census)
    layer = unit_layers(model)["backbone/norm_1"]
    layer.moving_mean.assign(layer.moving_mean + 1e-7)
    with pytest.raises(RegimeError, match="backbone/norm_1"):
        regimes.check_unchanged(model, census, proof)
