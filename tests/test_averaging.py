"""Averages of weights: with those of the start, and of several steps."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.backbones import graph
from tflearn.data import Data, sources
from tflearn.support.errors import ConfigError, RunError
from tflearn.training import (
    averaging,
    course,
    execution,
    finished,
    layer_rates,
    optimizers,
    preparation,
)


def make_model(*, norm: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    inner = x = keras.Input((3,))
    x = keras.layers.Dense(2, name="dense")(x)
    if norm:
        x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    backbone = keras.Model(inner, x, name="backbone")
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(backbone(inputs)))


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {p: graph.value_of(w) for p, w in layer_rates.weight_paths(model).items()}


def fill(model: keras.Model, value: float) -> None:
    for weight in model.weights:
        weight.assign(np.full(weight.shape, value, "float32"))


def ended(model: keras.Model, start, score=None, candidates=None) -> averaging.Ended:
    kept = candidates or {}
    return averaging.Ended(
        model=model,
        start=start,
        batches=[(np.full((4, 3), i, "float32"), None) for i in range(4)],
        score=score,
        headline="accuracy",
        sign=1,
        candidates={step: value for step, (value, _) in kept.items()},
        load=lambda step: kept[step][1],
    )


def test_a_declared_alpha_interpolates_the_backbone_alone() -> None:
    model = make_model()
    fill(model, 1.0)
    start = weights(model)
    fill(model, 3.0)
    line = averaging.wise_ft(alpha=0.25).finish(ended(model, start))
    assert line == "WiSE-FT: alpha 0.25, as declared"
    for path, value in weights(model).items():
        expected = 1.5 if path.startswith("backbone/") else 3.0
        np.testing.assert_array_equal(value, expected, err_msg=path)


def test_the_best_alpha_is_found_and_the_smallest_of_equals_taken() -> None:
    model = make_model()
    fill(model, 0.0)
    start = weights(model)
    fill(model, 1.0)

    def score() -> float:
        # Best from 0.4 on; so is 0.5.
        return min(0.4, float(weights(model)["head/kernel"][0, 0]))

    average = averaging.wise_ft(grid=(1.0, 0.5, 0.4, 0.0), pattern="*")
    line = average.finish(ended(model, start, score))
    assert line == (
        "WiSE-FT: alpha 0.4 by val_accuracy "
        "(0: 0.0000, 0.4: 0.4000, 0.5: 0.4000, 1: 0.4000)"
    )
    np.testing.assert_allclose(weights(model)["backbone/dense/kernel"], 0.4)


def test_equal_weights_do_not_move_by_a_rounding_error() -> None:
    model = make_model()
    start = weights(model)
    averaging.wise_ft(alpha=1 / 3, pattern="*").finish(ended(model, start))
    for path, value in weights(model).items():
        np.testing.assert_array_equal(value, start[path], err_msg=path)
    kept = {step: (0.5, start) for step in (1, 2, 3)}
    averaging.greedy_soup(candidates=3).finish(ended(model, {}, lambda: 0.5, kept))
    for path, value in weights(model).items():
        np.testing.assert_array_equal(value, start[path], err_msg=path)


def test_a_soup_of_nothing_is_an_error() -> None:
    model = make_model()
    with pytest.raises(RunError, match="nothing to make a soup of"):
        averaging.greedy_soup(candidates=2).finish(ended(model, {}, lambda: 0.5, {}))


def test_a_soup_takes_what_does_not_hurt() -> None:
    model = make_model()

    def filled(value: float):
        fill(model, value)
        return weights(model)

    # The score falls with the distance of the weights from 2.
    kept = {
        10: (-1.0, filled(1.0)),
        20: (-0.5, filled(2.5)),
        30: (-1.5, filled(3.5)),
        40: (-0.75, filled(1.25)),
    }

    def score() -> float:
        return -abs(float(weights(model)["head/kernel"][0, 0]) - 2.0)

    line = averaging.greedy_soup(candidates=4).finish(ended(model, {}, score, kept))
    # 20 alone: 0.5 away; with 40: 0.125; with 10 as well: 0.417, refused; with 30
    # instead: 0.417, refused.
    assert line == (
        "soup of 2 of 4 kept steps (20, 40): val_accuracy -0.1250, "
        "the best alone -0.5000"
    )
    np.testing.assert_allclose(weights(model)["backbone/dense/kernel"], 1.875)


def test_statistics_of_batch_normalisation_are_measured_again() -> None:
    model = make_model(norm=True)
    batches = ended(model, {}).batches
    states = {
        path: graph.value_of(variable)
        for path, variable in graph.variables_by_path(model).items()
        if "seed" in path
    }
    assert averaging.refresh_statistics(model, batches, count=4) == 1
    layer = model.get_layer("backbone").get_layer("norm")
    kernel = graph.value_of(model.get_layer("backbone").get_layer("dense").kernel)
    expected = np.mean([batch[0].mean(0) for batch in batches], axis=0) @ kernel
    np.testing.assert_allclose(graph.value_of(layer.moving_mean), expected, rtol=1e-5)
    assert layer.momentum == 0.99
    for path, value in states.items():
        found = graph.variables_by_path(model)[path]
        np.testing.assert_array_equal(graph.value_of(found), value)
    layer.trainable = False
    assert averaging.refresh_statistics(model, batches, count=4) == 0


# --- Whole runs --------------------------------------------------------------------


def make_backbone() -> keras.Model:
    x = inputs = keras.Input((4,), name="features")
    for index in range(2):
        x = keras.layers.Dense(8, activation="tanh", name=f"block_{index}")(x)
        x = keras.layers.BatchNormalization(name=f"norm_{index}")(x)
    return keras.Model(inputs, x)


def iris(**changes) -> Data:
    fields = {
        "source": functools.partial(sources.sklearn, "iris"),
        "input": "vector",
        "splits": {"train": 0.6, "validation": 0.2, "test": 0.2},
    }
    return Data(**(fields | changes))


def make_stage(**changes) -> experiment.Stage:
    fields = {
        "name": "tune",
        "data": iris,
        "objective": objectives.classification,
        "regime": regimes.partial(last=1),
        "optimizer": functools.partial(optimizers.adamw, learning_rate=0.05),
        "budget": "8 steps",
        "interval": 2,
        "batch_size": 16,
        "bootstrap": 0,
    }
    return experiment.Stage(**(fields | changes))


def declare(*stages: experiment.Stage) -> experiment.Experiment:
    return experiment.Experiment(
        backbone=functools.partial(backbones.function, make_backbone), stages=stages
    )


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing cleans up behind it."""


