"""Generation continues what the model predicts; diversity counts what repeats."""

from __future__ import annotations

import functools
import importlib
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest

from tflearn import backbones, objectives
from tflearn.backbones import encoder_files, vocabularies
from tflearn.backbones.tokenizers import text_encoder
from tflearn.evaluation import cached, diversity, generation
from tflearn.support.errors import BackboneError, ConfigError

line = importlib.import_module("tflearn.run")
hub = backbones.import_keras_hub()
LETTERS = "abcdefgh"
CONTEXT = 8


def gpt(vocabulary_size: int) -> keras.Model:
    return hub.models.GPT2Backbone(
        vocabulary_size=vocabulary_size,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        max_sequence_length=CONTEXT,
    )


def encoder_of(model: keras.Model, *special: str) -> backbones.TextEncoder:
    tokenizer = vocabularies.characters(lambda: [LETTERS], special_tokens=special)
    return text_encoder(tokenizer, model)


@functools.cache
def random_model(*special: str) -> tuple[keras.Model, backbones.TextEncoder]:
    """A causal language model with random weights: every prompt goes on its own way."""
    keras.utils.set_random_seed(3)
    size = len(LETTERS) + len(special)
    backbone = gpt(size)
    backbone = keras.Model(backbone.input, backbone.output, name="backbone")
    inputs = {
        "token_ids": keras.Input((None,), dtype="int32", name="token_ids"),
        "padding_mask": keras.Input((None,), dtype="int32", name="padding_mask"),
    }
    head = keras.layers.Dense(size, kernel_initializer="orthogonal", name="head")
    model = keras.Model(inputs, head(backbone(inputs)) * 4)
    return model, encoder_of(gpt(size), *special)


def padded(ids: Sequence[int]) -> dict[str, np.ndarray]:
    rest = [0] * (CONTEXT - len(ids))
    return {
        "token_ids": np.array([[*ids, *rest]], "int32"),
        "padding_mask": np.array([[1] * len(ids) + rest], "int32"),
    }


def by_hand(model: keras.Model, prompt: Sequence[int], steps: int) -> list[int]:
    """Greedy decoding as slow and plain as can be."""
    ids = list(prompt)
    for _ in range(steps):
        window = ids[-CONTEXT:]
        logits = np.asarray(model.predict_on_batch(padded(window)))
        ids.append(int(logits[0, len(window) - 1].argmax()))
    return ids[len(prompt) :]


def test_greedy_equals_decoding_by_hand_beyond_the_context_too() -> None:
    model, encoder = random_model()
    prompts = ["ab", "hgfed", "c", "abcdefghabc"]
    made = generation.generate(model, encoder, prompts, max_new_tokens=12)
    for prompt, one in zip(prompts, made, strict=True):
        assert one.ids.tolist() == by_hand(model, encoder.tokenizer([prompt])[0], 12)
        assert one.text == encoder.decode(one.ids)
        assert not one.ended


def test_a_continuation_does_not_depend_on_its_batch() -> None:
    model, encoder = random_model()
    prompts = ["ab", "hgfed", "c"]
    whole, single = (
        generation.generate(
            model, encoder, prompts, max_new_tokens=5, batch_size=batch_size
        )
        for batch_size in (16, 2)
    )
    assert [one.text for one in whole] == [one.text for one in single]


@pytest.mark.parametrize("sampler", ["random", "top_p:0.9"])
def test_a_seed_decides_what_is_drawn(sampler: str) -> None:
    model, encoder = random_model()

    def drawn(seed: int) -> list[str]:
        made = generation.generate(
            model,
            encoder,
            ["ab", "c"],
            max_new_tokens=12,
            sampler=generation.make_sampler(sampler, temperature=3.0),
            seed=seed,
        )
        return [one.text for one in made]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


@pytest.mark.parametrize("sampler", ["top_k:1", "beam:1", "top_p:0.0001"])
def test_samplers_without_a_choice_are_greedy(sampler: str) -> None:
    model, encoder = random_model()
    prompts = ["ab", "hgf"]
    greedy, made = (
        generation.generate(model, encoder, prompts, max_new_tokens=5, sampler=name)
        for name in ("greedy", sampler)
    )
    assert [one.text for one in made] == [one.text for one in greedy]


def log_likelihood(
    model: keras.Model, prompt: Sequence[int], ids: Sequence[int]
) -> float:
    whole = [*prompt, *ids]
    logits = np.asarray(model.predict_on_batch(padded(whole)))[0].astype("float64")
    table = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    places = range(len(prompt) - 1, len(whole) - 1)
    return sum(float(table[i, whole[i + 1]]) for i in places)


