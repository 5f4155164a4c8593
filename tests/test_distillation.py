"""Distillation: the loss against NumPy, teachers, whole runs."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import keras
import numpy as np
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.data import Data, Dataset, sources
from tflearn.objectives import teachers
from tflearn.objectives.distillation import DistillationLoss, OfOutputs, Weights
from tflearn.support.errors import BackboneError, ConfigError, RunError
from tflearn.training import finished, optimizers
from tflearn.training.preparation import prepare


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return p * np.log(p / q)


T, ALPHA, WEIGHT = 3.0, 0.7, 0.4


def expected_soft(kind: str, t: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The term of the teacher's outputs, written down in NumPy."""
    if kind == "class":
        return T**2 * kl(softmax(t / T), softmax(s / T)).sum(axis=-1)
    if kind == "multi_label":
        p, q = sigmoid(t / T), sigmoid(s / T)
        return T**2 * (kl(p, q) + kl(1 - p, 1 - q)).mean(axis=-1)
    return ((t - s) ** 2).mean(axis=-1)


BASES = {
    "class": objectives.classification,
    "multi_label": objectives.multi_label,
    "number": objectives.regression,
}
SIZES = {"class": 4, "multi_label": 4, "number": 1}


def example_batch(kind: str, hints: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng, size = np.random.default_rng(0), SIZES[kind]
    labels = rng.normal(size=(6, size))
    if kind == "class":
        labels = np.eye(size)[rng.integers(0, size, 6)]
    if kind == "multi_label":
        labels = (labels > 0).astype("float64")
    truth = [labels, 3 * rng.normal(size=(6, size)), rng.normal(size=(6, hints))]
    guess = rng.normal(size=(6, size + hints))
    return np.concatenate(truth, axis=1).astype("float32"), guess.astype("float32")


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("distance", [None, "mse", "cosine"])
def test_the_loss_is_the_formula(kind: str, distance: str | None) -> None:
    size, hints = SIZES[kind], 5 if distance else 0
    truth, guess = example_batch(kind, hints)
    base = BASES[kind]().loss(True)
    weights = Weights(temperature=T, alpha=ALPHA)
    if distance:
        weights = dataclasses.replace(weights, feature_weight=WEIGHT, distance=distance)
    found = DistillationLoss(base, kind=kind, weights=weights)(truth, guess)

    labels, t, f = np.split(truth, [size, 2 * size], axis=1)
    s, h = np.split(guess, [size], axis=1)
    plain = float(base(labels, s))
    expected = (1 - ALPHA) * plain + ALPHA * expected_soft(kind, t, s).mean()
    if distance == "mse":
        expected += WEIGHT * ((f - h) ** 2).mean()
    if distance == "cosine":
        norms = np.linalg.norm(f, axis=1) * np.linalg.norm(h, axis=1)
        expected += WEIGHT * (1 - (f * h).sum(axis=1) / norms).mean()
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_a_student_like_its_teacher_has_no_soft_loss() -> None:
    truth, _ = example_batch("class")
    loss = DistillationLoss(
        keras.losses.CategoricalCrossentropy(from_logits=True),
        kind="class",
        weights=Weights(alpha=1.0),
    )
    assert float(loss(truth, truth[:, 4:])) == pytest.approx(0, abs=1e-5)


def test_the_loss_is_rebuilt_from_its_configuration() -> None:
    truth, guess = example_batch("class", 5)
    base = keras.losses.CategoricalCrossentropy(from_logits=True)
    weights = Weights(temperature=T, feature_weight=WEIGHT)
    loss = DistillationLoss(base, kind="class", weights=weights)
    saved = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(saved)
    assert float(again(truth, guess)) == float(loss(truth, guess))


def test_metrics_are_those_of_the_labels() -> None:
    truth, guess = example_batch("class", 5)
    metric = OfOutputs(keras.metrics.CategoricalAccuracy(name="accuracy"))
    metric.update_state(truth, guess)
    right = truth[:, :4].argmax(axis=1) == guess[:, :4].argmax(axis=1)
    assert metric.name == "accuracy"
    assert float(metric.result()) == pytest.approx(right.mean())
    metric.reset_state()
    assert float(metric.result()) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature is out of its range"),
        ({"alpha": 1.5}, "alpha is out of its range"),
        ({"feature_weight": -1.0}, "feature_weight is out of its range"),
        ({"distance": "cosin"}, "Did you mean 'cosine'"),
    ],
)
def test_weights_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        objectives.distillation(teacher=lambda: teachers.run("run"), **changes)


