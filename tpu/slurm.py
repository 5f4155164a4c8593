#!/usr/bin/env python3
r"""Runs an experiment on the nodes of a Slurm cluster, one process a node.

    tpu/slurm.py run --nodes=2 --gpus-per-node=8 --time=04:00:00 \
        -- --gin_file=FILE --output_dir=/shared/RUN

A process uses all GPUs of its node. The job puts itself back into the queue before its
time is up, Slurm does so after a preemption, and the job script starts the experiment
again after a failure; all this a bounded number of times. `--dry-run` prints every
command and the job script, and runs none.
"""

from __future__ import annotations

import argparse
import pathlib
import shlex
import sys
import tempfile
from collections.abc import Sequence

import workers
from shell import (
    CHECKOUT,
    Failure,
    Mistake,
    Parser,
    Shell,
    archive,
    experiment_flags,
    launch,
    subcommand,
)

# States of a job that Slurm will not leave any more.
ENDED = (
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("BOOT_FAIL", "DEADLINE"),
)
SILENCES = 5


def install(arguments: argparse.Namespace) -> None:
    """Install tflearn into your home directory, which the nodes share."""
    shell: Shell = arguments.shell
    remote = arguments.source.startswith("git+")
    text = workers.install(
        arguments.source if remote else "",
        accelerator=arguments.accelerator,
        packages=arguments.package,
    )
    with tempfile.TemporaryDirectory() as folder:
        packed = pathlib.Path(folder) / workers.ARCHIVE
        if not remote:
            archive(arguments.source, packed, shell)
            copy = f'mkdir -p "{workers.FOLDER}" && cp {packed} "{workers.FOLDER}"'
            shell.run(["bash", "-c", copy])
        shell.run(["bash"], stdin=text)


def run(arguments: argparse.Namespace) -> None:
    """Submit the experiment."""
    words = ["sbatch", "--parsable", *_resources(arguments)]
    text = script(
        experiment_flags(arguments.flags, output_dir=False),
        python=arguments.python,
        max_restarts=arguments.max_restarts,
        pause_seconds=arguments.pause_seconds,
    )
    answer = arguments.shell.ask(words, stdin=text, assumed="JOB")
    if answer.code != 0:
        raise Failure(f"sbatch: {answer.err.strip()}")
    job = answer.out.strip().split(";")[0]
    arguments.shell.say(f"job {job}; follow it with: slurm.py logs {job}")


def logs(arguments: argparse.Namespace) -> None:
    """Follow the log of a job; call it where you called run."""
    words = ["tail", "-n", "100", "-F", f"tflearn-{arguments.job}.log"]
    arguments.shell.run(words)


def status(arguments: argparse.Namespace) -> None:
    """Say how a job stands."""
    state, code = _look(arguments)
    print(f"job {arguments.job}: {state}, exit code {code}")


def watch(arguments: argparse.Namespace) -> int:
    """Wait until a job has ended; it restarts by itself."""
    shell: Shell = arguments.shell
    told = ""
    while True:
        state, code = _look(arguments)
        if state != told:
            shell.say(f"job {arguments.job} is {state}")
        told = state
        if state in ENDED:
            break
        shell.sleep(arguments.poll_seconds)
    if state == "COMPLETED":
        return 0
    if code == 2:
        shell.say(f"a mistake in the declaration: slurm.py logs {arguments.job}")
        return 2
    raise Failure(f"job {arguments.job} is {state} with exit code {code}")


def delete(arguments: argparse.Namespace) -> None:
    """Cancel a job."""
    arguments.shell.run(["scancel", arguments.job])


