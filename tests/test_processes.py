"""Several real processes on this machine train, evaluate and resume as one does.

What is trained is in `process_cases.py`; every run is one of the command line. All that
takes several runs is slow: `pytest -m slow tests/test_processes.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import h5py
import keras
import numpy as np
import process_cases
import pytest

from tflearn.distribution import Distribution, processes
from tflearn.distribution.processes import Here
from tflearn.support.errors import ConfigError, RunError

HERE = pathlib.Path(__file__).parent
BACKEND = keras.backend.backend()
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="for JAX")
# On TensorFlow every device draws masks of its own.
DROPOUT = 0.2 if BACKEND == "jax" else 0.0
#: Largest difference to one process, relative for losses; measured ones are in
#: docs/distribution.md.
TOLERANCE = 1e-4
LOST = processes.ProcessLost.exit_code


@dataclasses.dataclass(frozen=True)
class Ran:
    """A run that has ended.

    Args:
        folder: Its run directory.
        said: What every process printed.
    """

    folder: pathlib.Path
    said: tuple[str, ...]

    def stage(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / "stages" / name / "report.json").read_text())

    def weights(self) -> dict[str, np.ndarray]:
        with zipfile.ZipFile(self.folder / "model" / "model.keras") as archive:
            file = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
        found: dict[str, np.ndarray] = {}
        file.visititems(
            lambda name, item: (
                found.__setitem__(name, np.asarray(item))
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
        return found


def flags(
    folder: pathlib.Path, case: str, kind: str, bindings: Sequence[str] = ()
) -> list[str]:
    """Returns the command line of a run, without what says which process it is."""
    declared = folder.parent / f"{case}.gin"
    declared.write_text(process_cases.GIN + getattr(process_cases, case))
    bindings = (f"distribution.Distribution.kind = '{kind}'", *bindings)
    if case == "DIGITS":
        bindings = (f"DROPOUT = {DROPOUT}", *bindings)
    given = [f"--gin_file={declared}", f"--output_dir={folder}", f"--backend={BACKEND}"]
    return given + [f"--gin_bindings={binding}" for binding in bindings]


def start(count: int, jobs: Sequence[Sequence[str]]) -> list[subprocess.Popen[str]]:
    """Starts processes that do all jobs."""
    port = _port(count)
    paths = os.pathsep.join([str(HERE.parent), str(HERE)])
    environment = os.environ | {"PYTHONPATH": paths, "COLUMNS": "100"}
    environment.pop("TF_CONFIG", None)
    started = []
    for index in range(count):
        own = [f"--coordinator=127.0.0.1:{port}", f"--processes={count}"]
        own = [*own, f"--process_id={index}"] if count > 1 else []
        words = [sys.executable, str(HERE / "process_cases.py")]
        started.append(
            subprocess.Popen(
                [*words, json.dumps(own), *map(json.dumps, jobs)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return started


def wait(started: list[subprocess.Popen[str]]) -> tuple[str, ...]:
    """Waits for all processes, which have to end well; returns what they said."""
    try:
        said = tuple(process.communicate(timeout=900)[0] for process in started)
    finally:
        for process in started:
            process.kill()
    codes = [process.returncode for process in started]
    # What one of them says is often only that another one is gone.
    assert not any(codes), "\n".join([str(codes), *(text[-4000:] for text in said)])
    return said


def _port(count: int) -> int:
    """A port of which the next ones are free too."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
        try:
            for step in range(count):
                with socket.socket() as other:
                    other.bind(("127.0.0.1", port + step))
        except (OSError, OverflowError):
            continue
        return port


def together(
    folder: pathlib.Path, count: int, jobs: Mapping[str, tuple[str, str]]
) -> dict[str, Ran]:
    """Runs cases one after the other in the same processes.

    Args:
        folder: Gets a run directory for each, unless it is there already.
        count: Number of processes.
        jobs: Case and kind by name.

    Returns:
        The runs by name.
    """
    lines = [flags(folder / name, *job) for name, job in jobs.items()]
    said = [text.split("=== 0\n") for text in wait(start(count, lines))]
    return {
        name: Ran(folder / name, tuple(text[number] for text in said))
        for number, name in enumerate(jobs)
    }


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Ran]:
    """The same run with one process and with two."""
    folder = tmp_path_factory.mktemp("quick")
    jobs = {1: {"one": ("DIGITS", "single")}, 2: {"two": ("DIGITS", "data")}}
    return {n: next(iter(together(folder, n, x).values())) for n, x in jobs.items()}


