"""Anchors: the pull back to a stage's start, and the Fisher information."""

from __future__ import annotations

import functools
import pathlib

import keras
import numpy as np
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.backbones import graph
from tflearn.data import Data, sources
from tflearn.support.errors import ConfigError
from tflearn.training import (
    anchors,
    course,
    execution,
    finished,
    fisher,
    layer_rates,
    loop,
    optimizers,
    phases,
    preparation,
    stage,
)


def make_backbone() -> keras.Model:
    x = inputs = keras.Input((4,), name="features")
    x = keras.layers.Dense(8, activation="tanh", name="block_0")(x)
    return keras.Model(inputs, x)


def iris(*classes: str) -> Data:
    return Data(
        source=functools.partial(sources.sklearn, "iris"),
        input="vector",
        only_classes=classes or None,
        splits={"train": 0.6, "validation": 0.2, "test": 0.2},
    )


def make_stage(**changes) -> experiment.Stage:
    fields = {
        "name": "tune",
        "data": iris,
        "objective": objectives.classification,
        "regime": regimes.full(),
        "optimizer": functools.partial(optimizers.adamw, learning_rate=0.02),
        "budget": "12 steps",
        "interval": 4,
        "batch_size": 16,
        "bootstrap": 0,
    }
    return experiment.Stage(**(fields | changes))


def prepare(declared: experiment.Stage) -> stage.Prepared:
    keras.utils.set_random_seed(0)
    return preparation.prepare(declared, backbones.function(make_backbone), seed=0)


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {p: graph.value_of(w) for p, w in layer_rates.weight_paths(model).items()}


def compiled(optimizer: keras.optimizers.Optimizer, *, sparse: bool = False):
    """A model whose inner part is the backbone; its weights are those of the start."""
    keras.utils.set_random_seed(0)
    inner = keras.Input((3,), dtype="int32" if sparse else "float32")
    x = inner
    if sparse:
        x = keras.layers.Flatten()(keras.layers.Embedding(9, 2, name="tokens")(x))
    x = keras.layers.Dense(2, name="block_0")(x)
    inputs = keras.Input((3,), dtype=inner.dtype)
    outputs = keras.layers.Dense(1, name="head")(
        keras.Model(inner, x, name="backbone")(inputs)
    )
    model = keras.Model(inputs, outputs)
    optimizers.configure(optimizer, model)
    loop.compile_model(
        model, optimizer=optimizer, loss=keras.losses.MeanSquaredError(), metrics=[]
    )
    return model


def step(model: keras.Model, count: int = 1) -> None:
    x = np.arange(12).reshape(4, 3) % 7
    for _ in range(count):
        model.train_on_batch(x.astype(model.inputs[0].dtype), np.ones((4, 1)))


