"""The contract that every objective and every regime keeps through real training.

One table: all objectives on tiny backbones that fit them, and all regimes under
classification. Each row trains, is broken off and goes on, is saved and loaded.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.backbones import graph, vocabularies
from tflearn.data import Data, sources
from tflearn.regimes import adapters
from tflearn.training import export, optimizers
from tflearn.training.execution import Outcome, execute
from tflearn.training.preparation import prepare
from tflearn.training.stage import Prepared
from tflearn.training.variables import state_variables

hub = backbones.import_keras_hub()

SIZE = 16
COLOURS = ("red", "green", "blue", "white")
ANIMALS = ("cats", "dogs", "birds", "horses")
TEXTS = [
    f"the {colour} {animal} were {act} in the {place}"
    for colour in COLOURS
    for animal in ANIMALS
    for act, place in (("sleeping", "sun"), ("running", "gardens"))
]
LABELS = ["calm", "busy"] * 16
BLOCK = {
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "dropout": 0.1,
}
SPECIAL = ("pad", "unknown", "start", "separator", "mask")


@functools.cache
def pieces():
    return vocabularies.wordpiece(
        lambda: TEXTS, vocabulary_size=60, special_tokens=SPECIAL
    )


def bert() -> backbones.Backbone:
    architecture = functools.partial(
        hub.models.BertBackbone, **BLOCK, max_sequence_length=32
    )
    return backbones.hub(architecture, tokenizer=pieces)


def gpt2() -> backbones.Backbone:
    architecture = functools.partial(
        hub.models.GPT2Backbone, **BLOCK, max_sequence_length=32
    )
    tokenizer = functools.partial(
        vocabularies.bpe,
        lambda: TEXTS,
        vocabulary_size=300,
        special_tokens=("pad", "end"),
    )
    return backbones.hub(architecture, tokenizer=tokenizer)


def t5() -> backbones.Backbone:
    architecture = functools.partial(
        hub.models.T5Backbone, **BLOCK, vocabulary_size=pieces().vocabulary_size() + 20
    )
    return backbones.hub(architecture, tokenizer=pieces, max_length=32)


def vit() -> backbones.Backbone:
    return backbones.hub(
        functools.partial(
            hub.models.ViTBackbone,
            image_shape=(SIZE, SIZE, 3),
            patch_size=4,
            num_layers=1,
            num_heads=2,
            hidden_dim=16,
            mlp_dim=32,
        )
    )


def convolutions() -> backbones.Backbone:
    def build() -> keras.Model:
        x = inputs = keras.Input((SIZE, SIZE, 3))
        for index in range(2):
            x = keras.layers.Conv2D(8, 3, strides=2, name=f"block_{index}_conv")(x)
            x = keras.layers.BatchNormalization(name=f"block_{index}_norm")(x)
            x = keras.layers.ReLU(name=f"block_{index}_relu")(x)
        return keras.Model(inputs, x)

    return backbones.function(build)


def texts(target: str | None) -> Data:
    columns = {"train": {"text": TEXTS, "label": LABELS}}
    return Data(source=lambda: sources.arrays(columns), target=target)


def images(target: str | None) -> Data:
    """A gradient an image; the colour is the class."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    rows = []
    for index in range(32):
        colour = np.full(3, 80.0)
        colour[index % 2] = 240
        slope = rng.uniform(-1, 1, 2)
        shade = 0.5 + 0.25 * (slope[0] * x + slope[1] * y)
        rows.append((shade[..., None] * colour).astype("uint8"))
    names = ["a red shape", "a green shape"] * 16
    columns = {"train": {"image": rows, "label": names}}
    return Data(source=lambda: sources.arrays(columns), input="image", target=target)


@dataclasses.dataclass(frozen=True)
class Row:
    """What is trained, on what, and how."""

    backbone: Callable[[], backbones.Backbone]
    data: Callable[[], Data]
    objective: Callable[[], Any]
    regime: Sequence[regimes.Rule] = regimes.full()
    rate: float = 0.01


