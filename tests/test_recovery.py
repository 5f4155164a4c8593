"""Stages with phases: damage and faults lead back into the phase of a checkpoint."""

from __future__ import annotations

import functools
import gc
import math
import pathlib

import keras
import numpy as np
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.data import Data, sources
from tflearn.support.errors import RunError
from tflearn.training import execution, faults, optimizers, phases
from tflearn.training.checkpoints import Checkpoints

# Checkpoints at 3, 5 (the end of the first phase), 8 (inside the second) and 9.
PHASES = (phases.Phase(until="5 steps", regime=regimes.frozen()),)


def make_backbone() -> keras.Model:
    inputs = keras.Input((4,), name="features")
    hidden = keras.layers.Dense(8, activation="tanh", name="block")(inputs)
    return keras.Model(inputs, keras.layers.Dropout(0.2, name="dropout")(hidden))


def iris() -> Data:
    return Data(
        source=functools.partial(sources.sklearn, "iris"),
        input="vector",
        splits={"train": 0.8, "validation": 0.2},
    )


def declare(**settings) -> experiment.Experiment:
    fields = {
        "phases": PHASES,
        "regime": regimes.full(),
        "optimizer": functools.partial(optimizers.adamw, learning_rate=0.02),
        "budget": "9 steps",
        "interval": 3,
        "save_steps": 2,
        "keep_last": 9,
    }
    stage = experiment.Stage(
        name="tune",
        data=iris,
        objective=objectives.classification,
        batch_size=16,
        bootstrap=0,
        **(fields | settings),
    )
    return experiment.Experiment(
        backbone=functools.partial(backbones.function, make_backbone), stages=[stage]
    )


def run(folder: pathlib.Path, **settings):
    return experiment.run(declare(**settings), output_dir=str(folder)).stages[0]


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing cleans up behind it."""


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> tuple[list, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("straight") / "run"
    stage = run(folder)
    return stage.history, Checkpoints(folder / "stages/tune/end").read(9)


# Orbax leaves coroutines behind when it meets a damaged file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.first_on("jax")
@pytest.mark.parametrize("last", [6, 8])
def test_damage_leads_back_into_an_earlier_phase(
    last: int, straight, tmp_path, monkeypatch, capsys
) -> None:
    """All checkpoints of the second phase are damaged; the one before is of the first.

    That of step 6 is the only one of its phase, inside an interval; behind that of
    step 8 there are two.
    """
    saved = Checkpoints.save

    def save_then_die(self, step, *arguments, **keywords):
        saved(self, step, *arguments, **keywords)
        if step == last:
            self._manager.wait_until_finished()
            raise Killed

    monkeypatch.setattr(execution.Checkpoints, "save", save_then_die)
    with pytest.raises(Killed):
        run(tmp_path / "run")
    monkeypatch.setattr(execution.Checkpoints, "save", saved)
    folder = tmp_path / "run/stages/tune/checkpoints"
    damaged = [x for x in folder.iterdir() if x.name.isdigit() and int(x.name) > 5]
    assert str(last) in {x.name for x in damaged}
    for checkpoint in damaged:
        for file in (checkpoint / "state").rglob("manifest.ocdbt"):
            file.write_bytes(b"")
    capsys.readouterr()
    stage = run(tmp_path / "run")
    shown = capsys.readouterr().out
    assert shown.count("is damaged") == len(damaged)
    assert "resumed stage 'tune' at step 5 of 9" in shown
    history, weights = straight
    assert stage.history == history
    found = Checkpoints(tmp_path / "run/stages/tune/end").read(9)
    for path, value in weights.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)
    # Here, and not in a later test.
    gc.collect()


def spiky(total_steps: int) -> keras.optimizers.Optimizer:
    """Moves nothing by more than a little before step 5, and too much behind it."""
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([5], [0.01, 3e38])
    return keras.optimizers.SGD(rate)


def test_a_fault_behind_a_phase_leads_back_into_it(tmp_path, capsys) -> None:
    declared = faults.Faults(policy="rollback", slower=1e-37)
    stage = run(tmp_path / "run", optimizer=spiky, faults=declared, save_steps=None)
    shown = capsys.readouterr().out
    assert "back to step 5, the learning rate is 1e-37 of the declared one" in shown
    # The second phase was entered twice, both times from the end of the first.
    assert shown.count("steps 5 to 9") >= 2
    assert any("went back 1 times" in note for note in stage.notes)
    assert [row["step"] for row in stage.history] == [3, 5, 8, 9]
    assert all(math.isfinite(row["loss"]) for row in stage.history)


def test_a_rollback_in_phases_is_exact_under_a_kill(tmp_path, monkeypatch) -> None:
    settings = {
        "optimizer": spiky,
        "faults": faults.Faults(policy="rollback", slower=1e-37),
        "save_steps": None,
    }
    history = run(tmp_path / "straight", **settings).history
    saved = Checkpoints.save

    def save_then_die(self, step, *arguments, **keywords):
        saved(self, step, *arguments, **keywords)
        if step == 8:
            self._manager.wait_until_finished()
            raise Killed

    monkeypatch.setattr(execution.Checkpoints, "save", save_then_die)
    with pytest.raises(Killed):
        run(tmp_path / "killed", **settings)
    monkeypatch.setattr(execution.Checkpoints, "save", saved)
    assert run(tmp_path / "killed", **settings).history == history
    one, other = (
        Checkpoints(tmp_path / name / "stages/tune/end").read(9)
        for name in ("straight", "killed")
    )
    for path, value in one.items():
        np.testing.assert_array_equal(other[path], value, err_msg=path)


def test_stop_names_the_step_in_a_later_phase(tmp_path) -> None:
    with pytest.raises(RunError, match="step [678], rows .*iris"):
        run(tmp_path / "run", optimizer=spiky)


def test_rollbacks_in_phases_have_an_end(tmp_path) -> None:
    declared = faults.Faults(policy="rollback", slower=0.9, most=2)
    with pytest.raises(RunError, match="numbers went wrong in stage 'tune'"):
        run(tmp_path / "run", optimizer=spiky, faults=declared)


# Orbax leaves coroutines behind when it meets a damaged file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_resumed_stage_reads_its_checkpoint_once(tmp_path, monkeypatch) -> None:
    saved = Checkpoints.save

    def save_then_die(self, step, *arguments, **keywords):
        saved(self, step, *arguments, **keywords)
        if step == 4:
            self._manager.wait_until_finished()
            raise Killed

    monkeypatch.setattr(execution.Checkpoints, "save", save_then_die)
    with pytest.raises(Killed):
        run(tmp_path / "run", phases=())
    monkeypatch.setattr(execution.Checkpoints, "save", saved)
    import orbax.checkpoint as ocp

    reads = []
    restore = ocp.CheckpointManager.restore

    def counted(self, step, *arguments, **keywords):
        reads.append((self.directory.name, step))
        return restore(self, step, *arguments, **keywords)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", counted)
    run(tmp_path / "run", phases=())
    assert reads == [("checkpoints", 4)]
