"""Run directories in buckets: whole runs, kills in between, one owner at a time."""

from __future__ import annotations

import functools
import gc
import importlib
import json
import pathlib
import signal
import subprocess
import sys
import threading

import fsspec
import keras
import numpy as np
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.data import Data, sources
from tflearn.support import storage
from tflearn.support.errors import ConfigError, RunError
from tflearn.support.storage import buckets, locks
from tflearn.training import checkpoints, optimizers

line = importlib.import_module("tflearn.run")


def perceptron() -> keras.Model:
    inputs = keras.Input((4,), name="features")
    hidden = keras.layers.Dense(4, "relu", name="dense")(inputs)
    return keras.Model(inputs, keras.layers.Dropout(0.2, name="dropout")(hidden))


def iris() -> Data:
    return Data(
        source=functools.partial(sources.sklearn, "iris"),
        input="vector",
        splits={"train": 0.8, "validation": 0.2},
    )


def declare(**settings) -> experiment.Experiment:
    fields = {"budget": "9 steps", "interval": 3, "save_steps": 2, "bootstrap": 0}
    stage = experiment.Stage(
        name="tune",
        data=iris,
        objective=objectives.classification,
        regime=regimes.full(),
        optimizer=functools.partial(optimizers.adamw, learning_rate=0.02),
        batch_size=16,
        **(fields | settings),
    )
    return experiment.Experiment(
        backbone=functools.partial(backbones.function, perceptron), stages=[stage]
    )


@pytest.fixture(autouse=True)
def empty_memory():
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield
    forget()


def forget() -> None:
    """Lets this process know no more of buckets than a new one would."""
    storage._copies.clear()


def objects(url: str) -> list[str]:
    return buckets.connect(url).names()


# --- Addresses ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["runs/a", "/tmp/a", "c:/runs", "a:b"])
def test_a_path_is_a_path(name: str) -> None:
    assert storage.local(name) == pathlib.Path(name)
    assert not storage.is_copy(pathlib.Path(name))
    assert storage.shown(name) == name


def test_the_address_of_a_file_is_a_path() -> None:
    assert storage.local("file:///tmp/a") == pathlib.Path("/tmp/a")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gs://bucket/run",
            r'gs:// is not installed.*pip install "tflearn-gin\[gcs\]"',
        ),
        (pathlib.Path("gs://bucket/run"), "gs:// is not installed"),
        ("s3://bucket/run", "pip install s3fs"),
        ("memry://bucket/run", "Did you mean 'memory'"),
        ("a::gs://bucket/run", "nothing is known that stores files"),
        ("memory://", "names a bucket and a folder"),
    ],
)
def test_what_cannot_be_reached_says_so_once_and_makes_no_folder(
    name, message, monkeypatch
) -> None:
    known = fsspec.filesystem

    def without_libraries(protocol: str, **options):
        if protocol in ("gs", "s3"):
            raise ImportError(f"Please install what reads {protocol}")
        return known(protocol, **options)

    monkeypatch.setattr(fsspec, "filesystem", without_libraries)
    with pytest.raises(ConfigError, match=message):
        storage.local(name)
    assert not pathlib.Path("gs:").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--mode=resume_test", "--gin_file=quickstart/digits.gin"],
        ["--mode=predict", "--run_dir=r", "--input=x.csv", "--output=memory://b/o"],
    ],
)
def test_what_is_written_to_this_machine_takes_no_address(flags, capsys) -> None:
    if "resume_test" in flags[0]:
        flags = [*flags, "--output_dir=memory://b/r"]
    assert line.main(flags) == 2
    assert "this is written to this machine" in capsys.readouterr().err


# --- Copies ------------------------------------------------------------------------

URL = "memory://bucket/run"


def test_what_changed_is_put_and_what_is_gone_is_deleted() -> None:
    folder = storage.local(URL)
    (folder / "stages/tune").mkdir(parents=True)
    (folder / "config.gin").write_text("a")
    (folder / "stages/tune/metrics.jsonl").write_text("1\n")
    (folder / ".report.json.x1").write_text("half")
    (folder / "unfinished.model.keras").write_text("half")
    storage.push(folder)
    assert objects(URL) == ["config.gin", "stages/tune/metrics.jsonl"]
    puts = []
    system = buckets.connect(URL).system
    (folder / "stages/tune/metrics.jsonl").write_text("1\n2\n")
    (folder / "config.gin").unlink()
    with pytest.MonkeyPatch.context() as patch:
        put = type(system).put_file
        patch.setattr(
            type(system),
            "put_file",
            lambda self, path, *rest, **more: (
                puts.append(pathlib.Path(path).name),
                put(self, path, *rest, **more),
            ),
        )
        storage.push(folder)
    assert puts == ["metrics.jsonl"] and objects(URL) == ["stages/tune/metrics.jsonl"]
    forget()
    other = storage.local(URL)
    storage.pull(other, deep=False)
    assert [x.name for x in other.iterdir()] == ["stages"]
    storage.pull(other)
    assert (other / "stages/tune/metrics.jsonl").read_text() == "1\n2\n"
    assert storage.shown(other / "stages") == f"{URL}/stages"
    assert storage.local(f"{URL}/stages/tune") == other / "stages/tune"