def text_regime(rules: Sequence[regimes.Rule], rate: float = 0.02) -> Row:
    labelled = functools.partial(texts, "label")
    return Row(bert, labelled, objectives.classification, rules, rate)


def image_regime(rules: Sequence[regimes.Rule]) -> Row:
    labelled = functools.partial(images, "label")
    return Row(convolutions, labelled, objectives.classification, rules, 0.02)


UNLABELLED = functools.partial(texts, None)
PICTURES = functools.partial(images, None)
OBJECTIVES = {
    "classification": text_regime(regimes.full(), 0.01),
    "image classification": image_regime(regimes.full()),
    "causal_lm": Row(gpt2, UNLABELLED, objectives.causal_lm),
    "masked_lm": Row(bert, UNLABELLED, objectives.masked_lm),
    "span_corruption": Row(t5, UNLABELLED, objectives.span_corruption),
    "seq2seq": Row(t5, functools.partial(texts, "label"), objectives.seq2seq),
    "replaced_tokens": Row(bert, UNLABELLED, objectives.replaced_tokens),
    "simcse": Row(bert, UNLABELLED, objectives.simcse),
    "simclr": Row(
        convolutions,
        PICTURES,
        functools.partial(objectives.simclr, projection=(16, 8)),
    ),
    "masked_image": Row(
        vit,
        PICTURES,
        functools.partial(
            objectives.masked_image, decoder_width=16, decoder_depth=1, decoder_heads=2
        ),
    ),
    "image_text": Row(
        convolutions,
        functools.partial(images, "label"),
        functools.partial(objectives.image_text, text_backbone=gpt2, dim=8),
    ),
}
QUERY = "backbone/*/query|backbone/*/value"
REGIMES = {
    "scratch": text_regime(regimes.scratch()),
    "frozen": text_regime(regimes.frozen()),
    "partial": text_regime(regimes.partial(last=1)),
    "lora": text_regime(regimes.low_rank(rank=2, dropout=0.1)),
    "lora on convolutions": image_regime(
        (regimes.lora("backbone/*_conv", rank=2), *regimes.frozen())
    ),
    "dora": text_regime(regimes.low_rank(kind="dora", rank=2)),
    "qlora 8 bit": text_regime((regimes.qlora(QUERY, rank=2), *regimes.frozen())),
    "qlora 4 bit": text_regime(
        (regimes.qlora(QUERY, rank=2, bits=4), *regimes.frozen())
    ),
    "ia3": text_regime(regimes.rescaled()),
    "pfeiffer": text_regime(regimes.pfeiffer(size=4)),
    "houlsby": text_regime(regimes.houlsby(size=4)),
    "prefix": text_regime(regimes.prefix(length=3)),
    "prompt": text_regime(regimes.prompt(length=3)),
    "bitfit": text_regime(regimes.bitfit()),
    "norm_only": image_regime(regimes.norm_only()),
}
ROWS = OBJECTIVES | REGIMES
# On the other backend these take `-m slow`: what they are made of runs there in other
# rows, and in the tests of adapters and of shipped files.
FIRST = {
    "jax": (
        *("span_corruption", "replaced_tokens", "simcse", "dora", "qlora 4 bit"),
        *("pfeiffer", "houlsby", "prefix", "prompt", "lora on convolutions", "ia3"),
    ),
    "tensorflow": (
        *("seq2seq", "masked_image", "image_text", "scratch", "partial", "bitfit"),
        *("norm_only", "qlora 8 bit"),
    ),
}


def marked(name: str) -> Any:
    first = [pytest.mark.first_on(key) for key, names in FIRST.items() if name in names]
    return pytest.param(name, marks=first)


