#!/usr/bin/env python3
r"""Runs an experiment on a Cloud TPU VM or pod slice, got as a queued resource.

    tpu/queued_resource.py watch NAME --zone=ZONE --spot \
        --accelerator-type=v5litepod-8 -- --gin_file=FILE --output_dir=/mnt/BUCKET/RUN

`watch` does all that is missing (create, install, run), starts again after a preemption
and ends when the run has. The other subcommands are its parts. `--dry-run` prints every
command and runs none.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence

import workers
from shell import (
    CHECKOUT,
    Answer,
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
from slices import GONE, SILENCES, Slice, look, runtime


def create(arguments: argparse.Namespace) -> None:
    """Ask for a TPU, and wait until it is there."""
    where = _slice(arguments)
    _request(where, arguments)
    if arguments.wait:
        _await(where, arguments.poll_seconds)


def install(arguments: argparse.Namespace) -> None:
    """Install tflearn on all workers, and copy your files to them."""
    where = _slice(arguments)
    _install(where, arguments, _workers(where, arguments.poll_seconds))


def run(arguments: argparse.Namespace) -> None:
    """Start the experiment on all workers, detached."""
    where = _slice(arguments)
    flags = _flags(arguments)
    _start(where, flags, arguments.env, _workers(where, arguments.poll_seconds))
    where.shell.say(f"it runs; follow it with: {_again('logs', where)}")


def logs(arguments: argparse.Namespace) -> None:
    """Follow the log of a worker."""
    where = _slice(arguments)
    where.shell.run(where.ssh(workers.follow(), arguments.worker))


def status(arguments: argparse.Namespace) -> None:
    """Say how the TPU and the run on it stand."""
    where = _slice(arguments)
    state, count = look(where)
    print(f"{where.name}: {state}")
    if state == "ACTIVE":
        verdict = workers.judge(_ask(where, workers.look(), count)[0], workers=count)
        print(f"run: {verdict.kind} ({verdict.detail})")


def stop(arguments: argparse.Namespace) -> None:
    """End the run on all workers; the TPU stays, and is paid for."""
    where = _slice(arguments)
    where.shell.run(where.ssh(workers.stop()))


def delete(arguments: argparse.Namespace) -> None:
    """Delete the TPU."""
    _delete(_slice(arguments))


def watch(arguments: argparse.Namespace) -> int:
    """Do what is missing, start again after preemptions, end when the run has."""
    where = _slice(arguments)
    flags = _flags(arguments)
    _image(arguments)
    if where.shell.dry_run:
        return _rehearse(where, flags, arguments)
    restarts = Restarts(arguments.max_restarts, arguments.pause_seconds, where.shell)
    silences, known = 0, False
    while True:
        # One look, one action: whatever happens in between is seen at the next look.
        state, count = look(where, arguments.poll_seconds)
        if state == "ABSENT" and known:
            raise GaveUp(f"{where.name} was deleted by somebody")
        try:
            if state == "ABSENT":
                _request(where, arguments)
            elif state in GONE:
                restarts.spend(f"{where.name} is {state}")
                _delete(where)
            elif state == "ACTIVE":
                found, answer = _ask(where, workers.look(), count)
                verdict = workers.judge(found, workers=count)
                silences = silences + 1 if verdict.kind == "unreachable" else 0
                if silences > SILENCES:
                    raise GaveUp(f"{verdict.detail}: {answer.err.strip()[-300:]}")
                code = _act(where, verdict, flags, arguments, count, restarts)
                if code is not None:
                    return code
        except GaveUp:
            raise
        except Failure as failure:
            # What has never worked will not work the next time.
            if not known and not restarts.spent:
                raise
            restarts.spend(str(failure))
        known = state not in ("ABSENT", *GONE)
        where.shell.sleep(arguments.poll_seconds)


def _act(
    where: Slice,
    verdict: workers.Verdict,
    flags: Sequence[str],
    arguments: argparse.Namespace,
    count: int,
    restarts: Restarts,
) -> int | None:
    """Does what a verdict asks for; returns an exit code if there is no more to do."""
    if verdict.kind == "absent":
        _install(where, arguments, count)
        _start(where, flags, arguments.env, count)
    elif verdict.kind == "failed":
        restarts.spend(f"the run failed ({verdict.detail})")
        where.shell.run(where.ssh(workers.stop()))
        _start(where, flags, arguments.env, count)
    elif verdict.kind in ("finished", "mistake"):
        where.shell.say(f"{verdict.kind}: {verdict.detail}")
        if verdict.kind == "mistake":
            print(where.shell.ask(where.ssh(workers.tail(), "0")).out)
        if arguments.delete_when_finished and verdict.kind == "finished":
            _delete(where)
        else:
            where.shell.say(f"it is still paid for; {_again('delete', where)}")
        return 0 if verdict.kind == "finished" else 2
    return None


def _rehearse(where: Slice, flags: Sequence[str], arguments: argparse.Namespace) -> int:
    where.shell.say("when there is no such TPU:")
    _request(where, arguments)
    where.shell.say("until it is ACTIVE, and then to see how many workers it has:")
    _, count = look(where)
    where.shell.say("when nothing runs on it:")
    _install(where, arguments, count)
    _start(where, flags, arguments.env, count)
    where.shell.say(f"every {arguments.poll_seconds:g} seconds:")
    _ask(where, workers.look(), count)
    where.shell.say(f"after a failure, at most {arguments.max_restarts} times in all:")
    where.shell.run(where.ssh(workers.stop()))
    where.shell.say("and the run is started as above. After a preemption:")
    _delete(where)
    where.shell.say("and everything again from the top")
    return 0


def _request(where: Slice, arguments: argparse.Namespace) -> None:
    words = [f"--node-id={where.name}"]
    words.append(f"--accelerator-type={arguments.accelerator_type}")
    words.append(f"--runtime-version={_image(arguments)}")
    if arguments.capacity:
        words.append(f"--{arguments.capacity}")
    for flag in ("network", "subnetwork", "service_account", "valid_until_duration"):
        value = getattr(arguments, flag)
        if value:
            words.append(f"--{flag.replace('_', '-')}={value}")
    where.shell.run(where.gcloud("queued-resources", "create", where.name, *words))


def _image(arguments: argparse.Namespace) -> str:
    return arguments.runtime_version or runtime(arguments.accelerator_type)


def _await(where: Slice, poll_seconds: float) -> int:
    """Waits until the TPU is there; returns its number of workers."""
    told = ""
    while True:
        state, count = look(where, poll_seconds)
        if state != told:
            where.shell.say(f"{where.name} is {state}")
        if state == "ACTIVE":
            return count
        if state in (*GONE, "ABSENT"):
            raise Failure(f"{where.name} is {state}; see: {_again('status', where)}")
        told = state
        where.shell.sleep(poll_seconds)


def _workers(where: Slice, poll_seconds: float) -> int:
    state, count = look(where, poll_seconds)
    if state != "ACTIVE":
        raise Failure(f"{where.name} is {state}, not ACTIVE")
    return count


def _ask(where: Slice, text: str, count: int) -> tuple[dict[str, str], Answer]:
    answer = where.shell.ask(where.ssh(text))
    if where.shell.dry_run:
        return {str(worker): "running" for worker in range(count)}, answer
    return workers.answers(answer.out), answer


def _install(where: Slice, arguments: argparse.Namespace, count: int) -> None:
    remote = arguments.source.startswith("git+")
    _all(where, 'mkdir -p "$HOME"/tflearn-run && echo "tflearn-worker $(hostname) ok"')
    with tempfile.TemporaryDirectory() as folder:
        if not remote:
            packed = pathlib.Path(folder) / workers.ARCHIVE
            archive(arguments.source, packed, where.shell)
            where.copy(str(packed), "tflearn-run/")
    for path in arguments.copy:
        if not pathlib.Path(path).exists():
            raise Mistake(f"nothing to copy. Received: {path}")
        where.copy(path, "tflearn-run/")
    text = workers.install(
        arguments.source if remote else "",
        accelerator="tpu",
        packages=arguments.package,
    )
    _all(where, text, count)


def _start(
    where: Slice, flags: Sequence[str], names: Sequence[str], count: int
) -> None:
    if names:
        with _secret_file(names, where.shell) as path:
            where.copy(path, "tflearn-run/env")
    _all(where, workers.start(flags), count)


def _all(where: Slice, text: str, count: int = 0) -> None:
    """Runs text that every worker must answer."""
    answer = where.shell.ask(where.ssh(text))
    if where.shell.dry_run:
        return
    found = workers.answers(answer.out)
    if answer.code != 0 or len(found) < count:
        said = (answer.out + answer.err).strip()[-2000:]
        raise Failure(f"{len(found)} of {count or 'all'} workers are ready: {said}")


@contextlib.contextmanager
def _secret_file(names: Sequence[str], shell: Shell) -> Iterator[str]:
    text = secrets(names)
    if shell.dry_run:
        yield f"file-with-{'-'.join(names)}"
        return
    # mkstemp makes a file that nobody else can read, and scp keeps no other copy.
    handle, path = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        yield path
    finally:
        os.unlink(path)


def _delete(where: Slice) -> None:
    words = where.gcloud("queued-resources", "delete", where.name, "--force")
    where.shell.run(words)


def _flags(arguments: argparse.Namespace) -> list[str]:
    flags = experiment_flags(arguments.flags, output_dir=True)
    if not any(flag.startswith("--output_dir=gs://") for flag in flags):
        arguments.shell.say(
            "note: --output_dir must lie on a mounted bucket or a shared disk: "
            "the disks of the workers go with the TPU"
        )
    return flags


def _slice(arguments: argparse.Namespace) -> Slice:
    return Slice(
        name=arguments.name,
        zone=arguments.zone,
        project=arguments.project,
        shell=arguments.shell,
    )


def _again(verb: str, where: Slice) -> str:
    project = f" --project={where.project}" if where.project else ""
    program = pathlib.Path(sys.argv[0]).name
    return f"{program} {verb} {where.name} --zone={where.zone}{project}"


def _parser() -> Parser:
    parser = Parser(prog="queued_resource.py", description="Cloud TPU VMs and slices.")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (create, install, run, watch, logs, status, stop, delete):
        name = command.__name__
        add = subcommand(parsers, name, command)
        add("name", help="of the queued resource and its node")
        add("--zone", required=True, help="such as us-central1-a")
        add("--project", default="", help="default: that of gcloud's configuration")
        add("--poll-seconds", type=float, default=30, help="between looks (30)")
        if name in ("create", "watch"):
            _add_capacity(add)
        if name in ("install", "watch"):
            add(
                "--source",
                default=CHECKOUT,
                help="a checkout (this one), or git+https://...",
            )
            add("--copy", action="append", default=[], help="a file or folder of yours")
            add("--package", action="append", default=[], help="a further requirement")
        if name in ("run", "watch"):
            add("--env", action="append", default=[], help="a variable to pass on")
        if name == "create":
            add("--no-wait", dest="wait", action="store_false", help="return at once")
        if name == "logs":
            add("--worker", default="0", help="its number (0)")
        if name == "watch":
            add("--max-restarts", type=int, default=10, help="in all (10)")
            add("--pause-seconds", type=float, default=30, help="doubles (30)")
            add("--delete-when-finished", action="store_true", help="stop paying")
    return parser


def _add_capacity(add) -> None:
    add("--accelerator-type", required=True, help="such as v5litepod-16")
    add("--runtime-version", default="", help="default: the image of the generation")
    for kind in ("spot", "reserved", "guaranteed"):
        add(f"--{kind}", dest="capacity", action="store_const", const=kind, help=kind)
    add("--valid-until-duration", default="", help="leave the queue after, as in 6h")
    add("--network", default="", help="a network of yours")
    add("--subnetwork", default="", help="a subnetwork of yours")
    add("--service-account", default="", help="what the workers act as")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    return launch(_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
