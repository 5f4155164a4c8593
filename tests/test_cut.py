"""Cutting a model: the two parts together are the whole, and share its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import pytest

from tflearn import heads, regimes
from tflearn.backbones.cut import cut
from tflearn.backbones.part import Part
from tflearn.support.errors import BackboneError

L = keras.layers
RNG = np.random.default_rng(0)
TOKENS = {"token_ids": np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 0]], "int32")}
IMAGES = RNG.normal(size=(2, 8, 8, 3)).astype("float32")
VECTORS = RNG.normal(size=(3, 4)).astype("float32")


def with_head(backbone: keras.Model, pool: Callable, name: str = "head") -> keras.Model:
    inputs = (
        {
            k: keras.Input(x.shape[1:], dtype=x.dtype, name=k)
            for k, x in backbone.input.items()
        }
        if isinstance(backbone.input, dict)
        else keras.Input(backbone.input.shape[1:], name="inputs")
    )
    x = pool(backbone(inputs), inputs)
    x = L.Dropout(0.5, name="drop")(x)
    return keras.Model(inputs, L.Dense(3, name=name)(x))


def text_model() -> keras.Model:
    """Implicit masks from the embedding, an explicit one for the pooling."""
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    x = L.Embedding(20, 8, mask_zero=True, name="embedding")(ids)
    x = L.LSTM(8, return_sequences=True, name="block_0")(x)
    x = L.Dropout(0.5, name="inner_drop")(x)
    x = L.LSTM(8, return_sequences=True, name="block_1")(x)
    backbone = keras.Model({"token_ids": ids}, x, name="backbone")
    mean = heads.MeanPooling(name="pooling")
    return with_head(
        backbone, lambda x, i: mean(x, mask=keras.ops.not_equal(i["token_ids"], 0))
    )


def skip_model() -> keras.Model:
    """A skip connection over the block that trains, and a raw input that is reused."""
    inputs = keras.Input((4,), name="vectors")
    first = L.Dense(6, activation="relu", name="block_0")(inputs)
    second = L.Dense(6, activation="relu", name="block_1")(first)
    third = L.Dense(6, name="block_2")(second)
    x = L.Add(name="skip")([first, second, third])
    x = L.Concatenate(name="join")([x, inputs])
    return with_head(keras.Model(inputs, x, name="backbone"), lambda x, _: x)


def pyramid_model() -> keras.Model:
    """Two feature maps of different sizes, both of them used, and BatchNorm."""
    inputs = keras.Input((8, 8, 3), name="images")
    p2 = L.Conv2D(4, 3, strides=2, padding="same", name="conv_0")(inputs)
    p2 = L.BatchNormalization(name="norm_0")(p2)
    p3 = L.Conv2D(4, 3, strides=2, padding="same", name="conv_1")(p2)
    p3 = L.BatchNormalization(name="norm_1")(p3)
    backbone = keras.Model(inputs, {"p2": p2, "p3": p3}, name="backbone")

    def lateral(maps, _):
        maps = {k: L.Conv2D(4, 1, name=f"lateral_{k}")(maps[k]) for k in ("p2", "p3")}
        up = L.UpSampling2D(2, name="up")(maps["p3"])
        return L.GlobalAveragePooling2D(name="pool")(
            L.Add(name="sum")([up, maps["p2"]])
        )

    return with_head(backbone, lateral)


def nested_model() -> keras.Model:
    """A functional model inside a functional model inside a functional model."""
    inner_input = keras.Input((4,), name="inner")
    inner = keras.Model(inner_input, L.Dense(4, name="deep")(inner_input), name="core")
    inputs = keras.Input((4,), name="vectors")
    # Called twice: the second call takes what the first one gives.
    x = inner(L.Dense(4, name="block_0")(inner(inputs)))
    return with_head(keras.Model(inputs, x, name="backbone"), lambda x, _: x)


probe = regimes.frozen()
top = (regimes.train("backbone/block_1"), *probe)

# name: model, regime, inputs, shapes that cross, inputs of the model in the suffix,
# calls that are left.
CASES = {
    "a probe goes through the pooling": (
        text_model,
        probe,
        TOKENS,
        [(8,)],
        (),
        ["drop", "head"],
    ),
    "a mask crosses with its tensor": (
        text_model,
        top,
        TOKENS,
        [(None, 8)],
        ("token_ids",),
        ["block_1", "pooling", "drop", "head"],
    ),
    "a skip connection crosses": (
        skip_model,
        (regimes.train("backbone/block_2"), *probe),
        VECTORS,
        [(6,), (6,)],
        ("inputs",),
        ["block_2", "skip", "join", "drop", "head"],
    ),
    "a pyramid crosses": (
        pyramid_model,
        probe,
        IMAGES,
        [(4, 4, 4), (2, 2, 4)],
        (),
        ["lateral_p2", "lateral_p3", "up", "sum", "pool", "drop", "head"],
    ),
    "only the upper map crosses after a norm that trains": (
        pyramid_model,
        (regimes.train("backbone/norm_1"), *probe),
        IMAGES,
        [(4, 4, 4), (2, 2, 4)],
        (),
        ["norm_1", "lateral_p2", "lateral_p3", "up", "sum", "pool", "drop", "head"],
    ),
    "models inside models are looked into": (
        nested_model,
        (
            regimes.train("backbone/block_0"),
            regimes.freeze("backbone/*"),
            regimes.train("*"),
        ),
        VECTORS,
        [(4,)],
        (),
        ["block_0", "deep", "drop", "head"],
    ),
    "frozen adapters and a head that trains": (
        skip_model,
        (regimes.freeze("backbone/block_*"), regimes.train("*")),
        VECTORS,
        [(10,)],
        (),
        ["drop", "head"],
    ),
    "LoRA in the last block": (
        skip_model,
        (regimes.lora(rank=2, pattern="backbone/block_2"), *probe),
        VECTORS,
        [(6,), (6,)],
        ("inputs",),
        ["block_2", "skip", "join", "drop", "head"],
    ),
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    make, rules, inputs, *expected = CASES[request.param]
    model = make()
    regimes.apply(model, rules)
    return model, inputs, expected


def whole(parts: tuple[Part, Part], inputs) -> np.ndarray:
    prefix, suffix = parts
    named = inputs if isinstance(inputs, dict) else {prefix.takes[0]: inputs}
    given = prefix.predict_on_batch(inputs)
    taken = {name: named[name] for name in suffix.takes}
    return np.asarray(suffix.predict_on_batch(given | taken))


def test_the_parts_are_the_whole(case) -> None:
    model, inputs, (shapes, takes, names) = case
    prefix, suffix = cut(model)
    assert [x.shape for x in prefix.crossing] == shapes
    assert prefix.crossing == suffix.crossing
    assert suffix.takes == takes
    calls = [call.operation for call in suffix.calls]
    assert {x.name for x in calls if isinstance(x, keras.Layer)} == set(names)
    np.testing.assert_allclose(
        whole((prefix, suffix), inputs), model.predict_on_batch(inputs), atol=1e-6
    )


def test_the_suffix_has_what_trains_in_the_order_of_the_model(case) -> None:
    model, _, _ = case
    prefix, suffix = cut(model)
    # By identity: an optimizer made for the model must fit the suffix.
    assert list(map(id, suffix.trainable_variables)) == list(
        map(id, model.trainable_variables)
    )
    assert list(map(id, suffix.trainable_weights)) == list(
        map(id, model.trainable_weights)
    )
    assert prefix.trainable_variables == []


def test_an_implicit_mask_is_given_as_it_is() -> None:
    model = text_model()
    regimes.apply(model, top)
    given = cut(model)[0].predict_on_batch(TOKENS)
    assert list(given) == ["features_0", "features_0_mask"]
    np.testing.assert_array_equal(given["features_0_mask"], TOKENS["token_ids"] != 0)


def broken(layers: Sequence[keras.Layer]) -> keras.Model:
    x = inputs = keras.Input((4,))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


class Noise(keras.Layer):
    """Random at all times: it takes no `training`."""

    def __init__(self) -> None:
        super().__init__(name="noise")
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seeds)


@pytest.mark.parametrize(
    ("first", "begins"),
    [
        # Nothing in it trains, but it drops while the model trains.
        (lambda: L.Dropout(0.5, name="drop"), "drop"),
        (lambda: Noise(), "noise"),
        (lambda: L.BatchNormalization(center=False, scale=False, name="norm"), "norm"),
    ],
)
def test_the_suffix_begins_with_what_is_random_or_keeps_statistics(
    first, begins
) -> None:
    body, changing, head = L.Dense(4, name="body"), first(), L.Dense(2, name="head")
    model = broken([body, changing, head])
    body.trainable = False
    assert [x.operation.name for x in cut(model)[1].calls] == [begins, "head"]
    changing.trainable = False
    # A frozen one runs in inference mode; what is always random stays behind the cut.
    left = ["noise", "head"] if begins == "noise" else ["head"]
    assert [x.operation.name for x in cut(model)[1].calls] == left


def test_what_cannot_be_cut_says_why() -> None:
    model = broken([L.Dense(4), L.Dense(2)])
    with pytest.raises(BackboneError, match="no frozen layer comes before"):
        cut(model)
    with pytest.raises(BackboneError, match="only a functional model"):
        cut(keras.Model())


def test_the_work_of_a_part_counts_matrices_and_not_tables() -> None:
    model = text_model()
    regimes.apply(model, top)
    prefix, suffix = cut(model)
    # 32 stands for the open length; an LSTM multiplies with 8 x 32 and 8 x 32.
    assert prefix.products == 32 * 2 * 8 * 32
    assert suffix.products == 32 * 2 * 8 * 32 + 8 * 3
