"""Texts become exactly what KerasHub's own preprocessors would feed."""

from __future__ import annotations

import dataclasses
import io
import time
from typing import Any

import keras
import numpy as np
import pytest

from tflearn import backbones
from tflearn.backbones import tokenizers
from tflearn.backbones.text import Packing, Tokens
from tflearn.support.errors import BackboneError, DataError

hub = backbones.import_keras_hub()

SIZES: dict[str, Any] = {
    "vocabulary_size": 40,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
}
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "dog", ".", "##s"]
TEXTS = ["the quick brown fox .", "dog", "", "a fox jumps over the quick brown dogs ."]
PAIRS = [
    ("the quick fox", "a dog ."),
    ("fox", "the quick brown fox jumps over a dog"),
    ("the quick brown fox jumps over a dog", "dog"),
    ("a fox", ""),
]


def bert_tokenizer() -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return hub.models.BertTokenizer(vocabulary=special + WORDS)


def distil_bert_tokenizer() -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return hub.models.DistilBertTokenizer(vocabulary=special + WORDS)


def bytes_vocabulary(*special: str) -> tuple[dict[str, int], list[str]]:
    """A vocabulary of letters and one merge, with special tokens in front."""
    letters = sorted(set("thequickbrownfxjmpsvradg."))
    words = [*special, *letters, "Ġ", "Ġt", "Ġf"]
    return {word: index for index, word in enumerate(words)}, ["Ġ t", "Ġ f"]


def roberta_tokenizer() -> Any:
    vocabulary, merges = bytes_vocabulary("<s>", "<pad>", "</s>", "<mask>")
    return hub.models.RobertaTokenizer(vocabulary=vocabulary, merges=merges)


def gpt2_tokenizer() -> Any:
    vocabulary, merges = bytes_vocabulary("<|endoftext|>")
    return hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=merges)


def sentence_piece(**ids: int) -> bytes:
    """Trains a small SentencePiece model on the test's own words."""
    import sentencepiece

    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 5 + TEXTS[:2] * 5),
        model_writer=file,
        vocab_size=36,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=3,
        **ids,
    )
    return file.getvalue()


