"""Every head and pooling goes through one contract, on the active backend."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import keras
import numpy as np
import pytest

from tflearn import heads

LENGTH, DIM = 5, 6
TOKENS = (LENGTH, DIM)
MAPS = (3, 4, DIM)
VECTORS = (DIM,)


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer under contract; `output` is its output shape without the batch."""

    make: Callable[..., keras.Layer]
    shape: tuple[int, ...]
    output: tuple[int, ...]

    @property
    def dynamic(self) -> tuple[int | None, ...]:
        return (None, *(None for _ in self.shape[:-1]), self.shape[-1])


def case(
    layer: Callable[..., keras.Layer],
    shape: tuple[int, ...],
    output: tuple[int, ...],
    **arguments: object,
) -> Case:
    return Case(lambda **more: layer(**arguments, **more), shape, output)


POOLINGS = {
    "first_token": case(heads.FirstTokenPooling, TOKENS, (DIM,)),
    "last_token": case(heads.LastTokenPooling, TOKENS, (DIM,)),
    "mean": case(heads.MeanPooling, TOKENS, (DIM,)),
    "max": case(heads.MaxPooling, TOKENS, (DIM,)),
    "attention": case(heads.AttentionPooling, TOKENS, (DIM,)),
    "attention_2": case(heads.AttentionPooling, TOKENS, (DIM,), num_heads=2),
    "average_maps": case(heads.GlobalAveragePooling, MAPS, (DIM,)),
    "gem": case(heads.GeneralizedMeanPooling, MAPS, (DIM,)),
    "gem_fixed": case(heads.GeneralizedMeanPooling, MAPS, (DIM,), p=2.0, learned=False),
}
HEADS = {
    "classes": case(heads.ClassificationHead, VECTORS, (4,), num_classes=4),
    "classes_hidden": case(
        heads.ClassificationHead,
        VECTORS,
        (4,),
        num_classes=4,
        hidden=(8, 7),
        dropout=0.2,
        activation="relu",
    ),
    "classes_cosine": case(
        heads.ClassificationHead, VECTORS, (4,), num_classes=4, cosine=True
    ),
    "classes_cosine_fixed": case(
        heads.ClassificationHead, VECTORS, (4,), num_classes=4, cosine=True, scale=8.0
    ),
    "classes_per_token": case(heads.ClassificationHead, TOKENS, (5, 4), num_classes=4),
    "labels": case(heads.MultiLabelHead, VECTORS, (3,), num_labels=3, hidden=(8,)),
    "labels_cosine": case(
        heads.MultiLabelHead, VECTORS, (3,), num_labels=3, cosine=True
    ),
    "numbers": case(heads.RegressionHead, VECTORS, (2,), num_outputs=2, hidden=(8,)),
    "cosine_logits": case(heads.CosineLogits, VECTORS, (4,), units=4, use_bias=True),
}
CASES = POOLINGS | HEADS
POLICIES = {
    "float32": 1e-6,
    "mixed_bfloat16": 2e-2,
    "mixed_float16": 2e-3,
    "float16": 4e-3,
    "bfloat16": 4e-2,
}


def every(cases: dict[str, Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


def features(case: Case, batch: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, *case.shape)).astype("float32")


def array(tensor: object) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


@every(CASES)
def test_output_shape_is_the_computed_one(case: Case) -> None:
    layer = case.make()
    outputs = layer(features(case))
    assert tuple(outputs.shape) == (3, *case.output)
    assert layer.compute_output_shape((3, *case.shape)) == (3, *case.output)
    symbolic = case.make()(keras.Input(case.shape))
    assert symbolic.shape == (None, *case.output)


@every(CASES)
def test_unknown_dimensions_are_accepted(case: Case) -> None:
    inputs = keras.Input(batch_shape=case.dynamic)
    layer = case.make()
    model = keras.Model(inputs, layer(inputs))
    assert layer.compute_output_shape(case.dynamic) == tuple(model.output.shape)
    x = features(case)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), array(layer(x)), rtol=1e-5, atol=1e-6
    )


