"""Groups of examples that are measured on their own."""

from __future__ import annotations

import numpy as np

# A column of free text or of measurements has no slices that anyone could read.
MOST_SLICES = 50


def groups(values: np.ndarray) -> dict[str, np.ndarray]:
    """Groups examples by the value of a column.

    Args:
        values: One value an example, `(examples,)`.

    Returns:
        The examples' indices by value, in the values' order. Of more than 50 values
        the 49 most frequent are kept and the others form one group that says so.

    Example:

    >>> found = groups(np.array(["b", "a", "b"]))
    >>> {name: rows.tolist() for name, rows in found.items()}
    {'a': [1], 'b': [0, 2]}
    """
    # Values of mixed type, such as None among strings, have an order as text only.
    text = values.astype(str) if values.dtype.kind == "O" else values
    names, place, counts = np.unique(text, return_inverse=True, return_counts=True)
    rows = np.split(np.argsort(place, kind="stable"), np.cumsum(counts)[:-1])
    if len(names) <= MOST_SLICES:
        return {str(name): found for name, found in zip(names, rows, strict=True)}
    order = np.argsort(-counts, kind="stable")
    kept, rest = np.sort(order[: MOST_SLICES - 1]), order[MOST_SLICES - 1 :]
    others = np.sort(np.concatenate([rows[index] for index in rest]))
    return {str(names[index]): rows[index] for index in kept} | {
        f"({len(rest)} other values)": others
    }
