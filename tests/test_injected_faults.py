"""Faults of the world, injected for real: a run recovers, or says one clear thing.

Tiny runs of the command line. What a kind of fault ends in stands in `KINDS`, of which
the table in `docs/resume.md` is made; the test of each kind is named there.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import functools
import gc
import http.server
import importlib
import json
import math
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import threading
import time

import fault_cases
import keras
import numpy as np
import pytest

from tflearn.commands import resume_test
from tflearn.data.sources import parquet
from tflearn.support import environment
from tflearn.support.errors import DataError
from tflearn.training import interruption, maintenance
from tflearn.training.checkpoints import Checkpoints

line = importlib.import_module("tflearn.run")
ROOT = pathlib.Path(__file__).parents[1]
# Orbax leaves coroutines and files behind when its writing fails.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore:Error (reading|writing) persistent comp"),
]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of fault: how it was made, how it ends, the test that shows it."""

    fault: str
    made: str
    ends: str
    test: str


KINDS = (
    Kind(
        "killed at any moment",
        "SIGKILL at random moments of every phase",
        "same bits after the next start",
        "benchmarks/faults.py",
    ),
    Kind(
        "asked to end",
        "SIGTERM, SIGINT",
        "saves, 143 or 130, then same bits",
        "tests/test_resume.py::"
        "test_a_run_that_is_asked_to_end_saves_and_goes_on_to_the_same_bits",
    ),
    Kind(
        "machine announced to end",
        "metadata server on loopback",
        "saves, 143",
        "test_a_machine_that_is_about_to_end",
    ),
    Kind(
        "preempted machine",
        "launcher against a fake cloud",
        "a new machine, the same command",
        "tests/test_launchers.py::test_watch_gets_a_new_tpu_after_a_preemption",
    ),
    Kind(
        "another process of the run is gone",
        "SIGKILL of one of two",
        "75",
        "tests/test_processes.py::test_a_killed_process_ends_the_other_with_a_message",
    ),
    Kind(
        "checkpoint file bit-flipped",
        "every file of a checkpoint in turn",
        "the one before is taken",
        "tests/test_checkpoints.py::"
        "test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken",
    ),
    Kind(
        "checkpoint file cut, emptied or deleted",
        "every file of a checkpoint in turn",
        "the one before is taken",
        "tests/test_checkpoints.py::"
        "test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken",
    ),
    Kind(
        "checkpoint of another model",
        "other shapes and layers",
        "2, the differences",
        "tests/test_checkpoints.py::test_a_checkpoint_of_another_model_is_refused",
    ),
    Kind(
        "file of the run cut in half",
        "each JSON and gin file in turn",
        "2 with its name, or same bits",
        "test_a_file_of_the_run_that_is_cut",
    ),
    Kind(
        "disk full at a checkpoint",
        "limit on the size of files",
        "75, then goes on",
        "test_a_disk_that_is_full_at_a_checkpoint",
    ),
    Kind(
        "disk full at a report",
        "limit on the size of files",
        "75, then same bits",
        "test_a_disk_that_is_full_at_a_report",
    ),
    Kind(
        "disk full at a feature cache",
        "limit on the size of files",
        "75, then goes on; under `auto` computed live",
        "test_a_disk_that_is_full_at_a_feature_cache",
    ),
    Kind(
        "feature cache damaged",
        "files flipped, cut, emptied",
        "computed anew, same bits",
        "test_a_feature_cache_that_is_damaged",
    ),
    Kind(
        "feature cache half written",
        "killed on the way",
        "goes on where it was",
        "tests/test_features.py::test_a_killed_computation_goes_on_where_it_was",
    ),
    Kind(
        "output directory cannot be written",
        "a file system that refuses",
        "2",
        "test_an_output_directory_that_cannot_be_written",
    ),
    Kind(
        "two processes in one directory",
        "its lock held by another",
        "2",
        "test_a_second_process_in_one_directory",
    ),
    Kind(
        "another experiment in the directory",
        "a changed declaration",
        "2, the differences",
        "test_another_experiment_in_the_directory",
    ),
    Kind(
        "data changed under a run",
        "file of rows written anew",
        "2, unless `--allow=data`",
        "test_data_that_changed",
    ),
    Kind(
        "libraries changed under a run",
        "other versions reported",
        "2, unless `--allow=versions`",
        "tests/test_resume.py::test_libraries_that_changed_under_a_run_are_refused",
    ),
    Kind(
        "library of an untested version",
        "another version reported",
        "a warning with the tested range",
        "test_a_library_of_an_untested_version",
    ),
    Kind(
        "library missing",
        "its import fails",
        "2, what to install",
        "test_a_library_that_is_missing",
    ),
    Kind(
        "image that is gone",
        "file vanishes while it trains",
        "2, its name",
        "test_an_image_that_vanishes",
    ),
    Kind(
        "data worker killed",
        "SIGKILL of a worker process",
        "started again, same bits",
        "test_a_worker_that_dies",
    ),
    Kind(
        "data worker killed again and again",
        "SIGKILL at each start",
        "75, the rows",
        "test_a_worker_that_dies_for_ever",
    ),
    Kind(
        "run with data workers killed",
        "SIGKILL of the run alone",
        "its workers end too",
        "test_a_killed_run_leaves_no_workers_behind",
    ),
    Kind(
        "reading hangs",
        "a file that never answers",
        "75 after `stall_seconds`, the rows",
        "test_reading_that_hangs",
    ),
    Kind(
        "data worker hangs",
        "a file that never answers",
        "75 after `stall_seconds`, the rows",
        "test_a_worker_that_hangs",
    ),
    Kind(
        "memory gives out",
        "limit on the address space",
        "75, the stage, the batch, what fits (JAX)",
        "test_memory_that_gives_out",
    ),
    Kind(
        "clock jumps",
        "days back and forth at every look",
        "same bits; 75 before if Orbax was writing",
        "test_a_clock_that_jumps",
    ),
    Kind(
        "tracker refuses",
        "HTTP server: errors 503",
        "same bits, sent at the next start",
        "test_a_tracker_that_is_not_there",
    ),
    Kind(
        "tracker hangs",
        "HTTP server: no answer",
        "same bits, sent at the next start",
        "test_a_tracker_that_is_not_there",
    ),
    Kind(
        "tracker dies",
        "HTTP server: connections cut",
        "same bits, sent at the next start",
        "test_a_tracker_that_is_not_there",
    ),
    Kind(
        "loss that is no number",
        "a poisoned row",
        "2 with the rows, or left out, or gone back",
        "tests/test_faults.py::test_stop_names_the_step_and_its_rows",
    ),
    Kind(
        "gradient that is no number",
        "a poisoned row, `skip`",
        "left out, counted, bounded",
        "tests/test_faults.py::test_skip_leaves_the_step_out_and_counts_it",
    ),
    Kind(
        "loss that jumps",
        "a rate of 1e30, `rollback`",
        "goes on from the last checkpoint",
        "tests/test_faults.py::test_rollback_goes_on_with_a_lower_rate",
    ),
    Kind(
        "overflow in float16",
        "gradients scaled beyond its range",
        "steps left out and counted, scale halved",
        "test_an_overflow_in_float16",
    ),
    Kind(
        "secret in a traceback",
        "a token in a name, `--debug`",
        "redacted, exit code kept",
        "test_a_traceback_holds_no_secret",
    ),
    Kind(
        "malicious or broken files",
        "157 of them",
        "2, or read harmlessly",
        "tests/test_safe_loading.py::test_each_ends_in_a_clear_error_or_is_read",
    ),
)


