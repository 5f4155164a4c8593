"""The declaration of an experiment's data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

from tflearn.data import augmentation, loading, targets
from tflearn.data.dataset import Dataset
from tflearn.data.spec import TARGET_KINDS
from tflearn.data.splits import check_shares
from tflearn.data.waiting import STALL_SECONDS
from tflearn.support.errors import ConfigError, nearest

BALANCES = ("none", "class_weights", "sampling")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Which rows are examples, what their inputs and targets are, how they are fed.

    Args:
        source: A function of `data.sources`, or one of your own, that returns rows.
        input: The input column; two columns of texts are a pair of texts; numeric
            columns are put together to a vector.
        target: The target column. None: there are no targets.
        classes: Names of the classes in order. None: the source's own order, else
            the labels of the training rows, sorted.
        only_classes: Rows of other classes are left out and counted.
        splits: Shares of splits to draw, such as `{'train': 0.8, 'test': 0.2}`, from
            the rows of a source without splits, else from its training rows. Drawn
            by hash of the content, stratified by class.
        examples_per_class: At most so many training rows a class.
        labels: Only so many of the training rows, with the shares of the classes;
            fewer are a part of more.
        labels_seed: Another seed chooses other rows for `labels`; splits stay.
        split_seed: Another seed draws other splits and other few training rows.
        slices: Columns; the metrics of the test are given for each of their values.
        label_separator: What stands between the labels in a text, for multi-label
            targets.
        bad_row_tolerance: Share of a split's rows that may be unusable.
        allow_overlap: Whether training rows may occur in other splits.
        max_length: Longest text in tokens, special ones included. None: what the
            backbone takes. `auto`: a length that leaves 99.5 % of the training texts
            whole; longer ones are cut and counted.
        truncate: Whether longer texts are cut. Otherwise they are an error.
        augment: Makers of Keras layers that change training images.
        balance: `none`; `class_weights`: each class weighs the same in the loss;
            `sampling`: each class is drawn equally often.
        cache_bytes: Memory for decoded images of a split; one that needs more is kept
            in a file in the user's cache, decoded and resized, for later starts too.
        disk_bytes: Room for such files, all together. A split that needs more is
            decoded anew every epoch.
        workers: Processes that decode images anew every epoch: with them there is no
            file. 0: threads.
        stall_seconds: How long a batch that is read from files may take; after that
            the run ends and names its rows.

    Raises:
        ConfigError: Something of it is out of range.

    Example:
    >>> from tflearn.data import sources
    >>> data = Data(
    ...     source=lambda: sources.arrays(
    ...         {"train": {"text": ["good", "bad"], "label": ["1", "0"]}}
    ...     )
    ... )
    >>> data.load(target_kind="class").classes
    ('0', '1')
    """

    source: Callable[[], Any]
    input: str | tuple[str, ...] = "text"
    target: str | None = "label"
    classes: tuple[str, ...] | None = None
    only_classes: tuple[str, ...] | None = None
    splits: Mapping[str, float] | None = None
    examples_per_class: int | None = None
    labels: int | None = None
    labels_seed: int = 0
    split_seed: int = 0
    slices: tuple[str, ...] = ()
    label_separator: str | None = None
    bad_row_tolerance: float = 0.0
    allow_overlap: bool = False
    max_length: int | str | None = None
    truncate: bool = False
    augment: tuple[Callable[[], keras.Layer], ...] = ()
    balance: str = "none"
    cache_bytes: int = 2**31
    disk_bytes: int = 2**35
    workers: int = 0
    stall_seconds: float = STALL_SECONDS

    def __post_init__(self) -> None:
        if not callable(self.source):
            raise ConfigError(
                "data.Data.source takes a function",
                received=type(self.source).__name__,
                fix="write @data.sources.tsv, without parentheses",
            )
        for field in ("classes", "only_classes"):
            names = getattr(self, field)
            if names is not None:
                object.__setattr__(self, field, _class_names(field, names))
        for field in ("slices", "augment"):
            if isinstance(getattr(self, field), str) or callable(getattr(self, field)):
                raise ConfigError(
                    f"data.Data.{field} takes several values",
                    received=getattr(self, field),
                    expected="a tuple; one value is written (value,)",
                )
        self._check_numbers()
        if self.balance not in BALANCES:
            raise ConfigError(
                "no such way to balance classes",
                received=self.balance,
                expected=", ".join(BALANCES),
                nearest=nearest(str(self.balance), BALANCES),
            )
        if self.splits is not None:
            check_shares(self.splits)

    @property
    def mixes_labels(self) -> bool:
        """Whether an augmentation mixes images of several classes."""
        return augmentation.mixes_labels(self.augment)

    def load(self, *, target_kind: str, require_train: bool = True) -> Dataset:
        """Reads, checks and divides the rows.

        Args:
            target_kind: What targets are: `class`, `multi_label`, `number`, `text`,
                or `none` to leave them unread.
            require_train: Whether there have to be training rows. Without them,
                `classes` has to be declared for targets that name classes.

        Returns:
            The usable rows of every split.

        Raises:
            DataError: The data cannot be used as declared.
            ConfigError: The declaration does not fit the kind of targets.
        """
        if target_kind not in TARGET_KINDS:
            raise ConfigError(
                "no such kind of targets",
                received=target_kind,
                expected=", ".join(TARGET_KINDS),
            )
        self._check_kind(target_kind)
        return loading.load(self, target_kind, require_train=require_train)

    def _check_numbers(self) -> None:
        limits = {
            "examples_per_class": (1, None),
            "labels": (1, None),
            "max_length": (1, None),
            "cache_bytes": (0, None),
            "disk_bytes": (0, None),
            "workers": (0, None),
            "stall_seconds": (1, None),
            "bad_row_tolerance": (0, 1),
        }
        for field, (least, most) in limits.items():
            value = getattr(self, field)
            if value is None or (field == "max_length" and value == "auto"):
                continue
            if isinstance(value, str):
                raise ConfigError(
                    f"data.Data.{field} is a number",
                    received=value,
                    nearest="auto" if field == "max_length" else None,
                )
            if value < least or (most is not None and value > most):
                raise ConfigError(
                    f"data.Data.{field} is out of its range",
                    received=value,
                    expected=f"at least {least}"
                    + (f", at most {most}" if most else ""),
                )

    def _check_kind(self, kind: str) -> None:
        if kind == "class":
            return
        for field in ("only_classes", "examples_per_class"):
            if getattr(self, field) is not None:
                raise ConfigError(
                    f"data.Data.{field} needs targets that are one class each",
                    received=f"targets of kind '{kind}'",
                )
        if self.balance != "none":
            raise ConfigError(
                "classes can only be balanced where each example has one",
                received=f"balance = '{self.balance}', targets of kind '{kind}'",
            )


def _class_names(field: str, names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not hasattr(names, "__iter__"):
        raise ConfigError(
            f"data.Data.{field} takes several names",
            received=names,
            expected="a tuple such as ('negative', 'positive')",
        )
    try:
        result = tuple(targets.class_name(name) for name in names)
    except targets.Fault as fault:
        raise ConfigError(f"data.Data.{field}: {fault}", received=names) from fault
    if len(set(result)) != len(result) or not result:
        raise ConfigError(f"data.Data.{field} has no or repeated names", received=names)
    return result
