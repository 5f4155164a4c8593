"""Text to text: what is learned, what is measured, and what is generated from it."""

from __future__ import annotations

import functools
import importlib
import json
import pathlib
from typing import Any

import keras
import numpy as np
import pytest

from tflearn import backbones, objectives
from tflearn.backbones import Backbone, encoder_files, vocabularies
from tflearn.data import Data, pipeline
from tflearn.data.sources import generated
from tflearn.evaluation import Scorer, generation, sentinels
from tflearn.objectives.pretext import Pretext
from tflearn.support.errors import BackboneError, ConfigError, DataError

line = importlib.import_module("tflearn.run")
hub = backbones.import_keras_hub()
LETTERS = "abcd"
SIZES = {
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "dropout": 0.0,
}
T5_ROLES, BART_ROLES = ("pad", "end"), ("pad", "start", "end")
PAD, T5_END, START, BART_END = 0, 1, 1, 2


def make(architecture: Any, roles: tuple[str, ...], **sizes: Any) -> Backbone:
    def tokenizer() -> vocabularies.TrainedTokenizer:
        return vocabularies.characters(lambda: [LETTERS], special_tokens=roles)

    built = functools.partial(architecture, **SIZES | sizes)
    return backbones.hub(built, tokenizer=tokenizer, max_length=8)


def t5(roles: tuple[str, ...] = T5_ROLES, **sizes: Any) -> Backbone:
    return make(hub.models.T5Backbone, roles, **sizes)


def bart(roles: tuple[str, ...] = BART_ROLES) -> Backbone:
    return make(hub.models.BartBackbone, roles, max_sequence_length=8)


def encode(backbone: Backbone, pretext: Pretext, rows: list[dict[str, str]]) -> Any:
    data = Data(source=lambda: {"train": rows}, target="reversed")
    split = data.load(target_kind="text").splits["train"]
    examples = pipeline.encode(split, backbone.encoder, data=data)
    return pretext.arrange(examples, split.targets)


def words(*texts: str) -> list[dict[str, str]]:
    return [{"text": text, "reversed": text[::-1]} for text in texts]


def batch(backbone: Backbone, *texts: str, **arguments: Any) -> tuple[Any, ...]:
    pretext = objectives.seq2seq(**arguments).bind(backbone)
    examples = encode(backbone, pretext, words(*texts))
    made = pretext.make_batch(examples, np.arange(len(texts)), np.random.default_rng(0))
    return (
        {k: v.tolist() for k, v in made[0].items()},
        *(x.tolist() for x in made[1:]),
    )


def test_t5_begins_with_the_padding_token_and_ends_with_the_end_token() -> None:
    a, b = 2, 3
    inputs, targets, weights = batch(t5(), "ab", "aab", max_length=5)
    assert inputs["encoder_token_ids"][0][:4] == [a, b, T5_END, PAD]
    assert inputs["decoder_token_ids"] == [[PAD, b, a, T5_END, PAD], [PAD, b, a, a, 1]]
    assert targets == [[b, a, T5_END, PAD, PAD], [b, a, a, T5_END, PAD]]
    assert weights == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    assert inputs["decoder_padding_mask"] == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


def test_bart_begins_with_end_and_start_and_neither_counts() -> None:
    a, b = 3, 4
    inputs, targets, weights = batch(bart(), "ab", max_length=4)
    assert inputs["encoder_token_ids"][0][:4] == [START, a, b, BART_END]
    assert inputs["decoder_token_ids"] == [[BART_END, START, b, a, BART_END]]
    assert targets == [[START, b, a, BART_END, PAD]]
    assert weights == [[0, 1, 1, 1, 0]]


def test_an_encoder_takes_no_longer_texts_than_its_positions() -> None:
    def build(max_length: int | None) -> Backbone:
        return backbones.hub(
            functools.partial(hub.models.BartBackbone, **SIZES, max_sequence_length=8),
            tokenizer=lambda: vocabularies.characters(lambda: [LETTERS]),
            max_length=max_length,
        )

    encoder: Any = build(None).encoder
    assert encoder.max_length == 8
    with pytest.raises(BackboneError, match="max_length=9. Expected: 1 to 8"):
        build(9)


def test_another_start_can_be_declared() -> None:
    inputs, *_ = batch(t5(), "ab", decoder_start=3)
    assert [row[0] for row in inputs["decoder_token_ids"]] == [3]


