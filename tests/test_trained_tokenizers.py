"""Tokenizers made from a corpus: the same everywhere, nothing lost in silence."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tflearn import backbones, config, data
from tflearn.backbones import encoder_files, vocabularies
from tflearn.backbones.tokenizers import text_encoder
from tflearn.backbones.vocabularies import TrainedTokenizer, kept
from tflearn.support.errors import BackboneError, DataError

hub = backbones.import_keras_hub()

CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "a quicker fox jumped; the laziest dogs slept all day long",
    "Größe, café, naïve: не только латиница 漢字",
    "to be, or not to be: that is the question",
] * 4
DNA = ["ACGTACGTTGCA", "TTGACA", "acgtnacgt"]
ALL = ("pad", "unknown", "start", "separator", "end", "mask")

MAKERS: dict[str, Callable[..., TrainedTokenizer]] = {
    "wordpiece": lambda **x: vocabularies.wordpiece(
        lambda: CORPUS, vocabulary_size=200, **x
    ),
    "bpe": lambda **x: vocabularies.bpe(lambda: CORPUS, vocabulary_size=300, **x),
    "unigram": lambda **x: vocabularies.unigram(
        lambda: CORPUS, vocabulary_size=90, **x
    ),
    "characters": lambda **x: vocabularies.characters(lambda: CORPUS, **x),
    "utf8_bytes": lambda **x: vocabularies.utf8_bytes(**x),
    "kmers": lambda **x: vocabularies.kmers(k=3, alphabet="ACGT", **x),
    "kmers of a corpus": lambda **x: vocabularies.kmers(
        k=3, stride=2, texts=lambda: DNA, **x
    ),
}
KNOWS_ALL = ("bpe", "utf8_bytes")
STRANGE = ["", " ", "a", "Größe 漢字", "🦊 fox\n\ttab  two", "[MASK] [PAD]", "e\u0301"]


def made(kind: str, special_tokens: tuple[str, ...] = ALL) -> TrainedTokenizer:
    return MAKERS[kind](special_tokens=special_tokens)


@pytest.mark.parametrize("kind", MAKERS)
def test_special_tokens_stand_in_front_and_come_out_of_no_text(kind: str) -> None:
    tokenizer = made(kind)
    assert tokenizer.get_vocabulary()[:6] == list(vocabularies.ROLES.values())
    assert tokenizer.special_token_ids == [0, 1, 2, 3, 4, 5]
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id) == (0, 5)
    assert tokenizer.vocabulary_size() == len(tokenizer.get_vocabulary())
    for ids in tokenizer([*CORPUS, *DNA, *STRANGE]):
        assert ids.dtype == np.int32
        assert set(ids.tolist()) & {0, 2, 3, 4, 5} == set()
        assert ids.max(initial=0) < tokenizer.vocabulary_size()


@pytest.mark.parametrize("kind", MAKERS)
def test_every_token_has_its_own_text(kind: str) -> None:
    vocabulary = made(kind).get_vocabulary()
    assert len(set(vocabulary)) == len(vocabulary)


@pytest.mark.parametrize("kind", KNOWS_ALL)
@pytest.mark.parametrize("text", STRANGE)
def test_every_text_comes_back_as_it_was(kind: str, text: str) -> None:
    tokenizer = made(kind)
    assert tokenizer.detokenize(tokenizer([text])[0]) == text


def test_texts_of_the_corpus_come_back() -> None:
    for kind in ("bpe", "utf8_bytes", "characters"):
        tokenizer = made(kind)
        assert [tokenizer.detokenize(ids) for ids in tokenizer(CORPUS)] == CORPUS
    wordpiece, unigram = made("wordpiece"), made("unigram")
    assert wordpiece.detokenize(wordpiece([CORPUS[0]])[0]) == CORPUS[0]
    assert unigram.detokenize(unigram([CORPUS[1]])[0]) == CORPUS[1]


@pytest.mark.parametrize(("k", "stride"), [(1, 1), (3, 1), (3, 2), (3, 3), (6, 4)])
@pytest.mark.parametrize("sequence", ["", "A", "AC", "ACGTACGTTGCA", "ACGTACGTTGC"])
def test_sequences_come_back(k: int, stride: int, sequence: str) -> None:
    tokenizer = vocabularies.kmers(k=k, stride=stride, alphabet="ACGT")
    assert tokenizer.detokenize(tokenizer([sequence])[0]) == sequence


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "characters", "kmers"])
def test_what_is_unknown_is_one_token_and_visible_in_the_text(kind: str) -> None:
    tokenizer = made(kind)
    ids = tokenizer(["ACG☃"])[0]
    assert tokenizer.unk_token_id == 1
    assert 1 in ids.tolist()
    assert "\ufffd" in tokenizer.detokenize(ids)


@pytest.mark.parametrize("kind", ["characters", "kmers"])
def test_without_an_unknown_token_the_unknown_is_an_error(kind: str) -> None:
    tokenizer = made(kind, ("pad",))
    known = {"characters": "the fox", "kmers": "ACGTACGTA"}[kind]
    with pytest.raises(DataError, match="1 unknown of 8 tokens.*'☃'.*'unknown'"):
        tokenizer([known, "☃"])


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_some_algorithms_need_an_unknown_token(kind: str) -> None:
    with pytest.raises(BackboneError, match="cannot do without.*'unknown'"):
        made(kind, ("pad",))


def test_an_id_outside_of_the_vocabulary_is_an_error() -> None:
    with pytest.raises(BackboneError, match="Received: 256. Expected: ids from 0 to"):
        made("utf8_bytes", ()).detokenize([1, 256])


PRINT_DIGESTS = """
import hashlib
from tests.test_trained_tokenizers import CORPUS, MAKERS
for name, make in MAKERS.items():
    made = make()
    ids = [ids.tolist() for ids in made(CORPUS)]
    text = repr((made.get_vocabulary(), ids)).encode()
    print(name, hashlib.sha256(text).hexdigest())
