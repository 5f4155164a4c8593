"""Reading the targets of rows: a class, several labels, a number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tflearn.data.table import MISSING
from tflearn.support.errors import nearest

#: A class, the labels of an example, or a number.
Label = str | tuple[str, ...] | float


class Fault(Exception):
    """Why a target cannot be used."""


def class_name(value: Any) -> str:
    """Returns the name of a class: numbers become their digits.

    Args:
        value: A text, an integer, a whole float, a boolean or bytes.

    Returns:
        The name.

    Raises:
        Fault: There is no label, or it is none of these.

    Example:
    >>> class_name(1.0)
    '1'
    """
    if value is None or value is MISSING:
        raise Fault("no label")
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        if not value.strip():
            raise Fault("empty label")
        return str(value)
    if (
        isinstance(value, np.ndarray)
        and value.ndim == 0
        or isinstance(value, np.generic)
    ):
        value = value.item()
    if isinstance(value, float):
        if math.isnan(value):
            raise Fault("no label")
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, int):
        return str(value)
    raise Fault(f"{type(value).__name__} instead of a label")


def labels(
    value: Any, *, separator: str | None, classes: Sequence[str] | None
) -> tuple[str, ...]:
    """Returns the names of an example's labels.

    Args:
        value: A list of labels, a text with labels between separators, or an array
            with 1 at the labels that hold.
        separator: What stands between labels in a text.
        classes: Declared names; an array of ones and zeros refers to them by place.

    Returns:
        The names, each once. An empty text or list has none.

    Raises:
        Fault: It is none of these.
    """
    if value is None or value is MISSING:
        raise Fault("no labels")
    if isinstance(value, str):
        if separator is None:
            raise Fault("a text instead of a list of labels (declare label_separator)")
        parts = (part.strip() for part in value.split(separator))
        return tuple(dict.fromkeys(part for part in parts if part))
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return _indicated(value, classes)
    if isinstance(value, (list, tuple, np.ndarray)):
        return tuple(dict.fromkeys(class_name(item) for item in value))
    raise Fault(f"{type(value).__name__} instead of a list of labels")


def number(value: Any) -> float:
    """Returns a finite number.

    Raises:
        Fault: It is none.
    """
    if value is None or value is MISSING:
        raise Fault("no number")
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise Fault(f"{value!r} is not a number") from None
    if not math.isfinite(result):
        raise Fault(f"{result} instead of a number")
    return result


def text(value: Any) -> str:
    """Returns a text that is not empty.

    Raises:
        Fault: It is none.
    """
    if not isinstance(value, str) or not value.strip():
        raise Fault("no text as a target")
    return value


def unknown(label: Label, classes: Sequence[str], *, declared: bool) -> str | None:
    """Returns why a label is outside of the classes, or None if it is inside."""
    names = label if isinstance(label, tuple) else (str(label),)
    for name in names:
        if name not in classes:
            reason = (
                f"label '{name}' is outside of the declared classes"
                if declared
                else f"label '{name}' never occurs in the training rows"
            )
            shown = ", ".join(map(repr, classes[:10]))
            more = ", ..." if len(classes) > 10 else ""
            close = nearest(name, classes)
            hint = f"; did you mean '{close}'?" if close else ""
            return f"{reason} ({shown}{more}){hint}"
    return None


def sort_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Sorts names of classes; whole numbers by value.

    Example:
    >>> sort_classes(["10", "9"])
    ('9', '10')
    """
    unique = set(names)
    if all(name.lstrip("-").isdecimal() and name.isascii() for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


def to_array(labels: Sequence[Label], kind: str, classes: Sequence[str]) -> np.ndarray:
    """Returns targets as an array.

    Args:
        labels: The label of each example.
        kind: `class`, `multi_label`, `number` or `text`.
        classes: Names of the classes.

    Returns:
        int32 `(n,)` class numbers, float32 `(n, classes)` ones and zeros, or float32
        `(n,)` numbers; or texts `(n,)`.
    """
    if kind == "number":
        return np.asarray(labels, dtype=np.float32)
    if kind == "text":
        return np.asarray(labels, dtype=np.str_)
    place = {name: number for number, name in enumerate(classes)}
    if kind == "class":
        numbered = (place[str(label)] for label in labels)
        return np.fromiter(numbered, dtype=np.int32, count=len(labels))
    result = np.zeros((len(labels), len(classes)), dtype=np.float32)
    for row, names in enumerate(labels):
        for name in names if isinstance(names, tuple) else ():
            result[row, place[name]] = 1.0
    return result


def count(labels: Iterable[Label]) -> Counter[str]:
    """Counts how often each class or label occurs."""
    total: Counter[str] = Counter()
    for label in labels:
        total.update(label if isinstance(label, tuple) else (str(label),))
    return total


def class_weights(classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns weights that let each class count the same in the loss.

    An example of class `c` weighs `n / (C * n_c)`: `n` examples, `C` classes, `n_c`
    examples of the class. The mean over all examples is 1.

    Args:
        classes: Class numbers, `(n,)`.
        num_classes: Number of classes.

    Returns:
        float32 `(n,)`.

    Example:
    >>> class_weights(np.array([0, 0, 0, 1]), 2)[2:].round(3)
    array([0.667, 2.   ], dtype=float32)
    """
    counts = np.bincount(classes, minlength=num_classes)
    weights = len(classes) / (num_classes * np.maximum(counts, 1))
    return weights[classes].astype(np.float32)


def _indicated(value: np.ndarray, classes: Sequence[str] | None) -> tuple[str, ...]:
    flat = value.reshape(-1)
    if not np.isin(flat, (0, 1)).all():
        raise Fault("an array with other entries than 0 and 1 as labels")
    if classes is not None and len(flat) != len(classes):
        raise Fault(f"{len(flat)} ones and zeros for {len(classes)} classes")
    names = classes or [str(place) for place in range(len(flat))]
    return tuple(names[int(place)] for place in np.flatnonzero(flat))
