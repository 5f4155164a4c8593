"""What has to hold before anything is trained, and how failures are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from tflearn.data.table import BadRow
from tflearn.support.errors import DataError

#: How many places a message names.
PLACES = 3


def some(places: Iterable[object], separator: str = "; ") -> str:
    """Returns the first places, and how many there are besides.

    Example:
    >>> some(["a:1", "a:2", "a:3", "a:4"])
    'a:1; a:2; a:3; and 1 more'
    """
    listed = [str(place) for place in places]
    more = len(listed) - PLACES
    shown = listed[:PLACES] + ([f"and {more:,} more"] if more > 0 else [])
    return separator.join(shown)


def check_bad(split: str, bad: Sequence[BadRow], total: int, tolerance: float) -> None:
    """Fails if more rows of a split are unusable than is tolerated.

    Args:
        split: Name of the split.
        bad: The unusable rows.
        total: All rows, the unusable ones counted.
        tolerance: Share of rows that may be unusable.

    Raises:
        DataError: There are more.
    """
    if bad and len(bad) > tolerance * total:
        share = f"{len(bad) / total:.2%}"
        raise DataError(
            f"{len(bad):,} of {total:,} rows of '{split}' cannot be used",
            received=some(bad),
            expected=f"at most {tolerance:.2%} of the rows, not {share}",
            fix="correct or remove the rows, or declare "
            "data.Data.bad_row_tolerance to leave out such a share of them",
        )


def note_bad(split: str, bad: Sequence[BadRow], total: int) -> list[str]:
    """Returns the line about rows that were left out, if there are any."""
    if not bad:
        return []
    return [f"{split}: {len(bad):,} of {total:,} rows left out: {some(bad)}"]


def check_rows(split: str, count: int) -> None:
    """Raises a `DataError` if a split has no rows."""
    if not count:
        raise DataError(
            f"no usable row is left in '{split}'",
            fix="look at data.Data.only_classes, .splits and .bad_row_tolerance",
        )


def check_classes(classes: Sequence[str], counts: Counter[str]) -> None:
    """Fails if a class has no training example, or there is only one class.

    Raises:
        DataError: With the names of the classes.
    """
    empty = [name for name in classes if not counts[name]]
    if empty:
        raise DataError(
            f"{len(empty)} classes have no training example",
            received=some(map(repr, empty), ", "),
            expected=f"a training row of each of the {len(classes)} classes",
            fix="remove the classes from data.Data.classes, or add rows",
        )


def check_overlap(
    digests: Mapping[str, Sequence[bytes]],
    locate: Mapping[str, Callable[[int], str]],
    *,
    allowed: bool,
) -> list[str]:
    """Looks for the same example in two splits, and twice in the training rows.

    Args:
        digests: Digest of each input by split.
        locate: Gives the place of an example by split.
        allowed: Whether training rows may occur in other splits.

    Returns:
        Lines about what was found and is allowed.

    Raises:
        DataError: Training rows occur in another split, and that is not allowed.
    """
    notes: list[str] = []
    first = {
        split: dict(zip(reversed(values), range(len(values) - 1, -1, -1), strict=True))
        for split, values in digests.items()
    }
    if "train" in digests:
        repeated = len(digests["train"]) - len(first["train"])
        if repeated:
            notes.append(f"train: {repeated:,} rows repeat another training row")
    held_out = [split for split in digests if split != "train"]
    pairs = [(a, b) for a in ("train",) if a in first for b in held_out]
    pairs += [(a, b) for i, a in enumerate(held_out) for b in held_out[i + 1 :]]
    for a, b in pairs:
        places = [
            f"{locate[b](i)} = {locate[a](first[a][digest])}"
            for i, digest in enumerate(digests[b])
            if digest in first[a]
        ]
        if not places:
            continue
        line = f"{len(places):,} examples of '{b}' are also in '{a}'"
        if a == "train" and not allowed:
            raise DataError(
                line,
                received=some(places),
                expected="no training example in another split",
                fix="remove them from one of the files, or declare "
                "data.Data.allow_overlap = True",
            )
        notes.append(f"{line}: {some(places)}")
    return notes