@every(CASES)
def test_config_round_trip(case: Case) -> None:
    layer = case.make(name="chosen", trainable=False, dtype="mixed_bfloat16")
    twin = type(layer).from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    assert (twin.name, twin.trainable) == ("chosen", False)
    assert twin.dtype_policy.name == "mixed_bfloat16"


@every(CASES)
def test_saves_and_loads_in_functional_and_sequential(case: Case, tmp_path) -> None:
    x = features(case)
    inputs = keras.Input(case.shape)
    for number, model in enumerate(
        (
            keras.Model(inputs, case.make()(inputs)),
            keras.Sequential([keras.Input(case.shape), case.make()]),
        )
    ):
        for weight in model.weights:
            if "seed" not in weight.path:
                weight.assign(weight + 0.3)
        path = tmp_path / f"{number}.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
        np.testing.assert_array_equal(
            loaded.predict(x, verbose=0), model.predict(x, verbose=0)
        )


@every(CASES)
@pytest.mark.parametrize("policy", POLICIES)
def test_dtype_policies(case: Case, policy: str) -> None:
    x = features(case)
    exact, layer = case.make(), case.make(dtype=policy)
    exact.build((None, *case.shape))
    layer.build((None, *case.shape))
    layer.set_weights(exact.get_weights())
    outputs = layer(x)
    symbolic = layer(keras.Input(case.shape))
    dtype = keras.backend.standardize_dtype(outputs.dtype)
    assert dtype == keras.backend.standardize_dtype(symbolic.dtype)
    mixed_head = policy.startswith("mixed") and isinstance(
        layer, heads.ClassificationHead | heads.MultiLabelHead | heads.RegressionHead
    )
    assert dtype == ("float32" if mixed_head else layer.compute_dtype)
    assert all(
        keras.backend.standardize_dtype(w.dtype) == layer.variable_dtype
        for w in layer.trainable_weights
    )
    expected = array(exact(x))
    tolerance = POLICIES[policy] * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(array(outputs), expected, atol=tolerance)


@every(CASES)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float16"])
def test_a_training_step_moves_the_weights(case: Case, policy: str) -> None:
    layer = case.make(dtype=policy)
    inputs = keras.Input(case.shape)
    # A shift, since the length of features means nothing to a cosine.
    model = keras.Model(inputs, layer(Shift()(inputs)))
    before = [array(weight) for weight in model.trainable_weights]
    model.compile(keras.optimizers.SGD(0.5), keras.losses.MeanSquaredError())
    loss = model.train_on_batch(features(case), np.ones((3, *case.output), "float32"))
    assert math.isfinite(float(loss))
    for weight, old in zip(model.trainable_weights, before, strict=True):
        new = array(weight)
        assert np.isfinite(new).all(), weight.path
        assert (new != old).any(), weight.path


@every(CASES)
def test_frozen_layer_stays(case: Case) -> None:
    layer = case.make(trainable=False)
    layer.build((None, *case.shape))
    assert layer.trainable_variables == []


@every(POOLINGS)
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float16"])
@pytest.mark.parametrize("garbage", [1e4, float("nan"), float("inf")])
def test_padded_positions_do_not_matter(
    case: Case, policy: str, garbage: float
) -> None:
    x = features(case)
    mask = np.random.default_rng(1).random((3, *case.shape[:-1])) < 0.5
    mask[:, 0] = True
    dirty = np.where(mask[..., None], x, garbage).astype("float32")
    layer = case.make(dtype=policy)
    clean = array(layer(x, mask=mask))
    assert np.isfinite(clean).all()
    np.testing.assert_array_equal(array(layer(dirty, mask=mask)), clean)
    as_numbers = array(layer(dirty, mask=mask.astype("int32")))
    np.testing.assert_array_equal(as_numbers, clean)