def test_too_long_targets_are_an_error_unless_they_are_to_be_cut() -> None:
    message = "1 of 2 targets of 'train' are longer than 3 tokens.*up to 5 tokens"
    with pytest.raises(DataError, match=message):
        batch(t5(), "ab", "abcd", max_length=3)
    pretext = objectives.seq2seq(max_length=3, truncate=True).bind(t5())
    examples = encode(t5(), pretext, words("ab", "abcd"))
    assert "1 of 2 targets of 'train' are longer than 3 tokens and are cut" in (
        examples.notes
    )
    # The end token stays: a text that is cut still ends.
    assert examples.ids[1].tolist() == [5, 4, T5_END]
    with pytest.raises(ConfigError, match="1 to 7: the decoder takes 8, 1 of them"):
        batch(t5(), "ab", max_length=8)


MISTAKES = {
    "needs an encoder-decoder": lambda: make(
        hub.models.BertBackbone, T5_ROLES, max_sequence_length=8
    ),
    "needs an end token": lambda: t5(("pad",)),
    "declare 'pad' among the special_tokens": lambda: t5(("end",)),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_backbone_that_cannot_learn_it_is_an_error(message: str) -> None:
    with pytest.raises((BackboneError, ConfigError), match=message):
        objectives.seq2seq().bind(MISTAKES[message]())


def test_texts_without_targets_are_an_error() -> None:
    pretext = objectives.seq2seq().bind(t5())
    with pytest.raises(ConfigError, match=r"data\.Data\.target"):
        pretext.arrange(None, None)


@functools.cache
def trained() -> tuple[Any, Pretext, list[Any]]:
    """A BART that was taught to write words backwards, and what it showed meanwhile."""
    keras.utils.set_random_seed(0)
    rows = generated.reversed_letters(150, 1, 4, alphabet=LETTERS)
    backbone = bart()
    pretext = objectives.seq2seq(tie_embeddings=False).bind(backbone)
    examples = encode(backbone, pretext, rows)
    everything = np.arange(len(rows))
    batches = pretext.make_batch(examples, everything, np.random.default_rng(0))
    model = keras.Model(pretext.model.input, pretext.model.output)
    model.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss=pretext.loss(),
        weighted_metrics=pretext.metrics(),
    )
    scorer = Scorer(pretext.model, pretext.statistics)
    history = []
    x, y, weights = batches
    for epochs in (1, 69):
        model.fit(x, y, sample_weight=weights, batch_size=50, epochs=epochs, verbose=0)
        found = scorer.score([batches])
        means = {name: row.mean(dtype="float64") for name, row in found.items()}
        history.append(pretext.summarize(means))
    return backbone, pretext, history


@pytest.mark.first_on("jax")
def test_exact_matches_rise() -> None:
    *_, (before, after) = trained()
    assert before["exact_match"] < 0.2 < 0.8 < after["exact_match"]
    assert after["loss"] < before["loss"] / 3
    assert after["perplexity"] == pytest.approx(np.exp(after["loss"]))
    assert before["accuracy"] > before["exact_match"]


def test_an_exact_match_is_what_greedy_decoding_writes() -> None:
    backbone, pretext, *_ = trained()
    # Some of these words are longer than any that the model has seen.
    rows = generated.reversed_letters(150, 4, 5, alphabet=LETTERS, seed=1)
    examples = encode(backbone, pretext, rows)
    batches = pretext.make_batch(examples, np.arange(150), np.random.default_rng(0))
    found = Scorer(pretext.model, pretext.statistics).score([batches])
    made = generation.generate(
        pretext.model,
        backbone.encoder,
        [row["text"] for row in rows],
        max_new_tokens=6,
        batch_size=64,
    )
    right = [
        x.ended and x.text == row["reversed"] for x, row in zip(made, rows, strict=True)
    ]
    assert right == (found["exact"] == 1).tolist()
    assert 0.1 < np.mean(right) < 0.9
    assert made[0].how == "with a cache of keys and values, by BartSeq2SeqLM"


def plain(model: keras.Model) -> keras.Model:
    """The same network under no name that a task of KerasHub is known by."""
    copy: Any = keras.Model(model.input, model.output)
    copy.decoder_prompt = model.decoder_prompt
    return copy


def both(
    model: Any, backbone: Any, sampler: str, max_new_tokens: int = 6
) -> list[list[list[int]]]:
    """Generates with a cache and without."""
    made = []
    for network in (model, plain(model)):
        texts = generation.generate(
            network,
            backbone.encoder,
            ["abc", "d", "bb"],
            max_new_tokens=max_new_tokens,
            sampler=sampler,
        )
        made.append([one.ids.tolist() for one in texts])
        assert texts[0].how.startswith("with " if network is model else "without ")
    return made


