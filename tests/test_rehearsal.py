"""Rehearsal: which rows a batch holds, and stages that rehearse."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import pickle
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.data import Data, pipeline
from tflearn.data.mixture import MixedOrder, Mixture, join
from tflearn.data.rehearsal import Rehearsal, Rehearsed
from tflearn.support.errors import ConfigError, DataError
from tflearn.training import execution, optimizers
from tflearn.training.preparation import prepare

NEW, OLD = 50, 30


def order(seed: int = 0, batch_size: int = 8, **changes) -> MixedOrder:
    mixture = Mixture(num_new=NEW, share=0.25)
    return MixedOrder(NEW + OLD, mixture, batch_size=batch_size, seed=seed, **changes)


LENGTHS = np.random.default_rng(0).integers(1, 90, NEW + OLD)
CLASSES = np.arange(NEW + OLD) % 2
ORDERS = {"plain": {}, "lengths": {"lengths": LENGTHS}, "classes": {"classes": CLASSES}}


@pytest.mark.parametrize("name", ORDERS)
def test_every_batch_holds_its_share(name: str) -> None:
    made = order(**ORDERS[name])
    for step in range(40):
        indices = made.indices(step)
        assert indices.shape == (8,)
        assert (indices >= NEW).sum() == round(0.25 * 8)
        assert indices.max() < NEW + OLD


@pytest.mark.parametrize("name", ["plain", "lengths"])
def test_each_row_comes_once_before_any_comes_again(name: str) -> None:
    made = order(**ORDERS[name])
    # 15 steps of 2 old rows are one epoch, 200 steps of 6 new rows are 24 epochs and
    # whole windows, in which texts are sorted by length.
    old = np.concatenate([made.indices(step)[6:] for step in range(15)])
    new = np.concatenate([made.indices(step)[:6] for step in range(200)])
    np.testing.assert_array_equal(np.sort(old), np.arange(NEW, NEW + OLD))
    np.testing.assert_array_equal(np.bincount(new), 24)


def test_classes_are_balanced_among_new_and_among_old() -> None:
    made = order(classes=(np.arange(NEW + OLD) % 10 == 0).astype(int))
    drawn = np.stack([made.indices(step) for step in range(20)])
    rare = drawn % 10 == 0
    assert rare[:, :6].mean() == rare[:, 6:].mean() == 0.5


@pytest.mark.parametrize("name", ORDERS)
def test_a_batch_is_a_function_of_seed_and_step(name: str) -> None:
    first, second = order(**ORDERS[name]), order(**ORDERS[name])
    expected = [first.indices(step) for step in range(30)]
    # Seeking backwards, and in another process, gives the same.
    for made in (second, pickle.loads(pickle.dumps(second))):
        for step in reversed(range(30)):
            np.testing.assert_array_equal(made.indices(step), expected[step])
    assert (order(seed=1, **ORDERS[name]).indices(0) != expected[0]).any()


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_share_that_rounds_to_none_or_all_is_refused(share: float) -> None:
    rehearsal = Rehearsal(data=lambda: blobs(0), share=share)
    with pytest.raises(ConfigError, match="Expected: 1 to 7 old examples"):
        rehearsal.old_per_step(8)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="out of its range"):
        Rehearsal(data=lambda: blobs(0), share=share)


# Joined examples.


@dataclasses.dataclass(frozen=True)
class Tokens:
    """What a text encoder gives."""

    ids: list[np.ndarray]
    segments: list[np.ndarray] | None = None


class Words:
    """A text encoder: a word is its number."""

    max_length = 64

    def tokenize(self, texts: Sequence[Any]) -> Tokens:
        """Splits texts at spaces."""
        return Tokens([np.asarray(text.split(), np.int32) for text in texts])

    def collate(self, tokens: Tokens, length: int) -> dict[str, np.ndarray]:
        """Pads with zeros."""
        kept = [row[:length] for row in tokens.ids]
        rows = [np.pad(row, (0, length - len(row))) for row in kept]
        return {"token_ids": np.stack(rows)}


class Pixels:
    """An image encoder that leaves images as they are."""

    image_size = (2, 2)
    channels = 3

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Returns the image."""
        return image

    def scale(self, batch: np.ndarray) -> np.ndarray:
        """Scales to 0..1."""
        return batch.astype(np.float32) / 255


