"""The one place that writes to the terminal."""

from __future__ import annotations

import rich.console

console = rich.console.Console(highlight=False)


def say(message: str) -> None:
    """Prints a line for the user; brackets in it are not markup."""
    console.print(message, markup=False, soft_wrap=True)
