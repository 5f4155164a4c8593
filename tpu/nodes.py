#!/usr/bin/env python3
"""Runs an experiment on machines that ssh reaches, one process each.

    tpu/nodes.py watch --hosts=a,b -- --gin_file=FILE --output_dir=/shared/RUN

A process uses all GPUs of its machine. The host `localhost` is reached without ssh, and
may be named several times. `watch` starts what does not run, starts again after a
failure and ends when the run has. `--dry-run` prints every command and runs none.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import workers
from shell import (
    CHECKOUT,
    Failure,
    GaveUp,
    Mistake,
    Parser,
    Restarts,
    Shell,
    archive,
    experiment_flags,
    launch,
    secrets,
    subcommand,
)

# How often in a row hosts may fail to answer.
SILENCES = 5


def install(arguments: argparse.Namespace) -> None:
    """Install tflearn on all machines, and copy your files to them."""
    shell = arguments.shell
    remote = arguments.source.startswith("git+")
    text = workers.install(
        arguments.source if remote else "",
        accelerator=arguments.accelerator,
        packages=arguments.package,
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = list(arguments.copy)
        if not remote:
            packed = pathlib.Path(folder) / workers.ARCHIVE
            archive(arguments.source, packed, shell)
            paths.append(str(packed))
        for host in dict.fromkeys(_hosts(arguments)):
            shell.run(_shell_on(host), stdin=f'mkdir -p "{workers.FOLDER}"\n')
            for path in paths:
                shell.run(_copy(host, path))
            shell.run(_shell_on(host), stdin=text)


def run(arguments: argparse.Namespace) -> None:
    """Start the experiment on all machines, detached."""
    _start(arguments, _flags(arguments))


def watch(arguments: argparse.Namespace) -> int:
    """Start what does not run, start again after failures, end when the run has."""
    flags = _flags(arguments)
    shell: Shell = arguments.shell
    if shell.dry_run:
        _start(arguments, flags)
        shell.say(f"every {arguments.poll_seconds:g} seconds:")
        _ask(arguments)
        shell.say(f"after a failure, at most {arguments.max_restarts} times:")
        _stop(arguments)
        shell.say("and the run is started as above")
        return 0
    restarts = Restarts(arguments.max_restarts, arguments.pause_seconds, shell)
    silences = 0
    while True:
        verdict = _ask(arguments)
        silences = silences + 1 if verdict.kind == "unreachable" else 0
        if silences > SILENCES:
            raise GaveUp(verdict.detail)
        if verdict.kind in ("finished", "mistake"):
            shell.say(f"{verdict.kind}: {verdict.detail}")
            return 0 if verdict.kind == "finished" else 2
        try:
            if verdict.kind == "failed":
                restarts.spend(f"the run failed ({verdict.detail})")
                _stop(arguments)
            if verdict.kind in ("failed", "absent"):
                _start(arguments, flags)
        except GaveUp:
            raise
        except Failure as failure:
            restarts.spend(str(failure))
        shell.sleep(arguments.poll_seconds)


def status(arguments: argparse.Namespace) -> None:
    """Say how the run stands."""
    verdict = _ask(arguments)
    print(f"run: {verdict.kind} ({verdict.detail})")


def logs(arguments: argparse.Namespace) -> None:
    """Follow the log of a process."""
    hosts = _hosts(arguments)
    if not 0 <= arguments.process < len(hosts):
        raise Mistake(f"there are {len(hosts)} processes, from 0")
    text = workers.follow(str(arguments.process))
    arguments.shell.run(_shell_on(hosts[arguments.process]), stdin=text)


def stop(arguments: argparse.Namespace) -> None:
    """End the run on all machines."""
    _stop(arguments)


def _start(arguments: argparse.Namespace, flags: Sequence[str]) -> None:
    hosts = _hosts(arguments)
    if arguments.env:
        text = secrets(arguments.env)
        for host in dict.fromkeys(hosts):
            # Through standard input: an argument could be read by others.
            words = _on(host, f'umask 077; cat > "{workers.FOLDER}/env"')
            arguments.shell.run(words, stdin=text, label=", ".join(arguments.env))
    for process, host in enumerate(hosts):
        own = [*flags, f"--coordinator={hosts[0]}:{arguments.port}"]
        own += [f"--processes={len(hosts)}", f"--process_id={process}"]
        text = workers.start(own, label=str(process), python=arguments.python)
        arguments.shell.run(_shell_on(host), stdin=text)


def _stop(arguments: argparse.Namespace) -> None:
    for process, host in enumerate(_hosts(arguments)):
        arguments.shell.run(_shell_on(host), stdin=workers.stop(str(process)))


def _ask(arguments: argparse.Namespace) -> workers.Verdict:
    hosts = _hosts(arguments)
    found: dict[str, str] = {}
    for process, host in enumerate(hosts):
        text = workers.look(str(process))
        said = arguments.shell.ask(_shell_on(host), stdin=text)
        found |= workers.answers(said.out)
    return workers.judge(found, workers=len(hosts))


def _on(host: str, text: str) -> list[str]:
    if host == "localhost":
        return ["bash", "-c", text]
    return ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", host, text]


def _shell_on(host: str) -> list[str]:
    return ["bash"] if host == "localhost" else _on(host, "bash")


def _copy(host: str, path: str) -> list[str]:
    if not path.endswith(workers.ARCHIVE) and not pathlib.Path(path).exists():
        raise Mistake(f"nothing to copy. Received: {path}")
    if host == "localhost":
        return ["cp", "-r", path, str(pathlib.Path.home() / "tflearn-run")]
    return ["scp", "-q", "-r", "-o", "BatchMode=yes", path, f"{host}:tflearn-run/"]


def _hosts(arguments: argparse.Namespace) -> list[str]:
    hosts = [host.strip() for host in arguments.hosts.split(",")]
    if not all(hosts) or any(host.startswith("-") for host in hosts):
        raise Mistake(
            f"not a list of hosts. Received: {arguments.hosts}. Expected: a,b,c"
        )
    if "localhost" in hosts and len(set(hosts)) > 1:
        raise Mistake(
            "other machines cannot reach localhost. Fix: name it by its address"
        )
    return hosts


def _flags(arguments: argparse.Namespace) -> list[str]:
    return experiment_flags(arguments.flags, output_dir=False)


def _parser() -> Parser:
    parser = Parser(prog="nodes.py", description="Machines that ssh reaches.")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (install, run, watch, logs, status, stop):
        name = command.__name__
        add = subcommand(parsers, name, command)
        add("--hosts", required=True, help="a,b,c: the first coordinates")
        if name == "install":
            kinds = tuple(workers.ACCELERATORS)
            add("--accelerator", choices=kinds, default="cuda12", help="(cuda12)")
            add(
                "--source",
                default=CHECKOUT,
                help="a checkout (this one), or git+https://...",
            )
            add("--copy", action="append", default=[], help="a file or folder of yours")
            add("--package", action="append", default=[], help="a further requirement")
        if name in ("run", "watch"):
            add("--port", type=int, default=12355, help="of the coordinator (12355)")
            add("--python", default=workers.PYTHON, help="default: what install made")
            add("--env", action="append", default=[], help="a variable to pass on")
        if name == "watch":
            add("--poll-seconds", type=float, default=15, help="between looks (15)")
            add("--max-restarts", type=int, default=3, help="in all (3)")
            add("--pause-seconds", type=float, default=15, help="doubles (15)")
        if name == "logs":
            add("--process", type=int, default=0, help="its number (0)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    return launch(_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
