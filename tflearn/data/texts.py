"""The corpus that a tokenizer is trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tflearn.data.data import Data
from tflearn.data.dataset import Split
from tflearn.support.errors import DataError


def training_texts(
    data: Callable[[], Data],
    *,
    target_kind: str | None = None,
    column: str | None = None,
) -> list[str]:
    """Returns the texts of the training rows, never those of another split.

    Args:
        data: Makes the data, as a stage's own.
        target_kind: What the stage's objective takes as targets: `class`,
            `multi_label`, `number`, `text` or `none`. It matters where splits are
            drawn, since they are drawn by class; elsewhere `none` is taken.
        column: The column of texts, where they are not the inputs: the captions of
            images.

    Returns:
        The texts in the order of the rows; of a pair, both.

    Raises:
        DataError: These are not texts, or it is open how splits are drawn.

    Example:

    >>> from tflearn.data import sources
    >>> rows = {"train": {"text": ["a b", "c"]}, "test": {"text": ["d"]}}
    >>> training_texts(lambda: Data(source=lambda: sources.arrays(rows), target=None))
    ['a b', 'c']
    """
    declared = data()
    chosen = declared.splits or declared.only_classes or declared.examples_per_class
    if target_kind is None and chosen and declared.target is not None:
        raise DataError(
            "which rows are for training depends on the kind of targets",
            received=f"splits to draw, and the target '{declared.target}'",
            fix="bind data.training_texts.target_kind to 'class' for "
            "classification, to 'text' for captions, to 'none' for an objective "
            "without labels",
        )
    split = declared.load(target_kind=target_kind or "none").splits["train"]
    if column is not None:
        return _of_column(split, column)
    if split.kind == "text":
        return list(split.inputs)
    if split.kind == "pair":
        return [text for pair in split.inputs for text in pair]
    raise DataError(
        "a tokenizer is trained on texts",
        received=f"inputs of kind '{split.kind}' (column {declared.input!r})",
        fix="name the column of texts in data.Data.input",
    )


def _of_column(split: Split, column: str) -> list[str]:
    values = split.table.column(column)
    texts: list[Any] = [values[row] for row in split.rows.tolist()]
    wrong = [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise DataError(
            "a tokenizer is trained on texts",
            received=f"{type(wrong[0]).__name__} in the column {column!r}",
        )
    return texts