def t5_tokenizer() -> Any:
    proto = sentence_piece(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    return hub.models.T5Tokenizer(proto=proto)


def gemma_tokenizer() -> Any:
    proto = sentence_piece(
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        bos_piece="<bos>",
        eos_piece="<eos>",
    )
    return hub.models.GemmaTokenizer(proto=proto)


def bert() -> keras.Model:
    return hub.models.BertBackbone(**SIZES, max_sequence_length=32)


def distil_bert() -> keras.Model:
    return hub.models.DistilBertBackbone(**SIZES, max_sequence_length=32)


def roberta() -> keras.Model:
    return hub.models.RobertaBackbone(**SIZES, max_sequence_length=32)


def gpt2() -> keras.Model:
    return hub.models.GPT2Backbone(**SIZES, max_sequence_length=32)


def gemma() -> keras.Model:
    return hub.models.GemmaBackbone(
        vocabulary_size=64,
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        hidden_dim=8,
        intermediate_dim=16,
    )


def t5() -> keras.Model:
    return hub.models.T5Backbone(**SIZES | {"vocabulary_size": 64})


def classifier_inputs(name: str, tokenizer: Any, texts: Any, length: int) -> dict:
    """What KerasHub's own preprocessor makes of texts or pairs."""
    made = getattr(hub.models, name)(tokenizer, sequence_length=length)
    if isinstance(texts[0], tuple):
        texts = tuple(map(list, zip(*texts, strict=True)))
    return made(x=texts) if "Classifier" in name else made(texts)


CASES = {
    "bert": (bert, bert_tokenizer, "BertTextClassifierPreprocessor"),
    "distil_bert": (
        distil_bert,
        distil_bert_tokenizer,
        "DistilBertTextClassifierPreprocessor",
    ),
    "roberta": (roberta, roberta_tokenizer, "RobertaTextClassifierPreprocessor"),
    "gpt2": (gpt2, gpt2_tokenizer, "GPT2CausalLMPreprocessor"),
    "gemma": (gemma, gemma_tokenizer, "GemmaCausalLMPreprocessor"),
}
PAIRED = ["bert", "distil_bert", "roberta"]


def check_equal(ours: dict[str, np.ndarray], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    for name, array in ours.items():
        expected = keras.ops.convert_to_numpy(theirs[name])
        np.testing.assert_array_equal(array, expected, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_a_text_is_packed_as_by_the_preprocessor(name: str) -> None:
    make, tokenizer, preprocessor = CASES[name]
    encoder = backbones.hub(make, tokenizer=tokenizer).encoder
    ours = encoder.collate(encoder.tokenize(TEXTS), 60)
    theirs = classifier_inputs(preprocessor, tokenizer(), TEXTS, 60)
    if isinstance(theirs, tuple):
        # A causal language model also gets the next tokens, and sample weights.
        theirs = theirs[0]
    check_equal(ours, theirs)


@pytest.mark.parametrize("length", [7, 8, 12, 40])
@pytest.mark.parametrize("name", PAIRED)
def test_a_pair_is_packed_and_cut_as_by_the_preprocessor(name: str, length: int):
    make, tokenizer, preprocessor = CASES[name]
    encoder = backbones.hub(make, tokenizer=tokenizer).encoder
    ours = encoder.collate(encoder.tokenize(PAIRS), length)
    check_equal(ours, classifier_inputs(preprocessor, tokenizer(), PAIRS, length))


@pytest.mark.parametrize("name", PAIRED)
def test_a_long_text_is_cut_as_by_the_preprocessor(name: str) -> None:
    make, tokenizer, preprocessor = CASES[name]
    encoder = backbones.hub(make, tokenizer=tokenizer).encoder
    ours = encoder.collate(encoder.tokenize(TEXTS), 5)
    check_equal(ours, classifier_inputs(preprocessor, tokenizer(), TEXTS, 5))


# KerasHub's T5 itself warns that its attention drops Keras masks.
@pytest.mark.filterwarnings("ignore:Layer:UserWarning")
def test_the_encoder_of_an_encoder_decoder_takes_texts_with_an_end_token() -> None:
    backbone = backbones.hub(t5, tokenizer=t5_tokenizer)
    tokenizer = t5_tokenizer()
    made = hub.models.T5Preprocessor(tokenizer, sequence_length=30)
    theirs = {f"encoder_{k}": v for k, v in made(TEXTS).items()}
    ours = backbone.encoder.collate(backbone.encoder.tokenize(TEXTS), 30)
    check_equal(ours, theirs)
    assert backbone.blocks == (
        "transformer_encoder_layer_0",
        "transformer_encoder_layer_1",
    )
    outputs = backbone.model(ours)
    assert tuple(outputs.shape) == (len(TEXTS), 30, 8)
    assert not [x.name for x in backbone.model.layers if "decoder" in x.name]


def test_texts_and_pairs_may_be_mixed_and_chosen_from() -> None:
    encoder = backbones.hub(bert, tokenizer=bert_tokenizer).encoder
    tokens = encoder.tokenize(["the fox", ("the fox", "dog")])
    assert [len(ids) for ids in tokens.ids] == [4, 6]
    chosen = Tokens(ids=[tokens.ids[1]], segments=[tokens.segments[1]])
    assert encoder.collate(chosen, 6)["segment_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]
    assert encoder.tokenize(["the fox"]).segments is None


def test_cutting_keeps_the_special_tokens_of_a_decoder() -> None:
    encoder = backbones.hub(gpt2, tokenizer=gpt2_tokenizer).encoder
    ids = encoder.collate(encoder.tokenize(["the quick brown fox"]), 6)["token_ids"]
    assert ids[0, 0] == 0 and ids[0, -1] == 0 and ids[0, 1:-1].all()


def test_left_padding_and_waterfall() -> None:
    packing = Packing(end=(9,), separator=(9,), pairs=True, waterfall=True)
    ids, segments = packing.pack([1, 2, 3], [4, 5])
    cut, _ = packing.cut(ids, segments, 6)
    assert cut.tolist() == [1, 2, 3, 9, 4, 9]
    encoder = backbones.hub(gpt2, tokenizer=gpt2_tokenizer).encoder
    left = dataclasses.replace(encoder, packing=Packing(pad=7, pad_left=True))
    batch = left.collate(Tokens(ids=[np.array([1, 2]), np.array([3])]), 3)
    assert batch["token_ids"].tolist() == [[7, 1, 2], [7, 7, 3]]
    assert batch["padding_mask"].tolist() == [[0, 1, 1], [0, 0, 1]]


def test_thousands_of_texts_are_tokenized_and_collated_quickly() -> None:
    encoder = backbones.hub(bert, tokenizer=bert_tokenizer).encoder
    texts = TEXTS * 1500
    started = time.perf_counter()
    tokens = encoder.tokenize(texts)
    tokenized = time.perf_counter() - started
    started = time.perf_counter()
    batch = encoder.collate(tokens, 16)
    collated = time.perf_counter() - started
    assert batch["token_ids"].shape == (6000, 16)
    # Generous bounds for a busy machine; the usual figures are 0.5 s and 0.03 s.
    assert tokenized < 10 and collated < 1


def test_the_longest_text_is_the_backbones_own_limit_unless_declared() -> None:
    assert backbones.hub(bert, tokenizer=bert_tokenizer).encoder.max_length == 32
    shorter = backbones.hub(bert, tokenizer=bert_tokenizer, max_length=8)
    assert shorter.encoder.max_length == 8
    assert backbones.hub(gemma, tokenizer=gemma_tokenizer).encoder.max_length == 1024
    with pytest.raises(BackboneError, match=r"Received: max_length=64.*1 to 32 tokens"):
        backbones.hub(bert, tokenizer=bert_tokenizer, max_length=64)


def test_a_mask_is_made_where_the_backbone_takes_none() -> None:
    def f_net() -> keras.Model:
        sizes = {k: v for k, v in SIZES.items() if k != "num_heads"}
        return hub.models.FNetBackbone(**sizes, max_sequence_length=32)

    def tokenizer() -> Any:
        proto = sentence_piece(
            pad_id=3,
            unk_id=0,
            bos_id=4,
            eos_id=5,
            pad_piece="<pad>",
            unk_piece="<unk>",
            bos_piece="[CLS]",
            eos_piece="[SEP]",
            user_defined_symbols="[MASK]",
        )
        return hub.models.FNetTokenizer(proto=proto)

    backbone = backbones.hub(f_net, tokenizer=tokenizer)
    inputs = backbone.new_inputs()
    assert set(inputs) == {"token_ids", "segment_ids"}
    mask = keras.Model(inputs, backbone.feature_mask(inputs))
    batch = backbone.encoder.collate(backbone.encoder.tokenize(["the fox"]), 30)
    real = len(backbone.encoder.tokenize(["the fox"]).ids[0])
    assert int(np.asarray(mask(batch)).sum()) == real


def test_what_does_not_fit_is_refused() -> None:
    encoder = backbones.hub(gpt2, tokenizer=gpt2_tokenizer).encoder
    with pytest.raises(DataError, match="does not take pairs"):
        encoder.tokenize([("the", "fox")])
    with pytest.raises(DataError, match="not a text. Received: 3"):
        encoder.tokenize(["the", 3])
    with pytest.raises(BackboneError, match="needs a tokenizer"):
        backbones.hub(bert)
    with pytest.raises(BackboneError, match="not a KerasHub tokenizer"):
        backbones.hub(bert, tokenizer=lambda: str.split)
    small = SIZES | {"vocabulary_size": 7}
    with pytest.raises(BackboneError, match=r"more tokens than the backbone.*7"):
        backbones.hub(
            lambda: hub.models.BertBackbone(**small, max_sequence_length=9),
            tokenizer=bert_tokenizer,
        )
    images = keras.Input((8, 8, 3), name="images")
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    both = keras.Model({"images": images, "token_ids": ids}, ids)
    with pytest.raises(BackboneError, match="cannot be made from a text"):
        tokenizers.input_names(both)


# KerasHub leaves the file of a SentencePiece vocabulary to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_encoders_survive_a_save(tmp_path) -> None:
    for name in ("bert", "roberta", "gemma"):
        make, tokenizer, _ = CASES[name]
        backbone = backbones.hub(make, tokenizer=tokenizer)
        backbone.save_encoder(tmp_path / name)
        again = backbones.load_encoder(tmp_path / name)
        inputs = PAIRS if name in PAIRED else TEXTS
        before = backbone.encoder.collate(backbone.encoder.tokenize(inputs), 20)
        check_equal(again.collate(again.tokenize(inputs), 20), before)
        assert again.max_length == backbone.encoder.max_length
    with pytest.raises(BackboneError, match="no complete encoder in this folder"):
        backbones.load_encoder(tmp_path)
