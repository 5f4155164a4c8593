"""Batches before augmentation: of labelled rows, or as an objective makes them.

The batch of a step is a pure function of data, seed and step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tflearn.data.examples import Examples, ImageExamples
from tflearn.data.mixture import JoinedRows, MixedOrder
from tflearn.data.order import Order
from tflearn.data.padding import padded_length

#: Inputs, targets, and weights of the examples if there are any.
TrainBatch = tuple[Any, ...]

MakeBatch = Callable[[Any, np.ndarray, np.random.Generator], TrainBatch]

#: Gives the rows of a batch of some size that this process makes.
Share = Callable[[int], np.ndarray]


class RawBatches:
    """Batches before augmentation and scaling: what a worker process can make.

    Args:
        examples: The training examples.
        targets: Their targets.
        order: Which examples a step holds.
        weights: Weight of each example in the loss, or None.
        pixels: Whether images are left as uint8 pixels.
    """

    def __init__(
        self,
        examples: Examples,
        targets: np.ndarray,
        order: Order | MixedOrder,
        *,
        weights: np.ndarray | None,
        pixels: bool,
    ) -> None:
        self._examples = examples
        self._targets = targets
        self.order = order
        self._weights = weights
        self._pixels = pixels

    def __len__(self) -> int:
        # Grain wants a length; the stream has no end.
        return 2**62

    def __getitem__(self, step: int) -> TrainBatch:
        return self.part(step, None)

    def part(self, step: int, share: Share | None) -> TrainBatch:
        """Returns the rows of a batch that this process makes, and reads no others."""
        indices = self.order.indices(int(step))
        length = padded_length(self._examples, indices)
        if share is not None:
            indices = indices[share(len(indices))]
        if self._pixels and isinstance(self._examples, ImageExamples):
            inputs: Any = self._examples.pixels(indices)
        else:
            inputs = self._examples.batch(indices, length=length)
        batch = (inputs, self._targets[indices])
        return batch if self._weights is None else (*batch, self._weights[indices])

    def over(self, examples: Examples) -> RawBatches:
        """Returns these batches made of something else for the same rows."""
        other = copy.copy(self)
        other._examples, other._pixels = examples, False
        return other


class MadeBatches:
    """Batches that an objective makes of examples, itself without labels.

    Args:
        examples: The training examples.
        order: Which examples a step holds.
        make_batch: Called with examples, indices `(batch,)` and a generator.
        seed: Seed of the generators.
    """

    def __init__(
        self,
        examples: Examples,
        order: Order | MixedOrder,
        make_batch: MakeBatch,
        *,
        seed: int,
    ) -> None:
        self._examples = examples
        self.order = order
        self._make_batch = make_batch
        self._seed = seed

    def __len__(self) -> int:
        return 2**62

    def part(self, step: int, share: Share | None) -> TrainBatch:
        """Returns the rows of a batch that this process trains on.

        The whole is made: what is drawn for a row hangs on the rows before it, and
        some objectives compare rows.
        """
        return own_rows(self[step], share)

    def over(self, examples: Examples) -> MadeBatches:
        """Returns these batches made of something else for the same rows."""
        other = copy.copy(self)
        other._examples = examples
        return other

    def __getitem__(self, step: int) -> TrainBatch:
        indices = self.order.indices(int(step))
        rng = generator(self._seed, int(step))
        if isinstance(self._examples, JoinedRows):
            return self._examples.each(
                indices, lambda rows, some: self._make_batch(rows, some, rng)
            )
        return self._make_batch(self._examples, indices, rng)


def own_rows(batch: Any, share: Share | None) -> Any:
    """Returns the rows of a batch that this process makes.

    Args:
        batch: Arrays `(batch, ...)` in any structure; they may differ in their length.
        share: Gives the rows; None for all.
    """
    if share is None:
        return batch
    return keras.tree.map_structure(lambda array: array[share(len(array))], batch)


def generator(seed: int, step: int) -> np.random.Generator:
    """Returns the random generator of a step, a pure function of both."""
    return np.random.Generator(np.random.Philox(key=[seed, step]))
