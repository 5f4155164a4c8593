"""Rows of language models: what lies in them, and that documents stay apart."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from tflearn import backbones
from tflearn.backbones import graph, import_keras_hub, vocabularies
from tflearn.data import Data, pipeline, sources
from tflearn.objectives.language import causal_lm, isolation, packing
from tflearn.support.errors import BackboneError, ConfigError, DataError

hub = import_keras_hub()
ALPHABET = "abcdefghijklmnopqrstuvwxyz ."
TEXTS = ["the cat sat", "a", "on the mat.", "dogs", "it was a long day in the sun"]

GPT = {
    "vocabulary_size": 30,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 16,
    "dropout": 0.1,
    "max_sequence_length": 16,
}
LLAMA = {
    "vocabulary_size": 30,
    "num_layers": 1,
    "num_query_heads": 2,
    "num_key_value_heads": 1,
    "hidden_dim": 8,
    "intermediate_dim": 16,
}
FALCON = {
    "vocabulary_size": 30,
    "num_layers": 1,
    "num_attention_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
}
BLOOM = {k: v for k, v in GPT.items() if k != "max_sequence_length"}
DECODERS = {
    "gpt2": (hub.models.GPT2Backbone, GPT | {"num_layers": 2}),
    "opt": (hub.models.OPTBackbone, GPT),
    "gpt_neo_x": (hub.models.GPTNeoXBackbone, GPT | {"rotary_percentage": 0.5}),
    "bloom": (hub.models.BloomBackbone, BLOOM),
    "falcon": (hub.models.FalconBackbone, FALCON),
    "llama": (hub.models.LlamaBackbone, LLAMA),
    "mistral": (hub.models.MistralBackbone, LLAMA | {"sliding_window": 16}),
    "qwen": (hub.models.QwenBackbone, LLAMA),
    "phi3": (hub.models.Phi3Backbone, LLAMA),
}
# All families on JAX; on TensorFlow one with a table of positions, one with rotations.
FAMILIES = DECODERS if keras.backend.backend() == "jax" else ("gpt2", "llama")


def letters():
    return vocabularies.characters(lambda: [ALPHABET])


def make(name: str = "gpt2", **changes) -> backbones.Backbone:
    kind, sizes = DECODERS[name]
    architecture = functools.partial(kind, **(sizes | changes))
    return backbones.hub(architecture, tokenizer=letters, max_length=16)


def encode(backbone, texts=TEXTS, split="train"):
    rows = {name: {"text": list(texts)} for name in {"train", split}}
    data = Data(
        source=lambda: sources.arrays(rows),
        target=None,
        truncate=True,
        allow_overlap=True,
    )
    loaded = data.load(target_kind="none").splits[split]
    return pipeline.encode(loaded, backbone.encoder, data=data)


def bind(backbone, **settings):
    pretext = causal_lm(**settings).bind(backbone)
    return pretext, pretext.arrange(encode(backbone), None)


def batch_of(pretext, examples, indices, seed=0):
    return pretext.make_batch(examples, np.array(indices), np.random.default_rng(seed))


def test_every_token_but_the_first_is_predicted_once() -> None:
    pretext, rows = bind(make(), length=8)
    (inputs, targets, weights) = batch_of(pretext, rows, range(len(rows)))
    found = sorted(targets[weights > 0].tolist())
    expected = [i for text in TEXTS for i in letters()([text])[0][1:].tolist()]
    assert found == sorted(expected)
    # A place is filled if and only if it predicts.
    assert ((inputs["padding_mask"] > 0) == (weights > 0)).all()
    assert "5 texts of 'train' are packed" in " ".join(rows.notes)
    assert "1 texts of 'train' have fewer than two tokens" in " ".join(rows.notes)
    assert rows.lengths is None


def test_rows_hold_whole_documents_one_behind_the_other() -> None:
    pretext, rows = bind(make(), length=16)
    inputs, targets, _ = batch_of(pretext, rows, range(len(rows)))
    decode = letters().detokenize
    pieces = []
    for ids, after, numbers in zip(
        inputs["token_ids"], targets, inputs["padding_mask"], strict=True
    ):
        for number in range(1, numbers.max() + 1):
            places = numbers == number
            pieces.append(decode([*ids[places], after[places][-1]]))
    assert "the cat sat" in pieces and "on the mat." in pieces and "dogs" in pieces
    assert len(rows) == 4


@pytest.mark.parametrize("capacity", [4, 7, 50])
def test_bins_hold_everything_once_and_never_too_much(capacity: int) -> None:
    sizes = np.random.default_rng(0).integers(1, capacity + 1, 300).tolist()
    bins = packing.fill(sizes, capacity)
    assert sorted(thing for things in bins for thing in things) == list(range(300))
    assert all(sum(sizes[i] for i in things) <= capacity for things in bins)
    # Best fit decreasing needs at most 11/9 of the optimum, and one bin more.
    assert len(bins) <= 11 / 9 * -(-sum(sizes) // capacity) + 1


def test_a_batch_is_a_pure_function() -> None:
    for mode in ("documents", "stream"):
        pretext, rows = bind(make(), length=8, packing=mode)
        one, two = (batch_of(pretext, rows, [1, 0], seed=3) for _ in range(2))
        np.testing.assert_array_equal(one[0]["token_ids"], two[0]["token_ids"])
        np.testing.assert_array_equal(one[1], two[1])
    other = batch_of(pretext, rows, [1, 0], seed=4)
    assert (other[0]["token_ids"] != one[0]["token_ids"]).any()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_document_in_a_row_is_as_if_it_were_alone(name: str) -> None:
    backbone = make(name, dropout=0.0)
    pretext = causal_lm(length=8).bind(backbone)
    ids = np.random.default_rng(1).integers(2, 30, (2, 8))
    numbers = np.array([[1, 1, 1, 2, 2, 2, 2, 0]] * 2)
    packed = pretext.model.predict_on_batch({"token_ids": ids, "padding_mask": numbers})
    for model, start, end in (
        (pretext.model, 0, 3),
        (pretext.model, 3, 7),
        (pretext.deployed, 3, 7),
    ):
        alone = np.zeros_like(ids)
        alone[:, : end - start] = ids[:, start:end]
        inputs = {"token_ids": alone, "padding_mask": (alone > 0).astype("int32")}
        expected = model.predict_on_batch(inputs)[:, : end - start]
        np.testing.assert_allclose(packed[:, start:end], expected, atol=1e-5)


def test_no_gradient_crosses_a_boundary() -> None:
    backbone = make(dropout=0.0)
    pretext = causal_lm(length=16).bind(backbone)
    numbers = np.array([[1] * 5 + [2] * 11])
    rng = np.random.default_rng(1)
    one = rng.integers(2, 30, (1, 16))
    other = np.where(numbers == 1, rng.integers(2, 30, (1, 16)), one)
    weights = (numbers == 2).astype("float32")
    # One step from the same weights, the loss on the second document alone.
    steps = []
    start = backbone.model.get_weights()
    for ids in (one, other):
        backbone.model.set_weights(start)
        pretext.model.compile(optimizer=keras.optimizers.SGD(1.0), loss=pretext.loss())
        inputs = {"token_ids": ids, "padding_mask": numbers}
        pretext.model.train_on_batch(inputs, one, sample_weight=weights)
        steps.append(backbone.model.get_weights())
    for first, second in zip(*steps, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)
    assert any((a != b).any() for a, b in zip(start, steps[0], strict=True))


def test_the_layers_are_those_of_the_backbone() -> None:
    backbone = make()
    pretext = causal_lm().bind(backbone)
    own = {
        f"backbone/{k}": id(v)
        for k, v in graph.variables_by_path(backbone.model).items()
    }
    found = {k: id(v) for k, v in graph.variables_by_path(pretext.model).items()}
    assert found == own


def test_a_backbone_that_looks_ahead_is_refused() -> None:
    sizes = GPT | {"max_sequence_length": 16}
    bert = backbones.hub(
        functools.partial(hub.models.BertBackbone, **sizes), tokenizer=letters
    )
    with pytest.raises(BackboneError, match="sees the tokens that it should predict"):
        causal_lm(packing="none").bind(bert)


def test_blocks_without_a_mask_take_one_document_a_row() -> None:
    gemma = functools.partial(hub.models.GemmaBackbone, **LLAMA, head_dim=4)
    backbone = backbones.hub(gemma, tokenizer=letters, max_length=32)
    with pytest.raises(BackboneError, match="would see each other"):
        causal_lm().bind(backbone)
    pretext, rows = bind(backbone, packing="none")
    inputs, targets, weights = batch_of(pretext, rows, range(5))
    assert weights.sum(axis=1).tolist() == [len(text) - 1 for text in TEXTS]
    ids = inputs["token_ids"]
    np.testing.assert_array_equal(targets[:, :-1], ids[:, 1:])


def test_documents_that_see_each_other_are_found_out() -> None:
    class Leaky(keras.layers.Layer):
        def call(self, x, decoder_padding_mask=None, decoder_attention_mask=None):
            return keras.ops.cumsum(x, axis=1)

    def build() -> keras.Model:
        inputs = {
            name: keras.Input((None,), dtype="int32", name=name)
            for name in ("token_ids", "padding_mask")
        }
        x = keras.layers.ReversibleEmbedding(30, 8, name="token_embedding")(
            inputs["token_ids"]
        )
        x = Leaky()(x, decoder_padding_mask=inputs["padding_mask"])
        return keras.Model(inputs, x)

    backbone = backbones.function(build, tokenizer=letters, max_length=16)
    with pytest.raises(BackboneError, match="depend on the one before it"):
        isolation.isolate(backbone, backbone.encoder)


def test_windows_of_a_stream_cover_other_splits_once() -> None:
    backbone = make()
    pretext = causal_lm(length=8, packing="stream").bind(backbone)
    rows = pretext.arrange(encode(backbone, split="validation"), None)
    stream = np.concatenate(letters()(TEXTS))
    _, targets, weights = batch_of(pretext, rows, range(len(rows)), seed=1)
    np.testing.assert_array_equal(targets[weights > 0], stream[1:])
    assert len(rows) == -(-(len(stream) - 1) // 8)


def test_windows_of_training_begin_anywhere() -> None:
    pretext, rows = bind(make(), length=8, packing="stream")
    stream = np.concatenate(letters()(TEXTS)).tolist()
    inputs, targets, weights = batch_of(pretext, rows, np.zeros(400, int))
    whole = np.concatenate([inputs["token_ids"], targets[:, -1:]], axis=1)
    windows = {tuple(stream[i : i + 9]) for i in range(len(stream) - 8)}
    assert {tuple(row) for row in whole.tolist()} == windows
    assert weights.all()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"packing": "document"}, "packing is unknown"),
        ({"length": 0}, "number of places"),
        ({"length": 8, "packing": "none"}, "number of places"),
    ],
)
def test_settings_that_make_no_sense(settings, match) -> None:
    with pytest.raises(ConfigError, match=match):
        causal_lm(**settings)


def test_rows_longer_than_the_backbone_takes() -> None:
    with pytest.raises(ConfigError, match="more than the backbone takes"):
        causal_lm(length=17).bind(make())


def test_texts_without_anything_to_predict() -> None:
    backbone = make()
    with pytest.raises(DataError, match="too short"):
        causal_lm().bind(backbone).arrange(encode(backbone, ["a", "b"]), None)


def test_a_file_is_a_row_and_can_be_cut_by_position(tmp_path) -> None:
    path = tmp_path / "poem.txt"
    path.write_bytes(b"one\r\n\r\ntwo\nthree")
    whole = sources.text_files(str(path))["all"]
    assert whole.column("text") == ["one\n\ntwo\nthree"]
    shares = {"train": 0.5, "dev": 0.25, "test": 0.25}
    parts = sources.text_files(str(path), shares=shares)
    texts = {split: table.column("text")[0] for split, table in parts.items()}
    assert list(texts) == ["train", "validation", "test"]
    assert "".join(texts.values()) == "one\n\ntwo\nthree"
    assert len(texts["train"]) == 7
    with pytest.raises(DataError, match="both given and to be cut"):
        sources.text_files({"train": str(path)}, shares=shares)
    path.write_text("x")
    with pytest.raises(DataError, match="too short to be cut"):
        sources.text_files(str(path), shares=shares)