def displaced(start: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Anchors away from the weights, so that there is a pull from the first step."""
    rng = np.random.default_rng(1)
    return {
        path: value + rng.normal(size=value.shape).astype("float32")
        for path, value in start.items()
    }


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("with_importances", [False, True])
def test_the_gradient_is_that_of_the_penalty(sparse, with_importances) -> None:
    rate, strength = 0.25, 0.3
    plain = compiled(keras.optimizers.SGD(rate), sparse=sparse)
    before = weights(plain)
    step(plain)
    held = compiled(keras.optimizers.SGD(rate), sparse=sparse)
    start = displaced(before)
    importances = {path: np.abs(value) for path, value in start.items()}
    anchors.hold(
        held.optimizer,
        held,
        anchors.l2sp(strength),
        start=start,
        importances=importances if with_importances else None,
    )
    step(held)
    after, expected = weights(held), weights(plain)
    for path, value in expected.items():
        if path.startswith("backbone/"):
            factor = importances[path] if with_importances else 1.0
            value = value - rate * strength * factor * (before[path] - start[path])
        np.testing.assert_allclose(after[path], value, atol=1e-6, err_msg=path)


def test_the_proximal_step_is_that_of_the_penalty() -> None:
    rate, strength, factor = 0.25, 3.0, 0.5
    plain = compiled(keras.optimizers.SGD(rate))
    before = weights(plain)
    step(plain)
    slower = optimizers.by_pattern(
        9, optimizer=lambda: keras.optimizers.SGD(rate), rates={"backbone/*": factor}
    )
    held = compiled(slower)
    start = displaced(before)
    anchor = anchors.l2sp(strength, step="proximal")
    assert anchors.hold(held.optimizer, held, anchor, start=start) == 2
    step(held)
    stepped, after = weights(plain), weights(held)
    for path in ("backbone/block_0/kernel", "backbone/block_0/bias"):
        moved = before[path] + factor * (stepped[path] - before[path])
        weight = factor * rate * strength
        expected = (moved + weight * start[path]) / (1 + weight)
        np.testing.assert_allclose(after[path], expected, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("method", "rate", "how", "strength", "tolerance"),
    [
        ("SGD", 0.1, "gradient", 19.0, 0.05),
        ("SGD", 0.1, "proximal", 1e9, 1e-6),
        ("AdamW", 0.01, "proximal", 1e9, 1e-6),
        # Adam takes steps of its rate whatever the gradient: held within a few.
        ("AdamW", 0.001, "gradient", 1e6, 0.01),
    ],
)
def test_a_huge_strength_keeps_weights_where_they_were(
    method, rate, how, strength, tolerance
) -> None:
    arguments = {"clipnorm": 0.01} if method == "SGD" else {"weight_decay": 0.0}
    model = compiled(getattr(keras.optimizers, method)(rate, **arguments))
    start = weights(model)
    anchor = anchors.l2sp(strength, step=how)
    anchors.hold(model.optimizer, model, anchor, start=start)
    step(model, 30)
    after = weights(model)
    for path, value in start.items():
        if path.startswith("backbone/"):
            np.testing.assert_allclose(after[path], value, atol=tolerance)
    assert np.any(after["head/kernel"] != start["head/kernel"])


def test_no_strength_changes_no_bit() -> None:
    plain, held = (compiled(keras.optimizers.AdamW(0.01)) for _ in range(2))
    anchor = anchors.l2sp(0.0)
    assert anchors.hold(held.optimizer, held, anchor, start=weights(held)) == 0
    for model in (plain, held):
        step(model, 3)
    for path, value in weights(plain).items():
        np.testing.assert_array_equal(weights(held)[path], value)


# --- Fisher information ------------------------------------------------------------


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def linear(**changes) -> stage.Prepared:
    """A linear softmax model on iris: the backbone passes the features on."""

    def identity() -> keras.Model:
        inputs = keras.Input((4,), name="features")
        return keras.Model(inputs, keras.layers.Identity(name="same")(inputs))

    keras.utils.set_random_seed(0)
    return preparation.prepare(
        make_stage(**changes), backbones.function(identity), seed=0
    )


def rows_and_logits(prepared: stage.Prepared):
    examples = prepared.examples["train"]
    x = np.asarray(examples.batch(np.arange(len(examples))), "float64")
    kernel, bias = (graph.value_of(w) for w in prepared.network.model.weights)
    return x, x @ kernel + bias


def test_the_empirical_fisher_of_a_linear_softmax_is_the_one_by_hand() -> None:
    prepared = linear()
    found = fisher.diagonal(prepared, pattern="*", samples=10**6, labels="data")
    x, logits = rows_and_logits(prepared)
    targets = np.asarray(prepared.dataset.splits["train"].targets)
    # The gradient of log p by the logits is the one-hot target minus the softmax.
    residual = np.eye(3)[targets] - softmax(logits)
    by_kernel = np.einsum("ni,nc->nic", x, residual)
    kernel, bias = sorted(found, key=lambda path: path.endswith("bias"))
    np.testing.assert_allclose(found[kernel], (by_kernel**2).mean(0), rtol=1e-4)
    np.testing.assert_allclose(found[bias], (residual**2).mean(0), rtol=1e-4)


def test_the_fisher_with_drawn_targets_is_close_to_its_expectation() -> None:
    prepared = linear()
    for weight in prepared.network.model.weights:
        # Small logits: every class is drawn often.
        weight.assign(weight * 0.05)
    x, logits = rows_and_logits(prepared)
    found = np.mean(
        [
            next(
                value
                for path, value in fisher.diagonal(
                    prepared, pattern="*", samples=90, labels="model", seed=seed
                ).items()
                if path.endswith("bias")
            )
            for seed in range(20)
        ],
        axis=0,
    )
    chances = softmax(logits)
    # The expectation over y of (1[y = c] - p_c)^2 is p_c (1 - p_c).
    np.testing.assert_allclose(found, (chances * (1 - chances)).mean(0), rtol=0.1)


@pytest.mark.parametrize("kind", ["class", "multi_label", "number"])
def test_targets_are_drawn_from_the_predictions(kind) -> None:
    outputs = np.tile([[0.5, -1.0]], (20000, 1))
    drawn = fisher.draw(kind, outputs, np.random.default_rng(0))
    expected = {
        "class": softmax(outputs[0])[1],
        "multi_label": 1 / (1 + np.exp(-outputs[0])),
        "number": outputs[0],
    }[kind]
    np.testing.assert_allclose(drawn.mean(0), expected, atol=0.03)


# --- Whole runs --------------------------------------------------------------------


def declare(*stages: experiment.Stage) -> experiment.Experiment:
    return experiment.Experiment(
        backbone=functools.partial(backbones.function, make_backbone), stages=stages
    )


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing cleans up behind it."""


@pytest.mark.first_on("jax")
@pytest.mark.parametrize(
    "anchor",
    [
        functools.partial(anchors.l2sp, 0.5),
        functools.partial(anchors.ewc, 5.0, data=iris, samples=20, step="proximal"),
    ],
)
def test_a_killed_run_pulls_to_the_same_start(tmp_path, monkeypatch, anchor) -> None:
    declared = declare(
        make_stage(
            anchor=anchor,
            phases=(phases.Phase(until="6 steps", regime=regimes.frozen()),),
        )
    )
    experiment.run(declared, output_dir=str(tmp_path / "straight"))
    saved = execution.Checkpoints.save

    def save_then_die(self, step, *arguments, **keywords):
        known = step in self.steps
        saved(self, step, *arguments, **keywords)
        if not known and "checkpoints" in str(self._manager.directory):
            raise Killed

    monkeypatch.setattr(execution.Checkpoints, "save", save_then_die)
    for _ in range(5):
        with pytest.raises(Killed):
            experiment.run(declared, output_dir=str(tmp_path / "killed"))
    experiment.run(declared, output_dir=str(tmp_path / "killed"))
    first, second = (
        finished.open_run(tmp_path / name).model.get_weights()
        for name in ("straight", "killed")
    )
    for old, new in zip(first, second, strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_that_an_old_stage_needs_move_less(tmp_path: pathlib.Path) -> None:
    old = prepare(make_stage(name="old"))
    backbone = old.network.backbone
    execution.execute(old, tmp_path / "old", census=old.apply_regime())
    begun = {
        p: graph.value_of(w) for p, w in graph.weights_by_path(backbone.model).items()
    }

    def moved(anchor, name: str) -> dict[str, np.ndarray]:
        for path, weight in graph.weights_by_path(backbone.model).items():
            weight.assign(begun[path])
        new = preparation.prepare(
            make_stage(name=name, anchor=anchor), backbone, seed=1
        )
        execution.execute(
            new, tmp_path / name, census=new.apply_regime(), earlier={"old": old}
        )
        now = graph.weights_by_path(backbone.model)
        return {p: np.square(graph.value_of(now[p]) - begun[p]) for p in begun}

    ewc = functools.partial(anchors.ewc, 1e6, step="proximal")
    held = moved(functools.partial(ewc, stage="old", samples=30), "held")
    written = tmp_path / "held/fisher.npz"
    again = moved(functools.partial(ewc, path=str(written)), "again")
    free = moved(None, "free")
    importances = fisher.read(written)
    assert set(importances) == {"backbone/block_0/kernel", "backbone/block_0/bias"}

    def cost(distances: dict[str, np.ndarray]) -> float:
        return sum(
            float(np.sum(importance * distances[path.removeprefix("backbone/")]))
            for path, importance in importances.items()
        )

    assert cost(held) < 0.01 * cost(free)
    assert cost(again) < 0.01 * cost(free)


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        (lambda: anchors.l2sp(-1.0), "0 or above"),
        (lambda: anchors.l2sp(1.0, step="proximl"), "Did you mean 'proximal'"),
        (lambda: anchors.l2sp(1.0, pattern="backbone/blok*"), "matches no weight"),
        (lambda: anchors.ewc(1.0), "exactly one of stage, data and path"),
        (lambda: anchors.ewc(1.0, stage="a", path="b"), "exactly one of"),
        (lambda: anchors.ewc(1.0, stage="pretrian"), "Did you mean 'pretrain'"),
        (lambda: anchors.ewc(1.0, data=iris, samples=0), "needs samples"),
        (lambda: anchors.ewc(1.0, data=iris, labels="modle"), "Did you mean 'model'"),
    ],
)
def test_an_anchor_that_does_not_fit_is_refused_before_training(
    anchor, message
) -> None:
    with pytest.raises(ConfigError, match=message):
        course.check(prepare(make_stage(anchor=anchor)), earlier=("pretrain",))


