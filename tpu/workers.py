"""What is done on a worker: shell text to install, start, look, stop; and the verdict.

A run is started detached, so that it outlives the connection, and leaves its process
number, its log and at last its exit code in a folder. Every text ends by printing one
line `tflearn-worker HOST ANSWER`: lines can be counted, while a tool that talks to many
workers mixes up their exit codes.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence

FOLDER = "$HOME/tflearn-run"  # the working directory, and what is copied there
PYTHON = "$HOME/tflearn-env/bin/python"
ARCHIVE = "tflearn.tar.gz"
_MARK = "tflearn-worker"
# JAX with the driver of an accelerator.
ACCELERATORS = {
    "tpu": "jax[tpu]",
    "cuda12": "jax[cuda12]",
    "cuda13": "jax[cuda13]",
    "cpu": "jax",
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the answers of all workers come to.

    Args:
        kind: `absent` (nothing was started), `running`, `finished`, `failed`, `mistake`
            (of the user: not to be restarted) or `unreachable`.
        detail: One line on why.
    """

    kind: str
    detail: str


def install(source: str, *, accelerator: str, packages: Sequence[str] = ()) -> str:
    """Returns the text that installs tflearn into an environment of its own.

    Args:
        source: `git+https://...`, or empty for the archive that lies in `FOLDER`.
        accelerator: A key of `ACCELERATORS`.
        packages: Further requirements.
    """
    wanted = [source or "./source", ACCELERATORS[accelerator], *packages]
    # KerasHub asks for tensorflow through tensorflow-text. The build without any
    # accelerator does, and cannot take one away from JAX.
    wanted.append("tensorflow-text[tensorflow-cpu]")
    unpack = (
        f"rm -rf source && mkdir source && tar -xzf {ARCHIVE} -C source\n"
        if not source
        else ""
    )
    return f"""set -e
mkdir -p "{FOLDER}"
cd "{FOLDER}"
{unpack}export PATH="$HOME/.local/bin:$PATH"
command -v uv > /dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
uv venv --quiet --allow-existing --python '>=3.11,<3.14' "$HOME/tflearn-env"
echo "tensorflow; sys_platform == 'never'" > overrides.txt
uv pip install --quiet --python "{PYTHON}" --override overrides.txt {shlex.join(wanted)}
echo "{_MARK} $(hostname) installed"
"""


def start(flags: Sequence[str], *, label: str = "0", python: str = PYTHON) -> str:
    """Returns the text that starts a run, unless it is running.

    Args:
        flags: Those of `python -m tflearn.run`.
        label: Tells processes on the same machine apart.
        python: The interpreter.
    """
    command = f'"{python}" -m tflearn.run {shlex.join(flags)}'
    inner = (
        f"[ ! -f env ] || {{ chmod 600 env; . ./env; }}; {command}; code=$?; "
        f"echo $code > state-{label}/exit_code.new; "
        f"mv state-{label}/exit_code.new state-{label}/exit_code"
    )
    return f"""mkdir -p "{FOLDER}/state-{label}" && cd "{FOLDER}" || exit 1
if [ -f state-{label}/pid ] && kill -0 -- "-$(cat state-{label}/pid)" 2> /dev/null; then
  echo "{_MARK} $(hostname)/{label} running"
  exit 0
fi
rm -f state-{label}/exit_code
date -u '+== started %FT%TZ' >> state-{label}/log
setsid nohup bash -c {shlex.quote(inner)} >> state-{label}/log 2>&1 < /dev/null &
echo $! > state-{label}/pid
echo "{_MARK} $(hostname)/{label} started"
"""


def look(label: str = "0") -> str:
    """Returns the text that says how a run stands."""
    state = f"{FOLDER}/state-{label}"
    return f"""if [ -f "{state}/exit_code" ]; then
  answer="exit $(cat "{state}/exit_code")"
elif [ ! -f "{state}/pid" ]; then
  answer=absent
elif kill -0 -- "-$(cat "{state}/pid")" 2> /dev/null; then
  answer=running
else
  answer=died
fi
echo "{_MARK} $(hostname)/{label} $answer"
"""


def stop(label: str = "0") -> str:
    """Returns the text that ends a run, gently at first."""
    state = f"{FOLDER}/state-{label}"
    return f"""if [ -f "{state}/pid" ]; then
  group="-$(cat "{state}/pid")"
  kill -- "$group" 2> /dev/null
  for i in $(seq 30); do kill -0 -- "$group" 2> /dev/null || break; sleep 1; done
  kill -9 -- "$group" 2> /dev/null
  rm -rf "{state}/pid" "{state}/exit_code"
fi
echo "{_MARK} $(hostname)/{label} stopped"
"""


def follow(label: str = "0") -> str:
    """Returns the text that prints a log as it grows."""
    return f'tail -n 100 -F "{FOLDER}/state-{label}/log"'


def tail(label: str = "0") -> str:
    """Returns the text that prints the end of a log."""
    return f'tail -n 5 "{FOLDER}/state-{label}/log"'


def answers(out: str) -> dict[str, str]:
    r"""Reads what workers answered.

    Args:
        out: The output of all of them, in any order.

    Returns:
        The answer of each that gave one.

    Example:

    >>> answers("noise\ntflearn-worker a/0 exit 0\ntflearn-worker b/0 running\n")
    {'a/0': 'exit 0', 'b/0': 'running'}
    """
    found = {}
    for line in out.splitlines():
        mark, _, rest = line.strip().partition(" ")
        if mark == _MARK:
            host, _, answer = rest.partition(" ")
            found[host] = answer
    return found


def judge(found: Mapping[str, str], *, workers: int) -> Verdict:
    """Says what the answers come to.

    Args:
        found: The answers by worker.
        workers: How many there should be.

    Returns:
        The verdict; one bad worker outweighs any number of good ones.

    Example:

    >>> judge({"a": "exit 0", "b": "exit 137"}, workers=2)
    Verdict(kind='failed', detail='b: exit 137')
    """
    for kind, bad in (("mistake", _is_mistake), ("failed", _is_failure)):
        hit = [f"{host}: {answer}" for host, answer in found.items() if bad(answer)]
        if hit:
            return Verdict(kind, ", ".join(hit))
    if len(found) < workers:
        return Verdict("unreachable", f"{len(found)} of {workers} workers answered")
    kinds = set(found.values())
    if kinds == {"absent"}:
        return Verdict("absent", "nothing was started")
    if "absent" in kinds:
        return Verdict("failed", "only some workers were started")
    if kinds == {"exit 0"}:
        return Verdict("finished", f"{workers} workers finished")
    return Verdict("running", f"{workers} workers")


def _is_mistake(answer: str) -> bool:
    return answer == "exit 2"


def _is_failure(answer: str) -> bool:
    return answer == "died" or (answer.startswith("exit ") and answer != "exit 0")
