"""Objectives that text teaches by itself: one contract for all, then each alone."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from tflearn import backbones, objectives, regimes
from tflearn.backbones import graph, import_keras_hub, vocabularies
from tflearn.data import Data, pipeline, sources
from tflearn.objectives.language import masking, scores, spans, tokens
from tflearn.objectives.language.replaced_tokens import (
    SCORES,
    ReplacedTokenScores,
    ReplaceTokens,
)
from tflearn.regimes import trainability
from tflearn.support.errors import BackboneError, ConfigError

hub = import_keras_hub()
TEXTS = [
    "the little cats were sleeping on the warm mats",
    "the dogs were running in the gardens",
    "little dogs were sleeping in the sun",
    "the warm sun was shining on the gardens",
] * 2
SIZES = {
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "dropout": 0.1,
}
PAIRED = ("pad", "unknown", "start", "separator", "mask")


def word_pieces():
    return vocabularies.wordpiece(
        lambda: TEXTS, vocabulary_size=60, special_tokens=PAIRED
    )


def byte_pairs(special=("pad", "mask", "end")):
    return vocabularies.bpe(lambda: TEXTS, vocabulary_size=300, special_tokens=special)


def bert(tokenizer=word_pieces, **changes):
    return backbones.hub(
        functools.partial(
            hub.models.BertBackbone, **SIZES | changes, max_sequence_length=32
        ),
        tokenizer=tokenizer,
    )


def gpt(tokenizer=byte_pairs):
    return backbones.hub(
        functools.partial(hub.models.GPT2Backbone, **SIZES, max_sequence_length=32),
        tokenizer=tokenizer,
    )


def t5(extra: int = 20):
    size = word_pieces().vocabulary_size() + extra
    architecture = functools.partial(
        hub.models.T5Backbone, **SIZES, vocabulary_size=size
    )
    return backbones.hub(architecture, tokenizer=word_pieces, max_length=32)


CONTRACT = {
    "causal_lm": (gpt, objectives.causal_lm),
    "masked_lm": (bert, objectives.masked_lm),
    "span_corruption": (t5, objectives.span_corruption),
    "replaced_tokens": (
        bert,
        functools.partial(objectives.replaced_tokens, weight=5.0),
    ),
    "simcse": (bert, objectives.simcse),
}


def encode(backbone, texts=TEXTS):
    rows = {"train": {"text": list(texts)}}
    data = Data(source=lambda: sources.arrays(rows), target=None, truncate=True)
    split = data.load(target_kind="none").splits["train"]
    return pipeline.encode(split, backbone.encoder, data=data)


def rng(seed: int = 0) -> np.random.Generator:
    return pipeline.generator(seed, 0)


def array(value) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value))


@pytest.fixture(params=CONTRACT, scope="module")
def made(request):
    keras.utils.set_random_seed(0)
    make_backbone, factory = CONTRACT[request.param]
    backbone = make_backbone()
    pretext = factory().bind(backbone)
    return backbone, factory(), pretext, pretext.arrange(encode(backbone), None)


def test_the_loss_becomes_metrics(made) -> None:
    _, objective, pretext, examples = made
    indices = np.arange(min(4, len(examples)))
    inputs, targets, *weights = pretext.make_batch(examples, indices, rng())
    outputs = pretext.model.predict_on_batch(inputs)
    rows = pretext.statistics(outputs, targets, weights[0] if weights else None)
    means = {name: array(row).astype("float64") for name, row in rows.items()}
    assert {row.shape for row in means.values()} == {indices.shape}
    found = pretext.summarize({name: row.mean() for name, row in means.items()})
    assert objective.headline in found
    expected = float(array(pretext.loss()(targets, outputs, *weights)))
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
    several = pretext.summarize({k: np.stack([v, v + 1]) for k, v in means.items()})
    assert {value.shape for value in several.values()} == {(2, len(indices))}


def test_a_batch_is_a_pure_function(made) -> None:
    _, _, pretext, examples = made
    indices = np.array([1, 0])[: len(examples)]
    one, two = (pretext.make_batch(examples, indices, rng(3)) for _ in range(2))
    first, second = keras.tree.flatten(one), keras.tree.flatten(two)
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_model_is_made_of_the_backbone_and_works_without_the_run(
    made, tmp_path
) -> None:
    backbone, _, pretext, examples = made
    whole = backbone.seq2seq or backbone.model
    own = {f"backbone/{k}": id(v) for k, v in graph.variables_by_path(whole).items()}
    found = {k: id(v) for k, v in graph.variables_by_path(pretext.model).items()}
    assert own.items() <= found.items()
    assert {p for p in trainability.layer_paths(pretext.model)} >= {"backbone"}
    deployed = pretext.deployed or pretext.model
    inputs = pretext.make_batch(examples, np.array([0]), rng())[0]
    inputs = {name: inputs[name] for name in deployed.input}
    deployed.save(tmp_path / "model.keras")
    loaded = backbones.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict_on_batch(inputs), deployed.predict_on_batch(inputs), atol=1e-6
    )
    inner = [layer for layer in loaded.layers if layer.name == "backbone"]
    assert len(inner) == 1 and type(inner[0]) is type(whole)


def test_a_new_start_gives_every_layer_new_values(made) -> None:
    backbone, _, pretext, _ = made
    before = pretext.model.get_weights()
    keras.utils.set_random_seed(1)
    census = regimes.apply(pretext.model, regimes.scratch(), blocks=backbone.blocks)
    regimes.reinitialize(pretext.model, census)
    changed = [
        (a != b).any()
        for a, b in zip(before, pretext.model.get_weights(), strict=True)
        if np.std(a) > 0 and a.dtype.kind == "f"
    ]
    assert changed and all(changed)


def test_freezing_the_backbone_freezes_what_the_head_shares_with_it() -> None:
    pretext = objectives.masked_lm().bind(bert())
    census = regimes.apply(
        pretext.model, [regimes.freeze("backbone/*"), regimes.train("head/*")]
    )
    trained = set(census.paths("trained"))
    assert trained == {"head/transform/dense", "head/transform/norm", "head/bias"}
    assert not any("backbone" in v.path for v in pretext.model.trainable_variables)


def test_logits_of_their_own_are_part_of_the_head() -> None:
    objective = objectives.masked_lm(whole_word=True, tie_embeddings=False)
    pretext = objective.bind(bert())
    assert set(trainability.layer_paths(pretext.model)) >= {"head/logits"}
    inputs = pretext.make_batch(encode(bert()), np.arange(2), rng())[0]
    places = inputs["masked_positions"].shape[1]
    outputs = pretext.model.predict_on_batch(inputs)
    assert outputs.shape == (2, places, word_pieces().vocabulary_size())


@pytest.mark.parametrize(
    ("backbone", "objective", "match"),
    [
        (gpt, objectives.masked_lm, "sees both sides"),
        (gpt, objectives.replaced_tokens, "sees both sides"),
        (
            functools.partial(bert, functools.partial(byte_pairs, ("pad",))),
            objectives.masked_lm,
            "needs a mask token",
        ),
        (bert, objectives.span_corruption, "needs an encoder-decoder"),
        (bert, objectives.causal_lm, "sees the tokens that it should predict"),
        (functools.partial(bert, dropout=0.0), objectives.simcse, "with dropout"),
    ],
)
def test_a_backbone_of_the_wrong_kind(backbone, objective, match) -> None:
    with pytest.raises(BackboneError, match=match):
        objective().bind(backbone())


def test_images_are_no_text() -> None:
    def build() -> keras.Model:
        return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])

    for name in (
        "causal_lm",
        "masked_lm",
        "span_corruption",
        "replaced_tokens",
        "simcse",
    ):
        with pytest.raises(ConfigError, match="needs a backbone of text"):
            getattr(objectives, name)().bind(backbones.function(build))


# Masked tokens.


def masked_rows(count: int = 2000, **settings):
    ids = np.tile(np.arange(5, 45, dtype="int32"), (count, 1))
    ids[:, 0], ids[:, -8:] = 2, 0
    eligible = ids > 4
    settings = masking.Masking(**settings)
    chosen = masking.choose_tokens(eligible, settings, rng())
    found = masking.mask(
        ids, chosen, settings, rng(1), mask_id=4, replacements=np.arange(5, 60)
    )
    return ids, eligible, found


def test_as_many_tokens_are_masked_as_declared() -> None:
    ids, eligible, found = masked_rows(rate=0.2)
    assert found.weights.sum() / eligible.sum() == pytest.approx(0.2, abs=0.002)
    kept = np.take_along_axis(found.ids, found.positions, 1)[found.weights > 0]
    truth = found.targets[found.weights > 0]
    assert (kept == 4).mean() == pytest.approx(0.8, abs=0.01)
    assert (kept == truth).mean() == pytest.approx(0.1 + 0.1 / 55, abs=0.01)
    untouched = np.ones_like(eligible)
    np.put_along_axis(untouched, found.positions, False, axis=1)
    np.testing.assert_array_equal(found.ids[untouched], ids[untouched])


def test_special_tokens_are_never_masked_and_never_put_in() -> None:
    ids, eligible, found = masked_rows(rate=0.5, random=0.9, keep=0.0)
    np.testing.assert_array_equal(found.ids[~eligible], ids[~eligible])
    assert set(np.unique(found.ids[eligible])) <= set(range(4, 60))
    backbone = bert()
    special = tokens.special_ids(backbone.encoder)
    assert special.tolist() == list(range(len(PAIRED)))
    assert not set(special) & set(tokens.ordinary_ids(backbone.encoder))


def test_no_place_is_chosen_twice() -> None:
    _, _, found = masked_rows(rate=0.4)
    for places, weights in zip(found.positions[:50], found.weights[:50], strict=True):
        chosen = places[weights > 0]
        assert len(set(chosen.tolist())) == len(chosen) >= 1


def test_a_text_without_tokens_to_mask_has_no_weight() -> None:
    eligible = np.zeros((2, 8), bool)
    eligible[1, 3] = True
    settings = masking.Masking()
    for choose in (
        masking.choose_tokens,
        lambda e, *rest: masking.choose_words(e, np.zeros_like(e), *rest),
    ):
        positions, weights = choose(eligible, settings, rng())
        assert weights.sum(axis=1).tolist() == [0, 1]
        assert positions[1, 0] == 3


def test_words_are_masked_as_a_whole() -> None:
    # Words of 1, 2 and 3 tokens in turn, special tokens at both ends.
    continues = np.array([[False, False, False, True, False, True, True] * 4 + [True]])
    eligible = np.ones_like(continues)
    eligible[0, 0] = eligible[0, -1] = False
    settings = masking.Masking(rate=0.3)
    word = np.cumsum(~continues[0])
    sizes = []
    for seed in range(200):
        chosen, weights = masking.choose_words(eligible, continues, settings, rng(seed))
        places = chosen[weights > 0]
        for number in set(word[places].tolist()):
            inside = (word == number) & eligible[0]
            assert set(np.flatnonzero(inside)) <= set(places)
        sizes.append(len(places))
    assert np.mean(sizes) == pytest.approx(0.3 * eligible.sum(), rel=0.1)


@pytest.mark.parametrize(
    ("tokenizer", "text", "words"),
    [
        (word_pieces, "the gardens", ["the", "gardens"]),
        (byte_pairs, "the gardens", ["the", " gardens"]),
    ],
)
def test_where_words_begin(tokenizer, text, words) -> None:
    encoder = bert(tokenizer).encoder
    continues = tokens.continues_word(encoder)
    ids = encoder.tokenizer([text])[0]
    parts = np.split(ids, np.flatnonzero(~continues[ids[1:]]) + 1)
    assert [encoder.tokenizer.detokenize(part) for part in parts] == words


def test_a_vocabulary_without_words() -> None:
    letters = functools.partial(
        vocabularies.characters, lambda: TEXTS, special_tokens=PAIRED
    )
    with pytest.raises(ConfigError, match="where words begin"):
        objectives.masked_lm(whole_word=True).bind(bert(letters))


# Figures.


@pytest.mark.parametrize(
    "tokenizer",
    [
        byte_pairs,
        vocabularies.utf8_bytes,
        functools.partial(vocabularies.characters, lambda: ["Größe: µ, 猫"]),
    ],
)
def test_the_bytes_of_tokens_add_up_to_the_text(tokenizer) -> None:
    made = tokenizer()
    sizes = tokens.token_bytes(made)
    text = "Größe: µ, 猫"
    assert sizes[made([text])[0]].sum() == len(text.encode())
    assert sizes[0] == 0


def test_bytes_of_pieces_count_each_space_once() -> None:
    made = word_pieces()
    sizes = tokens.token_bytes(made)
    # The space in front of the first word is counted too.
    assert sizes[made(["the little cats"])[0]].sum() == len(" the little cats")


def test_statistics_are_sums_over_tokens() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(3, 4, 5)).astype("float32")
    targets = generator.integers(0, 5, (3, 4)).astype("int32")
    weights = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], "float32")
    sizes = np.array([1, 2, 3, 4, 5], "float32")
    found = scores.statistics(logits, targets, weights, bytes_of_token=sizes)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nll = -np.log(np.take_along_axis(shares, targets[..., None], -1)[..., 0])
    expected = {
        "nll": (nll * weights).sum(1),
        "correct": ((logits.argmax(-1) == targets) * weights).sum(1),
        "tokens": weights.sum(1),
        "bytes": (sizes[targets] * weights).sum(1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(array(found[name]), values, rtol=1e-5)
    metrics = scores.summarize({k: v.mean() for k, v in expected.items()})
    mean = (nll * weights).sum() / 6
    assert metrics["loss"] == pytest.approx(mean)
    assert metrics["perplexity"] == pytest.approx(np.exp(mean))
    per_byte = (nll * weights).sum() / np.log(2) / (sizes[targets] * weights).sum()
    assert metrics["bits_per_byte"] == pytest.approx(per_byte)


# Spans.


@pytest.mark.parametrize("length", [2, 3, 7, 20, 100])
def test_what_was_cut_out_can_be_put_back(length: int) -> None:
    settings = spans.Spans(rate=0.3, mean_length=2)
    ids = np.arange(100, 100 + length)
    marks = np.arange(1, 60)
    for seed in range(20):
        chosen = settings.choose(length, rng(seed))
        text, cut = spans.corrupt(ids, chosen, marks)
        noise, count = settings.counts(length)
        assert (chosen > 0).sum() == noise and chosen.max() == count
        assert len(text) == length - noise + count and len(cut) == noise + count
        most_noise, most_count = settings.most(length)
        assert noise <= most_noise and count <= most_count
        parts = np.split(cut, np.flatnonzero(cut < 100)[1:])
        inside = {part[0]: part[1:] for part in parts}
        back = [[i] if i >= 100 else inside[i].tolist() for i in text.tolist()]
        assert np.concatenate(back).tolist() == ids.tolist()


def test_spans_are_cut_out_in_the_declared_numbers() -> None:
    settings = spans.Spans()
    assert settings.counts(512) == (77, 26)
    assert settings.counts(1) == (0, 0)
    sizes = np.bincount(settings.choose(512, rng()))[1:]
    assert sizes.sum() == 77 and sizes.min() >= 1


def test_a_batch_of_spans_has_one_shape_and_ends() -> None:
    backbone = t5()
    pretext = objectives.span_corruption().bind(backbone)
    examples = encode(backbone)
    inputs, targets, weights = pretext.make_batch(examples, np.arange(4), rng())
    size = word_pieces().vocabulary_size()
    assert inputs["encoder_token_ids"].max() == size + 19
    assert (inputs["decoder_token_ids"][:, 0] == 0).all()
    np.testing.assert_array_equal(inputs["decoder_token_ids"][:, 1:], targets[:, :-1])
    ends = weights.sum(axis=1).astype(int) - 1
    assert (targets[np.arange(4), ends] == backbone.encoder.packing.end[0]).all()
    assert (targets[:, 0] == size + 19).all()
    assert (targets[weights == 0] == 0).all()


def test_sentinels_are_the_mask_token_where_there_is_no_room() -> None:
    backbone = t5(extra=0)
    pretext = objectives.span_corruption().bind(backbone)
    inputs, targets, _ = pretext.make_batch(encode(backbone), np.arange(2), rng())
    mask = word_pieces().mask_token_id
    assert (targets[:, 0] == mask).all() and (inputs["encoder_token_ids"] == mask).any()
    with pytest.raises(ConfigError, match="fewer sentinels than spans"):
        objectives.span_corruption(mean_length=1).bind(t5(extra=1))


# Replaced tokens.


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    shares = np.array([0.5, 0.3, 0.2])
    count = 3000
    draws = rng().random((count, 1)).astype("float32")
    draws[-1] = -1
    found = ReplaceTokens()(
        np.full((count, 4), 9),
        np.ones((count, 1), "int32"),
        draws,
        np.tile(np.log(shares), (count, 1, 1)).astype("float32"),
    )
    found = array(found)
    assert (found[:, [0, 2, 3]] == 9).all()
    assert found[-1, 1] == 9
    counts = np.bincount(found[:-1, 1], minlength=3) / (count - 1)
    np.testing.assert_allclose(counts[:3], shares, atol=0.03)


def test_a_drawn_token_that_was_there_is_no_lie() -> None:
    original = np.array([[5, 6, 7, 0]])
    replaced = np.array([[5, 6, 8, 0]])
    logits = np.zeros((1, 3, 10), "float32")
    found = ReplacedTokenScores()(
        original,
        replaced,
        np.array([[1, 2, 0]]),
        np.array([[0.1, 0.1, -1]], "float32"),
        logits,
        np.array([[-1.0, 2.0, 3.0, 9.0]], "float32"),
        np.array([[1, 1, 1, 0]]),
    )
    sums = dict(zip(SCORES, array(found)[0], strict=True))
    assert sums["generator_nll"] == pytest.approx(2 * np.log(10), rel=1e-5)
    assert sums["masked"] == 2 and sums["tokens"] == 3 and sums["replaced"] == 1
    assert sums["discriminator_correct"] == 2
    expected = np.log1p(np.exp([-1, 2, -3])).sum()
    assert sums["discriminator_nll"] == pytest.approx(expected, rel=1e-5)


# SimCSE.


def test_dropout_makes_two_views_in_training_only() -> None:
    pretext = objectives.simcse().bind(bert())
    examples = encode(bert())
    inputs, targets = pretext.make_batch(examples, np.arange(4), rng())
    trained = array(pretext.model(inputs, training=True))
    assert trained.shape == (4, 2, 16)
    assert np.abs(trained[:, 0] - trained[:, 1]).max() > 1e-3
    still = pretext.model.predict_on_batch(inputs)
    np.testing.assert_allclose(still[:, 0], still[:, 1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(trained, axis=-1), 1, rtol=1e-5)
    assert len(set(targets.tolist())) == 4


def test_equal_texts_are_not_pushed_apart() -> None:
    pretext = objectives.simcse().bind(bert())
    _, numbers = pretext.make_batch(encode(bert()), np.array([1, 0, 1]), rng())
    assert numbers[0] == numbers[2] != numbers[1]


def test_texts_are_compared_in_one_random_order_in_evaluation() -> None:
    examples = encode(bert())
    arranged = objectives.simcse().bind(bert()).arrange(examples, None)
    assert arranged.compared and not examples.compared
    orders = [
        np.concatenate(list(pipeline.ordered_indices(x, batch_size=2))).tolist()
        for x in (arranged, arranged, examples)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


@pytest.mark.parametrize(
    ("factory", "settings", "match"),
    [
        (objectives.masked_lm, {"rate": 0.0}, "is a share"),
        (objectives.masked_lm, {"keep": 0.6, "random": 0.6}, "shares of the chosen"),
        (objectives.span_corruption, {"mean_length": 0.5}, "in these numbers"),
        (objectives.replaced_tokens, {"generator_size": 0.0}, "these numbers"),
        (objectives.simcse, {"temperature": 0.0}, "temperature is positive"),
    ],
)
def test_settings_that_make_no_sense(factory, settings, match) -> None:
    with pytest.raises(ConfigError, match=match):
        factory(**settings)
