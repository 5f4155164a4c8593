"""Runs other programs, or prints what would be run; shared by all launchers.

The launchers need nothing but Python 3.11 and the command-line tool of their target:
they run on a laptop on which nothing is installed yet.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

# What to install when a tool is missing.
_TOOLS = {
    "docker": "https://docs.docker.com/engine/install",
    "gcloud": "https://cloud.google.com/sdk/docs/install",
    "kubectl": "gcloud components install kubectl",
    "sbatch": "run this on the login node of a Slurm cluster",
    "xpk": "pip install xpk",
}
CHECKOUT = str(pathlib.Path(__file__).resolve().parents[1])
# A launcher tells the processes where the others are; nobody else may.
_PROCESS_FLAGS = ("--coordinator", "--processes", "--process_id")


class Mistake(Exception):
    """A mistake of the user: one message, exit code 2."""


class Failure(Exception):
    """Something that was run failed, or will never be there: exit code 1."""


class GaveUp(Failure):
    """What no further restart would mend."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What a program said.

    Args:
        code: Its exit code.
        out: Its standard output.
        err: Its standard error.
    """

    code: int
    out: str = ""
    err: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shell:
    """Where commands go.

    Args:
        dry_run: Print every command and run none.
    """

    dry_run: bool = False

    def run(
        self, words: Sequence[str], *, stdin: str | None = None, label: str = ""
    ) -> None:
        """Runs a program whose output the user sees.

        Args:
            words: The program and its arguments.
            stdin: Text for its standard input.
            label: What to show in the place of `stdin`, which is secret then.

        Raises:
            Mistake: The program is not installed.
            Failure: It failed.
        """
        code = self.code(words, stdin=stdin, label=label)
        if code != 0:
            raise Failure(f"exit code {code} of: {shlex.join(words)}")

    def code(
        self, words: Sequence[str], *, stdin: str | None = None, label: str = ""
    ) -> int:
        """Does the same as `run`, but returns the exit code."""
        self._show(words, stdin, label)
        if self.dry_run:
            return 0
        _check_installed(words[0])
        return subprocess.run(words, input=stdin, text=True).returncode

    def ask(
        self, words: Sequence[str], *, stdin: str | None = None, assumed: str = ""
    ) -> Answer:
        """Runs a program whose output is read.

        Args:
            words: The program and its arguments.
            stdin: Text for its standard input.
            assumed: The output a dry run goes on with.

        Returns:
            What it said, whatever its exit code.

        Raises:
            Mistake: The program is not installed.
        """
        if self.dry_run:
            self._show(words, stdin, "")
            return Answer(code=0, out=assumed)
        _check_installed(words[0])
        done = subprocess.run(words, input=stdin, text=True, capture_output=True)
        return Answer(code=done.returncode, out=done.stdout, err=done.stderr)

    def say(self, line: str) -> None:
        """Prints a line of our own, which in a dry run is a comment."""
        print(f"# {line}" if self.dry_run else line, flush=True)

    def sleep(self, seconds: float) -> None:
        """Waits, except in a dry run."""
        if not self.dry_run:
            time.sleep(seconds)

    def _show(self, words: Sequence[str], stdin: str | None, label: str) -> None:
        line = shlex.join(words)
        if label:
            line += f"  # standard input: {label}"
        elif stdin is not None:
            line += f" <<'END'\n{stdin.rstrip()}\nEND"
        print(line if self.dry_run else f"+ {line}", flush=True)


@dataclasses.dataclass
class Restarts:
    """A bounded number of restarts, with pauses that double from one to the next.

    Args:
        most: How many there may be.
        pause_seconds: The first pause; none is longer than ten minutes.
        shell: What says and waits.
    """

    most: int
    pause_seconds: float
    shell: Shell
    spent: int = 0

    def spend(self, reason: str) -> None:
        """Waits before a restart.

        Args:
            reason: What happened.

        Raises:
            GaveUp: There were as many as there may be.
        """
        if self.spent >= self.most:
            raise GaveUp(f"{reason}; given up after {self.most} restarts")
        pause = min(self.pause_seconds * 2**self.spent, 600)
        self.spent += 1
        self.shell.say(
            f"{reason}; restart {self.spent} of {self.most} in {pause:g} seconds"
        )
        self.shell.sleep(pause)


class Parser(argparse.ArgumentParser):
    """Reports mistakes in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the parsing."""
        raise Mistake(f"{message}. Fix: {self.prog} --help")


def launch(parser: Parser, argv: Sequence[str] | None) -> int:
    """Runs the chosen subcommand.

    What stands after `--` goes to `python -m tflearn.run`.

    Args:
        parser: Its subcommands set `command`, a function of the arguments.
        argv: The words after the program's name; those of the process by default.

    Returns:
        The exit code: 0, 1 for a failure, 2 for a mistake, 130 when interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    try:
        arguments = parser.parse_args(words[:cut])
        arguments.flags = words[cut + 1 :]
        arguments.shell = Shell(dry_run=arguments.dry_run)
        return arguments.command(arguments) or 0
    except Mistake as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except Failure as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was started goes on without this", file=sys.stderr)
        return 130