# Whole runs on the images of handwritten digits.


def network(width: int) -> keras.Model:
    x = inputs = keras.Input((8, 8, 1), name="images")
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(width, activation="relu", name="block_0")(x)
    return keras.Model(inputs, x)


def digits(**changes) -> Data:
    fields = {
        "source": functools.partial(sources.sklearn, "digits"),
        "input": "image",
        "splits": {"train": 0.5, "validation": 0.2, "test": 0.3},
        "only_classes": ("3", "5", "8"),
    }
    return Data(**(fields | changes))


def declared(width: int, **changes) -> experiment.Experiment:
    fields = {
        "name": "tune",
        "data": digits,
        "objective": objectives.classification,
        "regime": regimes.full(),
        "optimizer": functools.partial(optimizers.adamw, learning_rate=0.01),
        "budget": "3 epochs",
        "batch_size": 32,
        "bootstrap": 0,
    }
    return experiment.Experiment(
        backbone=functools.partial(
            backbones.function, functools.partial(network, width)
        ),
        stages=(experiment.Stage(**(fields | changes)),),
    )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A finished run that knows the digits."""
    folder = tmp_path_factory.mktemp("teacher")
    experiment.run(declared(48, budget="8 epochs"), output_dir=str(folder))
    return folder


def lessons(objective: objectives.Objective, dataset: Dataset) -> np.ndarray:
    """What training takes instead of the labels."""
    assert objective.teach is not None
    return objective.teach(dataset)


def taught(folder: pathlib.Path, **changes):
    """An objective factory that learns from a run."""
    make = functools.partial(teachers.run, folder)
    return functools.partial(objectives.distillation, teacher=make, **changes)


def test_a_student_learns_from_outputs_and_features(
    teacher: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    saved = (teacher / "model/model.keras").read_bytes()
    objective = taught(teacher, alpha=0.9, feature_weight=0.5)
    student = declared(16, objective=objective, budget="8 epochs")
    report = experiment.run(student, output_dir=str(tmp_path / "run"))

    stage = report.stages[0]
    assert stage.evaluations["test"]["metrics"]["accuracy"]["value"] > 0.9
    losses = [row["loss"] for row in stage.history]
    assert losses[-1] < losses[0] / 2
    # The hint trains with the rest, and is gone from what the run hands on.
    assert "head/hint" in {row["path"] for row in stage.census}
    run = finished.open_run(tmp_path / "run")
    assert run.model.output.shape == (None, 3)
    assert "hint" not in [layer.name for layer in run.model.layers]
    assert (teacher / "model/model.keras").read_bytes() == saved


def test_alpha_one_without_labels_still_teaches_the_classes(
    teacher: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    student = declared(16, objective=taught(teacher, alpha=1.0), budget="8 epochs")
    report = experiment.run(student, output_dir=str(tmp_path))
    accuracy = report.stages[0].evaluations["test"]["metrics"]["accuracy"]["value"]
    assert accuracy > 0.9


def test_alpha_zero_is_plain_training(
    teacher: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    experiment.run(declared(16), output_dir=str(tmp_path / "plain"))
    student = declared(16, objective=taught(teacher, alpha=0.0))
    experiment.run(student, output_dir=str(tmp_path / "taught"))
    plain, learned = (
        finished.open_run(tmp_path / name).model.get_weights()
        for name in ("plain", "taught")
    )
    for a, b in zip(plain, learned, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_targets_hold_what_the_teacher_says_of_each_row(teacher: pathlib.Path) -> None:
    dataset = digits().load(target_kind="class")
    targets = lessons(taught(teacher, feature_weight=1.0)(), dataset)
    split = dataset.splits["train"]
    run = finished.open_run(teacher)
    outputs = run.outputs(split, dataset.data)
    labels, given, features = np.split(targets, [3, 6], axis=1)
    np.testing.assert_array_equal(labels.argmax(axis=1), split.targets)
    np.testing.assert_allclose(given, outputs, atol=1e-5)
    head = run.model.get_layer("head")
    np.testing.assert_allclose(np.asarray(head(features)), outputs, atol=1e-4)


def test_a_teacher_is_asked_once(
    teacher: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = digits().load(target_kind="class")
    first = lessons(taught(teacher, feature_weight=1.0)(), dataset)

    class Asked(Exception):
        pass

    def ask(self, *arguments) -> None:
        raise Asked

    monkeypatch.setattr(teachers.Teacher, "_ask", ask)
    again = lessons(taught(teacher, feature_weight=1.0)(), dataset)
    np.testing.assert_array_equal(first, again)
    # Other rows have other answers.
    other = digits(split_seed=1).load(target_kind="class")
    with pytest.raises(Asked):
        lessons(taught(teacher, feature_weight=1.0)(), other)


def test_a_backbone_teaches_its_features(teacher: pathlib.Path) -> None:
    make = functools.partial(
        teachers.backbone, functools.partial(backbones.from_run, teacher)
    )
    objective = functools.partial(
        objectives.distillation, teacher=make, feature_weight=1.0
    )
    dataset = digits().load(target_kind="class")
    own = lessons(objective(alpha=0.0), dataset)
    whole = lessons(taught(teacher, feature_weight=1.0)(), dataset)
    np.testing.assert_allclose(own[:, 6:], whole[:, 6:], atol=1e-5)
    with pytest.raises(ConfigError, match=r"teacher has no outputs.*alpha = 0"):
        lessons(objective(alpha=0.5), dataset)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"only_classes": ("1", "3", "5")},
            r"of the teacher: 3, 5, 8\. Expected: those of the data: 1, 3, 5",
        ),
        (
            {"classes": ("8", "5", "3"), "only_classes": None},
            r"of the teacher: 3, 5, 8\. Expected: those of the data: 8, 5, 3",
        ),
        ({"balance": "sampling"}, "cannot be balanced"),
        ({"augment": (keras.layers.MixUp,)}, "MixUp"),
    ],
)
def test_data_that_do_not_fit_the_teacher_are_refused(
    teacher: pathlib.Path, changes: dict, message: str
) -> None:
    if "classes" in changes:
        changes = changes | {"bad_row_tolerance": 1.0}
    stage = declared(
        16,
        objective=taught(teacher),
        data=functools.partial(digits, **changes),
    ).stages[0]
    backbone = backbones.function(functools.partial(network, 16))
    with pytest.raises(ConfigError, match=message):
        prepare(stage, backbone, seed=0)


def test_another_task_is_refused(teacher: pathlib.Path) -> None:
    numbers = digits(only_classes=None).load(target_kind="number")
    objective = taught(teacher, objective=objectives.regression)()
    with pytest.raises(ConfigError, match="another kind of targets.*'class'"):
        lessons(objective, numbers)


def test_a_folder_without_a_finished_run_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RunError, match="no finished run"):
        teachers.run(tmp_path)


# Students that begin as a part of the teacher.


def bert() -> backbones.Backbone:
    """A tiny encoder of texts that takes token ids."""
    hub: Any = backbones.import_keras_hub()
    model = functools.partial(
        hub.models.BertBackbone,
        vocabulary_size=12,
        num_layers=4,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=8,
    )
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]
    tokenizer = functools.partial(hub.models.BertTokenizer, vocabulary=words)
    return backbones.hub(model, tokenizer=tokenizer)


def test_a_shortened_backbone_has_the_kept_blocks() -> None:
    whole = bert()
    student = backbones.shortened(lambda: whole, keep=(0, 3))
    assert len(student.blocks) == 2
    kept = {"transformer_layer_0": 0, "transformer_layer_1": 3}
    for name, number in kept.items():
        ours = student.model.get_layer(name).get_weights()
        theirs = whole.model.get_layer(f"transformer_layer_{number}").get_weights()
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    encoder: Any = student.encoder
    batch = encoder.collate(encoder.tokenize(["a b", "c"]), 8)
    outputs: Any = student.model.predict_on_batch(batch)
    assert outputs["sequence_output"].shape == (2, 8, 8)


def test_all_blocks_are_the_whole() -> None:
    whole = bert()
    same = backbones.shortened(lambda: whole, keep=range(4))
    encoder: Any = whole.encoder
    batch = encoder.collate(encoder.tokenize(["a b c"]), 8)
    expected: Any = whole.model.predict_on_batch(batch)
    found: Any = same.model.predict_on_batch(batch)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6)


@pytest.mark.parametrize("keep", [(), (3, 0), (0, 4), (1, 1)])
def test_blocks_that_are_not_there_are_refused(keep: tuple[int, ...]) -> None:
    with pytest.raises(BackboneError, match="ascending numbers from 0 to 3"):
        backbones.shortened(bert, keep=keep)


def test_a_network_without_equal_blocks_is_not_shortened() -> None:
    source = functools.partial(backbones.function, functools.partial(network, 4))
    with pytest.raises(BackboneError, match="cannot be shortened"):
        backbones.shortened(source, keep=(0,))