"""


def test_the_same_corpus_gives_the_same_vocabulary_in_every_process() -> None:
    root = pathlib.Path(__file__).parents[1]
    printed = [
        subprocess.run(
            [sys.executable, "-c", PRINT_DIGESTS],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert len(printed[0].splitlines()) == len(MAKERS)
    assert printed[0] == printed[1]


@pytest.mark.parametrize("kind", MAKERS)
def test_an_encoder_comes_back_from_disk(kind: str, tmp_path: pathlib.Path) -> None:
    tokenizer = made(kind)
    encoder = text_encoder(tokenizer, bert(tokenizer.vocabulary_size()))
    encoder_files.save_encoder(encoder, tmp_path / "model" / "encoder")
    loaded: Any = encoder_files.load_encoder(tmp_path / "model" / "encoder")
    texts = [*CORPUS[:4], *DNA, *STRANGE]
    old, new = encoder.tokenize(texts), loaded.tokenize(texts)
    assert [x.tolist() for x in old.ids] == [x.tolist() for x in new.ids]
    assert loaded.packing == encoder.packing
    assert loaded.decode(new.ids[0]) == encoder.decode(old.ids[0])
    assert vocabularies.of_run(tmp_path) == tokenizer


def test_a_run_without_a_trained_tokenizer_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BackboneError, match="no tokenizer that was made from a corpus"):
        vocabularies.of_run(tmp_path)


def bert(vocabulary_size: int = 300):
    return hub.models.BertBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=1,
        num_heads=1,
        hidden_dim=4,
        intermediate_dim=4,
        max_sequence_length=16,
    )


def test_only_declared_special_tokens_are_put_around_a_text() -> None:
    bare = text_encoder(made("utf8_bytes", ("pad",)), bert())
    assert bare.tokenize(["ab"]).ids[0].tolist() == [98, 99]
    ended = text_encoder(made("utf8_bytes", ("pad", "end")), bert())
    assert ended.tokenize(["ab"]).ids[0].tolist() == [99, 100, 1]
    both = text_encoder(made("utf8_bytes", ALL), bert())
    tokens = both.tokenize([("a", "b")])
    assert tokens.ids[0].tolist() == [2, 103, 3, 104, 4]
    assert tokens.segments is not None
    assert tokens.segments[0].tolist() == [0, 0, 0, 1, 1]


def test_without_a_pad_token_the_mask_goes_by_position() -> None:
    encoder = text_encoder(made("utf8_bytes", ()), bert())
    batch = encoder.collate(encoder.tokenize(["\0a", "b"]), 3)
    assert batch["token_ids"].tolist() == [[0, 97, 0], [98, 0, 0]]
    assert batch["padding_mask"].tolist() == [[1, 1, 0], [1, 0, 0]]


def test_an_encoder_decodes_without_special_tokens() -> None:
    encoder = text_encoder(made("bpe"), bert())
    ids = encoder.collate(encoder.tokenize(["the fox"]), 16)["token_ids"][0]
    assert encoder.decode(ids) == "the fox"


ROWS = {
    "train": {"text": ["abc", "bca"], "label": ["x", "y"]},
    "test": {"text": ["xyz"], "label": ["x"]},
}


def rows() -> data.Data:
    return data.Data(source=lambda: data.sources.arrays(ROWS))


def test_the_vocabulary_is_that_of_the_training_rows() -> None:
    tokenizer = vocabularies.characters(lambda: data.training_texts(rows))
    assert tokenizer.get_vocabulary() == ["[PAD]", "[UNK]", "a", "b", "c"]


def test_drawn_splits_are_drawn_as_the_stage_draws_them() -> None:
    texts = [f"text {i}" for i in range(40)]
    table = {"text": texts, "label": ["xy"[i % 3 > 0] for i in range(40)]}

    def drawn() -> data.Data:
        return data.Data(
            source=lambda: data.sources.arrays({"all": table}),
            splits={"train": 0.5, "test": 0.5},
        )

    with pytest.raises(DataError, match="training_texts.target_kind"):
        data.training_texts(drawn)
    stage = drawn().load(target_kind="class").splits["train"]
    assert data.training_texts(drawn, target_kind="class") == list(stage.inputs)


def test_images_are_no_corpus() -> None:
    def vectors() -> data.Data:
        return data.Data(
            source=lambda: data.sources.sklearn("iris"),
            input="vector",
            splits={"train": 0.5, "test": 0.5},
        )

    with pytest.raises(DataError, match="trained on texts. Received: inputs of kind"):
        data.training_texts(vectors, target_kind="class")


MISTAKES = {
    "no such special token.*'mask'": lambda: made("bpe", ("pad", "masked")),
    "declared twice": lambda: made("bpe", ("pad", "pad")),
    r"\('pad',\)": lambda: vocabularies.utf8_bytes(special_tokens="pad"),
    "at least 256: the bytes": lambda: vocabularies.bpe(
        lambda: CORPUS, vocabulary_size=100
    ),
    "at least .*: the letters": lambda: vocabularies.wordpiece(
        lambda: CORPUS, vocabulary_size=30
    ),
    "SentencePiece cannot": lambda: vocabularies.unigram(
        lambda: CORPUS, vocabulary_size=9
    ),
    "no text to make": lambda: vocabularies.bpe(lambda: [""], vocabulary_size=300),
    "no room": lambda: vocabularies.characters(lambda: CORPUS, vocabulary_size=2),
    "leave letters out": lambda: vocabularies.kmers(k=2, stride=3, alphabet="AC"),
    "Received: neither": lambda: vocabularies.kmers(k=2),
    "usable number": lambda: vocabularies.kmers(k=30, alphabet="ACGT"),
    "another number.*Expected: 11": lambda: vocabularies.kmers(
        k=2, alphabet="AC", vocabulary_size=9
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_says_what_to_do(message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        MISTAKES[message]()


def test_a_capped_vocabulary_keeps_the_most_frequent() -> None:
    tokenizer = vocabularies.characters(lambda: ["aaabbc"], vocabulary_size=4)
    assert tokenizer.get_vocabulary() == ["[PAD]", "[UNK]", "a", "b"]


DECLARED = """
from __gin__ import dynamic_registration
import keras_hub
from tflearn import backbones
from tflearn import data
from tflearn import experiment
from tflearn import objectives
from tflearn import regimes
from tflearn.backbones import vocabularies
from tflearn.training import optimizers
from tests import test_trained_tokenizers