CASES, KINDS = ("TEXT", "DIGITS"), ("data", "fully_sharded", "tensor")
GOES_ON_WITH = "fully_sharded" if BACKEND == "jax" else "data"


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, int], Ran]:
    """Runs of every case, kind and number of processes."""
    found = {}
    for count in (1, 2, 4):
        folder = tmp_path_factory.mktemp(f"every_{count}")
        kinds = ("single", GOES_ON_WITH) if count == 1 else KINDS
        jobs = {f"{case}_{kind}": (case, kind) for case in CASES for kind in kinds}
        for name, ran in together(folder, count, jobs).items():
            found[*jobs[name], count] = ran
    return found


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Gives all numbers of a JSON value by path."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{path}/{name}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(item, f"{path}/{number}")
    elif isinstance(value, (int, float)):
        yield path, float(value)


def differences(one: Ran, several: Ran) -> dict[str, float]:
    """Returns the largest differences between two runs of one experiment."""
    found = {"loss": 0.0, "cross_entropy": 0.0}
    for name in ("tune", "head"):
        a, b = one.stage(name), several.stage(name)
        assert [x["step"] for x in a["history"]] == [x["step"] for x in b["history"]]
        for x, y in zip(a["history"], b["history"], strict=True):
            found["loss"] = max(found["loss"], abs(y["loss"] / x["loss"] - 1))
        left, right = dict(leaves(a["evaluations"])), dict(leaves(b["evaluations"]))
        assert left.keys() == right.keys()
        for path, value in left.items():
            if path.endswith("cross_entropy/value"):
                change = abs(right[path] - value)
                found["cross_entropy"] = max(found["cross_entropy"], change)
            if path.endswith(("/count", "accuracy/value")):
                assert right[path] == value, path
    mine, others = one.weights(), several.weights()
    assert mine.keys() == others.keys()
    found["weights"] = max(float(np.abs(others[k] - v).max()) for k, v in mine.items())
    print(f"{several.folder.parent.name}: {found}")
    return found


def assert_same(one: Ran, several: Ran) -> None:
    found = differences(one, several)
    assert max(found.values()) < TOLERANCE, found
    moved = [row["loss"] for row in one.stage("tune")["history"]]
    assert np.ptp(moved) > 0.01, "a model that stands still shows nothing"


# Checkpoints.


