"""A killed run ends with the same bits, and a difference would be found."""

from __future__ import annotations

import gc
import importlib
import json
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from tflearn.commands import resume_test
from tflearn.support.errors import ConfigError, RunError
from tflearn.training import unchanged
from tflearn.training.checkpoints import Checkpoints

line = importlib.import_module("tflearn.run")

DIGITS = "--gin_file=quickstart/digits.gin"


def write(folder: pathlib.Path, value: float, rows: list[dict[str, float]]) -> None:
    """Writes what a run leaves of a stage, as far as it is compared."""
    stage = folder / "stages/tune"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="head")])
    model.set_weights([np.full((2, 1), 0.5, "float32"), np.full(1, value, "float32")])
    for name in ("checkpoints", "end"):
        saved = Checkpoints(stage / name)
        saved.save(4, model)
        saved.close()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (stage / "metrics.jsonl").write_text(text)
    (stage / "report.json").write_text('{"evaluations": {"test": {"accuracy": 1.0}}}')


def test_equal_runs_are_equal_and_a_last_bit_is_a_difference(tmp_path) -> None:
    rows = [{"step": 2, "loss": 0.5}, {"step": 4, "loss": 0.25}]
    write(tmp_path / "one", 1.0, rows)
    write(tmp_path / "same", 1.0, rows)
    write(tmp_path / "bit", float(np.nextafter(np.float32(1), np.float32(2))), rows)
    write(tmp_path / "row", 1.0, rows[:1])

    def found(name: str) -> list[str]:
        lines = resume_test.compare(tmp_path / "one", tmp_path / name, "tune")
        assert len(lines) == 4
        return [line for line in lines if resume_test.is_difference(line)]

    assert found("same") == []
    weights = found("bit")
    assert len(weights) == 2 and all(
        "head/bias by up to 1.19e-07" in x for x in weights
    )
    assert found("row") == ["DIFFERENT: 2 and 1 rows in tune/metrics.jsonl"]


# Orbax leaves coroutines behind when it meets a damaged file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_inspect_tells_whole_checkpoints_from_damaged_ones(tmp_path, capsys) -> None:
    write(tmp_path, 1.0, [])
    (tmp_path / "config.gin").write_text("")
    (tmp_path / "stages/tune/length.json").write_text('{"total_steps": 8}')
    flags = ["--mode=inspect", f"--run_dir={tmp_path}"]
    assert line.main(flags) == 0
    shown = capsys.readouterr().out
    assert shown.count(" whole ") == 2 and shown.count("4 of 8") == 2
    assert "the run is not finished" in shown
    for file in (tmp_path / "stages/tune/end/4/state").rglob("manifest.ocdbt"):
        file.write_bytes(b"")
    assert line.main(flags) == 1
    shown = capsys.readouterr().out
    assert "the checkpoint of step 4 is damaged" in " ".join(shown.split())
    assert line.main(["--mode=inspect", f"--run_dir={tmp_path}/absent"]) == 2
    # Here, and not in a later test.
    gc.collect()


@pytest.mark.parametrize("steps", ["0", "-1", "many"])
def test_the_number_of_steps_is_checked(steps: str, capsys) -> None:
    assert line.main(["--mode=resume_test", DIGITS, f"--steps={steps}"]) == 2
    assert "--steps is a number of steps" in capsys.readouterr().err


@pytest.mark.slow
def test_the_proof_on_an_experiment_of_two_stages(tmp_path, capsys) -> None:
    flags = ["--mode=resume_test", DIGITS, "--steps=8"]
    assert line.main([*flags, f"--output_dir={tmp_path}/runs"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("variables are bit-identical") == 4
    assert shown.count("4 rows are identical") == 2
    assert (tmp_path / "runs/killed/report.json").exists()


@pytest.fixture(scope="module")
def processes_of(tmp_path_factory):
    """Runs the digits in a process, given a folder and what happens to the process."""
    folder = tmp_path_factory.mktemp("digits")

    def start(name: str, *, limit: str = "unlimited") -> subprocess.Popen[str]:
        flags = ["--mode=train", DIGITS, f"--output_dir={folder / name}"]
        short = [
            "--gin_bindings=EPOCHS = '24 steps'",
            "--gin_bindings=STEPS = '8 steps'",
        ]
        # As on a full disk: no file may grow beyond so many blocks.
        limited = ["bash", "-c", f'ulimit -f {limit}; exec "$0" "$@"']
        return subprocess.Popen(
            [*limited, sys.executable, "-m", "tflearn.run", *flags, *short],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return folder, start


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_saves_and_goes_on_to_the_same_bits(processes_of):
    folder, start = processes_of
    straight = start("straight")
    shown = straight.communicate()
    assert straight.returncode == 0, shown
    for attempt in range(3):
        process = start("asked")
        lock = folder / "asked/.lock"
        while not lock.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(6 + 1.5 * attempt if attempt else 1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
        # Before anything trains, the signal ends the process as any other.
        assert process.returncode in (143, 0, -signal.SIGTERM), (out, err)
        if process.returncode == 143:
            assert "SIGTERM: finishing the step" in err
            assert "stopped by SIGTERM: " in err and "run the same command" in err
            assert "Traceback" not in err
    last = start("asked")
    shown = last.communicate()
    assert last.returncode == 0, shown
    for stage in ("pretrain", "transfer"):
        found = resume_test.compare(folder / "straight", folder / "asked", stage)
        assert not any(map(resume_test.is_difference, found)), found


@pytest.mark.slow
def test_a_disk_without_room_is_one_message_and_nothing_is_lost(processes_of) -> None:
    folder, start = processes_of
    process = start("full", limit="400")
    out, err = process.communicate()
    assert process.returncode == 75, (out, err)
    # A library below may add lines of its own before.
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: there is no room left on the disk")
    again = start("full")
    shown = again.communicate()
    assert again.returncode == 0, shown
    assert (folder / "full/report.json").exists()


FOUND = {"tune": "aaaa"}


def test_data_that_changed_under_a_run_are_refused_unless_allowed(tmp_path, capsys):
    unchanged.check(tmp_path, FOUND)
    unchanged.check(tmp_path, FOUND)
    with pytest.raises(RunError, match="tune: aaaa before, bbbb now") as raised:
        unchanged.check(tmp_path, {"tune": "bbbb"})
    assert "--allow=data" in str(raised.value)
    with pytest.raises(RunError):
        unchanged.check(tmp_path, {"tune": "bbbb"}, allow=["versions"])
    unchanged.check(tmp_path, FOUND)
    unchanged.check(tmp_path, {"tune": "bbbb"}, allow=["data"])
    assert "warning: data changed since the run began: tune" in capsys.readouterr().out
    # From now on these are the run's data.
    unchanged.check(tmp_path, {"tune": "bbbb"})


def test_libraries_that_changed_under_a_run_are_refused(tmp_path, monkeypatch) -> None:
    unchanged.check(tmp_path, FOUND)
    now = unchanged.environment.versions() | {"keras": "9.9"}
    monkeypatch.setattr(unchanged.environment, "versions", lambda: now)
    with pytest.raises(RunError, match=r"keras: \S+ before, 9\.9 now"):
        unchanged.check(tmp_path, FOUND)
    unchanged.check(tmp_path, FOUND, allow=["versions"])


def test_what_may_change_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'data'"):
        unchanged.check(tmp_path, FOUND, allow=["date"])
