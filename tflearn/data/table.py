"""Rows by column, each with the place it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tflearn.support.errors import DataError, nearest

Column = Sequence[Any] | np.ndarray


class _Missing:
    """The value of a column in a row that lacks it."""

    def __repr__(self) -> str:
        return "missing"

    def __reduce__(self) -> str:
        return "MISSING"


MISSING = _Missing()


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that cannot be used.

    Args:
        location: Where it is, such as `train.tsv:17`.
        reason: What is wrong with it.
        ordinal: Its number among all rows of its file or files, from 0, the bad
            ones counted.
    """

    location: str
    reason: str
    ordinal: int

    def __str__(self) -> str:
        return f"{self.location}: {self.reason}"


class Table(Sequence[dict[str, Any]]):
    """Rows of one split, stored by column.

    A column is any sequence, so a value may be computed when it is asked for: that
    is how images stay files until they are needed.

    Args:
        columns: The columns by name, all of one length.
        locate: Gives the place of row `i`; `NAME[i]` by default.
        name: What the rows are called in messages.
        bad: Rows of the file that could not be read.
        ordinals: Number of each row among all rows of its file, the bad ones
            counted; `0, 1, ...` by default.
        notes: Lines for the user about how the rows were read.
        classes: Names of the classes in the order the source defines, if it does.

    Raises:
        DataError: The columns differ in length.

    Example:
    >>> table = Table({"text": ["good", "bad"], "label": ["1", "0"]}, name="reviews")
    >>> table[0]
    {'text': 'good', 'label': '1'}
    >>> table.locate(1)
    'reviews[1]'
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        *,
        locate: Callable[[int], str] | None = None,
        name: str = "rows",
        bad: Iterable[BadRow] = (),
        ordinals: Sequence[int] | None = None,
        notes: Iterable[str] = (),
        classes: Sequence[str] | None = None,
    ) -> None:
        lengths = {key: len(column) for key, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(
                f"the columns of {name} differ in length",
                received=", ".join(f"{key}: {n}" for key, n in lengths.items()),
                expected="columns of one length",
            )
        self.columns = dict(columns)
        self.name = name
        self.bad = tuple(bad)
        self.notes = tuple(notes)
        self.classes = None if classes is None else tuple(classes)
        self._length = max(lengths.values(), default=0)
        self.ordinals = range(self._length) if ordinals is None else ordinals
        self._locate = locate

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Mapping[str, Any]],
        *,
        name: str = "rows",
        locate: Callable[[int], str] | None = None,
    ) -> Table:
        """Wraps a sequence of dicts; its rows are read when they are needed.

        Args:
            rows: The rows. The first one says which columns there are.
            name: What the rows are called in messages.
            locate: Gives the place of row `i`.

        Returns:
            The table.
        """
        if len(rows) and not isinstance(rows[0], Mapping):
            raise DataError(
                f"a row of {name} is not a dict",
                received=type(rows[0]).__name__,
                expected="a sequence of dicts, such as [{'text': ..., 'label': ...}]",
            )
        shared = _Rows(rows)
        names = list(rows[0]) if len(rows) else []
        columns = {key: _LazyColumn(shared, key) for key in names}
        return cls(columns, name=name, locate=locate)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return {name: column[index] for name, column in self.columns.items()}

    def locate(self, index: int) -> str:
        """Returns the place of a row, such as `train.tsv:17`."""
        return self._locate(index) if self._locate else f"{self.name}[{index}]"

    def column(self, name: str) -> Column:
        """Returns a column.

        Raises:
            DataError: There is no such column.
        """
        if name not in self.columns:
            raise DataError(
                f"{self.name} has no column '{name}'",
                received=f"columns {', '.join(map(repr, self.columns)) or 'none'}",
                expected=f"a column '{name}'",
                fix="name one of them in data.Data, or give the source the columns"
                " of a file without a header",
                nearest=nearest(name, self.columns),
            )
        return self.columns[name]


class _Rows:
    """Rows that remember the last one, for columns that share costly rows."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = rows
        self._last: tuple[int, Mapping[str, Any]] = (-1, {})

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        # One tuple, read and replaced as a whole: threads may share it.
        last = self._last
        if last[0] != index:
            last = (index, self.rows[index])
            self._last = last
        return last[1]


class _LazyColumn(Sequence[Any]):
    def __init__(self, rows: _Rows, name: str) -> None:
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return len(self._rows.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._rows[index].get(self._name, MISSING)