@every(POOLINGS)
@pytest.mark.parametrize("policy", ["float32", "float16"])
def test_empty_rows_give_zeros_and_finite_gradients(case: Case, policy: str) -> None:
    x = features(case)
    mask = np.ones((3, *case.shape[:-1]), "int32")
    mask[1] = 0
    inputs = keras.Input(case.shape)
    masks = keras.Input(case.shape[:-1], dtype="int32")
    # The scale in front gets every gradient that comes through the pooling.
    pooled = case.make(dtype=policy)(Scale()(inputs), mask=masks)
    model = keras.Model([inputs, masks], heads.CosineLogits(2, dtype=policy)(pooled))
    assert (array(case.make()(x, mask=mask))[1] == 0).all()
    model.compile(keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError())
    model.train_on_batch([x, mask], np.ones((3, 2), "float32"))
    for weight in model.trainable_weights:
        assert np.isfinite(array(weight)).all(), weight.path


class Shift(keras.layers.Layer):
    """Adds one weight to each feature."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.shift = self.add_weight(shape=input_shape[-1:], initializer="zeros")

    def call(self, inputs: object) -> object:
        return inputs + self.shift


class Scale(keras.layers.Layer):
    """Multiplies by one weight."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs: object) -> object:
        return inputs * self.scale


@pytest.mark.parametrize(
    "name", ["first_token", "last_token", "mean", "max", "attention"]
)
def test_implicit_masks_are_those_of_keras(name: str) -> None:
    ids = np.array([[3, 5, 0, 0], [1, 2, 3, 4], [0, 0, 7, 6]])
    embedding = keras.layers.Embedding(10, DIM, mask_zero=True)
    pooling = POOLINGS[name].make()
    implicit = keras.Sequential([embedding, pooling])(ids)
    table = array(embedding.embeddings)
    table[0] = 9.0
    explicit = pooling(table[ids], mask=ids != 0)
    np.testing.assert_allclose(array(implicit), array(explicit), rtol=1e-6)
    assert not np.allclose(array(implicit), array(pooling(table[ids])))


def test_head_over_tokens_passes_the_mask_on() -> None:
    inputs = keras.Input((None,), dtype="int32")
    tokens = keras.layers.Embedding(10, DIM, mask_zero=True)(inputs)
    model = keras.Model(inputs, heads.ClassificationHead(3)(tokens))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ids, targets = np.array([[3, 5, 0, 0]]), np.array([[1, 2, 0, 0]])
    other = np.array([[1, 2, 2, 1]])
    assert model.test_on_batch(ids, targets) == model.test_on_batch(ids, other)


def test_pooling_values() -> None:
    x = np.array([[[1.0, -8.0], [3.0, -4.0], [5.0, -6.0], [9.0, 9.0]]])
    mask = np.array([[0, 1, 1, 0]])
    expected = {
        heads.FirstTokenPooling: [3, -4],
        heads.LastTokenPooling: [5, -6],
        heads.MeanPooling: [4, -5],
        heads.MaxPooling: [5, -4],
        heads.AttentionPooling: [4, -5],  # queries start at zero: the mean
    }
    for layer, values in expected.items():
        np.testing.assert_allclose(array(layer()(x, mask=mask)), [values], rtol=1e-6)


def test_attention_prefers_what_the_query_asks_for() -> None:
    layer = heads.AttentionPooling()
    layer.build((None, None, 2))
    layer.set_weights([np.array([[50.0], [0.0]])])
    x = np.array([[[0.0, 1.0], [2.0, 5.0], [1.0, 1.0]]])
    np.testing.assert_allclose(array(layer(x)), [[2.0, 5.0]], rtol=1e-6)


@pytest.mark.parametrize("p", [0.5, 1.0, 3.0, 200.0])
def test_generalized_mean_is_its_formula(p: float) -> None:
    x = np.random.default_rng(0).uniform(0.1, 4.0, size=(2, 3, 3, 2))
    expected = (x**p).mean(axis=(1, 2)) ** (1 / p)
    layer = heads.GeneralizedMeanPooling(p)
    np.testing.assert_allclose(array(layer(x.astype("float32"))), expected, rtol=1e-4)


def test_generalized_mean_clips_negative_features() -> None:
    outputs = array(heads.GeneralizedMeanPooling()(np.full((1, 2, 2, 1), -3.0)))
    np.testing.assert_allclose(outputs, [[1e-6]], rtol=1e-4)


