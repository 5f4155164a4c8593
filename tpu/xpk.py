#!/usr/bin/env python3
r"""Runs an experiment on TPU slices of a GKE cluster, through Google's tool `xpk`.

    tpu/xpk.py install IMAGE
    tpu/xpk.py run NAME --cluster=C --zone=ZONE --tpu-type=v5litepod-16 --image=IMAGE \
        -- --gin_file=FILE --output_dir=/mnt/BUCKET/RUN

Kubernetes restarts what a preemption or a failure ended, a bounded number of times, but
not a mistake of the user. `--dry-run` prints every command and runs none.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence

from shell import (
    CHECKOUT,
    Failure,
    Mistake,
    Parser,
    Shell,
    archive,
    experiment_flags,
    launch,
    secrets,
    subcommand,
)

# xpk restarts on 42 and 127 to 255 by itself: these are the others, without 2, which is
# a mistake of the user.
RESTARTED = "1,3-126"
# What `xpk workload list --wait-for-job-completion` returns for a job that failed.
UNSUCCESSFUL = 125


def create(arguments: argparse.Namespace) -> None:
    """Create a cluster with a pool of TPU slices."""
    words = _xpk(arguments, "cluster", "create", f"--cluster={arguments.cluster}")
    words += [f"--tpu-type={arguments.tpu_type}"]
    words += [f"--num-slices={arguments.num_slices}"]
    words += [f"--{arguments.capacity}"]
    if arguments.reservation:
        words[-1] = f"--reservation={arguments.reservation}"
    arguments.shell.run(words)


def install(arguments: argparse.Namespace) -> None:
    """Build the image with tflearn, and push it where the cluster finds it."""
    shell: Shell = arguments.shell
    with tempfile.TemporaryDirectory() as folder:
        packed = pathlib.Path(folder) / "context.tar.gz"
        archive(arguments.source, packed, shell)
        build = ["docker", "build", f"--tag={arguments.image}", "-f", "tpu/Dockerfile"]
        # The last commit is what is built, not what else lies in the folder.
        command = f"{shlex.join([*build, '-'])} < {shlex.quote(str(packed))}"
        shell.run(["bash", "-c", command])
    shell.run(["docker", "push", arguments.image])


def run(arguments: argparse.Namespace) -> None:
    """Submit the experiment as a workload."""
    flags = experiment_flags(arguments.flags, output_dir=True)
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", arguments.name):
        raise Mistake(
            f"not a name for a workload. Received: {arguments.name}. "
            "Expected: lower case letters, digits and -, a letter first"
        )
    if not any(flag.startswith("--output_dir=gs://") for flag in flags):
        arguments.shell.say(
            "note: --output_dir must lie on a mounted bucket: "
            "the container goes with every restart"
        )
    command = shlex.join(["python", "-m", "tflearn.run", *flags])
    words = _xpk(arguments, "workload", "create", *_workload(arguments))
    words += [f"--tpu-type={arguments.tpu_type}"]
    words += [f"--num-slices={arguments.num_slices}"]
    words += [f"--docker-image={arguments.image}", f"--command={command}"]
    words += [f"--max-restarts={arguments.max_restarts}"]
    words += [f"--restart-on-exit-codes={RESTARTED}"]
    if not arguments.env:
        arguments.shell.run(words)
        return
    secrets(arguments.env)
    # A line with a name alone makes xpk read the value from the environment.
    with tempfile.NamedTemporaryFile("w", suffix=".env") as file:
        file.write("".join(f"{name}\n" for name in arguments.env))
        file.flush()
        arguments.shell.run([*words, f"--env-file={file.name}"])


def logs(arguments: argparse.Namespace) -> None:
    """Follow the logs of all workers."""
    _connect(arguments)
    selector = f"jobset.sigs.k8s.io/jobset-name={arguments.name}"
    words = ["kubectl", "logs", "--follow", "--prefix", "--all-containers"]
    # kubectl follows five at a time unless told otherwise.
    words += ["--max-log-requests=1000", "--tail=100", f"--selector={selector}"]
    arguments.shell.run(words)


def status(arguments: argparse.Namespace) -> None:
    """Say how the workload stands."""
    words = _xpk(arguments, "workload", "list", f"--cluster={arguments.cluster}")
    arguments.shell.run([*words, f"--filter-by-job={arguments.name}"])


def watch(arguments: argparse.Namespace) -> int:
    """Wait until the workload has ended; Kubernetes restarts it."""
    words = _xpk(arguments, "workload", "list", f"--cluster={arguments.cluster}")
    code = arguments.shell.code([*words, f"--wait-for-job-completion={arguments.name}"])
    if code == UNSUCCESSFUL:
        raise Failure(f"{arguments.name} failed; see: xpk.py logs {arguments.name}")
    if code != 0:
        raise Failure(f"xpk could not wait for {arguments.name}: exit code {code}")
    return 0


def delete(arguments: argparse.Namespace) -> None:
    """Delete the workload; the cluster stays, and is paid for."""
    words = _xpk(arguments, "workload", "delete", *_workload(arguments))
    arguments.shell.run([*words, "--force"])


def delete_cluster(arguments: argparse.Namespace) -> None:
    """Delete the cluster and all that runs on it."""
    words = _xpk(arguments, "cluster", "delete", f"--cluster={arguments.cluster}")
    arguments.shell.run([*words, "--force"])


def _connect(arguments: argparse.Namespace) -> None:
    # xpk makes regional clusters: zone us-central1-a lies in region us-central1.
    region = arguments.zone.rpartition("-")[0]
    words = ["gcloud", "container", "clusters", "get-credentials", arguments.cluster]
    words += [f"--region={region}"]
    words += [f"--project={arguments.project}"] if arguments.project else []
    arguments.shell.run(words)


def _xpk(arguments: argparse.Namespace, *words: str) -> list[str]:
    project = [f"--project={arguments.project}"] if arguments.project else []
    return ["xpk", *words, f"--zone={arguments.zone}", *project]


def _workload(arguments: argparse.Namespace) -> list[str]:
    return [f"--workload={arguments.name}", f"--cluster={arguments.cluster}"]


def _parser() -> Parser:
    parser = Parser(prog="xpk.py", description="TPU slices of a GKE cluster.")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    add = subcommand(parsers, "install", install)
    add("image", help="as in us-docker.pkg.dev/PROJECT/REPOSITORY/tflearn:1")
    add("--source", default=CHECKOUT, help="a checkout (this one)")
    for command in (create, run, watch, logs, status, delete, delete_cluster):
        name = command.__name__.replace("_", "-")
        add = subcommand(parsers, name, command)
        if name in ("create", "delete-cluster"):
            add("cluster", help="its name")
        else:
            add("name", help="of the workload")
            add("--cluster", required=True, help="its name")
        add("--zone", required=True, help="such as us-central1-a")
        add("--project", default="", help="default: that of gcloud's configuration")
        if name in ("create", "run"):
            add("--tpu-type", required=True, help="such as v5litepod-16")
            add("--num-slices", type=int, default=1, help="how many (1)")
        if name == "create":
            for kind in ("spot", "on-demand"):
                add(
                    f"--{kind}",
                    dest="capacity",
                    action="store_const",
                    const=kind,
                    default="on-demand",
                )
            add("--reservation", default="", help="its name")
        if name == "run":
            add("--image", required=True, help="what install pushed")
            add("--max-restarts", type=int, default=10, help="in all (10)")
            add("--env", action="append", default=[], help="a variable to pass on")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    return launch(_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