AVERAGES = {
    "wise_ft": functools.partial(averaging.wise_ft, grid=(0.3, 0.7)),
    "soup": functools.partial(averaging.greedy_soup, candidates=3),
}


@pytest.mark.first_on("jax")
@pytest.mark.parametrize("name", AVERAGES)
def test_a_killed_run_ends_with_the_same_average(
    tmp_path, monkeypatch, capsys, name
) -> None:
    declared = declare(make_stage(average=AVERAGES[name]))
    experiment.run(declared, output_dir=str(tmp_path / "straight"))
    said = [x for x in capsys.readouterr().out.splitlines() if "val_accuracy" in x]
    assert any(x.startswith(("WiSE-FT: alpha", "soup of")) for x in said)
    saved = execution.Checkpoints.save

    def save_then_die(self, step, *arguments, **keywords):
        known = step in self.steps
        saved(self, step, *arguments, **keywords)
        # After every checkpoint, after every kept step, and just before the report.
        if not known and self._manager.directory.name in ("checkpoints", "soup", "end"):
            raise Killed

    monkeypatch.setattr(execution.Checkpoints, "save", save_then_die)
    kills = 0
    while kills < 40:
        try:
            experiment.run(declared, output_dir=str(tmp_path / "killed"))
            break
        except Killed:
            kills += 1
    assert kills >= 5
    first, second = (
        finished.open_run(tmp_path / name).model.get_weights()
        for name in ("straight", "killed")
    )
    for old, new in zip(first, second, strict=True):
        np.testing.assert_array_equal(old, new)


def test_only_the_best_are_kept(tmp_path) -> None:
    declared = make_stage(average=AVERAGES["soup"])
    keras.utils.set_random_seed(0)
    prepared = preparation.prepare(declared, backbones.function(make_backbone), seed=0)
    census = prepared.apply_regime()
    outcome = execution.execute(prepared, tmp_path, census=census)
    kept = execution.Checkpoints(tmp_path / "soup", keep=None).steps
    ranked = sorted(
        outcome.state.history, key=lambda row: (-row["val_accuracy"], row["step"])
    )
    assert kept == tuple(sorted(int(row["step"]) for row in ranked[:3]))
    assert outcome.notes[-1].startswith("soup of")
    assert outcome.proof["layers"] == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: averaging.wise_ft(alpha=1.5), "0 <= alpha <= 1"),
        (lambda: averaging.wise_ft(grid=()), "0 <= alpha <= 1"),
        (lambda: averaging.greedy_soup(candidates=1), "two candidates"),
        (averaging.wise_ft, "there is none.*stage 'tune' with train, test"),
        (averaging.greedy_soup, "there is none"),
    ],
)
def test_what_cannot_be_averaged_is_refused_before_training(make, message) -> None:
    data = functools.partial(iris, splits={"train": 0.8, "test": 0.2})
    declared = make_stage(average=make, data=data)
    prepared = preparation.prepare(declared, backbones.function(make_backbone), seed=0)
    with pytest.raises(ConfigError, match=message):
        course.check(prepared)
