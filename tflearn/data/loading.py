"""From a declaration to the usable rows of every split: the order of the steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tflearn.data import parts, paths, splits, targets, validation
from tflearn.data.dataset import Dataset, Split
from tflearn.data.parts import Part
from tflearn.data.table import Table
from tflearn.support import files
from tflearn.support.errors import DataError

if TYPE_CHECKING:
    from tflearn.data.data import Data


def load(data: Data, target_kind: str, *, require_train: bool) -> Dataset:
    """Loads a declaration's rows.

    The order: the source; inputs and targets of every row, and which rows cannot be
    used; splits, where they are to be drawn; classes; labels that training rows do
    not have; the few training rows; what only shows over all splits.

    Args:
        data: The declaration.
        target_kind: `class`, `multi_label`, `number`, `text` or `none`.
        require_train: Whether there have to be training rows.

    Returns:
        The rows of every split.

    Raises:
        DataError: The data cannot be used as declared.
    """
    notes: list[str] = []
    found = {
        split: parts.read(table, split, data, target_kind, notes)
        for split, table in _tables(data.source, notes).items()
    }
    found = _draw(found, data, target_kind, require_train=require_train)
    classes = _classes(found, data, target_kind)
    if classes and data.classes is None:
        found = {
            split: parts.without_unknown(part, split, classes, data)
            for split, part in found.items()
        }
    if data.examples_per_class is not None and "train" in found:
        found["train"] = _few(found["train"], classes, data, notes)
    if data.labels is not None and "train" in found:
        found["train"] = _nested(found["train"], target_kind, data, notes)
    if require_train:
        # Otherwise somebody wants to know of each row what is wrong with it.
        for split, part in found.items():
            validation.check_rows(split, len(part.rows))
    notes += _check(found, classes, data)
    made = {
        split: _split(split, part, data, target_kind, classes)
        for split, part in found.items()
    }
    return Dataset(
        splits=made,
        classes=classes,
        target_kind=target_kind,
        notes=tuple(notes),
        fingerprint=_fingerprint(made, found, classes),
        data=data,
    )


def _check(found: Mapping[str, Part], classes: Sequence[str], data: Data) -> list[str]:
    """Checks what shows over all splits; returns lines about what was found."""
    notes: list[str] = []
    for split, part in found.items():
        notes += validation.note_bad(split, part.bad, part.total)
    if classes and "train" in found:
        validation.check_classes(classes, targets.count(found["train"].labels or ()))
    return notes + validation.check_overlap(
        {split: part.digests for split, part in found.items()},
        {split: part.locate for split, part in found.items()},
        allowed=data.allow_overlap,
    )


def _tables(source: Callable[[], Any], notes: list[str]) -> dict[str, Table]:
    """Calls the source and returns its tables under the names of the splits."""
    name = getattr(source, "__name__", type(source).__name__)
    given = source()
    if not isinstance(given, Mapping):
        given = {paths.ALL: given}
    tables: dict[str, Table] = {}
    for split, rows in given.items():
        split = paths.split_name(str(split))
        if split in tables:
            raise DataError("the source gives a split twice", received=split)
        if split not in (*paths.SPLITS, paths.ALL):
            notes.append(f"split '{split}' is not used: {len(rows):,} rows")
            continue
        if not isinstance(rows, Sequence) and not hasattr(rows, "__getitem__"):
            raise DataError(
                f"the source '{name}' gives rows that cannot be counted",
                received=type(rows).__name__,
                expected="a sequence of dicts, such as a list, or one for each split",
            )
        where = name if split == paths.ALL else f"{name}:{split}"
        table = rows if isinstance(rows, Table) else Table.from_rows(rows, name=where)
        notes.extend(table.notes)
        tables[split] = table
    if not tables:
        raise DataError(
            f"the source '{name}' gives no split that is known",
            received=", ".join(map(str, given)) or "nothing",
            expected=", ".join(paths.SPLITS),
        )
    return {split: tables[split] for split in sorted(tables, key=_order)}


def _order(split: str) -> int:
    return (*paths.SPLITS, paths.ALL).index(split)


def _draw(
    found: dict[str, Part], data: Data, kind: str, *, require_train: bool
) -> dict[str, Part]:
    """Draws the declared splits; every row then lies in a named split."""
    if data.splits is None:
        _check_given(found, require_train=require_train)
        return found
    shares = splits.check_shares(data.splits)
    origin = paths.ALL if paths.ALL in found else "train"
    if origin not in found or (set(found) - {origin}) & set(shares):
        raise DataError(
            "a split is both given by the source and to be drawn",
            received=f"given {', '.join(found)}; drawn {', '.join(shares)}",
            fix="leave the split out of data.Data.splits or of the source's paths",
        )
    part = found.pop(origin)
    # Any other kind of label would make nearly every row a stratum.
    stratified = kind == "class" and part.labels
    strata = part.labels if stratified and part.labels else [""] * len(part.rows)
    drawn = splits.draw(part.digests, strata, shares, seed=data.split_seed)
    made = {split: part.take(rows) for split, rows in drawn.items()}
    for split, taken in made.items():
        # The unusable rows have no split; they are told of with the training rows.
        bad = part.bad if split == "train" else ()
        total = len(taken.rows) + len(bad)
        made[split] = dataclasses.replace(taken, bad=bad, total=total)
    merged = found | made
    return {split: merged[split] for split in sorted(merged, key=_order)}


def _check_given(found: Mapping[str, Part], *, require_train: bool) -> None:
    if paths.ALL in found:
        raise DataError(
            f"the source gives {found[paths.ALL].table.name} and no splits",
            fix="declare data.Data.splits = {'train': 0.8, 'validation': 0.1, "
            "'test': 0.1}, or give the source paths by split",
        )
    if require_train and "train" not in found:
        raise DataError(
            "there are no training rows",
            received=f"splits {', '.join(found)}",
            expected="a split 'train'",
        )


def _classes(found: Mapping[str, Part], data: Data, kind: str) -> tuple[str, ...]:
    if kind not in ("class", "multi_label"):
        return ()
    if data.classes is not None:
        only = data.only_classes or data.classes
        return tuple(name for name in data.classes if name in only)
    if "train" not in found:
        raise DataError(
            "without training rows the classes are not known",
            fix="declare data.Data.classes",
        )
    train = found["train"]
    names = targets.count(train.labels or ())
    order = train.table.classes
    if order is not None and set(names) <= set(order):
        return tuple(name for name in order if name in names)
    return targets.sort_classes(names)


def _few(part: Part, classes: Sequence[str], data: Data, notes: list[str]) -> Part:
    limit = data.examples_per_class or 0
    numbered = targets.to_array(part.labels or (), "class", classes)
    chosen = splits.few(part.digests, numbered, limit, seed=data.split_seed)
    notes.append(
        f"train: {len(chosen):,} of {len(part.rows):,} rows, at most {limit} a class"
    )
    counts = np.bincount(numbered[chosen], minlength=len(classes))
    short = [name for name, n in zip(classes, counts, strict=True) if n < limit]
    if short:
        notes.append(f"train: fewer than {limit} rows of {', '.join(short)}")
    return dataclasses.replace(part.take(chosen), total=len(chosen) + len(part.bad))


def _nested(part: Part, kind: str, data: Data, notes: list[str]) -> Part:
    count = data.labels or 0
    strata = part.labels if kind == "class" and part.labels else [""] * len(part.rows)
    chosen = splits.nested(part.digests, strata, count, seed=data.labels_seed)
    notes.append(f"train: {len(chosen):,} of {len(part.rows):,} rows are used")
    return dataclasses.replace(part.take(chosen), total=len(chosen) + len(part.bad))


def _split(
    name: str, part: Part, data: Data, kind: str, classes: Sequence[str]
) -> Split:
    values = None
    if kind != "none":
        values = targets.to_array(part.labels or (), kind, classes)
    slices = {}
    for column in data.slices:
        whole = part.table.column(column)
        slices[column] = np.asarray([str(whole[row]) for row in part.rows.tolist()])
    return Split(
        name=name,
        kind=part.kind,
        inputs=part.values,
        targets=values,
        slices=slices,
        rows=part.rows,
        table=part.table,
        bad=part.bad,
        digest=files.digest(*part.digests, part.rows.tobytes()),
    )


def _fingerprint(
    made: Mapping[str, Split], found: Mapping[str, Part], classes: Sequence[str]
) -> str:
    pieces: list[bytes | str] = ["/".join(classes)]
    for name, split in sorted(made.items()):
        pieces += [name, b"".join(found[name].digests)]
        pieces.append(b"" if split.targets is None else split.targets.tobytes())
    return files.digest(*pieces)