def test_an_anchor_on_frozen_weights_is_refused_before_training() -> None:
    frozen = make_stage(anchor=anchors.l2sp, regime=regimes.frozen())
    with pytest.raises(ConfigError, match="only weights that never move"):
        course.check(prepare(frozen))
    first = (phases.Phase(until="2 steps", regime=regimes.full()),)
    later = make_stage(anchor=anchors.l2sp, regime=regimes.frozen(), phases=first)
    assert course.check(prepare(later)) == ()


def test_importances_of_another_model_are_refused(tmp_path) -> None:
    model = compiled(keras.optimizers.SGD(0.1))
    wrong = {path: np.ones((1,)) for path in weights(model)}
    with pytest.raises(ConfigError, match="of another model"):
        anchors.hold(
            model.optimizer,
            model,
            anchors.l2sp(1.0),
            start=weights(model),
            importances=wrong,
        )
    with pytest.raises(ConfigError, match="no file with the Fisher"):
        anchors.ewc(path=str(tmp_path / "absent.npz"))
    (tmp_path / "junk.npz").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"junk\.npz"):
        anchors.ewc(path=str(tmp_path / "junk.npz"))
    with pytest.raises(ConfigError, match="other classes"):
        fisher.with_data(prepare(make_stage()), iris("setosa", "virginica"))
