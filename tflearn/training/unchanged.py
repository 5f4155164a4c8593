"""What a run must find as it left it: its data and the libraries.

The declaration is compared by `run_directory`. Data files and libraries can change
behind it; a run that went on would then be neither the old nor a new one.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from tflearn.distribution import processes
from tflearn.support import environment, files
from tflearn.support.console import say
from tflearn.support.errors import ConfigError, RunError, nearest
from tflearn.training.run_directory import INPUTS

#: What `--allow` names.
KINDS = ("data", "versions")


def check(
    folder: pathlib.Path, fingerprints: Mapping[str, str], *, allow: Sequence[str] = ()
) -> None:
    """Compares data and libraries with those that the run began with.

    Args:
        folder: The run directory; what is found first is written there.
        fingerprints: Digest of the rows of every stage by its name.
        allow: Which of `KINDS` may have changed; what changed is said all the same.

    Raises:
        ConfigError: There is no such kind.
        RunError: Something changed that was not allowed to.
    """
    for kind in allow:
        if kind not in KINDS:
            raise ConfigError(
                "--allow has no such value",
                received=kind,
                expected=", ".join(KINDS),
                nearest=nearest(kind, KINDS),
            )
    found = {"data": dict(fingerprints), "versions": environment.versions()}
    processes.on_first(lambda: _compare(folder / INPUTS, found, allow))


def stages(folder: pathlib.Path) -> tuple[str, ...]:
    """Returns the names of a run's stages in their order; none if it wrote none.

    Args:
        folder: The run directory.
    """
    path = folder / INPUTS
    return tuple(files.read_json(path)["data"]) if path.is_file() else ()


def _compare(
    path: pathlib.Path, found: dict[str, dict[str, str]], allow: Sequence[str]
) -> None:
    before = files.read_json(path) if path.exists() else found
    for kind, now in found.items():
        changes = _changes(before[kind], now)
        if not changes:
            continue
        told = f"{kind} changed since the run began: {'; '.join(changes)}"
        if kind not in allow:
            raise RunError(
                f"the {kind} of this run changed since it began",
                received="; ".join(changes),
                fix=f"bring back what it began with, choose another --output_dir, or "
                f"go on all the same with --allow={kind}",
            )
        say(f"warning: {told}; allowed")
    files.write_json(path, found)


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: {_short(before.get(name))} before, {_short(now.get(name))} now"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _short(value: str | None) -> str:
    return "nothing" if value is None else value[:12]