@pytest.mark.slow
@on_jax
def test_two_folders_are_written_at_once(tmp_path: pathlib.Path) -> None:
    # One in the background, as a run does: they once waited for each other's barriers.
    port = _port(1)
    script = str(HERE / "process_checkpoints.py")
    started = [
        subprocess.Popen(
            [sys.executable, script, str(tmp_path), f"127.0.0.1:{port}", "2", str(i)],
            env=os.environ | {"PYTHONPATH": str(HERE.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    wait(started)


# A whole run.


def test_two_processes_end_with_the_run_of_one(quick) -> None:
    assert_same(quick[1], quick[2])


def test_every_example_is_evaluated_once(quick) -> None:
    report = quick[2].stage("tune")
    counts = {name: x["count"] for name, x in report["evaluations"].items()}
    # Neither number divides by the batches of 8.
    assert counts == {"validation": 90, "test": 89}


def test_only_the_first_process_writes_and_speaks(quick) -> None:
    wrote, said = zip(*map(_wrote, quick[2].said), strict=True)
    assert any("metrics.jsonl" in path for path in wrote[0])
    # On JAX every process writes its part of a checkpoint.
    parts = (
        [path for path in wrote[1] if "process_1" in path] if BACKEND == "jax" else []
    )
    assert wrote[1] == parts
    assert "report:" in said[0]
    assert "step" not in said[1]
    assert "report" not in said[1]


def _wrote(text: str) -> tuple[list[str], str]:
    """Parts what a process printed into the files it wrote and the rest."""
    lines = text.splitlines()
    marked = [line for line in lines if line.startswith("=== wrote ")]
    return marked, "\n".join(line for line in lines if line not in marked)


def test_which_process_it_is_is_no_part_of_the_declaration(quick) -> None:
    assert "127.0.0.1" not in (quick[2].folder / "config.gin").read_text()


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_processes_share_what_is_declared_as_one_would_do_it(
    every, case, kind, count
) -> None:
    assert_same(every[case, "single", 1], every[case, kind, count])


# Going on.


def cut_back(folder: pathlib.Path, step: int) -> None:
    """Leaves of a finished run what is there when it is killed behind a step."""
    for name in ("report.json", "stages/tune/report.json"):
        (folder / name).unlink()
    for name in ("model", "stages/head", "stages/tune/end"):
        shutil.rmtree(folder / name)
    for name in ("checkpoints", "best"):
        for saved in (folder / "stages/tune" / name).iterdir():
            if saved.name.isdecimal() and int(saved.name) > step:
                shutil.rmtree(saved)


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 2, 4] if BACKEND == "jax" else [2])
def test_a_run_goes_on_with_any_number_of_processes(
    request, tmp_path, quick, after
) -> None:
    begun = {2: quick[2]}
    if BACKEND == "jax":
        every = request.getfixturevalue("every")
        begun = {n: every["DIGITS", GOES_ON_WITH, n] for n in (1, 2)}
    jobs = {}
    for before, straight in begun.items():
        name = f"begun_by_{before}"
        shutil.copytree(straight.folder, tmp_path / name)
        cut_back(tmp_path / name, 8)
        jobs[name] = ("DIGITS", GOES_ON_WITH)
    done = together(tmp_path, after, jobs)
    for before, straight in begun.items():
        again = done[f"begun_by_{before}"]
        assert "resumed stage 'tune' at step 8 of 12" in again.said[0]
        assert_same(straight, again)


@pytest.mark.slow
def test_the_same_command_on_a_finished_run_says_that_it_is_finished(quick) -> None:
    ran = quick[2]
    again = together(ran.folder.parent, 2, {"two": ("DIGITS", "data")})["two"]
    assert "is finished" in again.said[0]
    assert "is finished" not in again.said[1]


# A process that is gone.


@contextlib.contextmanager
def endless(folder: pathlib.Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Gives two processes of a run without end that have trained three intervals."""
    budget = "tune/experiment.Stage.budget = '1000000 steps'"
    started = start(2, [flags(folder, "DIGITS", "data", [budget])])
    rows = folder / "stages/tune/metrics.jsonl"
    with contextlib.ExitStack() as opened:
        for process in started:
            opened.enter_context(process)
            opened.callback(process.kill)
        while not rows.exists() or len(rows.read_text().splitlines()) < 3:
            assert all(process.poll() is None for process in started)
            time.sleep(0.1)
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_with_a_message(tmp_path, killed) -> None:
    folder = tmp_path / "run"
    with endless(folder) as started:
        left = started[1 - killed]
        started[killed].kill()
        since = time.monotonic()
        said, _ = left.communicate(timeout=10 * processes.HEARTBEAT_SECONDS)
    print(f"ended with {left.returncode} after {time.monotonic() - since:.0f} s")
    # Either tflearn hears of it first, or JAX's own service, which aborts.
    if left.returncode == LOST:
        assert "another process of this run is gone" in said
    else:
        assert left.returncode == -6, said[-4000:]
        assert "another task died" in said


@on_jax
@pytest.mark.slow
def test_a_process_that_is_asked_to_end_ends_all_at_one_step(tmp_path) -> None:
    folder = tmp_path / "run"
    with endless(folder) as started:
        # The machine of the second one is about to be taken away.
        started[1].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [143, 143], said
    steps = [re.findall(r"step (\d+) of stage 'tune' is saved", text) for text in said]
    assert steps[0] == steps[1] != []
    assert (folder / "stages/tune/checkpoints" / steps[0][0]).is_dir()


# What processes tell each other, without any.


@pytest.fixture
def second_of_two(monkeypatch) -> Callable[[Any], None]:
    """This process as the second of two, of which the first has sent some arrays."""

    def set_first(*arrays: np.ndarray) -> None:
        sent = iter(arrays)
        monkeypatch.setattr(
            processes,
            "_here",
            Here(1, 2, lambda array: np.stack([next(sent), array])),
        )

    return set_first


def _json(value: Any) -> tuple[np.ndarray, np.ndarray]:
    text = json.dumps(value).encode()
    size = np.asarray([len(text)])
    return np.frombuffer(size.tobytes(), np.uint8), np.frombuffer(text, np.uint8)


def test_the_first_process_decides(second_of_two) -> None:
    second_of_two(*_json({"stop": True}))
    assert processes.agree({"stop": False}) == {"stop": True}


def test_what_the_first_process_raises_all_raise(second_of_two) -> None:
    second_of_two(*_json([None, "the disk is full"]))
    with pytest.raises(RunError, match="the disk is full"):
        processes.on_first(lambda: 1 / 0)


def test_another_declaration_is_refused(second_of_two) -> None:
    second_of_two(np.zeros(16, np.uint8))
    with pytest.raises(RunError, match="process 1 has another one than process 0"):
        processes.check_same("mine", "declaration")


def test_one_process_asks_nobody(tmp_path) -> None:
    assert (processes.index(), processes.count(), processes.is_chief()) == (0, 1, True)
    assert processes.agree(None) is None
    made = [processes.once(tmp_path / "a.json", iter([x]).__next__) for x in (1, 2)]
    assert made == [1, 1]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"processes": 2}, "need to know each other.*processes = 2.*--coordinator"),
        ({"coordinator": "a:1", "process_id": 0}, "need to know each other"),
        (
            {"coordinator": "a:1", "processes": 2, "process_id": 2},
            "number of this process.*0 to 1",
        ),
        (
            {"coordinator": "localhost:1", "processes": 2, "process_id": 0}
            | {"kind": "single"},
            "more than a single device",
        ),
    ],
)
def test_processes_declared_in_part_or_wrongly(monkeypatch, declared, message) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ConfigError, match=message):
        processes.start(Distribution(**declared))