def subcommand(
    parsers: argparse._SubParsersAction,
    name: str,
    command: Callable[[argparse.Namespace], int | None],
) -> Callable[..., argparse.Action]:
    """Adds a subcommand.

    Args:
        parsers: Where to.
        name: Its name.
        command: What it does; the first line of its docstring is its help.

    Returns:
        The function that adds an argument to it.
    """
    summary = (command.__doc__ or "").splitlines()[0]
    parser = parsers.add_parser(
        name, help=summary, description=summary, allow_abbrev=False
    )
    parser.set_defaults(command=command)
    parser.add_argument(
        "--dry-run", action="store_true", help="print every command, run none"
    )
    return parser.add_argument


def experiment_flags(flags: Sequence[str], *, output_dir: bool) -> list[str]:
    """Checks the flags for `python -m tflearn.run`.

    Args:
        flags: What stood after `--`.
        output_dir: Whether the disks of the workers go away with them, so that a run
            directory has to be named.

    Returns:
        The flags, unchanged.

    Raises:
        Mistake: Nothing to run, or flags that a launcher sets.
    """
    names = [flag.split("=")[0] for flag in flags]
    if not {"--gin_file", "--run_dir"} & set(names):
        raise Mistake(
            "nothing to run. Fix: add -- --gin_file=FILE --output_dir=FOLDER at the end"
        )
    if output_dir and "--output_dir" not in names:
        raise Mistake(
            "no --output_dir: a restart would not find what the run has done. "
            "Fix: add --output_dir=/mnt/BUCKET/FOLDER after --"
        )
    for name in names:
        if name in _PROCESS_FLAGS:
            raise Mistake(f"{name} is set by the launcher. Fix: leave it out")
    return list(flags)


def secrets(names: Sequence[str]) -> str:
    """Returns shell lines that set environment variables as they are set here.

    Args:
        names: The variables. Their values are never printed, nor put on a command
            line, where every user of a machine could read them.

    Raises:
        Mistake: One is not set.
    """
    lines = []
    for name in names:
        if "=" in name or name not in os.environ:
            raise Mistake(
                f"environment variable {name.split('=')[0]} is not set here. "
                f"Fix: export it, then give its name alone: --env NAME"
            )
        lines.append(f"export {name}={shlex.quote(os.environ[name])}\n")
    return "".join(lines)


def archive(checkout: str, target: pathlib.Path, shell: Shell) -> None:
    """Packs the last commit of a checkout.

    Args:
        checkout: Its folder.
        target: The `.tar.gz` to write.
        shell: What runs git.

    Raises:
        Mistake: It is not a checkout of this project.
    """
    if not (pathlib.Path(checkout) / "tflearn" / "run.py").is_file():
        raise Mistake(
            f"no checkout of tflearn. Received: {checkout}. "
            "Expected: its folder, or git+https://..."
        )
    changed = shell.ask(["git", "-C", checkout, "status", "--porcelain"]).out
    if changed:
        count = len(changed.splitlines())
        shell.say(f"note: the last commit is packed, without {count} changed files")
    shell.run(
        ["git", "-C", checkout, "archive", "--format=tar.gz", f"--output={target}"]
        + ["HEAD"]
    )


def _check_installed(tool: str) -> None:
    if shutil.which(tool) is None:
        fix = _TOOLS.get(tool, f"install {tool}")
        raise Mistake(f"{tool} is not installed. Fix: {fix}")
