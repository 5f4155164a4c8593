"""gin files in, an experiment out: the only module that knows gin.

The files are read with gin's own parser; names, types, required values and what reaches
what are checked (`support.declarations`); then the whole is written as one file without
includes. That text is what gin is given, what the run directory keeps, and what gives
the same experiment when it is loaded again.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import logging
import re
import tokenize
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gin
from gin import config as gin_config
from gin import config_parser
from tflearn.support import errors
from tflearn.support.declarations import checks, names, permissions, statements, usage
from tflearn.support.declarations.flags import Flags
from tflearn.support.declarations.imports import Scanner
from tflearn.support.declarations.reader import Parsed, Reader
from tflearn.support.declarations.statements import Binding, Macro, Place, Reference
from tflearn.support.errors import ConfigError, TflearnError

_EXPERIMENT = "tflearn.experiment.Experiment"
_COMPARISON = "tflearn.comparison.declaration.Comparison"
_RANKING = "tflearn.commands.rank.Ranking"
_PLAN = "tflearn.commands.plan.Plan"
_ROOTS = (_EXPERIMENT, _COMPARISON, _RANKING, _PLAN)
# What gin adds to the message of an exception that passes a call of its own.
_TRAIL = re.compile(r"\n  (?:No values supplied|In call to configurable '(\w+)')")
_MISSING = re.compile(r".* missing \d+ required ")

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Declaration:
    """A declaration that was read and found sound.

    Args:
        text: The whole as one gin file that needs no other.
        files: The files that were read.
        notes: Lines on bindings that an override has left without effect.
        bindings: The final bindings.
        usage: What the bindings reach.
    """

    text: str
    files: tuple[str, ...]
    notes: tuple[str, ...]
    bindings: Mapping[usage.Key, Binding]
    usage: usage.Usage

    def experiment(self) -> Any:
        """Makes the declared `tflearn.experiment.Experiment`.

        Raises:
            ConfigError: No experiment is declared.
        """
        if _root(self.bindings, _EXPERIMENT) is None:
            raise ConfigError(
                "no experiment is declared",
                expected="bindings of experiment.Experiment",
                fix="give a complete file, such as --gin_file=quickstart/digits.gin",
            )
        return dataclasses.replace(self._make(_EXPERIMENT), declaration=self)

    def comparison(self) -> Any:
        """Makes the declared `Comparison`, or the default one."""
        return self._make(_COMPARISON)

    def ranking(self) -> Any:
        """Makes the declared `Ranking`, or the default one."""
        return self._make(_RANKING)

    def plan(self) -> Any:
        """Makes the declared `Plan`, or the default one."""
        return self._make(_PLAN)

    def with_bindings(self, bindings: Sequence[str]) -> Declaration:
        """Returns this declaration with others put over it, as on the command line.

        Args:
            bindings: gin bindings; they know the imports of the files.

        Raises:
            ConfigError: A binding is wrong.
        """
        reader = _reader()
        for text in (self.text, *bindings):
            reader.read_bindings(text)
        changed = _declaration(reader)
        return dataclasses.replace(changed, files=self.files)

    def operative_text(self) -> str:
        """Returns what was used so far, defaults included, as a gin file."""
        self._check_active()
        return gin.operative_config_str()

    def check_all_used(self) -> None:
        """Checks, once everything is built, that every binding had an effect.

        Raises:
            ConfigError: A binding was bound in a scope that was never entered, or to
                a parameter that the caller always gives.
        """
        self._check_active()
        checks.check_called(self.bindings, self.usage, _called())

    def activate(self) -> None:
        """Makes gin hold this declaration; `load` does it, and so does every factory.

        gin knows one configuration at a time: with two declarations in one process,
        the factories of the first must not be given the values of the second.
        """
        global _active
        if _active is self:
            return
        gin.clear_config()
        _active = None
        try:
            # Modules may be reloaded, in a notebook most of all.
            with gin_config.interactive_mode():
                gin.parse_config(self.text)
            gin.finalize()
        except Exception as error:
            gin.clear_config()
            raise ConfigError("gin refuses the declaration", received=str(error)) from (
                error
            )
        _active = self

    def _make(self, path: str) -> Any:
        self.activate()
        target = _root(self.bindings, path)
        if target is None:
            module, _, name = path.rpartition(".")
            return getattr(importlib.import_module(module), name)()
        try:
            made = gin.get_configurable(target)()
        except Exception as error:
            raise explain(error) or error from error
        return _bind_factories(made, self)

    def _check_active(self) -> None:
        if _active is not self:
            raise ConfigError(
                "another declaration was loaded since this one was used",
                fix="finish one run before the next declaration is loaded",
            )


_active: Declaration | None = None


def load(
    gin_files: str | Sequence[str],
    bindings: str | Sequence[str] = (),
    *,
    search_paths: Sequence[str] = (),
) -> Declaration:
    """Reads and checks a declaration.

    Args:
        gin_files: Files in the order in which they override each other.
        bindings: Bindings that override the files; they know the files' imports.
        search_paths: Folders of the user's own files.

    Returns:
        The declaration. Nothing has been built.

    Raises:
        ConfigError: A file is not found or not sound; the message says where.

    Example:

    >>> load("quickstart/digits.gin", "SEED = 1").experiment().seed
    1
    """
    named = [gin_files] if isinstance(gin_files, str) else gin_files
    texts = [bindings] if isinstance(bindings, str) else bindings
    # An import runs a module's code, so what will be imported is known before.
    scanner = Scanner(search_paths=search_paths, parse=_parse)
    reader = _reader(search_paths)
    for pass_ in (scanner, reader):
        for name in named:
            pass_.read_file(name)
        for text in texts:
            pass_.read_bindings(text)
        if pass_ is scanner:
            _tell_imports(scanner)
    declaration = _declaration(reader)
    declaration.activate()
    return declaration


def _tell_imports(scanner: Scanner) -> None:
    scanner.check()
    others = permissions.foreign(scanner.found)
    if others:
        told = ", ".join(f"{module} ({place})" for module, place in others)
        _log.warning("gin imports code that does not come with tflearn: %s", told)


def _declaration(reader: Reader) -> Declaration:
    found = (_root(reader.bindings, path) for path in _ROOTS)
    roots = [root for root in found if root is not None]
    reached = usage.trace(reader.bindings, roots)
    if roots:
        checks.check(reader.bindings, reached)
    notes = checks.notes(reader.bindings, reached)
    for note in notes:
        _log.warning(note)
    return Declaration(
        text=statements.text(reader.imports.lines, list(reader.bindings.values())),
        files=tuple(reader.files),
        notes=notes,
        bindings=reader.bindings,
        usage=reached,
    )


def load_arguments(arguments: Flags) -> Declaration:
    """Loads what the flags of the command line declare.

    Args:
        arguments: The flags.

    Returns:
        The declaration.
    """
    return load(
        arguments.gin_files,
        arguments.gin_bindings,
        search_paths=arguments.gin_search_paths,
    )


def explain(error: Exception) -> TflearnError | None:
    """Turns what came out of a declared function or class into one message.

    gin adds a line to the message at every call that an exception passes.

    Args:
        error: Any exception.

    Returns:
        The error without gin's lines, or an error that names the function or class
        that failed; None if tflearn itself is at fault.
    """
    message, *trail = _TRAIL.split(str(error))
    if isinstance(error, TflearnError):
        # gin raises an instance of a subclass that it makes for the occasion.
        kinds = type(error).__mro__
        kind: Any = next(k for k in kinds if getattr(errors, k.__name__, None) is k)
        return kind.__new__(kind, message) if trail else error
    called = [name for name in trail[::2] if name]
    if not called or _is_own_fault(called[0], message):
        return None
    return ConfigError(
        f"calling '{called[0]}' as declared failed",
        received=f"{type(error).__name__}: {message}",
        fix="--debug shows where",
    )


def _is_own_fault(name: str, message: str) -> bool:
    if _MISSING.match(message):
        return False
    calls = _active.usage.calls if _active else ()
    modules = [c.target.__module__ for c in calls if _name_of(c.target) == name]
    return any(module.split(".")[0] == "tflearn" for module in modules)


def _name_of(target: Any) -> str:
    return getattr(target, "__name__", "")


def _root(bindings: Mapping[usage.Key, Binding], path: str) -> Any | None:
    for binding in bindings.values():
        target = binding.target
        if f"{getattr(target, '__module__', '')}.{_name_of(target)}" == path:
            return target
    return None


def _bind_factories(value: Any, declaration: Declaration) -> Any:
    """Makes each factory in dataclasses and tuples activate its declaration first."""
    if isinstance(value, tuple | list):
        return type(value)(_bind_factories(item, declaration) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        bound = {name: _bind_factories(v, declaration) for name, v in fields.items()}
        changed = {name: v for name, v in bound.items() if v is not fields[name]}
        return dataclasses.replace(value, **changed) if changed else value
    return _activating(value, declaration) if callable(value) else value


def _activating(factory: Callable[..., Any], declaration: Declaration) -> Any:
    # Without `updated`: the attributes of a class are no business of a function.
    @functools.wraps(factory, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        declaration.activate()
        return factory(*args, **kwargs)

    return call


def _called() -> checks.Called:
    """Reads from gin what was called, and with which parameters."""
    text = gin.operative_config_str()
    reader = _reader()
    reader.read_bindings(text)
    found: dict[tuple[tuple[str, ...], object], set[str]] = {}
    # The only trace of a call without parameters is the comment above it.
    for label in re.findall(r"^# Parameters for (.*):$", text, re.MULTILINE):
        *scope, name = label.split("/")
        target, _ = names.look_up(name, reader.symbols, Place(source="gin"))
        found[tuple(scope), target] = set()
    for binding in reader.bindings.values():
        if binding.target is not None:
            found[binding.scope, binding.target].add(binding.argument)
    return {key: frozenset(value) for key, value in found.items()}


class _Delegate(config_parser.ParserDelegate):
    """Keeps references and macros as they are written."""

    def configurable_reference(
        self, scoped_configurable_name: str, evaluate: bool
    ) -> Reference:
        *scope, name = scoped_configurable_name.split("/")
        return Reference(scope=tuple(scope), name=name, evaluate=evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(name=macro_name)


def _reader(search_paths: Sequence[str] = ()) -> Reader:
    return Reader(search_paths=search_paths, parse=_parse, load_module=_load_module)


def _load_module(line: names.Import, place: Place) -> types.ModuleType:
    if line.module.split(".")[0] not in ("keras_hub", "keras_nlp"):
        return line.load(place)
    # They import TensorFlow where it is installed, on JAX too.
    tensorflow = importlib.import_module("tflearn.support.tensorflow")
    with tensorflow.hidden_tensorflow():
        return line.load(place)


def _parse(text: str) -> Iterator[Parsed]:
    try:
        parser = config_parser.ConfigParser(text, _Delegate())
        while (statement := parser.parse_statement()) is not None:
            parsed = _parsed(statement)
            if parsed is not None:
                yield parsed
    except RecursionError as error:
        raise SyntaxError("The value is nested too deeply.") from error
    except (tokenize.TokenError, StopIteration, TypeError) as error:
        # The tokens end inside of a statement, or a key is a list.
        raise SyntaxError("The value is not complete.") from error


def _parsed(statement: Any) -> Parsed | None:
    line = statement.location.line_num
    if isinstance(statement, config_parser.ImportStatement):
        found = names.Import(
            module=statement.module, is_from=statement.is_from, alias=statement.alias
        )
        return Parsed(line=line, imported=found)
    if isinstance(statement, config_parser.IncludeStatement):
        return Parsed(line=line, included=statement.filename)
    if isinstance(statement, config_parser.BindingStatement):
        scope = tuple(part for part in statement.scope.split("/") if part)
        return Parsed(
            line=line,
            scope=scope,
            selector=statement.selector,
            argument=statement.arg_name,
            value=statement.value,
        )
    # The head of an indented block; its bindings follow one by one.
    return None
