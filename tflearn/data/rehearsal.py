"""Rehearsal: a declared share of old data in each batch, against forgetting.

References:
    Robins 1995, https://doi.org/10.1080/09540099550039318
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tflearn.data import pipeline, validation
from tflearn.data.data import Data
from tflearn.data.dataset import Dataset, Split
from tflearn.data.examples import Examples
from tflearn.data.mixture import JoinedRows, Mixture, join, old_per_step
from tflearn.support import files
from tflearn.support.errors import ConfigError, DataError

# What is done to a whole batch, or to all examples alike, the stage's data declare.
_OF_THE_STAGE = ("balance", "max_length", "truncate", "workers")


Arrange = Callable[[Any, np.ndarray | None], Any]


class Mixed(NamedTuple):
    """New examples with old ones behind them, their targets, and who is who."""

    examples: Examples
    targets: np.ndarray | None
    mixture: Mixture | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Old training rows that are rehearsed while new ones are learned.

    Of a batch of `b` examples, `round(share * b)` are old ones, drawn in a shuffled
    order of their own: each old row comes once before any comes again. An epoch is
    what covers the new rows once.

    Args:
        data: Makes the old data; only its training rows are used. Augmentation,
            balance, length of texts and workers are those of the stage's data.
        share: Share of a batch that is old, between 0 and 1.

    Raises:
        ConfigError: The share is out of its range.

    Example:

    >>> Rehearsal(data=lambda: None, share=0.25).share
    0.25
    """

    data: Callable[[], Data]
    share: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(
                "rehearsal.Rehearsal.share is out of its range",
                received=self.share,
                expected="0 < share < 1",
            )

    def old_per_step(self, batch_size: int) -> int:
        """Returns how many examples of a batch are old."""
        return old_per_step(self.share, batch_size)

    def load(
        self, new: Dataset, encoder: Any, *, any_length: bool = False
    ) -> Rehearsed:
        """Loads and encodes the old rows.

        Args:
            new: The data of the stage.
            encoder: The backbone's encoder.
            any_length: As in `pipeline.encode`.

        Returns:
            The old rows, their targets numbered as those of the new data.

        Raises:
            ConfigError: The old data declare what the stage's data have to declare.
            DataError: They have other classes or another kind of inputs, or an old
                training row is held out in the new data.
        """
        declared = self.data()
        _check_declaration(declared, new.data)
        found = declared.load(target_kind=new.target_kind)
        old = _renumbered(found, new.classes)
        split = old.splits["train"]
        same = {name: getattr(new.data, name) for name in _OF_THE_STAGE}
        data = dataclasses.replace(declared, **same)
        examples = pipeline.encode(split, encoder, data=data, any_length=any_length)
        notes = [*found.notes, *_overlap(split, new), *examples.notes]
        return Rehearsed(
            dataset=dataclasses.replace(old, data=data),
            examples=examples,
            share=self.share,
            notes=tuple(f"rehearsal: {note}" for note in notes),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """Old rows that are ready to be mixed in.

    Args:
        dataset: The old data.
        examples: Its encoded training rows.
        share: Share of a batch that is old.
        notes: Lines for the user.
    """

    dataset: Dataset
    examples: Examples
    share: float
    notes: tuple[str, ...]

    @property
    def targets(self) -> np.ndarray | None:
        """The targets of the old training rows."""
        return self.dataset.splits["train"].targets

    def mix(
        self,
        new: Examples,
        targets: np.ndarray | None,
        *,
        old_targets: np.ndarray | None = None,
    ) -> Mixed:
        """Puts the old examples behind the new ones.

        Args:
            new: The new training examples.
            targets: Their targets.
            old_targets: Targets of the old examples; None: `targets` of this.

        Returns:
            Examples and targets of both.
        """
        behind = self.targets if old_targets is None else old_targets
        both = None
        if targets is not None and behind is not None:
            both = np.concatenate([targets, behind])
        mixture = Mixture(num_new=len(new), share=self.share)
        return Mixed(join(new, self.examples), both, mixture)

    def arrange(
        self,
        new: Examples,
        targets: np.ndarray | None,
        arrange: Arrange,
        *,
        arranged: Any,
    ) -> Mixed:
        """Arranges new and old examples for an objective that makes its own targets.

        Args:
            new: The new training examples.
            targets: Their targets, for an objective that wants some.
            arrange: Called with examples and targets.
            arranged: What it returned for the new examples.

        Returns:
            The arranged examples of both; `JoinedRows` where it makes rows of one
            length out of several texts.
        """
        if arranged.kind != "text" or arranged.lengths is not None:
            mixed = self.mix(new, targets)
            return mixed._replace(examples=arrange(mixed.examples, mixed.targets))
        old = arrange(self.examples, self.targets)
        mixture = Mixture(num_new=len(arranged), share=self.share)
        return Mixed(JoinedRows(arranged, old), None, mixture)


def _check_declaration(old: Data, new: Data) -> None:
    usual = {field.name: field.default for field in dataclasses.fields(Data)}
    for name in _OF_THE_STAGE:
        value = getattr(old, name)
        if value not in (usual[name], getattr(new, name)):
            raise ConfigError(
                f"the stage's data declare data.Data.{name}, not the rehearsed data",
                received=value,
                expected=getattr(new, name),
                fix=f"leave {name} out of the data of rehearsal.Rehearsal",
            )


def _renumbered(old: Dataset, classes: tuple[str, ...]) -> Dataset:
    """Numbers the classes of the training rows as the new data do."""
    if set(old.classes) != set(classes):
        raise DataError(
            "old and new data have other classes",
            received=f"of the old: {', '.join(old.classes)}",
            expected=f"those of the new: {', '.join(classes)}",
            fix="declare the same names in data.Data.classes of both",
        )
    split = old.splits["train"]
    targets = split.targets
    if targets is not None and old.classes != classes:
        order = [old.classes.index(name) for name in classes]
        if old.target_kind == "class":
            targets = np.argsort(order)[targets].astype(targets.dtype)
        else:
            targets = targets[:, order]
    train = dataclasses.replace(split, targets=targets)
    return dataclasses.replace(old, splits={"train": train}, classes=classes)


def _overlap(old: Split, new: Dataset) -> list[str]:
    """Looks for old training texts and vectors among the new held-out rows."""
    if old.kind == "image":
        # It would take decoding every image once more.
        return []
    notes: list[str] = []
    for name, split in new.splits.items():
        if name == "train" or split.kind != old.kind:
            continue
        notes += validation.check_overlap(
            {
                "train": [_digest(row) for row in old.inputs],
                name: [_digest(row) for row in split.inputs],
            },
            {"train": old.locate, name: split.locate},
            allowed=new.data.allow_overlap,
        )
    return notes


def _digest(row: Any) -> bytes:
    parts = row if isinstance(row, tuple) else (row,)
    raw = (part.tobytes() if isinstance(part, np.ndarray) else part for part in parts)
    return files.digest(*raw).encode()
