"""The launchers of `tpu/`, against fakes of the tools they call.

A fake stands alone on `PATH`, so that no test can reach a real account. It writes down
how it was called, and answers as the test has scripted.
"""

from __future__ import annotations

import doctest
import importlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

ROOT = pathlib.Path(__file__).parents[1]
RUN = ("--", "--gin_file=a.gin", "--gin_bindings=SEED = 1", "--output_dir=gs://b/run")
TOOLS = ("docker", "gcloud", "git", "kubectl", "sacct", "sbatch", "scancel", "scp")
TOOLS = (*TOOLS, "scontrol", "srun", "ssh", "xpk")
# Nothing but what bash has built in: it starts in a few milliseconds. A call is written
# down as its words and its standard input, apart by control characters.
FAKE = r"""#!/bin/bash
cd "$FAKES"
tool=${0##*/} input= number=0
case $tool in ssh | sbatch) IFS= read -r -d '' input ;; esac
{
  printf '%s\x1f' "$tool" "$@"
  printf '\x1d%s\x1e' "$input"
} >> calls
while [ -e "rule-$number" ]; do
  IFS= read -r -d '' rule < "rule-$number"
  if [[ "$tool $* $input" =~ $rule ]]; then
    count=0
    [ ! -e "used-$number" ] || read -r count < "used-$number"
    echo $((count + 1)) > "used-$number"
    while [ ! -e "reply-$number-$count" ]; do count=$((count - 1)); done
    . "./reply-$number-$count"
  fi
  number=$((number + 1))
done
"""
QUEUED = {
    "ABSENT": (1, "", "ERROR: NOT_FOUND: no such resource"),
    **{
        state: (0, json.dumps({"state": {"state": state}}), "")
        for state in ("ACTIVE", "FAILED", "PROVISIONING", "SUSPENDING", "SUSPENDED")
    },
}
READY = (0, '{"state": "READY", "networkEndpoints": [{}, {}]}', "")
PREEMPTED = (0, '{"state": "PREEMPTED"}', "")
# Texts that only one kind of command on a worker contains.
INSTALL, START, LOOK, STOP = "uv pip install", "setsid", "answer=", "kill -9"

Launcher = Callable[[str], ModuleType]


class Fakes:
    """The scripted tools, and what they were called with."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.rules = 0

    def answer(self, pattern: str, *replies: tuple[int, str, str]) -> None:
        """Scripts the replies to calls that match; the last one stays."""
        (self.folder / f"rule-{self.rules}").write_text(pattern)
        for number, (code, out, err) in enumerate(replies):
            text = f"printf %s {shlex.quote(out)}\nprintf %s {shlex.quote(err)} >&2\n"
            path = self.folder / f"reply-{self.rules}-{number}"
            path.write_text(f"{text}exit {code}\n")
        self.rules += 1

    @property
    def calls(self) -> list[list[str]]:
        """The words of every call so far."""
        return [words for words, _ in self._read()]

    @property
    def inputs(self) -> list[str]:
        """The standard input of every call so far."""
        return [stdin for _, stdin in self._read()]

    def actions(self) -> list[str]:
        """What gcloud was told to do, in short, without the looks."""
        found = []
        for words in self.calls:
            text = " ".join(words)
            kinds = {INSTALL: "install", START: "start", STOP: "stop"}
            kinds |= {" create ": "create", " delete ": "delete", " scp ": "scp"}
            found += [name for part, name in kinds.items() if part in text][:1]
        return found

    def _read(self) -> list[tuple[list[str], str]]:
        path = self.folder / "calls"
        text = path.read_text() if path.exists() else ""
        calls = [call.split("\x1d") for call in text.split("\x1e")[:-1]]
        return [(words.split("\x1f")[:-1], stdin) for words, stdin in calls]


@pytest.fixture
def fakes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """Fakes of all tools, and nothing else on `PATH`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).write_text(FAKE)
        (folder / tool).chmod(0o755)
    (folder / "bash").symlink_to("/bin/bash")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("FAKES", str(folder))
    return Fakes(folder)


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Launcher:
    """Imports a launcher as Python does when it is run as a script."""
    monkeypatch.syspath_prepend(str(ROOT / "tpu"))
    return importlib.import_module


