"""Gathering the rows of text files, the good and the bad ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tflearn.data import paths as path_tools
from tflearn.data.table import BadRow, Table
from tflearn.support.errors import DataError


class Records:
    """Rows while they are read.

    Args:
        columns: Names of the columns.
        name: What the rows are called in messages.
    """

    def __init__(self, columns: Sequence[str], *, name: str) -> None:
        self.columns = tuple(columns)
        self.name = name
        self.notes: list[str] = []
        self._values: list[list[Any]] = [[] for _ in self.columns]
        self._locations: list[str] = []
        self._ordinals: list[int] = []
        self._bad: list[BadRow] = []

    def add(self, location: str, values: Sequence[Any]) -> None:
        """Adds a row; one with bytes that are not UTF-8 becomes a bad row."""
        for value in values:
            fault = path_tools.undecodable(value) if isinstance(value, str) else None
            if fault:
                return self.add_bad(location, fault)
        self._ordinals.append(self._count())
        self._locations.append(location)
        for column, value in zip(self._values, values, strict=True):
            column.append(value)
        return None

    def add_bad(self, location: str, reason: str) -> None:
        """Adds a row that cannot be read."""
        self._bad.append(
            BadRow(location=location, reason=reason, ordinal=self._count())
        )

    def table(self) -> Table:
        """Returns the table.

        Raises:
            DataError: There are no rows at all.
        """
        if not self._count():
            raise DataError("the file has no rows", received=self.name)
        return Table(
            dict(zip(self.columns, self._values, strict=True)),
            locate=self._locations.__getitem__,
            name=self.name,
            bad=self._bad,
            ordinals=self._ordinals,
            notes=self.notes,
        )

    def _count(self) -> int:
        return len(self._locations) + len(self._bad)
