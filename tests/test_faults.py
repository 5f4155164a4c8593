"""Numbers that go wrong: found, named, left out or gone back from."""

from __future__ import annotations

import functools
import json
import math

import keras
import numpy as np
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.data import Data, sources
from tflearn.support.errors import ConfigError, RunError
from tflearn.training import faults, optimizers
from tflearn.training.checkpoints import Checkpoints
from tflearn.training.faults import Faults

POISONED = 37


def data(poison: float = 0.0) -> Data:
    """Two clouds of points, one of which may lie far out."""
    rng = np.random.default_rng(0)
    labels = [str(i % 2) for i in range(64)]
    points = rng.normal(size=(64, 2)) + np.array(
        [[3.0 * (i % 2), 0] for i in range(64)]
    )
    points[POISONED, 0] += poison
    columns = {"x": points[:, 0].tolist(), "y": points[:, 1].tolist(), "label": labels}
    return Data(
        source=lambda: sources.arrays({"train": columns}),
        input=("x", "y"),
        target="label",
    )


def perceptron() -> keras.Model:
    inputs = keras.Input((2,))
    # The square of a point far out is no number any more.
    both = keras.ops.concatenate([inputs, inputs * inputs / 9.0], axis=-1)
    hidden = keras.layers.Dense(8, "relu", name="dense")(both)
    return keras.Model(inputs, keras.layers.Dropout(0.1, name="dropout")(hidden))


def declare(
    declared: Faults, *, poison: float = 0.0, rate: float = 0.1, **settings
) -> experiment.Experiment:
    settings = {"interval": 4, "budget": "16 steps", **settings}
    stage = experiment.Stage(
        name="tune",
        data=functools.partial(data, poison),
        objective=objectives.classification,
        regime=regimes.full(),
        optimizer=functools.partial(optimizers.sgd, learning_rate=rate),
        batch_size=8,
        bootstrap=0,
        faults=declared,
        **settings,
    )
    return experiment.Experiment(
        backbone=functools.partial(backbones.function, perceptron), stages=[stage]
    )


def run(folder, declared: Faults, **settings):
    made = declare(declared, **settings)
    return experiment.run(made, output_dir=str(folder)).stages[0]


NAN = math.nan
FOUND = {
    "fine": ([1.0, 0.9], Faults(), ""),
    "nan": ([1.0, NAN], Faults(), "the loss is nan"),
    "inf": ([math.inf], Faults(policy="rollback"), "the loss is inf"),
    "left out": ([1.0, NAN], Faults(policy="skip"), ""),
    "no spike": ([1.0, 2.9], Faults(spike=3.0), ""),
    "spike": ([9.0, 1.0, 1.0, 3.1], Faults(spike=3.0), "3.1 times the median of the 3"),
    "spikes are not asked for": ([1.0, 99.0], Faults(), ""),
    "old intervals do not count": ([0.1] + [1.0] * 5 + [2.0], Faults(spike=3.0), ""),
    "a loss below zero has no factor": ([-1.0, 5.0], Faults(spike=3.0), ""),
}


@pytest.mark.parametrize("name", FOUND)
def test_an_interval_is_judged_by_its_mean_loss(name: str) -> None:
    losses, declared, expected = FOUND[name]
    found = faults.find([{"loss": loss} for loss in losses], declared)
    assert expected in found and bool(expected) == bool(found)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"policy": "stopp"}, "Did you mean 'stop'"),
        ({"spike": 1.0}, "several times higher"),
        ({"spike": 3.0, "policy": "skip"}, "no step can be blamed"),
        ({"slower": 1.0}, "cannot be"),
        ({"most": 0}, "cannot be"),
    ],
)
def test_a_declaration_that_makes_no_sense(settings, match) -> None:
    with pytest.raises(ConfigError, match=match):
        Faults(**settings)


def test_a_loss_that_does_not_move_is_a_warning_with_figures() -> None:
    assert "0.69312 in the last of 3" in faults.still(
        [{"loss": x} for x in (0.69315, 0.69314, 0.69312)]
    )
    assert not faults.still([{"loss": x} for x in (0.7, 0.69, 0.68)])
    assert not faults.still([{"loss": 0.7}] * 2)


def test_stop_names_the_step_and_its_rows(tmp_path) -> None:
    with pytest.raises(RunError, match="the loss is (nan|inf)") as raised:
        run(tmp_path / "run", Faults(), poison=1e30)
    told = json.loads((tmp_path / "run/stages/tune/fault.json").read_text())
    assert f"step {told['step']}" in str(raised.value)
    assert len(told["rows"]) == 8
    # The first batch that holds the row, and the row is named.
    assert any(row.endswith(f"[{POISONED}]") for row in told["rows"])
    assert told["step"] <= told["by"]
    # Nothing wrong was saved.
    saved = Checkpoints(tmp_path / "run/stages/tune/checkpoints")
    for step in saved.steps:
        assert all(np.isfinite(x).all() for x in saved.read(step).values())


def test_skip_leaves_the_step_out_and_counts_it(tmp_path) -> None:
    stage = run(tmp_path / "run", Faults(policy="skip", most=8), poison=1e30)
    # Two epochs of 8 steps: the row comes twice.
    assert any("2 steps were left out" in note for note in stage.notes)
    final = Checkpoints(tmp_path / "run/stages/tune/end").read(16)
    assert all(np.isfinite(x).all() for x in final.values())
    with pytest.raises(RunError, match="too many steps"):
        run(tmp_path / "few", Faults(policy="skip", most=1), poison=1e30)


def test_skip_changes_nothing_where_nothing_is_wrong(tmp_path) -> None:
    plain = run(tmp_path / "plain", Faults())
    guarded = run(tmp_path / "guarded", Faults(policy="skip"))
    assert plain.history == guarded.history


def test_rollback_goes_on_with_a_lower_rate(tmp_path, capsys) -> None:
    declared = Faults(policy="rollback", slower=1e-31)
    stage = run(tmp_path / "run", declared, rate=1e30)
    shown = capsys.readouterr().out
    assert "back to step 0, the learning rate is 1e-31 of the declared one" in shown
    assert any("went back 1 times" in note for note in stage.notes)
    assert [row["step"] for row in stage.history] == [4, 8, 12, 16]
    assert all(math.isfinite(row["loss"]) for row in stage.history)
    rows = (tmp_path / "run/stages/tune/metrics.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows] == stage.history


def test_rollbacks_have_an_end(tmp_path) -> None:
    with pytest.raises(RunError, match="numbers went wrong in stage 'tune'"):
        run(tmp_path / "run", Faults(policy="rollback", most=2), poison=1e30)
