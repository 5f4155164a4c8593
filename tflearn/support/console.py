"""The one place that writes to the terminal."""

from __future__ import annotations

import rich.console

from tflearn.support import secrets

console = rich.console.Console(highlight=False)
_errors = rich.console.Console(highlight=False, stderr=True)


def say(message: str) -> None:
    """Prints a line for the user; brackets in it are not markup."""
    console.print(secrets.redact(message), markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """Prints a line on standard error, where standard output is for answers."""
    _errors.print(secrets.redact(message), markup=False, soft_wrap=True)
