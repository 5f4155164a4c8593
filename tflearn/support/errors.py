"""Errors that a user can act on.

Everything a user can get wrong ends in a `TflearnError`. The command line prints
its message and exits with code 2; a library user catches it as a `ValueError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from tflearn.support import secrets


class TflearnError(ValueError):
    """A mistake in a declaration, in data or in how a command was called.

    Args:
        problem: What is wrong, as one sentence without a final full stop.
        received: What was given, shown with `repr` unless it is a string.
        expected: What would have been right.
        fix: What to do about it.
        nearest: The valid name that comes closest to the received one.

    Example:

    >>> str(TflearnError("unknown pooling", received="'men'", nearest="mean"))
    "unknown pooling. Received: 'men'. Did you mean 'mean'?"
    """

    def __init__(
        self,
        problem: str,
        *,
        received: object = None,
        expected: object = None,
        fix: str | None = None,
        nearest: str | None = None,
    ) -> None:
        parts = [problem.rstrip(".")]
        if received is not None:
            parts.append(f"Received: {_show(received)}")
        if expected is not None:
            parts.append(f"Expected: {_show(expected)}")
        if fix is not None:
            parts.append(f"Fix: {fix.rstrip('.')}")
        message = ". ".join(parts)
        if nearest is not None:
            message += f". Did you mean '{nearest}'?"
        # Messages are printed, logged and kept in reports.
        super().__init__(secrets.redact(message))


class ConfigError(TflearnError):
    """The declaration (gin file, binding or flag) is wrong."""


class DataError(TflearnError):
    """The data cannot be used as declared."""


class BackboneError(TflearnError):
    """A backbone or its weights cannot be had as declared."""


class RegimeError(TflearnError):
    """The rules of a regime do not fit the model."""


class RunError(TflearnError):
    """A run directory or a run in it cannot be used as asked."""


class FileError(DataError, BackboneError, RunError):
    """A file is damaged, or claims what no honest file of its kind does.

    The file may be one of data, of weights or of a run, and who expects an error in one
    of these catches this one, too.
    """


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Returns the candidate that looks most like `name`, or None.

    Args:
        name: What the user wrote.
        candidates: The valid names.

    Returns:
        The closest candidate with a similarity of at least 0.5, ignoring case.

    Example:

    >>> nearest("acuracy", ["accuracy", "f1"])
    'accuracy'
    """
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def _show(value: object) -> str:
    return value if isinstance(value, str) else repr(value)
