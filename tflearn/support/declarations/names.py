"""Names in gin files: what is imported, what a name means, what it takes."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import inspect
import pkgutil
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

from tflearn.support.declarations.statements import Place
from tflearn.support.errors import ConfigError, TflearnError, nearest

# Modules that not everyone needs, and the extra that installs each.
EXTRAS = {
    "keras_cv": "keras-cv",
    "tensorflow_datasets": "tfds",
    "datasets": "datasets",
    "pyarrow": "parquet",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Import:
    """One import line of a gin file.

    Args:
        module: The module's full name.
        is_from: Whether it is written `from package import module`.
        alias: The name after `as`, if there is one.
    """

    module: str
    is_from: bool = False
    alias: str | None = None

    @property
    def bound_name(self) -> str:
        """The name that the line makes known."""
        parts = self.module.split(".")
        return self.alias or (parts[-1] if self.is_from else parts[0])

    def __str__(self) -> str:
        """Returns the line."""
        line = f"import {self.module}"
        if self.is_from:
            package, _, name = self.module.rpartition(".")
            line = f"from {package} import {name}"
        return f"{line} as {self.alias}" if self.alias else line

    def load(self, place: Place) -> types.ModuleType:
        """Imports the module.

        Args:
            place: Where the line stands.

        Returns:
            What the bound name means.

        Raises:
            ConfigError: There is no such module, or it cannot be imported.
        """
        try:
            module = importlib.import_module(self.module)
        except TflearnError:
            raise
        except Exception as error:
            raise _import_error(self, place, error) from error
        plain = not self.is_from and self.alias is None
        return sys.modules[self.module.split(".")[0]] if plain else module


class Imports:
    """All imports of a declaration, each under a name of its own.

    Files are separate: two may call different modules by one name. In the whole, the
    second one gets an alias.
    """

    def __init__(self) -> None:
        """Starts without imports."""
        self._names: dict[str, str] = {}
        self._taken: dict[str, types.ModuleType] = {}

    @property
    def lines(self) -> list[str]:
        """The import lines of the whole declaration."""
        return list(self._names)

    def add(self, statement: Import, module: types.ModuleType) -> str:
        """Adds an import.

        Args:
            statement: The line.
            module: What its bound name means.

        Returns:
            The name for it in the whole declaration.
        """
        if str(statement) in self._names:
            return self._names[str(statement)]
        name, count = statement.bound_name, 1
        while self._taken.get(name, module) is not module:
            count += 1
            name = f"{statement.bound_name}_{count}"
        if name != statement.bound_name:
            if not statement.is_from and statement.alias is None:
                raise ConfigError(
                    "two modules have one name in this declaration",
                    received=f"{statement} and {self._taken[statement.bound_name]}",
                    fix="import one of them `as` another name",
                )
            statement = dataclasses.replace(statement, alias=name)
        self._taken[name] = module
        self._names[str(statement)] = name
        return name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Symbol:
    """A name that a file's import makes known.

    Args:
        module: What it means.
        name: What it is called in the whole declaration.
    """

    module: types.ModuleType
    name: str


def look_up(
    selector: str, symbols: Mapping[str, Symbol], place: Place
) -> tuple[object, str]:
    """Finds the function or class that a dotted name means.

    Args:
        selector: The name, such as `optimizers.adamw`.
        symbols: What the file's imports make known.
        place: Where the name stands.

    Returns:
        The function or class, and its name in the whole declaration.

    Raises:
        ConfigError: The name means nothing, or nothing that can be called.
    """
    first, *rest = selector.split(".")
    if first not in symbols:
        raise ConfigError(
            f"{place}: the name '{first}' is not imported",
            received=selector,
            expected=", ".join(sorted(symbols)) or "an import line above it",
            nearest=_nearest_selector(selector, symbols),
        )
    found: object = symbols[first].module
    for index, part in enumerate(rest):
        if part.startswith("_") or not hasattr(found, part):
            raise _unknown_part(found, [first, *rest[:index]], part, place)
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(
            f"{place}: '{selector}' is no function or class",
            received=type(found).__name__,
            nearest=_nearest_selector(selector, symbols),
        )
    return found, ".".join([symbols[first].name, *rest])


def _unknown_part(
    owner: object, path: list[str], part: str, place: Place
) -> ConfigError:
    name = ".".join(path)
    close = nearest(part, [known for known in dir(owner) if known[0] != "_"])
    return ConfigError(
        f"{place}: '{name}' has no '{part}'",
        received=f"{name}.{part}",
        nearest=close and f"{name}.{close}",
    )


def parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters that a declaration may give to a function or class."""
    function: Any = target
    if inspect.isclass(target):
        # The first one in the order of resolution, as gin has it: Keras classes
        # define a `__new__(*args, **kwargs)` further up.
        bases = (base.__dict__ for base in inspect.getmro(target))
        function = next(
            base.get("__init__") or base["__new__"]
            for base in bases
            if "__init__" in base or "__new__" in base
        )
    try:
        found = dict(inspect.signature(inspect.unwrap(function)).parameters)
    except (TypeError, ValueError):
        # Written in C and without a signature: nothing is known.
        return {"kwargs": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)}
    if inspect.isclass(target) and found:
        del found[next(iter(found))]
    return found


