"""What encoded examples of any kind can do."""

from __future__ import annotations

import abc
import copy
from collections.abc import Mapping
from typing import Self

import numpy as np

from tflearn.data.spec import Batch, TensorSpec


class Examples(abc.ABC):
    """Random access to the encoded examples of a split.

    Attributes:
        kind: `text`, `image` or `vector`.
        lengths: Tokens of each example, `(n,)`; None where all have one shape.
        padded_lengths: The lengths that batches are padded to, ascending.
        inputs: The arrays of an example by name.
        notes: Lines for the user about what was done to the examples.
        lazy: Whether making a batch costs so much that it is worth a process.
        compared: Whether the examples of a batch are compared with each other, so
            that rows sorted by class would be measured against their like alone.
    """

    kind: str
    inputs: Mapping[str, TensorSpec]
    lengths: np.ndarray | None = None
    padded_lengths: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    lazy: bool = False
    compared: bool = False

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of examples."""

    @abc.abstractmethod
    def batch(self, indices: np.ndarray, *, length: int | None = None) -> Batch:
        """Returns what a model takes for some examples."""

    def as_compared(self) -> Self:
        """Returns these examples marked as compared with each other in a batch."""
        marked = copy.copy(self)
        marked.compared = True
        return marked
