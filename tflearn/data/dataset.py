"""What loading gives: the usable rows of every split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tflearn.data.table import BadRow, Column, Table

if TYPE_CHECKING:
    from tflearn.data.data import Data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """The usable rows of one split.

    Args:
        name: `train`, `validation` or `test`.
        kind: What inputs are: `text`, `pair`, `image` or `vector`.
        inputs: Texts, pairs of texts, uint8 images `(height, width, channels)` that
            are decoded when asked for, or a float32 matrix `(n, size)`.
        targets: int32 `(n,)` class numbers, float32 `(n, classes)` ones and zeros,
            float32 `(n,)` numbers, texts `(n,)`, or None.
        slices: Values of the declared slice columns, each `(n,)` of texts.
        rows: Row numbers in the table, `(n,)`.
        table: Where the rows come from.
        bad: The rows that are left out because they cannot be used.
        digest: Fingerprint of what `rows` number, before any were left out; empty
            where nobody took it.
    """

    name: str
    kind: str
    inputs: Column
    targets: np.ndarray | None
    slices: Mapping[str, np.ndarray]
    rows: np.ndarray
    table: Table
    bad: tuple[BadRow, ...]
    digest: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def locate(self, index: int) -> str:
        """Returns the place of an example, such as `train.tsv:17`."""
        return self.table.locate(int(self.rows[index]))

    def ordinal(self, index: int) -> int:
        """Returns the number of an example among all rows of its files, from 0."""
        return int(self.table.ordinals[int(self.rows[index])])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """All splits.

    Args:
        splits: The splits by name.
        classes: Names of the classes in the order of the outputs; none for numbers.
        target_kind: `class`, `multi_label`, `number`, `text` or `none`.
        notes: Lines for the user: what was left out, repeated or not used, counted.
        fingerprint: Digest of the content of all splits and of the classes.
        data: The declaration.
    """

    splits: Mapping[str, Split]
    classes: tuple[str, ...]
    target_kind: str
    notes: tuple[str, ...]
    fingerprint: str
    data: Data