def table() -> str:
    """Returns the table of `docs/resume.md`."""
    rows = [f"| {kind.fault} | {kind.made} | {kind.ends} |" for kind in KINDS]
    return "\n".join(["| fault | made by | ends with |", "|---|---|---|", *rows])


def test_the_table_in_the_documentation_is_this_one() -> None:
    assert table() in (ROOT / "docs/resume.md").read_text(encoding="utf-8")
    assert len(KINDS) >= 25


@pytest.mark.parametrize("name", sorted({kind.test for kind in KINDS}))
def test_every_kind_names_a_test_that_exists(name: str) -> None:
    file, _, function = name.rpartition("::")
    if not file and function.endswith(".py"):
        assert (ROOT / function).exists()
        return
    text = (ROOT / (file or "tests/test_injected_faults.py")).read_text()
    assert f"def {function}(" in text


# --- Running ------------------------------------------------------------------------


def start(output: str, *bindings: str, gin: str = "points.gin", more=()) -> int:
    """Runs the command line; returns its exit code."""
    flags = [f"--gin_file={gin}", f"--output_dir={output}", *more]
    try:
        return line.main([*flags, *(f"--gin_bindings={x}" for x in bindings)])
    finally:
        # What a failed run leaves behind is collected here, not in a later test.
        gc.collect()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with declarations, data, and a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("faults")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFLEARN_CACHE", str(folder / "cache"))
        for name, more in (
            ("points", fault_cases.POINTS),
            ("pictures", fault_cases.PICTURES),
        ):
            (folder / f"{name}.gin").write_text(fault_cases.GIN + more)
        fault_cases.write_points(folder / "points.csv")
        assert start("straight") == 0
        yield folder