@pytest.fixture
def tpu(fakes: Fakes) -> Fakes:
    """A queued resource whose node has two workers that do as they are told."""
    fakes.answer(INSTALL, said("installed", "installed"))
    fakes.answer(START, said("started", "started"))
    return fakes


def queued(verb: str, *words: str) -> list[str]:
    """The words of a call of the launcher for queued resources."""
    quick = ["--poll-seconds=0"]
    if verb == "watch":
        quick += ["--pause-seconds=0", "--accelerator-type=v5litepod-16", "--spot"]
    return [verb, "mine", "--zone=us-central1-a", *quick, *words]


def said(*answers: str, code: int = 0) -> tuple[int, str, str]:
    """What gcloud prints when worker 0, 1, ... answer so."""
    lines = [f"tflearn-worker w-{n} {answer}\n" for n, answer in enumerate(answers)]
    return code, "".join(lines), "Using ssh batch size of 1.\n"


def states(fakes: Fakes, *queue: str, node: tuple = (READY,)) -> None:
    """Scripts what `describe` says, time after time."""
    fakes.answer("queued-resources describe", *(QUEUED[state] for state in queue))
    fakes.answer("tpu-vm describe", *node)


# Every command, without an account.


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        (
            "queued_resource",
            queued("create", "--accelerator-type=v6e-8", "--project=p", "--reserved"),
            [
                "gcloud compute tpus queued-resources create mine --node-id=mine "
                "--accelerator-type=v6e-8 --runtime-version=v2-alpha-tpuv6e --reserved "
                "--zone=us-central1-a --project=p --quiet\n"
            ],
        ),
        (
            "queued_resource",
            queued("delete"),
            [
                "gcloud compute tpus queued-resources delete mine --force "
                "--zone=us-central1-a --quiet\n"
            ],
        ),
        (
            "queued_resource",
            queued("logs", "--worker=3"),
            ["ssh mine --worker=3 '--command=tail -n 100 -F"],
        ),
        (
            "queued_resource",
            queued("install", "--copy=gin", "--package=gcsfs"),
            ["git -C", "scp gin mine:tflearn-run/ --worker=all", "jax[tpu]", "gcsfs"],
        ),
        (
            "queued_resource",
            queued("watch", *RUN),
            [
                "create mine",
                "--spot",
                "tensorflow; sys_platform ==",
                "-m tflearn.run --gin_file=a.gin",
                "--output_dir=gs://b/run;",
                "queued-resources delete mine --force",
            ],
        ),
        (
            "xpk",
            ["create", "c", "--zone=z", "--tpu-type=v5litepod-16", "--reservation=r"],
            [
                "xpk cluster create --cluster=c --zone=z --tpu-type=v5litepod-16 "
                "--num-slices=1 --reservation=r\n"
            ],
        ),
        (
            "xpk",
            ["create", "c", "--zone=z", "--tpu-type=v5litepod-16"],
            ["--num-slices=1 --on-demand\n"],
        ),
        (
            "xpk",
            ["install", "host/image:1"],
            ["docker build --tag=host/image:1 -f tpu/Dockerfile -", "docker push host"],
        ),
        (
            "xpk",
            ["run", "w", "--cluster=c", "--zone=z", "--tpu-type=v5litepod-16"]
            + ["--image=i", *RUN],
            [
                "xpk workload create --workload=w --cluster=c --zone=z",
                "--command=python -m tflearn.run --gin_file=a.gin",
                "--output_dir=gs://b/run'",
                "--max-restarts=10 --restart-on-exit-codes=1,3-126\n",
            ],
        ),
        (
            "xpk",
            ["logs", "w", "--cluster=c", "--zone=us-central1-a"],
            ["get-credentials c --region=us-central1\n", "jobset-name=w\n"],
        ),
        (
            "xpk",
            ["delete", "w", "--cluster=c", "--zone=z"],
            ["xpk workload delete --workload=w --cluster=c --zone=z --force\n"],
        ),
        (
            "xpk",
            ["delete-cluster", "c", "--zone=z"],
            ["xpk cluster delete --cluster=c --zone=z --force\n"],
        ),
        (
            "slurm",
            ["run", "--nodes=2", "--gpus-per-node=8", "--time=1:00", *RUN],
            [
                "sbatch --parsable --nodes=2 --job-name=tflearn --time=1:00 "
                "--gpus-per-node=8 <<'END'\n#!/bin/bash\n",
                "#SBATCH --requeue\n",
                "--coordinator=$COORDINATOR",
            ],
        ),
        ("slurm", ["delete", "17"], ["scancel 17\n"]),
        (
            "nodes",
            ["watch", "--hosts=a,b", "--port=99", *RUN],
            [
                "BatchMode=yes -o ConnectTimeout=20 b bash <<'END'",
                "--coordinator=a:99 --processes=2 --process_id=0;",
                "--coordinator=a:99 --processes=2 --process_id=1;",
            ],
        ),
        (
            "nodes",
            ["install", "--hosts=a", "--source=git+https://h/o/r", "--copy=gin"],
            ["scp -q -r -o BatchMode=yes gin a:tflearn-run/\n", "'jax[cuda12]'"],
        ),
    ],
)
def test_a_dry_run_prints_every_command_and_runs_none(
    name: str,
    words: list[str],
    expected: list[str],
    fakes: Fakes,
    launcher: Launcher,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    cut = words.index("--") if "--" in words else len(words)
    words = [*words[:cut], "--dry-run", *words[cut:]]
    assert launcher(name).main(words) == 0
    printed = capsys.readouterr().out
    for part in expected:
        assert part in printed
    assert fakes.calls == []


@pytest.mark.parametrize("name", ["queued_resource", "xpk", "slurm", "nodes"])
def test_each_is_a_script_that_needs_nothing_installed(name: str) -> None:
    script = ROOT / "tpu" / f"{name}.py"
    words = [sys.executable, "-S", script, "--help"]  # -S: no installed libraries
    done = subprocess.run(words, capture_output=True)
    assert done.returncode == 0
    assert b"COMMAND" in done.stdout
    assert os.access(script, os.X_OK)


# Mistakes of the user.


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("queued_resource", queued("watch"), "nothing to run"),
        ("queued_resource", queued("run", "--", "--gin_file=a"), "no --output_dir"),
        (
            "queued_resource",
            queued("run", *RUN, "--processes=2"),
            "--processes is set by the launcher",
        ),
        (
            "queued_resource",
            queued("create", "--accelerator-type=v5e-16"),
            "write v5litepod-16",
        ),
        (
            "queued_resource",
            queued("create", "--accelerator-type=tpu7x-8"),
            "use tpu/xpk.py",
        ),
        ("queued_resource", ["delete"], "required: name, --zone"),
        ("queued_resource", queued("launch"), "invalid choice"),
        (
            "queued_resource",
            queued("run", "--env=NO_SUCH_VARIABLE", *RUN),
            "NO_SUCH_VARIABLE is not set here",
        ),
        ("nodes", ["run", "--hosts=a,,b", *RUN], "not a list of hosts"),
        ("nodes", ["run", "--hosts=localhost,b", *RUN], "cannot reach localhost"),
        ("nodes", ["install", "--hosts=a", "--source=x"], "no checkout of tflearn"),
        ("slurm", ["run", "--nodes=0", "--time=1", *RUN], "--nodes must be"),
        ("slurm", ["run", "--nodes=1", *RUN], "required: --time"),
        (
            "xpk",
            ["run", "A_b", "--cluster=c", "--zone=z", "--tpu-type=t", "--image=i"]
            + [*RUN],
            "not a name for a workload",
        ),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    name: str,
    words: list[str],
    message: str,
    fakes: Fakes,
    launcher: Launcher,
    capsys: pytest.CaptureFixture[str],
) -> None:
    states(fakes, "ACTIVE")
    assert launcher(name).main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    # Nothing was changed anywhere.
    assert all(words[4] == "describe" for words in fakes.calls)