@pytest.mark.parametrize(
    "sampler", ["beam:2", pytest.param("contrastive:2", marks=pytest.mark.slow)]
)
def test_samplers_write_the_same_with_a_cache_and_without(sampler: str) -> None:
    backbone, pretext, *_ = trained()
    cached, uncached = both(pretext.model, backbone, sampler)
    assert cached == uncached
    if sampler == "beam:2":
        assert [backbone.encoder.decode(x) for x in cached] == ["cba", "d", "bb"]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["top_k:2", "top_p:0.9", "random"])
def test_random_samplers_draw_the_same_with_a_cache_and_without(sampler: str) -> None:
    backbone, pretext, *_ = trained()
    cached, uncached = both(pretext.model, backbone, sampler)
    assert cached == uncached


def test_t5_with_tied_embeddings_is_decoded_with_a_cache() -> None:
    backbone = t5()
    model: Any = objectives.seq2seq().bind(backbone).model
    # Not trained: random weights with which each text goes its own way.
    rng = np.random.default_rng(0)
    drawn = [rng.normal(0, 0.6, x.shape) for x in model.get_weights() if x.ndim > 1]
    kept = model.get_weights()
    model.set_weights([drawn.pop(0) if x.ndim > 1 else x for x in kept])
    cached, uncached = both(model, backbone, "greedy")
    assert cached == uncached
    assert len(set(map(tuple, cached))) > 1


def test_a_decoder_does_not_write_more_than_it_takes() -> None:
    backbone, pretext, *_ = trained()
    with pytest.raises(ConfigError, match="max_new_tokens=7. Expected: at most 6"):
        generation.generate(pretext.model, backbone.encoder, ["a"], max_new_tokens=7)
    with pytest.raises(ConfigError, match="text 1: 10 tokens"):
        generation.generate(
            pretext.model, backbone.encoder, ["a", "abcdabcd"], max_new_tokens=2
        )


def test_a_run_predicts_texts(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone, pretext, *_ = trained()
    run = write_run(tmp_path / "run", pretext.model, backbone.encoder, "seq2seq")
    (tmp_path / "in.txt").write_text("abc\nabcdabcd\nddb\n")
    target = tmp_path / "out.jsonl"
    flags = ["--mode=predict", f"--run_dir={run}", f"--input={tmp_path}/in.txt"]
    assert line.main([*flags, f"--output={target}"]) == 0
    rows = [json.loads(row) for row in target.read_text().splitlines()]
    assert rows == [
        {"row": 0, "generated": "cba", "tokens": 3, "ended": True},
        {"row": 1, "error": "10 tokens, more than 8"},
        {"row": 2, "generated": "bdd", "tokens": 3, "ended": True},
    ]
    printed = capsys.readouterr().out
    assert "generated with a cache of keys and values, by BartSeq2SeqLM" in printed
    # c b a b d d: four of six tokens, and of four pairs no two alike.
    assert "distinct_1 0.667, distinct_2 1.000" in printed


def write_run(
    folder: pathlib.Path, model: keras.Model, encoder: Any, task: str
) -> pathlib.Path:
    (folder / "model").mkdir(parents=True)
    model.save(folder / "model/model.keras")
    encoder_files.save_encoder(encoder, folder / "model/encoder")
    labels = {
        "task": task,
        "classes": [],
        "input": "text",
        "target": "reversed",
        "kind": "text",
        "max_length": None,
        "truncate": False,
        "temperature": None,
    }
    (folder / "model/labels.json").write_text(json.dumps(labels))
    return folder


def test_sentinels_go_in_and_come_out() -> None:
    size = len(LETTERS) + 2 + 3
    backbone = t5(vocabulary_size=size)
    encoder: Any = backbone.encoder
    text = "a<extra_id_0>bc<extra_id_2>"
    ids = sentinels.tokenize(encoder, ["abc", text], size=size)
    assert [x.tolist() for x in ids] == [[2, 3, 4, T5_END], [2, 8, 3, 4, 6, T5_END]]
    assert sentinels.decode(encoder, ids[1], size=size) == text
    model = objectives.span_corruption(mean_length=1).bind(backbone).model
    (made,) = generation.generate(model, encoder, [text], max_new_tokens=4)
    # Whatever an untrained model writes: nothing but letters and sentinels.
    shown = made.text
    for number in range(3):
        shown = shown.replace(f"<extra_id_{number}>", "")
    assert set(shown) <= set(LETTERS)
