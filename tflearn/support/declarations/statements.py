"""The parts of a declaration: places, values, bindings."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

# Set by gin itself: the value of a macro that the user has to give.
REQUIRED = "gin.REQUIRED"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where something was written down.

    Args:
        source: The file, or `--gin_bindings`.
        line: Line in it, from 1; 0 for none.
    """

    source: str
    line: int = 0

    def __str__(self) -> str:
        """Returns `file:line`, relative to the current directory where possible."""
        shown = self.source
        path = pathlib.Path(shown)
        if path.is_absolute() and path.is_relative_to(pathlib.Path.cwd()):
            shown = os.path.relpath(path)
        return f"{shown}:{self.line}" if self.line else shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Macro:
    """`%NAME`: the value that the macro has in the end."""

    name: str

    def __repr__(self) -> str:
        """Returns the macro as it is written."""
        return f"%{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """`@scope/name` or `@scope/name()`, before the name is looked up."""

    scope: tuple[str, ...]
    name: str
    evaluate: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """`@scope/name` (a factory) or `@scope/name()` (what it returns), looked up.

    Args:
        target: The function or class.
        scope: Scope that it is called in; empty for the caller's.
        name: Its name under the declaration's imports.
        evaluate: Whether the value is what the target returns.
        place: Where it is written.
    """

    target: Any
    scope: tuple[str, ...]
    name: str
    evaluate: bool
    place: Place | None = dataclasses.field(default=None, compare=False)

    def __repr__(self) -> str:
        """Returns the call as it is written."""
        return f"@{'/'.join((*self.scope, self.name))}{'()' if self.evaluate else ''}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binding:
    """`scope/name.argument = value`, or `NAME = value` for a macro.

    Args:
        target: The function or class; None for a macro.
        scope: Scope in which the binding holds.
        name: Name of the target under the declaration's imports; empty for a macro.
        argument: Parameter of the target, or the macro's name.
        value: Literals, `Macro`s and `Call`s in tuples, lists and dicts.
        place: Where it was written.
        sources: Numbers of the files that were being read, the outermost first.
        overridden: The binding that this one took the place of.
    """

    target: Any
    scope: tuple[str, ...]
    name: str
    argument: str
    value: object
    place: Place
    sources: tuple[int, ...]
    overridden: Binding | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What two bindings of the same thing have in common."""
        return (self.scope, self.target, self.argument)

    @property
    def label(self) -> str:
        """The left-hand side, as it is written."""
        if self.target is None:
            return self.argument
        return f"{'/'.join((*self.scope, self.name))}.{self.argument}"

    def earlier(self) -> Iterator[Binding]:
        """Yields the bindings that this one overrides, the latest first."""
        binding = self.overridden
        while binding is not None:
            yield binding
            binding = binding.overridden


def leaves(value: object) -> Iterator[object]:
    """Yields the parts of a value that are not containers.

    Example:

    >>> list(leaves({"a": (1, [2])}))
    ['a', 1, 2]
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(key)
            yield from leaves(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def text(imports: list[str], bindings: list[Binding]) -> str:
    """Writes a declaration as one file that needs no other.

    Macros come first, then one paragraph for every function or class and scope; the
    order is that of first mention, so that a written declaration is written the same
    after it is read again.

    Args:
        imports: The import lines.
        bindings: The bindings.

    Returns:
        The gin file.
    """
    paragraphs: dict[tuple[object, ...], list[str]] = {}
    for binding in sorted(bindings, key=lambda one: one.target is not None):
        paragraph = binding.key[:2] if binding.target else ()
        line = f"{binding.label} = {binding.value!r}"
        paragraphs.setdefault(paragraph, []).append(line)
    header = ["from __gin__ import dynamic_registration", *imports]
    return "\n\n".join("\n".join(lines) for lines in [header, *paragraphs.values()]) + (
        "\n"
    )
