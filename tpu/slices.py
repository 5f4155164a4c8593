"""A queued resource of Cloud TPU, as gcloud knows it."""

from __future__ import annotations

import dataclasses
import json
import re

from shell import Failure, Mistake, Shell

# Images by the first letters of an accelerator type.
RUNTIMES = {
    "v2-": "tpu-ubuntu2204-base",
    "v3-": "tpu-ubuntu2204-base",
    "v4-": "tpu-ubuntu2204-base",
    "v5litepod-": "v2-alpha-tpuv5-lite",
    "v5p-": "v2-alpha-tpuv5",
    "v6e-": "v2-alpha-tpuv6e",
}
# States of a queued resource or of its node from which no work comes any more.
GONE = ("FAILED", "SUSPENDED", "PREEMPTED", "TERMINATED", "STOPPED")
# How often in a row a cloud or a worker may fail to answer.
SILENCES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A queued resource with one node of the same name.

    Args:
        name: Its name.
        zone: Where it is.
        project: The project; that of gcloud's configuration when empty.
        shell: What runs commands.
    """

    name: str
    zone: str
    project: str
    shell: Shell

    def gcloud(self, group: str, verb: str, *words: str) -> list[str]:
        """Returns the words of a gcloud command."""
        project = [f"--project={self.project}"] if self.project else []
        command = ["gcloud", "compute", "tpus", group, verb, *words]
        return [*command, f"--zone={self.zone}", *project, "--quiet"]

    def ssh(self, text: str, worker: str = "all") -> list[str]:
        """Returns the words that run shell text on workers."""
        where = f"--worker={worker}"
        return self.gcloud("tpu-vm", "ssh", self.name, where, f"--command={text}")

    def copy(self, path: str, to: str) -> None:
        """Copies a file or folder into the working directory of every worker."""
        target = f"{self.name}:{to}"
        where = ("--worker=all", "--recurse")
        self.shell.run(self.gcloud("tpu-vm", "scp", path, target, *where))


def runtime(kind: str) -> str:
    """Returns the image for an accelerator type.

    Args:
        kind: Such as `v5litepod-16`.

    Raises:
        Mistake: There is no such type.

    Example:

    >>> runtime("v6e-8")
    'v2-alpha-tpuv6e'
    """
    for prefix, runtime in RUNTIMES.items():
        if re.fullmatch(rf"{prefix}\d+", kind):
            return runtime
    fix = "name an image with --runtime-version"
    if kind.startswith("v5e-"):
        fix = f"write {kind.replace('v5e', 'v5litepod')}"
    elif kind.startswith(("tpu7x", "v7")):
        fix = "this generation is to be had on GKE only: use tpu/xpk.py"
    expected = ", ".join(f"{prefix}N" for prefix in RUNTIMES)
    raise Mistake(
        f"unknown accelerator type. Received: {kind}. Expected: {expected}. Fix: {fix}"
    )


def look(where: Slice, pause_seconds: float = 5) -> tuple[str, int]:
    """Asks the cloud how a TPU stands.

    Args:
        where: The TPU.
        pause_seconds: The first pause after a question without an answer; they double.

    Returns:
        The state (`ABSENT`: there is no such TPU), and the number of workers.

    Raises:
        Failure: The cloud does not answer.
    """
    found = _describe(where, "queued-resources", pause_seconds)
    state = found["state"]["state"] if found else "ABSENT"
    if state != "ACTIVE":
        return state, 0
    node = _describe(where, "tpu-vm", pause_seconds)
    if not node:
        return "PREEMPTED", 0
    if node["state"] != "READY":
        return node["state"], 0
    return state, len(node["networkEndpoints"])


def _describe(where: Slice, group: str, pause_seconds: float) -> dict:
    words = where.gcloud(group, "describe", where.name, "--format=json")
    assumed = '{"state": {"state": "ACTIVE"}}'
    if group == "tpu-vm":
        assumed = '{"state": "READY", "networkEndpoints": [{}]}'
    for attempt in range(SILENCES):
        answer = where.shell.ask(words, assumed=assumed)
        if answer.code == 0:
            return json.loads(answer.out)
        if "NOT_FOUND" in answer.err:
            return {}
        # A laptop changes networks, and a cloud has its moments.
        where.shell.sleep(min(pause_seconds * 2**attempt, 300))
    raise Failure(f"gcloud does not answer: {answer.err.strip()[-300:]}")