def test_as_many_beams_as_there_are_texts_find_the_likeliest() -> None:
    model, encoder = random_model()
    prompt = encoder.tokenizer(["ab"])[0]
    (made,) = generation.generate(
        model, encoder, ["ab"], max_new_tokens=2, sampler="beam:8"
    )
    size = len(LETTERS)
    best = max(
        ([a, b] for a in range(size) for b in range(size)),
        key=lambda ids: log_likelihood(model, prompt, ids),
    )
    assert made.ids.tolist() == best


def test_prompts_of_different_lengths_do_not_disturb_each_others_beams() -> None:
    model, encoder = random_model()
    prompts = ["ab", "hgf", "ba"]
    together = generation.generate(
        model, encoder, prompts, max_new_tokens=4, sampler="beam:3"
    )
    alone = [
        generation.generate(model, encoder, [x], max_new_tokens=4, sampler="beam:3")[0]
        for x in prompts
    ]
    assert [one.text for one in together] == [one.text for one in alone]


def test_contrastive_search_without_alternatives_is_greedy() -> None:
    model, encoder = random_model()
    prompts = ["ab", "hgf"]
    made = generation.generate(
        model, encoder, prompts, max_new_tokens=4, sampler="contrastive:1"
    )
    greedy = generation.generate(model, encoder, prompts, max_new_tokens=4)
    assert [one.text for one in made] == [one.text for one in greedy]
    with pytest.raises(ConfigError, match="Received: .*: 12. Expected: at most 8"):
        generation.generate(
            model, encoder, ["ab"], max_new_tokens=10, sampler="contrastive:2"
        )


def counting_model(*special: str) -> tuple[keras.Model, backbones.TextEncoder]:
    """A model that is sure of the next letter; behind the last one, of token 0."""
    size = len(LETTERS) + len(special)
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "padding_mask")
    }
    table = keras.layers.Embedding(size, size)
    model = keras.Model(inputs, table(inputs["token_ids"]))
    table.set_weights([np.roll(np.eye(size), 1, axis=1) * 100])
    return model, encoder_of(gpt(size), *special)


@pytest.mark.parametrize("special", [("end",), ("end", "pad")])
def test_a_text_ends_at_the_end_token(special: tuple[str, ...]) -> None:
    # Without a pad token, what fills the buffer must not pass for the end.
    model, encoder = counting_model(*special)
    made = generation.generate(model, encoder, ["f", "a", "eh"], max_new_tokens=4)
    assert [one.text for one in made] == ["gh", "bcde", ""]
    assert [one.ended for one in made] == [True, False, True]
    assert made[0].ids.tolist() == encoder.tokenizer(["gh"])[0].tolist()


def test_an_empty_prompt_starts_at_the_start_token() -> None:
    model, encoder = random_model("pad", "start")
    (made,) = generation.generate(model, encoder, [""], max_new_tokens=3)
    assert made.ids.tolist() == by_hand(model, [1], 3)
    with pytest.raises(ConfigError, match="empty prompt.*prompt 1: ''.*'start'"):
        generation.generate(*random_model(), ["a", ""], max_new_tokens=3)


def test_prompts_without_a_token_are_found_before() -> None:
    assert [len(x) for x in generation.read(*random_model(), ["a", ""])] == [1, 0]
    started = generation.read(*random_model("pad", "start"), ["a", ""])
    assert [len(x) for x in started] == [2, 1]


def test_no_prompts_give_no_texts() -> None:
    assert generation.generate(*random_model(), [], max_new_tokens=3) == []


def test_a_model_of_other_inputs_is_refused() -> None:
    _, encoder = random_model()
    names = ("token_ids", "images")
    strange = {name: keras.Input((None,), name=name) for name in names}
    model = keras.Model(strange, strange["token_ids"] + strange["images"])
    with pytest.raises(BackboneError, match="Received: images"):
        generation.generate(model, encoder, ["a"], max_new_tokens=1)