def same(output: str, straight: str = "straight") -> bool:
    """Tells whether two finished runs have the same bits, rows and evaluations."""
    lines = resume_test.compare(pathlib.Path(straight), pathlib.Path(output), "tune")
    return not any(map(resume_test.is_difference, lines))


def begun(output: str) -> None:
    """Makes a run that was killed when its last step was saved."""
    shutil.copytree("straight", output)
    for path in ("report.json", "stages/tune/report.json"):
        (pathlib.Path(output) / path).unlink()
    shutil.rmtree(pathlib.Path(output) / "stages/tune/end")


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the one message of a run that failed."""
    said = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(said) == 1
    return said[0]


@contextlib.contextmanager
def file_size(most: int):
    """As on a full disk: no file of this process may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- Disks and files ----------------------------------------------------------------


def test_a_disk_that_is_full_at_a_checkpoint(place, capsys) -> None:
    wide = "fault_cases.perceptron.width = 9000"
    with file_size(100_000):
        assert start("full", wide) == 75
    assert error(capsys).startswith("error: there is no room left on the disk")
    assert start("full", wide) == 0
    assert start("wide", wide) == 0
    assert same("full", "wide")


def test_a_disk_that_is_full_at_a_report(place, capsys) -> None:
    with file_size(30_000):
        assert start("page") == 75
    assert error(capsys).startswith("error: there is no room left on the disk")
    assert not pathlib.Path("page/report.json").exists()
    assert start("page") == 0
    assert "stage 'tune' is finished" in capsys.readouterr().out
    assert same("page")


CACHED = (
    "experiment.Stage.regime = @regimes.frozen()",
    "experiment.Stage.cache = 'disk'",
    "fault_cases.perceptron.width = 300",
)


def test_a_disk_that_is_full_at_a_feature_cache(place, capsys) -> None:
    # 67 rows of 300 features are 80 kB, all that is saved is less.
    with file_size(50_000):
        code = start("uncached", *CACHED)
    assert code == 75
    assert error(capsys).startswith("error: there is no room left on the disk")
    assert start("uncached", *CACHED) == 0


