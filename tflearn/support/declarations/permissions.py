"""What code a gin file may bring in.

A gin file imports modules and names any function in them: it is code. The flag
`--gin_allow_imports` narrows that to named packages, for every declaration that this
process reads, that of a finished run's `config.gin` included.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

from tflearn.support.declarations.statements import Place
from tflearn.support.errors import ConfigError

FLAG = "--gin_allow_imports"
#: What every declaration is made of; importing it is no news.
KNOWN = ("tflearn", "keras", "keras_hub", "keras_nlp", "keras_cv")
# They would take back that a file of weights cannot run code.
_UNSAFE = frozenset(("enable_unsafe_deserialization",))
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")

_allowed: tuple[str, ...] | None = None


def parse_allowed(text: str | None) -> tuple[str, ...] | None:
    """Reads the value of the flag.

    Args:
        text: Names of packages or modules between commas; None for no flag.

    Returns:
        The names; None where everything is allowed.

    Raises:
        ConfigError: A name is none.

    Example:

    >>> parse_allowed("tflearn, keras.layers")
    ('tflearn', 'keras.layers')
    """
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    wrong = [name for name in names if not _NAME.fullmatch(name)]
    if wrong:
        raise ConfigError(
            f"{FLAG} takes names of modules between commas",
            received=text or "''",
            expected=f"{FLAG}=tflearn,keras,keras_hub",
        )
    return names


def allow_only(names: Sequence[str] | None) -> None:
    """Says which packages declarations may import from now on.

    Args:
        names: Packages or modules, what lies inside of them included; None for all.
    """
    global _allowed
    _allowed = None if names is None else tuple(names)


def is_allowed(module: str) -> bool:
    """Tells whether declarations may import a module.

    Args:
        module: Its full name.
    """
    return _allowed is None or _within(module, _allowed)


def foreign(found: Sequence[tuple[str, Place]]) -> list[tuple[str, Place]]:
    """Returns the imports that do not come with tflearn, each module once.

    Args:
        found: What `Scanner.found` holds.
    """
    others = {name: place for name, place in found if not _within(name, KNOWN)}
    return list(others.items())


def check_import(module: str, place: Place) -> None:
    """Checks that a module may be imported.

    Raises:
        ConfigError: It may not.
    """
    if not is_allowed(module):
        raise ConfigError(
            f"{place}: {FLAG} does not allow this import",
            received=module,
            expected=", ".join(_allowed or ()),
            fix="read the module; if you trust it, add it to the flag",
        )


def check_target(target: object, selector: str, place: Place) -> None:
    """Checks that a name leads to nothing that is not to be had from a gin file.

    A module that is allowed has imported others, so that `files.os.system` is the name
    of a function, too.

    Args:
        target: What the name means.
        selector: The name.
        place: Where it stands.

    Raises:
        ConfigError: It lies outside of what is allowed, or switches safe loading off.
    """
    if getattr(target, "__name__", "") in _UNSAFE:
        raise ConfigError(
            f"{place}: models from others are loaded in safe mode only",
            received=selector,
        )
    if _allowed is None:
        return
    home = inspect.getmodule(target)
    name = getattr(target, "__module__", None) or getattr(home, "__name__", "")
    if not is_allowed(str(name)):
        raise ConfigError(
            f"{place}: {FLAG} does not allow what this name leads to",
            received=f"{selector}, which is {name}.{getattr(target, '__name__', '')}",
            expected=f"something of {', '.join(_allowed)}",
        )


def check_argument(argument: str, value: object, place: Place) -> None:
    """Checks that a binding does not switch safe loading off.

    Raises:
        ConfigError: It binds `safe_mode` to something else than True.
    """
    if argument == "safe_mode" and value is not True:
        raise ConfigError(
            f"{place}: models from others are loaded in safe mode only",
            received=f"{argument} = {value!r}",
            fix="remove the binding",
        )


def _within(module: str, packages: Sequence[str]) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in packages)