experiment.Experiment.backbone = @backbones.hub
backbones.hub.architecture = @keras_hub.models.BertBackbone
backbones.hub.tokenizer = @vocabularies.characters
vocabularies.characters.texts = @data.training_texts
data.training_texts.data = @test_trained_tokenizers.rows
keras_hub.models.BertBackbone.num_layers = 1
keras_hub.models.BertBackbone.num_heads = 1
keras_hub.models.BertBackbone.hidden_dim = 4
keras_hub.models.BertBackbone.intermediate_dim = 4
experiment.Experiment.stages = (@experiment.Stage(),)
experiment.Stage.name = 'tune'
experiment.Stage.data = @test_trained_tokenizers.rows
experiment.Stage.objective = @objectives.classification
experiment.Stage.regime = @regimes.full()
experiment.Stage.optimizer = @optimizers.adamw
experiment.Stage.budget = '1 step'
experiment.Stage.batch_size = 2
"""


def declared(tmp_path: pathlib.Path, *bindings: str) -> backbones.Backbone:
    (tmp_path / "tiny.gin").write_text(DECLARED)
    root = str(pathlib.Path(__file__).parents[1])
    loaded = config.load([str(tmp_path / "tiny.gin")], bindings, search_paths=[root])
    return loaded.experiment().backbone()


def test_an_open_vocabulary_size_is_the_tokenizers(tmp_path: pathlib.Path) -> None:
    assert declared(tmp_path).model.vocabulary_size == 5


def test_a_larger_declared_size_stays(tmp_path: pathlib.Path) -> None:
    size = "keras_hub.models.BertBackbone.vocabulary_size = 64"
    assert declared(tmp_path, size).model.vocabulary_size == 64


def test_a_smaller_declared_size_is_an_error(tmp_path: pathlib.Path) -> None:
    size = "keras_hub.models.BertBackbone.vocabulary_size = 4"
    with pytest.raises(BackboneError, match="Received: 5. Expected: at most .*=4"):
        declared(tmp_path, size)


def test_another_missing_argument_is_named(tmp_path: pathlib.Path) -> None:
    def sizeless(vocabulary_size: int, width: int):
        raise AssertionError("never called")

    with pytest.raises(BackboneError, match="sizeless cannot be built.*'width'"):
        backbones.hub(sizeless, tokenizer=vocabularies.utf8_bytes)


def test_mistakes_in_the_data_reach_the_user_as_they_are() -> None:
    def broken() -> list[str]:
        raise DataError("the corpus is gone")

    def tokenizer() -> TrainedTokenizer:
        return vocabularies.characters(broken)

    with pytest.raises(DataError, match="the corpus is gone"):
        backbones.hub(bert, tokenizer=tokenizer)


def test_unknown_tokens_are_counted_for_the_user() -> None:
    from tflearn.data import pipeline

    tokenizer = vocabularies.characters(lambda: data.training_texts(rows))
    encoder = text_encoder(tokenizer, bert())
    loaded = rows().load(target_kind="class")
    notes = {
        name: pipeline.encode(split, encoder, data=loaded.data).notes
        for name, split in loaded.splits.items()
    }
    assert notes["train"] == ()
    assert notes["test"] == ("3 of 3 tokens of 'test' are unknown to the vocabulary",)


def test_tiny_shakespeare_has_65_characters(shared_data: pathlib.Path) -> None:
    text = (shared_data / "tinyshakespeare.txt").read_text(encoding="utf-8")
    tokenizer = vocabularies.characters(lambda: [text], special_tokens=())
    assert tokenizer.vocabulary_size() == 65
    (ids,) = tokenizer([text])
    assert len(ids) == len(text) == 1_115_394
    assert tokenizer.detokenize(ids) == text


def test_no_tokenizer_imports_tensorflow() -> None:
    code = (
        "import sys\n"
        "from tests.test_trained_tokenizers import MAKERS, CORPUS\n"
        "[make()(CORPUS) for make in MAKERS.values()]\n"
        "print('tensorflow' in sys.modules)"
    )
    env = os.environ | {"KERAS_BACKEND": "jax"}
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=pathlib.Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() == "False"


def test_a_large_corpus_is_trained_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_WORTH_CHARACTERS", 10)
    first = made("bpe")
    monkeypatch.setattr(kept.subwords, "train_bpe", None)
    again = made("bpe")
    assert again.get_vocabulary() == first.get_vocabulary()
    np.testing.assert_array_equal(again(STRANGE)[3], first(STRANGE)[3])
    with pytest.raises(TypeError):
        vocabularies.bpe(lambda: CORPUS, vocabulary_size=301)
    with pytest.raises(TypeError):
        vocabularies.bpe(lambda: CORPUS[1:], vocabulary_size=300)