@pytest.mark.parametrize(
    "layer", [heads.GlobalAveragePooling, heads.GeneralizedMeanPooling]
)
def test_channels_first_is_the_transposed(layer: type[keras.Layer]) -> None:
    x = np.random.default_rng(0).random((2, 3, 4, 5)).astype("float32")
    first = layer(data_format="channels_first")
    turned = array(first(np.moveaxis(x, -1, 1)))
    np.testing.assert_allclose(turned, array(layer()(x)), rtol=1e-6)
    assert first.compute_output_shape((2, 5, 3, 4)) == (2, 5)


def test_cosine_logits_ignore_length_and_are_bounded() -> None:
    x = np.random.default_rng(0).normal(size=(4, DIM)).astype("float32")
    layer = heads.CosineLogits(3, scale=8.0)
    logits = array(layer(x))
    np.testing.assert_allclose(array(layer(100 * x)), logits, rtol=1e-4)
    assert np.abs(logits).max() <= 8.0
    assert (array(layer(np.zeros((1, DIM)))) == 0).all()


def test_cosine_scale_is_learned_unless_it_is_given() -> None:
    names = {
        scale: {w.name for w in built(heads.CosineLogits(3, scale=scale)).weights}
        for scale in (None, 8.0)
    }
    assert names == {None: {"kernel", "log_scale"}, 8.0: {"kernel"}}


def test_layer_names_are_those_that_rules_address() -> None:
    head = built(heads.ClassificationHead(3, hidden=(8, 4), dropout=0.1, name="head"))
    assert {w.path for w in head.trainable_weights} == {
        f"head/{layer}/{weight}"
        for layer in ("hidden_0", "hidden_1", "logits")
        for weight in ("kernel", "bias")
    }


def test_dropout_acts_in_training_only() -> None:
    head = heads.ClassificationHead(3, dropout=0.9)
    x = np.ones((1, 64), "float32")
    assert (array(head(x)) == array(head(x, training=False))).all()
    assert (array(head(x)) != array(head(x, training=True))).any()


def test_the_global_policy_reaches_the_head() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        head = heads.ClassificationHead(3, hidden=(4,))
    finally:
        keras.config.set_dtype_policy("float32")
    assert head.hidden_layers[0].compute_dtype == "bfloat16"
    assert head.output_layer.compute_dtype == "float32"


def built(layer: keras.Layer) -> keras.Layer:
    layer(np.ones((2, DIM), "float32"))
    return layer


MISTAKES = {
    "one class": (lambda: heads.ClassificationHead(1), "at least 2 classes"),
    "no label": (lambda: heads.MultiLabelHead(0), "num_labels is a positive"),
    "no number": (lambda: heads.RegressionHead(0), "num_outputs is a positive"),
    "hidden size": (lambda: heads.RegressionHead(hidden=(0,)), "hidden sizes"),
    "dropout": (lambda: heads.MultiLabelHead(2, dropout=1.0), "dropout is a share"),
    "useless scale": (
        lambda: heads.ClassificationHead(2, scale=8.0),
        "set cosine=True",
    ),
    "scale": (lambda: heads.CosineLogits(2, scale=0.0), "scale must be positive"),
    "units": (lambda: heads.CosineLogits(0), "units is a positive"),
    "queries": (lambda: heads.AttentionPooling(0), "num_heads is a positive"),
    "query split": (
        lambda: heads.AttentionPooling(4)(np.ones((1, 2, 6))),
        "num_heads=4 for 6 features",
    ),
    "exponent": (lambda: heads.GeneralizedMeanPooling(0.0), "must be positive"),
    "format": (
        lambda: heads.GlobalAveragePooling(data_format="last"),
        "unknown data_format",
    ),
    "tokens as vectors": (
        lambda: heads.MeanPooling()(keras.Input((6,))),
        r"expected: \(batch, length, dim\)",
    ),
    "maps as vectors": (
        lambda: heads.GlobalAveragePooling()(keras.Input((6,))),
        r"\(batch, height, width, channels\)",
    ),
    "unknown features": (
        lambda: heads.ClassificationHead(2)(keras.Input((None,))),
        "known number of features",
    ),
}


@pytest.mark.parametrize("make, message", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_explained(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?i){message}"):
        make()