def model_of(value: float) -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="head")])
    model.set_weights([np.full((2, 1), value, "float32"), np.zeros(1, "float32")])
    return model


# Orbax leaves coroutines behind when it meets a damaged file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["half", "bit", "empty"])
def test_a_damaged_checkpoint_in_a_bucket_is_skipped(damage: str, capsys) -> None:
    folder = storage.local(URL) / "stages/tune/checkpoints"
    saved = checkpoints.Checkpoints(folder, background=True)
    for step in (1, 2, 3):
        saved.save(step, model_of(step))
        storage.push(folder)
    saved.close()
    # Each is one object, there as a whole or not at all.
    inside = "stages/tune/checkpoints"
    assert objects(URL) == [f"{inside}/2.zip", f"{inside}/3.zip"]
    bucket = buckets.connect(URL)
    content = bytearray(bucket.read(f"{inside}/3.zip") or b"")
    if damage == "bit":
        for place in range(0, len(content), 64):
            content[place] ^= 1
    bucket.write(
        f"{inside}/3.zip",
        {"half": content[: len(content) // 2], "bit": content, "empty": b""}[damage],
    )
    forget()
    folder = storage.local(URL) / "stages/tune/checkpoints"
    storage.pull(storage.local(URL))
    saved = checkpoints.Checkpoints(folder)
    model = model_of(0.0)
    assert saved.restore(model)["step"] == 2
    assert np.asarray(model.get_weights()[0])[0, 0] == 2.0
    # What was damaged is written again.
    saved.save(3, model_of(3.0))
    saved.close()
    storage.push(folder)
    forget()
    storage.pull(storage.local(URL))
    again = checkpoints.Checkpoints(storage.local(URL) / "stages/tune/checkpoints")
    assert again.restore(model_of(0.0))["step"] == 3
    again.close()
    gc.collect()


# --- Locks -------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.6)


def test_two_runs_in_one_place_are_refused(quick) -> None:
    bucket = buckets.connect(URL)
    with locks.held(bucket) as lock:
        with pytest.raises(RunError, match="another process runs in the output"):
            locks.Lock(bucket).acquire()
        lock.check()
    assert objects(URL) == []


def test_a_lock_whose_owner_is_gone_is_taken_over(quick, capsys) -> None:
    bucket = buckets.connect(URL)
    left = {"owner": "x", "machine": "elsewhere", "process": 1, "beat": 7}
    bucket.write(locks.NAME, json.dumps(left).encode())
    with locks.held(bucket):
        shown = capsys.readouterr().out
        assert "locked by process 1 of elsewhere" in shown
        assert "the lock is taken over" in shown
    # Of a process of this machine that has ended nothing has to be waited for.
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left |= {"machine": locks._machine(), "process": ended.pid}
    bucket.write(locks.NAME, json.dumps(left).encode())
    with locks.held(bucket):
        assert capsys.readouterr().out == ""


def test_an_owner_that_was_paused_for_too_long_puts_nothing_more(quick) -> None:
    folder = storage.local(URL)
    with storage.locked(folder):
        (folder / "report.json").write_text("{}")
        stranger = {"owner": "y", "machine": "elsewhere", "process": 2, "beat": 0}
        buckets.connect(URL).write(locks.NAME, json.dumps(stranger).encode())
        keeper = next(x for x in threading.enumerate() if x.name == "lock")
        keeper.join()
        with pytest.raises(RunError, match="another process took over"):
            storage.push(folder)
    # The stranger's lock stays.
    assert objects(URL) == [locks.NAME]


# --- Whole runs --------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing is put behind it."""


def weights_of(url: str) -> dict[str, np.ndarray]:
    folder = storage.local(url)
    storage.pull(folder)
    saved = checkpoints.Checkpoints(folder / "stages/tune/end")
    found = saved.read(9)
    saved.close()
    return found


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The same run in a folder of this machine, undisturbed."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    report = experiment.run(declare(), output_dir=str(folder))
    return report.stages[0].history, weights_of(str(folder))


def check_equal(url: str, straight) -> None:
    history, weights = straight
    folder = storage.local(url)
    found = weights_of(url)
    assert found.keys() == weights.keys()
    for path, value in weights.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)
    rows = (folder / "stages/tune/metrics.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows] == history
    assert locks.NAME not in objects(url)


# What keeps the lock alive dies with the process, too, in a thread of its own.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_that_is_killed_at_any_put_goes_on_to_the_same_bits(
    straight, quick, monkeypatch, capsys
) -> None:
    """The process dies at its n-th put, and again, until the run is finished."""
    puts = {"left": 0, "dead": False}

    def until_dead(name: str):
        known = getattr(buckets.Bucket, name)

        def act(self, *arguments):
            if name == "put":
                puts["left"] -= 1
                puts["dead"] = puts["dead"] or puts["left"] < 0
            if puts["dead"]:
                raise Killed
            return known(self, *arguments)

        return act

    for name in ("put", "delete", "write", "create"):
        monkeypatch.setattr(buckets.Bucket, name, until_dead(name))
    kills = 0
    while True:
        # The first processes put little, so that they die in every part of a run.
        puts |= {"left": 2 + 5 * kills, "dead": False}
        forget()
        try:
            experiment.run(declare(), output_dir=URL)
            break
        except Killed:
            kills += 1
    assert kills >= 3
    monkeypatch.undo()
    assert "resumed stage 'tune' at step" in capsys.readouterr().out
    check_equal(URL, straight)
    names = objects(URL)
    for name in ("report.html", "model/model.keras", "plots/tune_learning_curves.png"):
        assert name in names
    assert [x for x in names if x.endswith(".zip")] == [
        "stages/tune/checkpoints/8.zip",
        "stages/tune/checkpoints/9.zip",
        "stages/tune/end/9.zip",
    ]


def test_a_real_kill_and_a_store_that_stays(straight, tmp_path) -> None:
    """SIGKILL in a process of its own; the bucket is a folder behind fsspec."""
    url = f"local://{tmp_path}/bucket/run"
    program = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_storage as case\n"
        "put, left = case.buckets.Bucket.put, [14]\n"
        "def dying(self, *arguments):\n"
        "    put(self, *arguments); left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "case.buckets.Bucket.put = dying\n"
        "case.experiment.run(case.declare(), output_dir=sys.argv[2])\n"
    )
    tests = str(pathlib.Path(__file__).parent)
    ended = subprocess.run(
        [sys.executable, "-c", program, tests, url], capture_output=True, text=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert locks.NAME in objects(url)
    # Its owner is known to be gone: nothing is waited for.
    experiment.run(declare(), output_dir=url)
    check_equal(url, straight)


def test_another_experiment_and_what_is_no_run_are_refused() -> None:
    bucket = buckets.connect(URL)
    bucket.write("rows/a.csv", b"1,2")
    with pytest.raises(RunError, match=f"not empty and holds no run.*{URL}"):
        experiment.run(declare(), output_dir=URL)
    bucket.write("config.gin", b"# another")
    with pytest.raises(RunError, match=f"another experiment.*{URL}"):
        experiment.run(declare(), output_dir=URL)
    assert objects(URL) == ["config.gin", "rows/a.csv"]


def test_a_bucket_that_does_not_answer_ends_a_run_that_can_go_on(
    straight, monkeypatch, capsys
) -> None:
    put, calls = buckets.Bucket.put, []

    def cut_off(self, path, name):
        calls.append(name)
        if len(calls) > 12:
            with self._asked("write", name):
                raise TimeoutError("no route")
        put(self, path, name)

    monkeypatch.setattr(buckets.Bucket, "put", cut_off)
    with pytest.raises(buckets.Unreachable, match="TimeoutError: no route") as raised:
        experiment.run(declare(), output_dir=URL)
    assert raised.value.exit_code == 75
    assert locks.NAME not in objects(URL)
    monkeypatch.undo()
    forget()
    experiment.run(declare(), output_dir=URL)
    check_equal(URL, straight)


# --- Commands ----------------------------------------------------------------------


@pytest.mark.slow
def test_commands_read_what_lies_in_a_bucket(tmp_path, capsys, monkeypatch) -> None:
    """A run is trained, evaluated, inspected, predicted with and gone on from."""
    short = ["--gin_bindings=EPOCHS = '4 steps'", "--gin_bindings=STEPS = '4 steps'"]
    digits = ["--gin_file=quickstart/digits.gin", *short]
    assert line.main(["--mode=train", *digits, f"--output_dir={URL}"]) == 0
    assert f"report: {URL}/report.html" in capsys.readouterr().out
    forget()
    assert line.main(["--mode=evaluate", f"--run_dir={URL}"]) == 0
    assert f"written: {URL}/evaluations/test.json" in capsys.readouterr().out
    assert "evaluations/test.json" in objects(URL)
    forget()
    assert line.main(["--mode=inspect", f"--run_dir={URL}"]) == 0
    shown = capsys.readouterr().out
    assert f"checkpoints of {URL}" in " ".join(shown.split())
    assert shown.index("pretrain") < shown.index("transfer")
    assert "damaged" not in shown and "the run is finished" in shown
    forget()
    image = tmp_path / "one.png"
    keras.utils.save_img(image, np.zeros((8, 8, 1)), scale=False)
    flags = ["--mode=predict", f"--run_dir={URL}", f"--input={tmp_path}"]
    assert line.main(flags) == 0
    assert "one.png" in capsys.readouterr().out
    forget()
    bindings = [*short, f"--gin_bindings=experiment.Experiment.start_from = '{URL}'"]
    flags = ["--gin_file=quickstart/digits.gin", *bindings]
    assert line.main([*flags, f"--output_dir={tmp_path}/next"]) == 0
    assert f"started from {URL}" in capsys.readouterr().out
    forget()
    assert line.main(["--mode=inspect", "--run_dir=memory://bucket/nothing"]) == 2
    assert "there is no run here" in capsys.readouterr().err
