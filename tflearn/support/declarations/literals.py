"""Whether a declared value is of the type that a parameter asks for."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any

from tflearn.support.declarations.names import parameters
from tflearn.support.declarations.statements import Call, Macro

_NUMBERS = {int: (int,), float: (int, float), complex: (int, float, complex)}


def hints(target: Any) -> Mapping[str, object]:
    """Returns the types of the parameters of a function or class that are known.

    Args:
        target: The function or class.

    Returns:
        Type hints by parameter; a value equal to the default always fits.
    """
    source = target
    if inspect.isclass(target) and not dataclasses.is_dataclass(target):
        source = target.__init__
    try:
        return typing.get_type_hints(inspect.unwrap(source))
    except Exception:  # noqa: BLE001
        # Other people's hints may name what only a type checker imports.
        return {}


def fits(value: object, hint: object) -> bool:
    """Tells whether a declared value can be what a type hint asks for.

    Where it cannot be known, it fits: the purpose is to catch mistakes, not to prove
    their absence.

    Args:
        value: Literals, `Macro`s and `Call`s in containers.
        hint: A type hint.

    Returns:
        False if it surely does not fit.

    Example:

    >>> fits(1, float), fits(True, int), fits("a", tuple[str, ...])
    (True, False, False)
    """
    if isinstance(value, Macro) or hint in (typing.Any, object, inspect._empty):
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is typing.Annotated:
        return fits(value, arguments[0])
    if origin is typing.Literal:
        return isinstance(value, Call) or value in arguments
    if hint is None or hint is type(None):
        return value is None
    if isinstance(value, Call):
        return _call_fits(value, hint)
    expected = origin or hint
    if not isinstance(expected, type):
        return True
    return _literal_fits(value, expected, arguments)


def default_fits(value: object, target: Any, parameter: str) -> bool:
    """Tells whether a value is the parameter's own default."""
    found = parameters(target).get(parameter)
    if found is None or found.default is inspect.Parameter.empty:
        return False
    return type(value) is type(found.default) and value == found.default


def describe(hint: object) -> str:
    """Returns a type hint in words.

    Example:

    >>> describe(int | None), describe(tuple[str, ...])
    ('int or None', 'tuple[str, ...]')
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(describe(one) for one in typing.get_args(hint))
    if hint is None or hint is type(None):
        return "None"
    if _is_callable(hint):
        return "a function or class (@name without parentheses)"
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return str(hint).replace("collections.abc.", "").replace("typing.", "")


def advice(value: object, hint: object) -> str | None:
    """Returns what to change in a value that does not fit, where that is plain."""
    for other in _rewritten(value):
        if fits(other, hint):
            return f"write {other!r}"
    return None


def _rewritten(value: object) -> list[object]:
    tried = [_other_form(value), (value,)]
    if isinstance(value, tuple | list):
        tried = [tuple(value), tuple(map(_other_form, value)), *tried]
    return tried


def _other_form(value: object) -> object:
    if isinstance(value, Call):
        return dataclasses.replace(value, evaluate=not value.evaluate)
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return str(value) if type(value) in (int, float) else value


def _literal_fits(value: object, expected: type, arguments: tuple[object, ...]) -> bool:
    if expected in _NUMBERS:
        return isinstance(value, _NUMBERS[expected]) and not isinstance(value, bool)
    if _is_callable(expected) or expected is type:
        return False
    if expected is tuple:
        return isinstance(value, tuple) and _tuple_fits(value, arguments)
    if issubclass(expected, collections.abc.Mapping):
        return isinstance(value, dict) and _mapping_fits(value, arguments)
    if expected.__module__ == "collections.abc" or expected is list:
        listed = (list,) if expected is list else (tuple, list)
        return isinstance(value, listed) and all(
            fits(item, arguments[0]) for item in value if arguments
        )
    # Abstract hints such as `os.PathLike` say too little about what is accepted.
    if inspect.isabstract(expected) or getattr(expected, "_is_protocol", False):
        return True
    return isinstance(value, expected)


def _tuple_fits(value: tuple[object, ...], arguments: tuple[object, ...]) -> bool:
    if not arguments:
        return True
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return all(fits(item, arguments[0]) for item in value)
    return len(value) == len(arguments) and all(map(fits, value, arguments))


def _mapping_fits(value: dict[object, object], arguments: tuple[object, ...]) -> bool:
    return not arguments or all(
        fits(key, arguments[0]) and fits(item, arguments[1])
        for key, item in value.items()
    )


def _call_fits(value: Call, hint: object) -> bool:
    if not value.evaluate:
        expected = typing.get_origin(hint) or hint
        if expected is type:
            return isinstance(value.target, type)
        if _is_callable(hint) or not isinstance(expected, type):
            return True
        return getattr(expected, "_is_protocol", False)
    if isinstance(value.target, type):
        return _class_fits(value.target, hint)
    returned = hints(value.target).get("return", typing.Any)
    if typing.get_origin(returned) in (typing.Union, types.UnionType):
        return any(_class_fits(one, hint) for one in typing.get_args(returned))
    return _class_fits(returned, hint)


def _class_fits(given: object, hint: object) -> bool:
    given = typing.get_origin(given) or given
    expected = typing.get_origin(hint) or hint
    if not isinstance(given, type) or not isinstance(expected, type):
        return True
    if getattr(expected, "_is_protocol", False) or given is object:
        return True
    # A function may return more than it promises, so a base class is good enough.
    return issubclass(given, (*_NUMBERS.get(expected, ()), expected)) or (
        issubclass(expected, given) and not _is_callable(expected)
    )


def _is_callable(hint: object) -> bool:
    return (typing.get_origin(hint) or hint) is collections.abc.Callable