def test_a_missing_tool_is_named_with_its_address(
    fakes: Fakes, launcher: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    (fakes.folder / "gcloud").unlink()
    assert launcher("queued_resource").main(queued("status")) == 2
    assert "https://cloud.google.com/sdk" in capsys.readouterr().err


# A queued resource and its preemptions.


def test_create_waits_until_the_tpu_is_there(fakes: Fakes, launcher: Launcher) -> None:
    states(fakes, "PROVISIONING", "ACTIVE")
    words = queued("create", "--accelerator-type=v5p-8")
    assert launcher("queued_resource").main(words) == 0
    assert [words[4] for words in fakes.calls] == ["create"] + ["describe"] * 3


def test_create_says_when_there_will_be_no_tpu(
    fakes: Fakes, launcher: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    states(fakes, "FAILED")
    words = queued("create", "--accelerator-type=v5p-8")
    assert launcher("queued_resource").main(words) == 1
    assert "mine is FAILED" in capsys.readouterr().err


def test_watch_does_all_that_is_missing_and_ends_with_the_run(
    tpu: Fakes, launcher: Launcher
) -> None:
    states(tpu, "ABSENT", "PROVISIONING", "ACTIVE")
    tpu.answer(
        LOOK,
        said("absent", "absent"),
        said("running", "running"),
        said("exit 0", "running"),
        said("exit 0", "exit 0"),
    )
    words = queued("watch", "--delete-when-finished", *RUN)
    assert launcher("queued_resource").main(words) == 0
    assert tpu.actions() == ["create", "scp", "install", "start", "delete"]


@pytest.mark.parametrize(
    ("queue", "node"),
    [
        (("ACTIVE", "SUSPENDING", "SUSPENDED", "ABSENT", "ACTIVE"), (READY,)),
        (("ACTIVE", "ACTIVE", "ABSENT", "ACTIVE"), (READY, PREEMPTED, READY)),
    ],
    ids=["the queued resource is suspended", "its node is preempted"],
)
def test_watch_gets_a_new_tpu_after_a_preemption(
    queue: tuple[str, ...], node: tuple, tpu: Fakes, launcher: Launcher
) -> None:
    states(tpu, *queue, node=node)
    running, finished = said("running", "running"), said("exit 0", "exit 0")
    tpu.answer(LOOK, running, said("absent", "absent"), running, finished)
    assert launcher("queued_resource").main(queued("watch", *RUN)) == 0
    # The command of the run is the same: tflearn finds its last checkpoint.
    assert tpu.actions() == ["delete", "create", "scp", "install", "start"]


@pytest.mark.parametrize(
    ("trouble", "again"),
    [(INSTALL, ["install", "scp", "install", "start"]), (START, ["install", "start"])],
)
def test_watch_survives_workers_that_vanish_while_they_are_set_up(
    trouble: str, again: list[str], fakes: Fakes, launcher: Launcher
) -> None:
    states(fakes, "ACTIVE", "SUSPENDED", "ABSENT", "ACTIVE")
    # One worker of two answers; the next time both do.
    fakes.answer(trouble, said("ready", code=255), said("ready", "ready"))
    fakes.answer(f"{INSTALL}|{START}", said("ready", "ready"))
    absent = said("absent", "absent")
    fakes.answer(
        LOOK, said("running", "running"), absent, absent, said(*["exit 0"] * 2)
    )
    assert launcher("queued_resource").main(queued("watch", *RUN)) == 0
    actions = fakes.actions()
    assert actions[:3] == ["delete", "create", "scp"]
    assert actions[-len(again) :] == again


def test_watch_starts_again_after_a_failure_and_gives_up_in_the_end(
    tpu: Fakes, launcher: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    states(tpu, "ACTIVE")
    tpu.answer(LOOK, said("exit 137", "running"))
    words = queued("watch", "--max-restarts=2", *RUN)
    assert launcher("queued_resource").main(words) == 1
    assert tpu.actions() == ["stop", "start"] * 2
    assert "w-0: exit 137); given up after 2 restarts" in capsys.readouterr().err


def test_watch_does_not_restart_a_mistake(
    tpu: Fakes, launcher: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    states(tpu, "ACTIVE")
    # The other worker lost its peer.
    tpu.answer(LOOK, said("exit 2", "exit 134"))
    tpu.answer("tail -n 5", (0, "error: unknown name\n", ""))
    assert launcher("queued_resource").main(queued("watch", *RUN)) == 2
    assert tpu.actions() == []
    assert "error: unknown name" in capsys.readouterr().out


def test_watch_does_not_bring_back_what_somebody_deleted(
    tpu: Fakes, launcher: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    states(tpu, "ACTIVE", "ABSENT")
    tpu.answer(LOOK, said("running", "running"))
    assert launcher("queued_resource").main(queued("watch", *RUN)) == 1
    assert tpu.actions() == []
    assert "deleted by somebody" in capsys.readouterr().err


def test_a_first_request_that_is_refused_is_not_repeated(
    tpu: Fakes, launcher: Launcher
) -> None:
    states(tpu, "ABSENT")
    tpu.answer("queued-resources create", (1, "", "PERMISSION_DENIED"))
    assert launcher("queued_resource").main(queued("watch", *RUN)) == 1
    assert tpu.actions() == ["create"]


def test_a_cloud_that_does_not_answer_is_asked_again_before_giving_up(
    fakes: Fakes, launcher: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes.answer("describe", (1, "", "connection reset"))
    module = launcher("queued_resource")
    assert module.main(queued("run", *RUN)) == 1
    assert len(fakes.calls) == module.SILENCES
    assert "connection reset" in capsys.readouterr().err


def test_status_says_how_the_tpu_and_the_run_stand(
    fakes: Fakes, launcher: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    states(fakes, "ACTIVE")
    fakes.answer(LOOK, said("running"))
    assert launcher("queued_resource").main(queued("status")) == 0
    out = capsys.readouterr().out
    assert out == "mine: ACTIVE\nrun: unreachable (1 of 2 workers answered)\n"


def test_a_secret_is_neither_printed_nor_on_a_command_line(
    tpu: Fakes,
    launcher: Launcher,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    states(tpu, "ACTIVE")
    env = "--env=HF_TOKEN"
    gke = ["run", "w", "--cluster=c", "--zone=z", "--tpu-type=t", "--image=i"]
    for dry in ([], ["--dry-run"]):
        assert launcher("queued_resource").main(queued("run", env, *dry, *RUN)) == 0
        assert launcher("nodes").main(["run", "--hosts=a", env, *dry, *RUN]) == 0
        assert launcher("xpk").main([*gke, env, *dry, *RUN]) == 0
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err + str(tpu.calls)
    # It goes through a file, or through standard input.
    assert any("mine:tflearn-run/env" in words for words in tpu.calls)
    assert "export HF_TOKEN=hunter2\n" in tpu.inputs


# Machines that ssh reaches: the shell text is run for real.


def test_nodes_start_all_processes_and_restart_them_together(
    tmp_path: pathlib.Path, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    # Process 1 fails the first time it runs.
    python.write_text(
        f"""#!/bin/bash
echo "$@" >> {tmp_path}/calls
case "$*" in *process_id=1*) mkdir {tmp_path}/failed && exit 1;; esac
exit 0
"""
    )
    python.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    quick = ["--poll-seconds=0.2", "--pause-seconds=0", f"--python={python}"]
    words = ["watch", "--hosts=localhost,localhost", *quick, *RUN]
    assert launcher("nodes").main(words) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    same = "-m tflearn.run --gin_file=a.gin --gin_bindings=SEED = 1 "
    same += "--output_dir=gs://b/run --coordinator=localhost:12355 --processes=2 "
    assert sorted(calls) == sorted(f"{same}--process_id={n}" for n in (0, 0, 1, 1))


def test_nodes_stop_a_run_with_all_its_children(
    tmp_path: pathlib.Path,
    launcher: Launcher,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/bash\nsleep 600 & sleep 600\n")
    python.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    nodes = launcher("nodes")
    start = ["run", "--hosts=localhost", f"--python={python}", *RUN]
    assert nodes.main(start) == 0
    group = int((tmp_path / "tflearn-run/state-0/pid").read_text())
    assert nodes.main(["status", "--hosts=localhost"]) == 0
    assert nodes.main(start) == 0  # says that it runs, and starts nothing
    assert int((tmp_path / "tflearn-run/state-0/pid").read_text()) == group
    assert nodes.main(["stop", "--hosts=localhost"]) == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert "run: running" in capfd.readouterr().out


# Slurm: the job script is run for real.


def slurm_job(fakes: Fakes, launcher: Launcher) -> tuple[list[list[str]], int]:
    """Submits a job and runs its script; returns all calls of srun, and its code."""
    fakes.answer("^sbatch", (0, "17;cluster\n", ""))
    fakes.answer("^scontrol show hostnames", (0, "n1\nn2\n", ""))
    words = ["run", "--nodes=2", "--time=1", "--max-restarts=2", "--pause-seconds=0"]
    assert launcher("slurm").main([*words, *RUN]) == 0
    path = os.pathsep.join((str(fakes.folder), "/usr/bin", "/bin"))
    job = {"SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "n[1-2]", "PATH": path}
    done = subprocess.run(
        ["/bin/bash"],
        input=fakes.inputs[0],
        env={**os.environ, **job},
        capture_output=True,
        text=True,
    )
    return [words for words in fakes.calls if words[0] == "srun"], done.returncode


@pytest.mark.parametrize(
    ("codes", "restarts", "final"),
    [((0,), 0, 0), ((1, 137, 0), 2, 0), ((2,), 0, 2), ((1,), 2, 1)],
    ids=["it works", "it fails twice", "a mistake", "it always fails"],
)
def test_a_slurm_job_restarts_failures_but_not_mistakes(
    codes: tuple[int, ...],
    restarts: int,
    final: int,
    fakes: Fakes,
    launcher: Launcher,
) -> None:
    fakes.answer("^srun", *((code, "", "") for code in codes))
    runs, code = slurm_job(fakes, launcher)
    assert len(runs) == 1 + restarts
    assert all(run == runs[0] for run in runs)
    assert code == final


def test_a_slurm_task_knows_its_place(fakes: Fakes, launcher: Launcher) -> None:
    runs, _ = slurm_job(fakes, launcher)
    task = runs[0][-1].replace("$HOME/tflearn-env/bin/python", "/bin/echo")
    place = {"COORDINATOR": "n1:20017", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}
    words = ["/bin/bash", "-c", task]
    out = subprocess.run(words, env=place, capture_output=True, text=True).stdout
    assert out.endswith("--coordinator=n1:20017 --processes=2 --process_id=1\n")


@pytest.mark.parametrize(
    ("said_states", "code"),
    [
        (("PENDING|0:0", "PREEMPTED|0:15", "RUNNING|0:0", "COMPLETED|0:0"), 0),
        (("FAILED|2:0",), 2),
        (("CANCELLED by 7|0:15",), 1),
        (("",), 1),
    ],
    ids=["put back and done", "a mistake", "cancelled", "unknown"],
)
def test_watching_a_slurm_job_returns_how_it_ended(
    said_states: tuple[str, ...], code: int, fakes: Fakes, launcher: Launcher
) -> None:
    fakes.answer("sacct", *((0, f"{state}\n", "") for state in said_states))
    assert launcher("slurm").main(["watch", "17", "--poll-seconds=0"]) == code


@pytest.mark.parametrize(("returned", "code"), [(0, 0), (125, 1), (1, 1)])
def test_watching_a_workload_returns_how_it_ended(
    returned: int, code: int, fakes: Fakes, launcher: Launcher
) -> None:
    fakes.answer("wait-for-job-completion=w", (returned, "", ""))
    words = ["watch", "w", "--cluster=c", "--zone=z"]
    assert launcher("xpk").main(words) == code


def test_pauses_double_up_to_ten_minutes(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = launcher("shell")
    slept: list[float] = []
    monkeypatch.setattr(shell.time, "sleep", slept.append)
    restarts = shell.Restarts(most=6, pause_seconds=30, shell=shell.Shell())
    for _ in range(6):
        restarts.spend("it failed")
    assert slept == [30, 60, 120, 240, 480, 600]
    with pytest.raises(shell.GaveUp, match="given up after 6 restarts"):
        restarts.spend("it failed")


def test_the_readme_names_every_subcommand() -> None:
    text = (ROOT / "tpu" / "README.md").read_text(encoding="utf-8")
    for name in ("queued_resource", "xpk", "slurm", "nodes"):
        source = (ROOT / "tpu" / f"{name}.py").read_text(encoding="utf-8")
        found = re.findall(r"^def ([a-z][a-z_]*)\(arguments", source, re.MULTILINE)
        assert found
        for command in found:
            assert f"`{command.replace('_', '-')}`" in text, f"{name}.py {command}"


def test_the_examples_in_the_docstrings_hold(launcher: Launcher) -> None:
    for name, examples in (("workers", 2), ("slices", 1)):
        assert doctest.testmod(launcher(name)) == (0, examples)


def test_quoting_survives_the_way_to_a_worker(launcher: Launcher) -> None:
    # The command is quoted for the inner shell, and that again for the outer one.
    text = launcher("workers").start(["--gin_bindings=NAME = 'it is'"])
    inner = shlex.split(text.split("setsid nohup bash -c ")[1].split(" >> ")[0])[0]
    assert "--gin_bindings=NAME = 'it is'" in shlex.split(inner.replace(";", " ; "))