def script(
    flags: Sequence[str], *, python: str, max_restarts: int, pause_seconds: int
) -> str:
    """Returns the job script.

    Args:
        flags: Those of `python -m tflearn.run`.
        python: The interpreter on the nodes.
        max_restarts: How often the job may be put back into the queue; restarts after
            failures since then count too.
        pause_seconds: The pause before a restart, which doubles up to ten minutes.
    """
    processes = (
        '"--coordinator=$COORDINATOR" "--processes=$SLURM_NTASKS" '
        '"--process_id=$SLURM_PROCID"'
    )
    task = f'"{python}" -m tflearn.run {shlex.join(flags)} {processes}'
    return f"""#!/bin/bash
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=tflearn-%j.log
#SBATCH --signal=B:USR1@120
# Slurm counts how often this job was put back: after a preemption, after a node broke,
# or by the trap below.
restarts=${{SLURM_RESTART_COUNT:-0}}
trap 'echo "time is nearly up: back into the queue"
  if [ "$restarts" -lt {max_restarts} ]; then scontrol requeue "$SLURM_JOB_ID"; fi' USR1
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export COORDINATOR=$first:$((20000 + SLURM_JOB_ID % 10000))
pause={pause_seconds}
while true; do
  # A process that fails ends the others itself; should one hang, Slurm ends it.
  srun --kill-on-bad-exit=0 --wait=600 bash -c {shlex.quote(task)} &
  job=$!
  # A signal ends a wait early, so wait again for as long as srun lives.
  wait "$job"; code=$?
  while kill -0 "$job" 2> /dev/null; do wait "$job"; code=$?; done
  # 0: finished. 2: a mistake in the declaration, which no restart mends.
  if [ "$code" -eq 0 ] || [ "$code" -eq 2 ]; then exit "$code"; fi
  if [ "$restarts" -ge {max_restarts} ]; then
    echo "exit code $code; given up after {max_restarts} restarts"
    exit "$code"
  fi
  restarts=$((restarts + 1))
  echo "exit code $code; restart $restarts of {max_restarts} in $pause seconds"
  sleep "$pause" & wait $!
  pause=$((pause * 2 < 600 ? pause * 2 : 600))
done
"""


def _look(arguments: argparse.Namespace) -> tuple[str, int]:
    """Returns the state of a job and its exit code."""
    words = ["sacct", "-X", "-n", "-P", "--format=State,ExitCode", "-j", arguments.job]
    for _ in range(SILENCES):
        answer = arguments.shell.ask(words, assumed="COMPLETED|0:0")
        lines = answer.out.strip().splitlines()
        if answer.code == 0 and lines:
            # A job that was put back has a line for each time; the last one counts.
            state, _, codes = lines[-1].partition("|")
            return state.split()[0], int(codes.split(":")[0] or 0)
        # The accounting lags behind the submission.
        arguments.shell.sleep(arguments.poll_seconds)
    raise Failure(f"sacct knows no job {arguments.job}: {answer.err.strip()}")


def _resources(arguments: argparse.Namespace) -> list[str]:
    if arguments.nodes < 1:
        raise Mistake(f"--nodes must be at least 1. Received: {arguments.nodes}")
    words = [f"--nodes={arguments.nodes}", f"--job-name={arguments.name}"]
    words.append(f"--time={arguments.time}")
    if arguments.gpus_per_node:
        words.append(f"--gpus-per-node={arguments.gpus_per_node}")
    for flag in ("partition", "account", "qos"):
        if getattr(arguments, flag):
            words.append(f"--{flag}={getattr(arguments, flag)}")
    return [*words, *arguments.sbatch]


def _parser() -> Parser:
    parser = Parser(prog="slurm.py", description="Nodes of a Slurm cluster.")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    add = subcommand(parsers, "install", install)
    kinds = tuple(workers.ACCELERATORS)
    add("--accelerator", choices=kinds, default="cuda12", help="(cuda12)")
    add("--source", default=CHECKOUT, help="a checkout (this one), or git+https://...")
    add("--package", action="append", default=[], help="a further requirement")
    add = subcommand(parsers, "run", run)
    add("--nodes", type=int, required=True, help="how many, one process each")
    add("--gpus-per-node", type=int, default=0, help="how many GPUs each")
    add("--time", required=True, help="a job's limit, as in 04:00:00")
    add("--name", default="tflearn", help="of the job (tflearn)")
    add("--partition", default="", help="where to")
    add("--account", default="", help="who pays")
    add("--qos", default="", help="quality of service")
    add("--sbatch", action="append", default=[], help="a further flag of sbatch")
    add("--python", default=workers.PYTHON, help="default: what install made")
    add("--max-restarts", type=int, default=20, help="in all (20)")
    add("--pause-seconds", type=int, default=30, help="doubles (30)")
    for command in (logs, status, watch, delete):
        add = subcommand(parsers, command.__name__, command)
        add("job", help="its number")
        add("--poll-seconds", type=float, default=30, help="between looks (30)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    return launch(_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
