"""Reading gin files: includes, imports, and which binding overrides which."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import pathlib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence

from tflearn.support.declarations import permissions, search
from tflearn.support.declarations.names import (
    Import,
    Imports,
    Symbol,
    check_parameter,
    look_up,
)
from tflearn.support.declarations.statements import Binding, Call, Place, Reference
from tflearn.support.errors import ConfigError

_BINDINGS = "--gin_bindings"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parsed:
    """A statement: an import, an include or a binding.

    Args:
        line: Where it begins, from 1.
        imported: The import, if it is one.
        included: The file's name, if it is an include.
        scope: Scope of a binding.
        selector: Name of the function or class, or of the macro.
        argument: The parameter; empty for a macro.
        value: What is bound, with `Reference`s and `Macro`s.
    """

    line: int
    imported: Import | None = None
    included: str | None = None
    scope: tuple[str, ...] = ()
    selector: str = ""
    argument: str = ""
    value: object = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Source:
    """A file, or bindings without one; the number tells two readings apart."""

    path: pathlib.Path | None
    number: int
    text: str

    def place(self, line: int) -> Place:
        if self.path is not None:
            return Place(source=str(self.path), line=line)
        lines = self.text.splitlines()
        return Place(source=f'{_BINDINGS}="{lines[line - 1].strip() if lines else ""}"')


class Reader:
    """Reads files and bindings in order; later ones override earlier ones.

    Args:
        search_paths: Folders of the user's own files.
        parse: Yields the statements of a text; raises SyntaxError.
        load_module: Imports what an import line names.

    Attributes:
        bindings: The bindings so far, the latest of each.
        imports: All imports.
        files: The files, as they were read.
        symbols: What all files import; bindings on the command line may use it.
    """

    def __init__(
        self,
        *,
        search_paths: Sequence[str],
        parse: Callable[[str], Iterator[Parsed]],
        load_module: Callable[[Import, Place], types.ModuleType],
    ) -> None:
        """Starts with nothing read."""
        self.bindings: dict[tuple[object, ...], Binding] = {}
        self.imports = Imports()
        self.files: list[str] = []
        self.symbols: dict[str, Symbol] = {}
        self._search_paths = search_paths
        self._parse = parse
        self._load_module = load_module
        self._numbers = itertools.count()

    def read_file(self, name: str) -> None:
        """Reads a file and what it includes.

        Args:
            name: Path or name of the file.

        Raises:
            ConfigError: It is not found, or something in it is wrong.
        """
        self._read_path(search.find(name, search_paths=self._search_paths), ())

    def read_bindings(self, text: str) -> None:
        """Reads bindings that know what the files import.

        Args:
            text: One binding a line.

        Raises:
            ConfigError: Something in it is wrong.
        """
        source = _Source(path=None, number=next(self._numbers), text=text)
        self._read(source, dict(self.symbols), (source,))

    def _read_path(self, path: pathlib.Path, stack: tuple[_Source, ...]) -> None:
        if any(source.path == path for source in stack):
            chain = [str(source.path) for source in stack]
            raise ConfigError(
                "gin files include each other in a circle",
                received=" -> ".join([*chain, str(path)]),
            )
        self._announce(path, included=bool(stack))
        self.files.append(str(path))
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read", received=str(error)) from error
        source = _Source(path=path, number=next(self._numbers), text=text)
        self._read(source, {}, (*stack, source))

    def _announce(self, path: pathlib.Path, *, included: bool) -> None:
        _log.info("%s %s", "  includes" if included else "gin file", path)

    def _read(
        self, source: _Source, symbols: dict[str, Symbol], stack: tuple[_Source, ...]
    ) -> None:
        dynamic = source.path is None
        for parsed in self._statements(source):
            place = source.place(parsed.line)
            if parsed.imported is not None:
                if parsed.imported.module == "__gin__.dynamic_registration":
                    dynamic = True
                else:
                    self._import(parsed.imported, symbols, place)
            elif parsed.included is not None:
                self._include(parsed.included, place, stack)
            elif dynamic:
                self._bind(parsed, symbols, place, stack)
            else:
                raise ConfigError(
                    f"{place}: names are looked up in imported modules only",
                    fix="begin the file with: from __gin__ import dynamic_registration",
                )

    def _statements(self, source: _Source) -> Iterator[Parsed]:
        try:
            yield from self._parse(source.text)
        except SyntaxError as error:
            lines = source.text.splitlines()
            line = min(error.lineno or len(lines), len(lines))
            raise ConfigError(
                f"{source.place(line)}: gin cannot read this: {str(error.msg).strip()}",
                received=lines[line - 1].strip() if lines else None,
                expected="name.parameter = value",
            ) from error

    def _import(self, line: Import, symbols: dict[str, Symbol], place: Place) -> None:
        permissions.check_import(line.module, place)
        module = self._load_module(line, place)
        symbol = Symbol(module=module, name=self.imports.add(line, module))
        symbols[line.bound_name] = symbol
        self.symbols[line.bound_name] = symbol

    def _include(self, name: str, place: Place, stack: tuple[_Source, ...]) -> None:
        try:
            path = search.find(
                name, search_paths=self._search_paths, beside=stack[-1].path
            )
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error
        self._read_path(path, stack)

    def _bind(
        self,
        parsed: Parsed,
        symbols: Mapping[str, Symbol],
        place: Place,
        stack: tuple[_Source, ...],
    ) -> None:
        target, name = None, ""
        scope, argument = (), "/".join((*parsed.scope, parsed.selector))
        if parsed.argument:
            target, name = look_up(parsed.selector, symbols, place)
            permissions.check_target(target, parsed.selector, place)
            scope, argument = parsed.scope, parsed.argument
            permissions.check_argument(argument, parsed.value, place)
            check_parameter(target, parsed.selector, argument, place)
        binding = Binding(
            target=target,
            scope=scope,
            name=name,
            argument=argument,
            value=_resolve(parsed.value, symbols, place),
            place=place,
            sources=tuple(source.number for source in stack),
        )
        earlier = self.bindings.get(binding.key)
        if earlier is not None:
            _check_override(earlier, binding)
            binding = dataclasses.replace(binding, overridden=earlier)
        self.bindings[binding.key] = binding


def _resolve(value: object, symbols: Mapping[str, Symbol], place: Place) -> object:
    if isinstance(value, Reference):
        target, name = look_up(value.name, symbols, place)
        permissions.check_target(target, value.name, place)
        return Call(
            target=target,
            scope=value.scope,
            name=name,
            evaluate=value.evaluate,
            place=place,
        )
    if isinstance(value, tuple | list):
        return type(value)(_resolve(item, symbols, place) for item in value)
    if isinstance(value, dict):
        return {
            _resolve(key, symbols, place): _resolve(item, symbols, place)
            for key, item in value.items()
        }
    return value


def _check_override(earlier: Binding, binding: Binding) -> None:
    if earlier.sources == binding.sources:
        raise ConfigError(
            f"{binding.place}: '{binding.label}' is bound twice in one file",
            received=f"{binding.value!r}, and {earlier.value!r} at {earlier.place}",
            fix="remove one of the two",
        )
    if earlier.sources[-1] in binding.sources:
        raise ConfigError(
            f"{binding.place}: '{binding.label}' overrides the file that includes "
            "this one",
            received=f"{binding.value!r} instead of {earlier.value!r}",
            fix=f"move the include above {earlier.place}",
        )