MISTAKES = {
    "no such sampler.*'top_k'": ("top-k", 1.0),
    "Received: top_k:x": ("top_k:x", 1.0),
    "Received: greedy:2": ("greedy:2", 1.0),
    "Received: top_p:1.5": ("top_p:1.5", 1.0),
    "Received: beam:0": ("beam:0", 1.0),
    "temperature 0": ("random", 0.0),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_sampler_that_cannot_be_is_an_error(message: str) -> None:
    described, temperature = MISTAKES[message]
    with pytest.raises(ConfigError, match=message):
        generation.make_sampler(described, temperature=temperature)


@pytest.mark.parametrize("name", generation.SAMPLERS)
def test_every_sampler_has_kerashubs_defaults(name: str) -> None:
    made = generation.make_sampler(name)
    assert made.get_config() == hub.samplers.get(name).get_config()


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_new_tokens=0"):
        generation.generate(*random_model(), ["a"], max_new_tokens=0)


def test_diversity_is_that_of_the_definitions() -> None:
    texts = [[1, 2, 1, 2, 1, 2], [3, 4, 5, 6, 7, 8]]
    assert diversity.distinct_n(texts, n=1) == 8 / 12
    assert diversity.distinct_n(texts, n=2) == 7 / 10
    # 1212, 2121, 1212 and three different ones.
    assert diversity.repetition_rate(texts, n=4) == 1 - 5 / 6
    assert set(diversity.diversity(texts)) == {
        "distinct_1",
        "distinct_2",
        "distinct_3",
        "repetition_4",
    }


def test_texts_that_are_too_short_have_no_figure() -> None:
    assert math.isnan(diversity.distinct_n([[1]], n=2))
    assert math.isnan(diversity.repetition_rate([], n=2))
    assert diversity.diversity([[1]]) == {"distinct_1": 1.0}
    with pytest.raises(ValueError, match="n=0"):
        diversity.distinct_n([[1]], n=0)


@pytest.fixture
def finished_run(tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder of a run that learnt to count through the alphabet."""
    return write_run(tmp_path / "run", *counting_model("end"))


def write_run(
    folder: pathlib.Path,
    model: keras.Model,
    encoder: backbones.TextEncoder,
    **labels: Any,
) -> pathlib.Path:
    (folder / "model").mkdir(parents=True)
    model.save(folder / "model/model.keras")
    encoder_files.save_encoder(encoder, folder / "model/encoder")
    written = {
        "task": "causal_lm",
        "classes": [],
        "input": "text",
        "target": None,
        "kind": "text",
        "max_length": None,
        "truncate": False,
        "temperature": None,
    }
    (folder / "model/labels.json").write_text(json.dumps(written | labels))
    return folder


def predict(run: pathlib.Path, *flags: str) -> int:
    return line.main(["--mode=predict", f"--run_dir={run}", *flags])


def test_predict_continues_lines_of_text(
    finished_run: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The second text is longer than the model takes.
    (tmp_path / "prompts.txt").write_text("f\nabcdefgabcdefgabc\na\n")
    flags = [f"--input={tmp_path}/prompts.txt", "--max_new_tokens=4"]
    tokenize, times = backbones.TextEncoder.tokenize, []

    def counted(self: Any, texts: Any) -> Any:
        times.append(len(texts))
        return tokenize(self, texts)

    monkeypatch.setattr(backbones.TextEncoder, "tokenize", counted)
    assert predict(finished_run, *flags, "--sampler=greedy") == 0
    assert times == [3], "prompts are tokenized once"
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert rows == [
        {"row": 0, "generated": "gh", "tokens": 2, "ended": True},
        {"row": 1, "generated": "defg", "tokens": 4, "ended": False},
        {"row": 2, "generated": "bcde", "tokens": 4, "ended": False},
    ]


def test_predict_keeps_bad_rows_and_prints_diversity(
    finished_run: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"text": "a"}, {"text": ""}, {"text": "b"}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    target = tmp_path / "out.jsonl"
    flags = [f"--input={tmp_path}/in.jsonl", f"--output={target}"]
    assert predict(finished_run, *flags, "--sampler=beam:2", "--temperature=2") == 0
    made = [json.loads(row) for row in target.read_text().splitlines()]
    assert [row.get("generated") for row in made] == ["bcdefgh", None, "cdefgh"]
    assert made[1] == {"row": 1, "error": "empty text"}
    assert "distinct_1 0.538" in capsys.readouterr().out


WRONG_FLAGS = {
    "--max_new_tokens is not a number": "--max_new_tokens=many",
    "--seed is not a number": "--seed=-1",
    "there is no such sampler": "--sampler=best",
    "the sampler cannot work": "--temperature=0",
}


def test_wrong_flags_are_explained(
    finished_run: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "in.txt").write_text("a")
    for message, flag in WRONG_FLAGS.items():
        assert predict(finished_run, f"--input={tmp_path}/in.txt", flag) == 2
        assert message in capsys.readouterr().err


def test_a_run_that_makes_no_texts_says_so(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", *counting_model("end"), task="masked_lm")
    (tmp_path / "in.txt").write_text("a")
    assert predict(run, f"--input={tmp_path}/in.txt", "--sampler=greedy") == 2
    assert "--sampler means nothing to this run" in capsys.readouterr().err
    assert predict(run, f"--input={tmp_path}/in.txt") == 2
    assert "no labels to predict" in capsys.readouterr().err


DECODERS = {
    "GPT2": {"num_heads": 2, "max_sequence_length": 16},
    "Llama": {"num_query_heads": 2, "num_key_value_heads": 1},
    "OPT": {"num_heads": 2, "max_sequence_length": 16},
    "Gemma": {"num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 4},
    "Bloom": {"num_heads": 2},
    "Falcon": {"num_attention_heads": 2, "num_layers": 2},
    "Mistral": {"num_query_heads": 2, "num_key_value_heads": 1},
    "Qwen": {"num_query_heads": 2, "num_key_value_heads": 1},
    "Qwen3": {"num_query_heads": 2, "num_key_value_heads": 1, "head_dim": 4},
    "Phi3": {"num_query_heads": 2, "num_key_value_heads": 1},
}
USUAL = {"vocabulary_size": 9, "num_layers": 2, "hidden_dim": 8, "intermediate_dim": 16}
QUICK = [("GPT2", False)]
SLOW = [(name, True) for name in DECODERS]


def decoder(name: str, *, tied: bool) -> tuple[Any, backbones.TextEncoder]:
    """A language model on one of KerasHub's decoders, and its encoder."""
    architecture = getattr(hub.models, f"{name}Backbone")
    backbone = backbones.hub(
        functools.partial(architecture, **USUAL | DECODERS[name]),
        tokenizer=lambda: vocabularies.characters(
            lambda: [LETTERS], special_tokens=("pad",)
        ),
        max_length=16,
    )
    objective = objectives.causal_lm(packing="none", tie_embeddings=tied)
    model: Any = objective.bind(backbone).model
    # Random weights with which each text goes its own way, on either backend the same.
    rng = np.random.default_rng(0)
    weights = [
        rng.normal(0, 0.6, x.shape) if x.ndim > 1 else x for x in model.get_weights()
    ]
    model.set_weights(weights)
    encoder: Any = backbone.encoder
    return model, encoder


def continued(model: Any, encoder: Any) -> list[generation.Generated]:
    return generation.generate(model, encoder, ["abc", "d", "hg"], max_new_tokens=10)


@pytest.mark.parametrize(
    ("name", "tied"),
    [*QUICK, *(pytest.param(*x, marks=pytest.mark.slow) for x in SLOW)],
)
def test_a_cache_changes_no_token(name: str, tied: bool) -> None:
    model, encoder = decoder(name, tied=tied)
    made = continued(model, encoder)
    assert made[0].how == f"with a cache of keys and values, by {name}CausalLM"
    # The same network under no name that a task of KerasHub is known by.
    uncached = continued(keras.Model(model.input, model.output), encoder)
    assert uncached[0].how.endswith("the model is no LanguageModel")
    assert [x.ids.tolist() for x in made] == [x.ids.tolist() for x in uncached]
    assert len({one.text for one in made}) > 1


def test_a_task_that_computes_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, encoder = decoder("GPT2", tied=True)
    task = hub.models.GPT2CausalLM
    call = task.call_with_cache

    def with_another_norm(*args: Any) -> Any:
        logits, hidden, cache = call(*args)
        return logits, hidden * 1.1, cache

    monkeypatch.setattr(task, "call_with_cache", with_another_norm)
    found, why = cached.task_of(model, encoder, length=10)
    assert found is None
    assert why.endswith("GPT2CausalLM computes other logits than the model")
    found, why = cached.task_of(model, encoder, length=17)
    assert found is None and "17 tokens are more than the 16" in why


def test_a_causal_language_model_as_a_run_leaves_it(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = backbones.hub(
        gpt,
        tokenizer=lambda: vocabularies.characters(
            lambda: [LETTERS], special_tokens=("end",)
        ),
    )
    deployed: Any = objectives.causal_lm().bind(backbone).deployed
    encoder: Any = backbone.encoder
    run = write_run(tmp_path / "run", deployed, encoder)
    (tmp_path / "in.txt").write_text("abc\nhgfedcbahgf\n")
    flags = [f"--input={tmp_path}/in.txt", "--max_new_tokens=6", "--sampler=greedy"]
    assert predict(run, *flags) == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    for prompt, row in zip(["abc", "hgfedcbahgf"], rows, strict=True):
        ids = by_hand(deployed, encoder.tokenizer([prompt])[0], 6)
        kept = ids[: ids.index(0)] if 0 in ids else ids
        assert row["generated"] == encoder.decode(kept)