def check_parameter(target: Any, selector: str, name: str, place: Place) -> None:
    """Checks that a function or class takes a parameter.

    Args:
        target: The function or class.
        selector: What it is called.
        name: The parameter.
        place: Where it stands.

    Raises:
        ConfigError: It does not.
    """
    taken = parameters(target)
    kinds = inspect.Parameter
    if any(p.kind is kinds.VAR_KEYWORD for p in taken.values()):
        return
    usable = [
        p.name
        for p in taken.values()
        if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    ]
    if name not in usable:
        raise ConfigError(
            f"{place}: '{selector}' has no parameter '{name}'",
            expected=", ".join(usable) or "no parameters",
            nearest=nearest(name, usable),
        )


def required_parameters(target: Any) -> list[str]:
    """Returns the parameters without which a function or class cannot be called."""
    kinds = inspect.Parameter
    return [
        p.name
        for p in parameters(target).values()
        if p.default is kinds.empty
        and p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    ]


def _nearest_selector(selector: str, symbols: Mapping[str, Symbol]) -> str | None:
    known = [
        f"{name}.{attribute}"
        for name, symbol in symbols.items()
        for attribute in dir(symbol.module)
        if not attribute.startswith("_")
        and callable(getattr(symbol.module, attribute, None))
    ]
    last = selector.rpartition(".")[2]
    # `Stage` for `experiment.Stage`: the end counts more than the whole.
    ends = [name for name in known if name.rpartition(".")[2] == last]
    return ends[0] if ends else nearest(selector, [*symbols, *known])


def _import_error(statement: Import, place: Place, error: Exception) -> ConfigError:
    missing = getattr(error, "name", None) or ""
    if isinstance(error, ModuleNotFoundError) and (
        statement.module == missing or statement.module.startswith(f"{missing}.")
    ):
        top = statement.module.split(".")[0]
        extra = EXTRAS.get(top)
        return ConfigError(
            f"{place}: there is no module '{missing}'",
            received=str(statement),
            fix=extra and f"pip install 'tflearn-gin[{extra}]'",
            nearest=None if extra else nearest(missing, _modules_beside(missing)),
        )
    extra = EXTRAS.get(missing.split(".")[0])
    return ConfigError(
        f"{place}: importing '{statement.module}' failed",
        received=f"{type(error).__name__}: {error}",
        fix=f"pip install 'tflearn-gin[{extra}]'" if extra else None,
    )


def _modules_beside(missing: str) -> Iterable[str]:
    package, _, _ = missing.rpartition(".")
    if not package:
        return ["tflearn", *importlib.metadata.packages_distributions()]
    path = getattr(sys.modules.get(package), "__path__", [])
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules(path)]
