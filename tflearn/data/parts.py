"""The usable rows of one split: read, checked, with the place of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tflearn.data import inputs, paths, targets, validation
from tflearn.data.table import BadRow, Column, Table
from tflearn.support.errors import DataError, nearest

if TYPE_CHECKING:
    from tflearn.data.data import Data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """The usable rows of a split while it is loaded.

    Args:
        table: Where they come from.
        kind: Kind of the inputs.
        values: The inputs.
        rows: Row numbers in the table.
        digests: Digest of each input.
        labels: Class, labels or number of each row; None without targets.
        bad: Unusable rows.
        total: Rows, the unusable ones counted.
    """

    table: Table
    kind: str
    values: Column
    rows: np.ndarray
    digests: list[bytes]
    labels: list[targets.Label] | None
    bad: tuple[BadRow, ...]
    total: int

    def locate(self, index: int) -> str:
        """Returns the place of a usable row."""
        return self.table.locate(int(self.rows[index]))

    def take(self, positions: np.ndarray) -> Part:
        """Returns some of the rows, and all that is known of the unusable ones."""
        chosen = positions.tolist()
        return dataclasses.replace(
            self,
            values=inputs.take(self.values, positions),
            rows=self.rows[positions],
            digests=[self.digests[i] for i in chosen],
            labels=None if self.labels is None else [self.labels[i] for i in chosen],
            total=len(chosen),
        )


def read(table: Table, split: str, data: Data, kind: str, notes: list[str]) -> Part:
    """Reads a table's inputs and targets.

    Rows of classes that are not wanted are left out before their inputs are read.

    Args:
        table: The table.
        split: Name of the split.
        data: The declaration.
        kind: `class`, `multi_label`, `number` or `none`.
        notes: Gets lines about what was left out.

    Returns:
        The usable rows.

    Raises:
        DataError: More rows than tolerated cannot be used, or a column is missing.
    """
    if not len(table) and not table.bad:
        raise DataError(f"{table.name} has no rows")
    for name in data.slices:
        table.column(name)
    labels, faults = _labels(table, data, kind)
    rows = _wanted(table, split, data, labels, notes)
    faults = {row: faults[row] for row in rows if row in faults}
    if data.classes is not None:
        faults |= _outside(rows, labels, data.classes)
    found = inputs.read(table, data.input, rows)
    faults = found.faults | faults
    bad = [*table.bad, *(_bad(table, row, faults[row]) for row in faults)]
    usable = np.asarray([r for r in found.rows.tolist() if r not in faults], np.int64)
    part = Part(
        table=table,
        kind=found.kind,
        values=found.values,
        rows=found.rows,
        digests=found.digests,
        labels=None,
        bad=tuple(sorted(bad, key=lambda row: row.ordinal)),
        total=len(rows) + len(table.bad),
    )
    validation.check_bad(split, part.bad, part.total, data.bad_row_tolerance)
    kept = part.take(np.searchsorted(found.rows, usable))
    kept_labels = [labels[row] for row in usable.tolist()] if labels else None
    return dataclasses.replace(kept, labels=kept_labels, total=part.total)


def without_unknown(part: Part, split: str, classes: Sequence[str], data: Data) -> Part:
    """Leaves out rows with labels that no training row has.

    Raises:
        DataError: More rows than tolerated cannot be used.
    """
    faults = {
        i: fault
        for i, label in enumerate(part.labels or ())
        if (fault := targets.unknown(label, classes, declared=False))
    }
    if not faults:
        return part
    new = [_bad(part.table, int(part.rows[i]), fault) for i, fault in faults.items()]
    bad = tuple(sorted((*part.bad, *new), key=lambda row: row.ordinal))
    validation.check_bad(split, bad, part.total, data.bad_row_tolerance)
    keep = np.asarray([i for i in range(len(part.rows)) if i not in faults], np.int64)
    return dataclasses.replace(part.take(keep), bad=bad, total=part.total)


def _wanted(
    table: Table,
    split: str,
    data: Data,
    labels: Mapping[int, targets.Label],
    notes: list[str],
) -> list[int]:
    """Returns the rows of the wanted classes, and those without a readable label."""
    only = data.only_classes
    if only is None:
        return list(range(len(table)))
    known = {str(label) for label in labels.values()}
    for name in only:
        # A held-out split may lack a class; training rows are checked later as well.
        if name not in known and split in (paths.ALL, "train"):
            raise DataError(
                f"{table.name} has no row of a class in only_classes",
                received=name,
                expected=f"one of {', '.join(targets.sort_classes(known))}",
                nearest=nearest(name, known),
            )
    rows = [row for row in range(len(table)) if labels.get(row, only[0]) in only]
    if len(rows) < len(table):
        notes.append(
            f"{split}: {len(table) - len(rows):,} of {len(table):,} rows are of other "
            f"classes than {', '.join(only)}"
        )
    return rows


def _outside(
    rows: Sequence[int], labels: Mapping[int, targets.Label], classes: Sequence[str]
) -> dict[int, str]:
    """Returns why labels are outside of the declared classes, by row."""
    known: dict[targets.Label, str | None] = {}
    faults = {}
    for row in rows:
        if row not in labels:
            continue
        label = labels[row]
        if label not in known:
            known[label] = targets.unknown(label, classes, declared=True)
        fault = known[label]
        if fault:
            faults[row] = fault
    return faults


def _bad(table: Table, row: int, reason: str) -> BadRow:
    return BadRow(
        location=table.locate(row), reason=reason, ordinal=int(table.ordinals[row])
    )


def _labels(
    table: Table, data: Data, kind: str
) -> tuple[dict[int, targets.Label], dict[int, str]]:
    if kind == "none":
        return {}, {}
    if data.target is None:
        raise DataError(
            "no target column is declared",
            expected=f"one that holds targets of kind '{kind}'",
            fix="data.Data.target = 'label'",
        )
    column = table.column(data.target)

    def read(value: Any) -> targets.Label:
        if kind == "class":
            return targets.class_name(value)
        if kind == "number":
            return targets.number(value)
        if kind == "text":
            return targets.text(value)
        return targets.labels(
            value, separator=data.label_separator, classes=data.classes
        )

    labels: dict[int, targets.Label] = {}
    faults: dict[int, str] = {}
    for row in range(len(table)):
        try:
            labels[row] = read(column[row])
        except targets.Fault as fault:
            faults[row] = str(fault)
    return labels, faults