def build(row: Row) -> Prepared:
    """The same network with the same initial values, every time."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    stage = experiment.Stage(
        name="stage",
        data=row.data,
        objective=row.objective,
        regime=row.regime,
        optimizer=functools.partial(optimizers.adamw, learning_rate=row.rate),
        budget="12 steps",
        batch_size=16,
        interval=4,
        keep_last=4,
        bootstrap=0,
    )
    return prepare(stage, row.backbone(), seed=0)


def train(
    prepared: Prepared, folder: pathlib.Path, *, cut: pathlib.Path | None = None
) -> Outcome:
    """Trains, and copies to `cut` what a kill after step 8 would leave of it."""
    unfinished = shutil.ignore_patterns("*.orbax-checkpoint-tmp")

    def observe(state) -> None:
        if cut is not None and state.step == 8:
            shutil.copytree(folder, cut, ignore=unfinished)

    census = prepared.apply_regime()
    return execute(prepared, folder, census=census, observers=[observe])


def values(prepared: Prepared) -> dict[str, np.ndarray]:
    model = prepared.network.model
    variables = state_variables(model, getattr(model, "optimizer", None))
    return {path: graph.value_of(x) for path, x in variables.items()}


def answers(model: keras.Model, prepared: Prepared) -> list[np.ndarray]:
    """Outputs for a fixed batch, in the form that the model takes it."""
    inputs = prepared.batches[0][0]
    if isinstance(model.input, dict):
        inputs = {name: inputs[name] for name in model.input}
    elif prepared.network.deployed is not prepared.network.model:
        inputs = prepared.examples["train"].batch(np.arange(8))
    outputs = model.predict_on_batch(inputs)
    return [np.asarray(x) for x in keras.tree.flatten(outputs)]


def check_equal(
    model: keras.Model, other: keras.Model, prepared: Prepared, *, tolerance: float
) -> None:
    pairs = zip(answers(model, prepared), answers(other, prepared), strict=True)
    for one, two in pairs:
        np.testing.assert_allclose(one, two, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", [marked(name) for name in ROWS])
def test_the_contract(name: str, tmp_path) -> None:
    row = ROWS[name]
    prepared = build(row)
    census = prepared.apply_regime()
    model = prepared.network.model
    before = values(prepared)
    outcome = train(prepared, tmp_path / "whole", cut=tmp_path / "cut")

    # The loss falls.
    losses = [interval["loss"] for interval in outcome.state.history]
    assert len(losses) == 3 and losses[-1] < losses[0]

    # What the census calls trainable is what trains, and nothing else moves.
    moving = {id(weight) for weight in model.trainable_weights}
    assert census.trainable == sum(
        int(np.prod(w.shape)) for w in model.trainable_weights
    )
    after = values(prepared)
    still = []
    for path, weight in graph.weights_by_path(model).items():
        same = np.array_equal(before[path], after[path])
        statistic = weight.name in ("moving_mean", "moving_variance")
        if id(weight) in moving and same:
            still.append(path)
        assert same or id(weight) in moving or statistic, path
    # A softmax does not feel the bias of a key; a view may leave a position unused.
    assert len(still) <= 0.2 * len(moving), still
    if census.paths("frozen", "unused"):
        assert outcome.proof["layers"] > 0

    # Broken off and started again, it ends with the same bits.
    resumed = build(row)
    again = train(resumed, tmp_path / "cut")
    assert again.state.history == outcome.state.history
    for path, value in values(resumed).items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)

    # The saved model needs nothing of the run and answers as the trained one.
    export.write_model(prepared, tmp_path / "model")
    loaded = backbones.load_model(tmp_path / "model" / export.MODEL_FILE)
    deployed = prepared.network.deployed
    check_equal(deployed, loaded, prepared, tolerance=1e-4)

    # The adapter alone makes of an untrained backbone the trained one.
    file = tmp_path / "model" / export.ADAPTER_FILE
    assert file.exists() == bool(census.adapter_parameters)
    if file.exists():
        fresh = build(row)
        adapters.load_adapter(fresh.network.model, file)
        trained, adapted = (x.network.backbone.model for x in (prepared, fresh))
        check_equal(trained, adapted, prepared, tolerance=0.0)
