"""Checkpoints: everything comes back, and nothing else is accepted."""

from __future__ import annotations

import gc
import pathlib
import shutil

import keras
import numpy as np
import pytest

from tflearn.support.errors import RunError
from tflearn.training.checkpoints import Checkpoints
from tflearn.training.variables import state_variables


def make_model(units: int = 3) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units, name="dense"),
            keras.layers.Dropout(0.5, name="dropout"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(1, name="head"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.1, use_ema=True), loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


def snapshot(model: keras.Model) -> dict[str, np.ndarray]:
    variables = state_variables(model, model.optimizer)
    return {k: keras.ops.convert_to_numpy(v.value) for k, v in variables.items()}


def train(model: keras.Model, steps: int) -> None:
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    for _ in range(steps):
        model.train_on_batch(x, x[:, :1])


def test_a_restored_run_goes_on_to_the_same_bits(tmp_path) -> None:
    model = make_model()
    train(model, 3)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, model, optimizer=model.optimizer, record={"note": "x"})
    train(model, 3)

    keras.utils.set_random_seed(99)
    other = make_model()
    record = Checkpoints(tmp_path).restore(other, optimizer=other.optimizer)
    assert record == {"note": "x", "step": 3}
    train(other, 3)
    expected, found = snapshot(model), snapshot(other)
    assert expected.keys() == found.keys()
    for path in expected:
        np.testing.assert_array_equal(found[path], expected[path], err_msg=path)


def test_the_state_of_random_generators_is_saved(tmp_path) -> None:
    assert "dropout/seed_generator_state" in state_variables(make_model())


def test_the_newest_two_are_kept_and_a_step_is_saved_once(tmp_path) -> None:
    model, checkpoints = make_model(), Checkpoints(tmp_path)
    assert checkpoints.latest is None
    for step in (1, 2, 3, 3):
        checkpoints.save(step, model)
    assert checkpoints.latest == 3
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ["2", "3"]
    assert checkpoints.restore(model, step=2)["step"] == 2


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: make_model(units=5), r"shapes \['dense/bias: \(3,\) for \(5,\)"),
        (
            lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]),
            "missing .*, extra ",
        ),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path, other, message) -> None:
    Checkpoints(tmp_path).save(1, make_model())
    target = other()
    before = [w.numpy().copy() for w in target.weights]
    with pytest.raises(RunError, match=message):
        Checkpoints(tmp_path).restore(target)
    for old, new in zip(before, target.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_restoring_from_nothing_is_an_error(tmp_path) -> None:
    with pytest.raises(RunError, match="no checkpoint"):
        Checkpoints(tmp_path).restore(make_model())


def flip_a_bit(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "bit": flip_a_bit,
    "half": lambda path: path.write_bytes(
        path.read_bytes()[: path.stat().st_size // 2]
    ),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[pathlib.Path, keras.Model]:
    """A folder with checkpoints of the steps 1 and 2."""
    folder = tmp_path_factory.mktemp("saved")
    model, checkpoints = make_model(), Checkpoints(folder)
    for step in (1, 2):
        train(model, 1)
        checkpoints.save(step, model, optimizer=model.optimizer)
    checkpoints.close()
    return folder, model


# Orbax leaves coroutines behind when it meets a damaged file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage",
    [
        name if name == "bit" else pytest.param(name, marks=pytest.mark.first_on("jax"))
        for name in DAMAGE
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(
    damage: str, two, tmp_path, capsys
) -> None:
    """Whatever file of it is damaged: taken is what was written, or the step before."""
    folder, model = two
    files = sorted(x.relative_to(folder) for x in (folder / "2").rglob("*"))
    files = [x for x in files if (folder / x).is_file()]
    assert len(files) > 5
    noticed = 0
    for number, file in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        DAMAGE[damage](copy / file)
        other = make_model()
        checkpoints = Checkpoints(copy)
        record = checkpoints.restore(other, optimizer=other.optimizer)
        shown = capsys.readouterr().out
        assert record["step"] in (1, 2), file
        if record["step"] == 2:
            # The file held nothing of the variables, such as a time stamp.
            for path, value in snapshot(model).items():
                np.testing.assert_array_equal(snapshot(other)[path], value)
            continue
        noticed += 1
        assert "the checkpoint of step 2 is damaged" in shown, file
        assert checkpoints.steps == (1,)
        checkpoints.close()
    assert noticed >= 2
    # Here, and not in a later test.
    gc.collect()


def test_no_checkpoint_that_is_whole(tmp_path, capsys) -> None:
    model = make_model()
    with pytest.raises(RunError, match="no checkpoint"):
        Checkpoints(tmp_path).restore(model)


def test_every_so_many_steps_one_stays(tmp_path) -> None:
    model = make_model()
    checkpoints = Checkpoints(tmp_path, keep=1, keep_every=2)
    for step in range(1, 6):
        checkpoints.save(step, model)
    assert checkpoints.steps == (2, 4, 5)


def test_what_is_written_in_the_background_is_there_when_it_is_asked_for(tmp_path):
    model = make_model()
    checkpoints = Checkpoints(tmp_path, background=True)
    checkpoints.save(1, model, metrics=[model.variables[0]])
    assert checkpoints.latest == 1
    (found,) = checkpoints.load(1, model).metrics
    np.testing.assert_array_equal(found, model.variables[0])
    checkpoints.save(2, model)
    assert not checkpoints.load(2, model).metrics
