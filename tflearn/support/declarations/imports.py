"""The imports of gin files, found by parsing before any of them is imported."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence

from tflearn.support.declarations import permissions
from tflearn.support.declarations.names import Import, Symbol
from tflearn.support.declarations.reader import Parsed, Reader
from tflearn.support.declarations.statements import Place


class Scanner(Reader):
    """Reads files and bindings for their imports alone; imports nothing.

    Args:
        search_paths: Folders of the user's own files.
        parse: Yields the statements of a text.

    Attributes:
        found: Modules and where they are imported, those of included files too.
    """

    def __init__(
        self, *, search_paths: Sequence[str], parse: Callable[[str], Iterator[Parsed]]
    ) -> None:
        """Starts with nothing found."""
        super().__init__(
            search_paths=search_paths, parse=parse, load_module=_load_nothing
        )
        self.found: list[tuple[str, Place]] = []

    def check(self) -> None:
        """Refuses what is not allowed.

        Raises:
            ConfigError: A file imports it.
        """
        for module, place in self.found:
            permissions.check_import(module, place)

    def _announce(self, path: object, *, included: bool) -> None:
        """Says nothing: the files are read a second time."""

    def _import(self, line: Import, symbols: dict[str, Symbol], place: Place) -> None:
        self.found.append((line.module, place))

    def _bind(self, *of: object) -> None:
        """Looks nothing up: that would need the modules."""


def _load_nothing(line: Import, place: Place) -> types.ModuleType:
    raise AssertionError(f"{place}: {line} was to be read, not imported")