class Numbers:
    """A vector encoder."""

    size = 2

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows."""
        return rows


def rows(kind: str, values: range) -> list[dict[str, Any]]:
    """One row a value; texts of as many words."""
    make = {
        "text": lambda v: {"input": " ".join([str(v)] * v)},
        "image": lambda v: {"input": np.full((2, 2, 3), v, np.uint8)},
        "vector": lambda v: {"x": float(v), "y": -float(v)},
    }
    return [make[kind](value) | {"label": str(value % 2)} for value in values]


def declared(kind: str, values: range, **changes) -> Data:
    held = range(values.stop, values.stop + 2)
    fields = {
        "source": lambda: {"train": rows(kind, values), "test": rows(kind, held)},
        "input": ("x", "y") if kind == "vector" else "input",
    }
    return Data(**(fields | changes))


ENCODERS = {"text": Words, "image": Pixels, "vector": Numbers}


def value_of(kind: str, inputs: Any) -> np.ndarray:
    """The value that each row of a batch was made from."""
    if kind == "text":
        return inputs["token_ids"][:, 0]
    if kind == "image":
        return np.rint(inputs[:, 0, 0, 0] * 255).astype(int)
    return inputs[:, 0].astype(int)


def load(kind: str, old: Data, **changes) -> tuple[pipeline.Examples, Any, Rehearsed]:
    """New rows 1 to 10, and old ones."""
    data = declared(kind, range(1, 11), **changes)
    dataset = data.load(target_kind="class")
    encoder = ENCODERS[kind]()
    split = dataset.splits["train"]
    examples = pipeline.encode(split, encoder, data=data)
    found = Rehearsal(data=lambda: old, share=0.5).load(dataset, encoder)
    return examples, split.targets, found


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("chosen", [[0, 9], [10, 14], [12, 3, 14, 0]])
def test_joined_examples_are_those_of_both(kind: str, chosen: list[int]) -> None:
    new, targets, old = load(kind, declared(kind, range(21, 26)))
    mixed = old.mix(new, targets)
    values = np.asarray([*range(1, 11), *range(21, 26)])
    assert len(mixed.examples) == 15
    found = mixed.examples.batch(np.asarray(chosen))
    np.testing.assert_array_equal(value_of(kind, found), values[chosen])
    np.testing.assert_array_equal(mixed.targets, values % 2)
    # What objectives know of the class of the new ones holds for both.
    assert isinstance(mixed.examples, type(new))


def test_texts_of_both_are_padded_to_one_length() -> None:
    new, targets, old = load("text", declared("text", range(21, 26)))
    ids = old.mix(new, targets).examples.batch(np.asarray([0, 14]))["token_ids"]
    np.testing.assert_array_equal((ids > 0).sum(axis=1), [1, 25])


def test_images_of_both_are_augmented_and_scaled() -> None:
    new, targets, old = load("image", declared("image", range(21, 26)))
    examples, both, mixture = old.mix(new, targets)
    flip = functools.partial(keras.layers.RandomFlip, "horizontal")
    batches = pipeline.train_batches(
        examples,
        both,
        batch_size=6,
        seed=0,
        data=declared("image", range(1, 11), augment=(flip,)),
        num_outputs=2,
        one_hot=False,
        mixture=mixture,
    )
    images, found = batches[3]
    values = value_of("image", images)
    assert (values > 20).tolist() == [False] * 3 + [True] * 3
    np.testing.assert_array_equal(found, values % 2)


def test_classes_are_matched_by_name() -> None:
    new, targets, old = load("text", declared("text", range(21, 26)))
    turned = declared("text", range(21, 26), classes=("1", "0"))
    _, _, other = load("text", turned)
    assert old.targets is not None and other.targets is not None
    assert old.targets.tolist() == other.targets.tolist() == [1, 0, 1, 0, 1]


def test_weights_balance_new_and_old_by_themselves() -> None:
    new, _, old = load("vector", declared("vector", range(21, 26)))
    targets = np.asarray([0] * 9 + [1], np.int32)
    examples, both, mixture = old.mix(new, targets)
    batches = pipeline.train_batches(
        examples,
        both,
        batch_size=10,
        seed=0,
        data=declared("vector", range(1, 11), balance="class_weights"),
        num_outputs=2,
        one_hot=False,
        mixture=mixture,
    )
    found = np.concatenate([np.stack(batches[step][1:]) for step in range(2)], axis=1)
    is_new = np.tile([True] * 5 + [False] * 5, 2)
    for part in (is_new, ~is_new):
        sums = [found[1, part & (found[0] == c)].sum() for c in (0, 1)]
        assert sums[0] == pytest.approx(sums[1])


@pytest.mark.parametrize(
    ("old", "changes", "error", "message"),
    [
        (
            declared("text", range(21, 26), classes=("0", "1", "2"), target="label"),
            {},
            DataError,
            "1 classes have no training example",
        ),
        (
            declared("text", range(21, 26), only_classes=("1",), splits=None),
            {},
            DataError,
            r"of the old: 1\. Expected: those of the new: 0, 1",
        ),
        (
            declared("vector", range(21, 26)),
            {},
            DataError,
            "the backbone cannot take the inputs|of one kind",
        ),
        (
            declared("text", range(21, 26), max_length=9),
            {},
            ConfigError,
            "not the rehearsed data. Received: 9",
        ),
        (
            declared("text", range(9, 14)),
            {},
            DataError,
            "2 examples of 'test' are also in 'train'",
        ),
    ],
)
def test_old_data_that_do_not_fit_are_refused(
    old: Data, changes: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load("text", old, **changes)


def test_an_overlap_that_is_allowed_is_told() -> None:
    _, _, old = load("text", declared("text", range(9, 14)), allow_overlap=True)
    assert [note for note in old.notes if "rehearsal: 2 examples of 'test'" in note]


def test_old_texts_that_are_cut_are_told() -> None:
    old = declared("text", range(21, 26))
    _, _, found = load("text", old, max_length=2, truncate=True)
    assert found.examples.notes
    assert {f"rehearsal: {note}" for note in found.examples.notes} <= set(found.notes)


class Packed(pipeline.Examples):
    """Rows of 16 tokens, filled by several texts."""

    kind = "text"

    def __init__(self, examples: Any, targets: np.ndarray | None = None) -> None:
        ids = np.concatenate(examples.ids)
        self.rows = np.resize(ids, (-(-len(ids) // 16), 16))
        self.inputs = examples.inputs

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray, *, length: int | None = None) -> dict:
        """Returns rows."""
        return {"token_ids": self.rows[indices]}


def test_packed_rows_are_of_new_texts_or_of_old() -> None:
    new, targets, old = load("text", declared("text", range(21, 26)))
    mixed = old.arrange(new, targets, Packed, arranged=Packed(new))
    assert mixed.mixture is not None
    count = mixed.mixture.num_new
    assert count == len(Packed(new)) and len(mixed.examples) > count
    found = mixed.examples.batch(np.arange(len(mixed.examples)))["token_ids"]
    assert (found[:count] < 20).all() and (found[count:] > 20).all()


def test_an_objective_makes_packed_batches_of_new_and_old_by_themselves() -> None:
    def make_batch(rows: Any, indices: np.ndarray, rng: np.random.Generator) -> tuple:
        # The class of the rows, and the random numbers, are those of the objective.
        assert isinstance(rows, Packed)
        return rows.batch(indices), rng.integers(0, 99, len(indices))

    new, targets, old = load("text", declared("text", range(21, 26)))
    mixed = old.arrange(new, targets, Packed, arranged=Packed(new))
    first, second = (
        pipeline.made_batches(
            mixed.examples, make_batch, batch_size=6, seed=0, mixture=mixed.mixture
        )
        for _ in range(2)
    )
    inputs, noise = first[11]
    is_old = (inputs["token_ids"] > 20).all(axis=1)
    assert is_old.tolist() == [False] * 3 + [True] * 3
    np.testing.assert_array_equal(second[11][0]["token_ids"], inputs["token_ids"])
    np.testing.assert_array_equal(second[11][1], noise)


def test_examples_of_two_kinds_are_not_joined() -> None:
    text, _, _ = load("text", declared("text", range(21, 26)))
    vector, _, _ = load("vector", declared("vector", range(21, 26)))
    with pytest.raises(DataError, match="not of one kind"):
        join(text, vector)


# Stages.


def network() -> keras.Model:
    x = inputs = keras.Input((2,), name="features")
    return keras.Model(inputs, keras.layers.Dense(8, activation="tanh", name="d")(x))


def make_stage(**changes) -> experiment.Stage:
    old = functools.partial(blobs, 0)
    fields = {
        "name": "new",
        "data": functools.partial(blobs, 3),
        "objective": objectives.classification,
        "regime": regimes.full(),
        "optimizer": functools.partial(optimizers.adamw, learning_rate=0.05),
        "budget": "6 epochs",
        "batch_size": 16,
        "bootstrap": 0,
        "rehearsal": Rehearsal(data=old, share=0.25),
    }
    return experiment.Stage(**(fields | changes))


def blobs(seed: int) -> Data:
    """Two classes on two sides; the line between them differs by seed."""
    rng = np.random.default_rng(seed)
    turn = seed * 0.4
    normal = np.asarray([np.cos(turn), np.sin(turn)])
    points = rng.normal(size=(180, 2))
    table = [
        {"x": float(x), "y": float(y), "label": str(int(normal @ (x, y) > 0))}
        for x, y in points
    ]
    return Data(
        source=lambda: {"train": table[:120], "test": table[120:]}, input=("x", "y")
    )


def make_experiment(stage: experiment.Stage) -> experiment.Experiment:
    backbone = functools.partial(backbones.function, network)
    return experiment.Experiment(backbone=backbone, stages=(stage,))


def test_an_epoch_counts_new_rows(tmp_path: pathlib.Path) -> None:
    stage = make_stage()
    report = experiment.run(make_experiment(stage), output_dir=str(tmp_path))
    # 120 new rows, 12 of them a step.
    assert report.stages[0].steps == 6 * 10
    assert report.stages[0].epochs == 6
    assert report.stages[0].examples_seen == 60 * 16


def test_rehearsal_keeps_the_old_task(tmp_path: pathlib.Path) -> None:
    def accuracy_on_old(**changes) -> float:
        stage = make_stage(budget="400 steps", interval=400, **changes)
        prepared = prepare(stage, backbones.function(network), seed=0)
        census = prepared.apply_regime()
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        execution.execute(prepared, folder, census=census)
        split = blobs(0).load(target_kind="class").splits["test"]
        outputs = prepared.network.deployed.predict_on_batch(np.asarray(split.inputs))
        return float((np.asarray(outputs).argmax(axis=1) == split.targets).mean())

    old = functools.partial(blobs, 0)
    with_old = accuracy_on_old(rehearsal=Rehearsal(data=old, share=0.75))
    assert with_old > accuracy_on_old(rehearsal=None) + 0.1


def test_a_stage_goes_on_with_the_same_batches() -> None:
    prepared, again = (
        prepare(make_stage(), backbones.function(network), seed=0) for _ in range(2)
    )
    stream = pipeline.stream(again.batches, start_step=7, num_steps=5)
    for step, (inputs, targets) in zip(range(7, 12), stream, strict=True):
        expected = prepared.batches[step]
        np.testing.assert_array_equal(inputs, expected[0])
        np.testing.assert_array_equal(targets, expected[1])


def test_a_teacher_is_asked_about_old_rows_too() -> None:
    def teach(dataset: pipeline.Dataset) -> np.ndarray:
        labels = np.eye(2, dtype="float32")[dataset.splits["train"].targets]
        return np.concatenate([labels, 10 * labels], axis=1)

    made = dataclasses.replace(objectives.classification(), teach=teach)
    stage = make_stage(objective=lambda: made)
    prepared = prepare(stage, backbones.function(network), seed=0)
    targets = prepared.batches[0][1]
    assert targets.shape == (16, 4)
    np.testing.assert_array_equal(targets[:, 2:], 10 * targets[:, :2])


def test_an_objective_without_labels_rehearses() -> None:
    def bind(backbone: backbones.Backbone) -> objectives.Pretext:
        inputs = backbone.new_inputs()
        outputs = keras.layers.Dense(2, name="decoder")(backbone.outputs(inputs))
        return objectives.Pretext(
            model=keras.Model(inputs, outputs),
            make_batch=lambda examples, indices, rng: (
                examples.batch(indices),
                examples.batch(indices),
            ),
            loss=keras.losses.MeanSquaredError,
            statistics=lambda outputs, targets, weights: {},
            summarize=lambda means: {},
        )

    objective = objectives.SelfSupervised(
        name="copy", inputs=("vector",), bind=bind, headline="loss"
    )
    stage = make_stage(objective=lambda: objective)
    prepared = prepare(stage, backbones.function(network), seed=0)
    old = np.asarray(blobs(0).load(target_kind="none").splits["train"].inputs)
    is_old = [
        bool((old == row).all(axis=1).any()) for row in prepared.batches[5][0].tolist()
    ]
    assert is_old == [False] * 12 + [True] * 4
    assert prepared.total_steps == 60
