"""Mistakes in a declaration that show before anything is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tflearn.support.declarations import literals
from tflearn.support.declarations.names import required_parameters
from tflearn.support.declarations.statements import (
    REQUIRED,
    Binding,
    Call,
    Macro,
    leaves,
)
from tflearn.support.declarations.usage import Key, Usage, prefixes
from tflearn.support.errors import ConfigError, nearest

Bindings = Mapping[Key, Binding]
# Where something was called, and which parameters had a value that a binding or a
# default gave: scope, function or class, parameters.
Called = Mapping[tuple[tuple[str, ...], object], frozenset[str]]


def check(bindings: Bindings, usage: Usage) -> None:
    """Checks a declaration as far as it can be done without calling anything.

    Args:
        bindings: The final bindings.
        usage: What they reach.

    Raises:
        ConfigError: A macro is not defined or has no value, a value is of the wrong
            type, an argument is missing, or a binding reaches nothing.
    """
    macros = {b.argument: b for b in bindings.values() if b.target is None}
    for binding in bindings.values():
        _check_macros(binding, macros)
    _check_given(bindings.values(), usage, macros)
    for binding in bindings.values():
        if binding.target is not None:
            _check_type(binding, macros)
    _check_arguments(bindings, usage)
    _check_reached(bindings, usage)


def check_called(bindings: Bindings, usage: Usage, called: Called) -> None:
    """Checks, after everything was built, that what was bound was also used.

    Args:
        bindings: The final bindings.
        usage: What they can reach.
        called: What was called.

    Raises:
        ConfigError: A binding had no effect.
    """
    scopes: dict[object, list[tuple[str, ...]]] = {}
    for scope, target in called:
        scopes.setdefault(target, []).append(scope)
    for binding in bindings.values():
        found = scopes.get(binding.target)
        if binding.key not in usage.live or binding.target is None or not found:
            continue
        within = [scope for scope in found if binding.scope in prefixes(scope)]
        if not within and binding.key in usage.perhaps:
            raise _wrong_scope(binding, found)
        used = (binding.argument in called[scope, binding.target] for scope in within)
        if within and not any(used):
            raise ConfigError(
                f"{binding.place}: '{binding.label}' has no effect, because "
                f"'{binding.name}' is called with a value for it",
                fix="remove the binding",
            )


def notes(bindings: Bindings, usage: Usage) -> tuple[str, ...]:
    """Returns a line for each binding that is without effect only by an override."""
    return tuple(
        f"{binding.place}: '{binding.label}' has no effect, since what used it was "
        "overridden"
        for binding in bindings.values()
        if binding.key in usage.replaced and binding.target is not None
    )


def _check_macros(binding: Binding, macros: Mapping[str, Binding]) -> None:
    for leaf in leaves(binding.value):
        if not isinstance(leaf, Macro) or leaf.name == REQUIRED:
            continue
        if leaf.name not in macros:
            raise ConfigError(
                f"{binding.place}: the macro '%{leaf.name}' is not defined",
                expected=", ".join(f"%{name}" for name in macros) or None,
                fix=f"write {leaf.name} = ... in a file or in --gin_bindings",
                nearest=nearest(leaf.name, macros),
            )
        if _refers(macros[leaf.name], binding, macros):
            raise ConfigError(
                f"{binding.place}: the macro '%{leaf.name}' is defined by itself"
            )


def _refers(
    macro: Binding,
    to: Binding,
    macros: Mapping[str, Binding],
    seen: frozenset[str] = frozenset(),
) -> bool:
    if macro is to:
        return True
    names = {leaf.name for leaf in leaves(macro.value) if isinstance(leaf, Macro)}
    return any(
        _refers(macros[name], to, macros, seen | {name})
        for name in names - seen
        if name in macros
    )


def _check_given(
    bindings: Iterable[Binding], usage: Usage, macros: Mapping[str, Binding]
) -> None:
    missing = [
        binding
        for binding in bindings
        if binding.key in usage.live
        and any(leaf == Macro(name=REQUIRED) for leaf in leaves(binding.value))
    ]
    if missing:
        lines = "".join(f"\n  {one.label} ({one.place})" for one in missing)
        flags = " ".join(f'--gin_bindings="{one.label} = ..."' for one in missing)
        count = "a required value is" if len(missing) == 1 else "required values are"
        raise ConfigError(f"{count} not given:{lines}\nGive them by {flags}")


def _check_type(binding: Binding, macros: Mapping[str, Binding]) -> None:
    hint = literals.hints(binding.target).get(binding.argument)
    value = _expand(binding.value, macros)
    if hint is None or literals.fits(value, hint):
        return
    if literals.default_fits(value, binding.target, binding.argument):
        return
    where = f"{binding.place}"
    if isinstance(binding.value, Macro):
        where += f" (%{binding.value.name}, {macros[binding.value.name].place})"
    raise ConfigError(
        f"{where}: '{binding.label}' has a value of the wrong type",
        received=repr(value),
        expected=literals.describe(hint),
        fix=literals.advice(value, hint),
    )


def _expand(value: object, macros: Mapping[str, Binding]) -> object:
    if isinstance(value, Macro) and value.name in macros:
        return _expand(macros[value.name].value, macros)
    if isinstance(value, tuple | list):
        return type(value)(_expand(item, macros) for item in value)
    if isinstance(value, dict):
        return {
            _expand(key, macros): _expand(item, macros) for key, item in value.items()
        }
    return value


def _check_arguments(bindings: Bindings, usage: Usage) -> None:
    for call in usage.calls:
        if not call.evaluate:
            continue
        needed = required_parameters(call.target)
        missing = [
            name
            for name in needed
            if not any(
                (scope, call.target, name) in bindings for scope in prefixes(call.scope)
            )
        ]
        if missing:
            raise _missing_arguments(call, missing, needed)


def _missing_arguments(
    call: Call, missing: list[str], needed: list[str]
) -> ConfigError:
    name = call.name or getattr(call.target, "__name__", "")
    place = f"{call.place}: " if call.place else ""
    scope = f" in scope '{'/'.join(call.scope)}'" if call.scope else ""
    return ConfigError(
        f"{place}'{name}' is called{scope} without "
        + ", ".join(f"'{one}'" for one in missing),
        expected="values for " + ", ".join(needed),
        fix=f"bind {'/'.join((*call.scope, name))}.{missing[0]}",
    )


def _check_reached(bindings: Bindings, usage: Usage) -> None:
    unused = [
        binding
        for binding in bindings.values()
        if binding.key not in usage.live and binding.key not in usage.replaced
    ]
    if not unused:
        return
    first = unused[0]
    more = "".join(f"\n  {one.label} ({one.place})" for one in unused[1:])
    message = f"{first.place}: '{first.label}' reaches nothing"
    raise ConfigError(
        f"{message}, nor does{more}\n" if more else message,
        expected=_expected_call(first, usage),
        nearest=nearest(first.label, _reached_labels(first, bindings, usage)),
    )


def _reached_labels(first: Binding, bindings: Bindings, usage: Usage) -> list[str]:
    scopes = {call.scope for call in usage.calls if call.target == first.target}
    labels = [
        f"{'/'.join((*scope, first.name))}.{first.argument}" for scope in sorted(scopes)
    ]
    kin = [
        binding.label
        for binding in bindings.values()
        if binding.key in usage.live
        and (binding.target is None) == (first.target is None)
    ]
    return labels or kin


def _expected_call(binding: Binding, usage: Usage) -> str:
    if binding.target is None:
        return f"%{binding.argument} as a value somewhere"
    found = {repr(call) for call in usage.calls if call.target == binding.target}
    if found:
        return "a scope in which it is called: " + ", ".join(sorted(found))
    return f"a reference to it, such as @{binding.label.rpartition('.')[0]}"


def _wrong_scope(binding: Binding, found: Iterable[tuple[str, ...]]) -> ConfigError:
    scoped = "/".join((*binding.scope, binding.name))
    scopes = ", ".join(sorted("/".join(scope) or "none" for scope in found))
    return ConfigError(
        f"{binding.place}: '{binding.label}' reaches nothing, because a factory is "
        f"called outside of the scope that refers to it",
        received=f"calls of '{binding.name}' in scope: {scopes}",
        fix=f"name the scope where it is referred to: @{scoped}",
    )