DAMAGE = {
    "flipped": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_feature_cache_that_is_damaged(damage: str, place, capsys) -> None:
    if not pathlib.Path("cached").exists():
        assert start("cached", *CACHED) == 0
    first, second, _ = sorted((place / "cache/features").glob("[!.]*"))
    # The features of one split, and what is known about another's.
    for file in (first / "features_0.bin", second / "features.json"):
        file.write_bytes(DAMAGE[damage](file.read_bytes()))
    capsys.readouterr()
    assert start(damage, *CACHED) == 0
    assert capsys.readouterr().out.count("damaged features are computed anew") == 2
    assert same(damage, "cached")


@pytest.mark.parametrize(
    "name",
    [
        "config.gin",
        "inputs.json",
        "environment.json",
        "operative_config.gin",
        "stages/tune/length.json",
        "stages/tune/metrics.jsonl",
    ],
)
def test_a_file_of_the_run_that_is_cut(name: str, place, capsys) -> None:
    output = f"cut_{re.sub(r'[^a-z]', '_', name)}"
    begun(output)
    path = pathlib.Path(output) / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    code = start(output)
    if code == 0:
        assert same(output)
        return
    assert code == 2
    assert output in error(capsys)
    path.write_bytes(content)
    assert start(output) == 0 and same(output)


def test_an_output_directory_that_cannot_be_written(place, capsys) -> None:
    # Nobody may write there, whoever runs the tests.
    assert start("/proc/self/runs") == 2
    assert "the output directory cannot be written" in error(capsys)


def test_a_second_process_in_one_directory(place, capsys) -> None:
    pathlib.Path("held").mkdir()
    with pathlib.Path("held/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert start("held") == 2
    assert "another process runs in the output directory" in error(capsys)
    assert start("held") == 0 and same("held")


def test_another_experiment_in_the_directory(place, capsys) -> None:
    assert start("straight", "experiment.Experiment.seed = 4") == 2
    assert "seed = 4" in error(capsys)


# --- Data and libraries -------------------------------------------------------------


def test_data_that_changed(place, capsys) -> None:
    begun("changed")
    before = pathlib.Path("points.csv").read_bytes()
    try:
        fault_cases.write_points(pathlib.Path("points.csv"), seed=1)
        assert start("changed") == 2
        assert "--allow=data" in error(capsys)
        assert start("changed", more=["--allow=data"]) == 0
    finally:
        pathlib.Path("points.csv").write_bytes(before)


def test_a_library_of_an_untested_version(place, capsys, monkeypatch) -> None:
    found = environment.importlib.metadata.version
    monkeypatch.setattr(
        environment.importlib.metadata,
        "version",
        lambda name: "9.9" if name == "grain" else found(name),
    )
    assert start("untested") == 0
    said = capsys.readouterr().out
    assert re.search(r"warning: grain 9.9 is untested, tested: .*>=0\.2", said)


def test_a_library_that_is_missing(place, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="pip install pyarrow"):
        parquet("rows.parquet")


@pytest.fixture
def struck(place, monkeypatch, tmp_path):
    """Strikes the readers of pictures once a run has ended its first interval."""

    def strike(fault: str, output: str, times: int = 1) -> None:
        (tmp_path / "times").write_text(str(times))
        monkeypatch.setenv("FAULT", fault)
        monkeypatch.setenv("FAULT_TIMES", str(tmp_path / "times"))
        rows = place / output / "stages/tune/metrics.jsonl"
        monkeypatch.setenv("FAULT_WHEN", str(rows))

    return strike


# So long that batches made ahead do not reach the end before the first interval does.
LONG = "experiment.Stage.budget = '80 steps'"


def test_an_image_that_vanishes(struck, capsys) -> None:
    struck("vanish", "vanished")
    assert start("vanished", LONG, gin="pictures.gin") == 2
    said = error(capsys)
    assert "unreadable image" in said and "37.png" in said


def test_reading_that_hangs(struck, capsys) -> None:
    struck("hang", "hanging")
    stall = "fault_cases.pictures.stall_seconds = 3.0"
    try:
        assert start("hanging", LONG, stall, gin="pictures.gin") == 75
    finally:
        fault_cases.HANGING.set()
    said = error(capsys)
    assert "reading hangs (step " in said and "train[" in said
    assert "stall_seconds is 3" in said


def in_process(output: str, *bindings: str, gin: str) -> subprocess.CompletedProcess:
    flags = [f"--gin_file={gin}", f"--output_dir={output}"]
    flags += [f"--gin_bindings={x}" for x in bindings]
    return subprocess.run(
        [sys.executable, "-m", "tflearn.run", *flags],
        capture_output=True,
        text=True,
        env={**line.os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )


WORKERS = "fault_cases.pictures.workers = 2"


@pytest.mark.slow
def test_a_worker_that_dies(struck) -> None:
    done = in_process("alive", LONG, gin="pictures.gin")
    assert done.returncode == 0, done.stderr
    struck("die", "died")
    done = in_process("died", LONG, WORKERS, gin="pictures.gin")
    assert done.returncode == 0, done.stderr
    assert "died with exit code -9; started again, 1 of 3 times" in done.stdout
    assert same("died", "alive")


@pytest.mark.slow
def test_a_worker_that_dies_for_ever(struck) -> None:
    struck("die", "dying", times=99)
    done = in_process("dying", LONG, WORKERS, gin="pictures.gin")
    assert done.returncode == 75, done.stderr
    assert "died for the 4th time (step " in done.stderr


@pytest.mark.slow
def test_a_worker_that_hangs(struck) -> None:
    struck("hang", "hung")
    stall = "fault_cases.pictures.stall_seconds = 60.0"
    done = in_process("hung", LONG, WORKERS, stall, gin="pictures.gin")
    assert done.returncode == 75, done.stderr
    assert re.search(r"error: data worker \d hangs \(step \d+, rows ", done.stderr)


def workers_of(process: int) -> set[str]:
    """Returns the processes that a process has started."""
    tasks = pathlib.Path(f"/proc/{process}/task").glob("*/children")
    return {child for task in tasks for child in task.read_text().split()}


@pytest.mark.slow
def test_a_killed_run_leaves_no_workers_behind(place) -> None:
    flags = ["--gin_file=pictures.gin", "--output_dir=gone"]
    flags += [f"--gin_bindings={x}" for x in (WORKERS, LONG.replace("80", "80000"))]
    run = subprocess.Popen(
        [sys.executable, "-m", "tflearn.run", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**line.os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )
    rows = pathlib.Path("gone/stages/tune/metrics.jsonl")
    while run.poll() is None and not (rows.exists() and rows.stat().st_size):
        time.sleep(0.05)
    assert run.poll() is None
    workers = workers_of(run.pid)
    run.kill()
    run.wait()
    deadline = time.monotonic() + 60
    while any(pathlib.Path(f"/proc/{x}").exists() for x in workers):
        assert time.monotonic() < deadline, "workers live on"
        time.sleep(0.1)
    assert len(workers) >= 2


@pytest.mark.slow
def test_memory_that_gives_out(place) -> None:
    large = "fault_cases.perceptron.width = 2000000"
    room = "fault_cases.perceptron.room = 900000000"
    batch = "experiment.Stage.batch_size = 64"
    done = in_process("memory", large, room, batch, gin="points.gin")
    assert done.returncode == 75, done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("error: there is not enough memory")
    assert "stage 'tune', batch_size 64" in said
    if keras.backend.backend() == "jax":
        assert re.search(r"Fix: batch_size \d+ takes .* of .* by the compiler", said)


# --- Clocks, machines, trackers -----------------------------------------------------


def test_a_clock_that_jumps(place, monkeypatch, capsys) -> None:
    now, looks = time.time, collections.Counter()

    def jumping() -> float:
        looks["all"] += 1
        return now() + 86_400 * (5 if looks["all"] % 2 else -400)

    monkeypatch.setattr(time, "time", jumping)
    code = start("jumping")
    assert looks["all"] > 2
    monkeypatch.setattr(time, "time", now)
    if code:
        # It jumped while Orbax wrote, which takes that for a disk that hangs.
        assert code == 75 and "the clock jumped" in error(capsys)
        assert start("jumping") == 0
    assert same("jumping")


class Metadata(http.server.BaseHTTPRequestHandler):
    """Answers as the metadata server of a machine that is about to end."""

    answers: dict[str, str] = {}

    def do_GET(self) -> None:
        assert self.headers["Metadata-Flavor"] == "Google"
        text = self.answers.get(self.path.rpartition("/")[2], "NONE").encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args) -> None:
        pass


@contextlib.contextmanager
def serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "answers",
    [
        {"maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE"},
        {"preempted": "TRUE"},
    ],
    ids=["maintenance", "preemption"],
)
def test_a_machine_that_is_about_to_end(answers, place, monkeypatch, capfd) -> None:
    output = f"ending_{next(iter(answers)).replace('-', '_')}"
    monkeypatch.setattr(
        maintenance, "watching", functools.partial(maintenance.watching, 0.01)
    )

    class AfterAWhile(Metadata):
        def do_GET(self) -> None:
            if pathlib.Path(output, "stages/tune/metrics.jsonl").exists():
                self.answers = answers
            super().do_GET()

    with serving(AfterAWhile) as host:
        monkeypatch.setenv(maintenance.HOST, host)
        assert start(output, "experiment.Stage.budget = '100000 steps'") == 143
    said = capfd.readouterr().err
    assert "this machine is about to end" in said and "is saved" in said


def test_a_maintenance_that_was_announced_before_ends_nothing(monkeypatch) -> None:
    class Announced(Metadata):
        answers = {"maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE"}

    with serving(Announced) as host, interruption.listening():
        monkeypatch.setenv(maintenance.HOST, host)
        with maintenance.watching(0.01):
            time.sleep(0.3)
        assert not interruption.asked(1)


class Tracker(http.server.BaseHTTPRequestHandler):
    """Answers as an MLflow server does, or as `mode` says."""

    mode = "well"
    received: list[tuple[str, int]] = []

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        if self.mode == "hangs":
            time.sleep(1.0)
            return
        if self.mode == "dies":
            self.connection.close()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = self.path.rpartition("/")[2].partition("?")[0]
        code, answer = 200, {"run": {"info": {"run_id": "1"}}, "experiment_id": "2"}
        if self.mode == "refuses":
            code = 503
        elif call == "get-by-name":
            code = 404
        elif call == "log-batch":
            points = json.loads(body)["metrics"]
            self.received += [(x["key"], x["step"]) for x in points]
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *args) -> None:
        pass


@pytest.mark.parametrize("mode", ["refuses", "hangs", "dies"])
def test_a_tracker_that_is_not_there(mode: str, place, capsys) -> None:
    class Own(Tracker):
        received: list[tuple[str, int]] = []

    Own.mode = mode
    tracked = fault_cases.GIN.replace(
        "import objectives", "import objectives\nfrom tflearn.reports import mlflow"
    )
    with serving(Own) as host:
        pathlib.Path(f"{mode}.gin").write_text(
            tracked
            + fault_cases.POINTS
            + "experiment.Experiment.tracker = @mlflow.Mlflow()\n"
            + f"mlflow.Mlflow.url = 'http://me:hunter2hunter2@{host}'\n"
            + "mlflow.Mlflow.timeout_seconds = 0.3\n"
        )
        assert start(mode, gin=f"{mode}.gin") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "3 events are kept in" in said and "hunter2" not in said
        assert Own.received == [] and same(mode)
        Own.mode = "well"
        assert start(mode, gin=f"{mode}.gin") == 0
        assert "events are kept" not in capsys.readouterr().out
        for step in (4, 8, 12):
            assert Own.received.count(("tune/loss", step)) == 1
        # Nothing is sent a second time.
        sent = len(Own.received)
        assert start(mode, gin=f"{mode}.gin") == 0 and len(Own.received) == sent


# --- Numbers, secrets ---------------------------------------------------------------


def test_an_overflow_in_float16(place, capsys) -> None:
    half = ("experiment.Experiment.precision = 'mixed_float16'",)
    # Scaled by 32,768, the gradients of such points are beyond 65,504.
    fault_cases.write_points(pathlib.Path("far.csv"), scale=40.0)
    far = (*half, "fault_cases.points.path = 'far.csv'")
    for output, bindings in (("near", half), ("far", far)):
        assert start(output, *bindings) == 0
    said = capsys.readouterr().out
    counts = re.findall(r"(\d+) steps were left out: float16", said)
    saved = Checkpoints(pathlib.Path("far/stages/tune/checkpoints"))
    found = saved.read(saved.latest)
    saved.close()
    numbers = {
        float(x)
        for path, x in found.items()
        if path.startswith("optimizer/") and not x.shape
    }
    left_out = int(counts[-1])
    assert 0 < left_out < 12
    # The scale is one of the optimizer's numbers.
    assert 2.0 ** (15 - left_out) in numbers and 2.0**15 not in numbers
    stage = json.loads(pathlib.Path("far/stages/tune/report.json").read_text())
    assert any("float16" in note for note in stage["notes"])
    assert all(math.isfinite(row["loss"]) for row in stage["history"])
    assert all(np.isfinite(x).all() for x in found.values())


def test_a_traceback_holds_no_secret(place, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2hunter2")
    monkeypatch.setattr(
        sys, "argv", ["run", "--gin_file=hunter2hunter2.gin", "--debug"]
    )
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    assert line._main_shown() == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and "<redacted>.gin" in said
    assert "hunter2" not in said
