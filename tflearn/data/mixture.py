"""Two sets of examples in one: their batches, and which of each a step holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tflearn.data.examples import (
    Examples,
    ImageExamples,
    TextExamples,
    VectorExamples,
)
from tflearn.data.order import Order
from tflearn.data.spec import Batch
from tflearn.support import seeds
from tflearn.support.errors import ConfigError, DataError


def old_per_step(share: float, batch_size: int) -> int:
    """Returns how many examples of a batch are old.

    Args:
        share: Share of a batch that is old.
        batch_size: Examples a step.

    Returns:
        `round(share * batch_size)`.

    Raises:
        ConfigError: That is none or all of a batch.

    Example:

    >>> old_per_step(0.25, 32)
    8
    """
    count = round(share * batch_size)
    if not 0 < count < batch_size:
        raise ConfigError(
            "this share of a batch leaves no room for old or for new examples",
            received=f"{share} of {batch_size} examples is {count}",
            expected=f"1 to {batch_size - 1} old examples a batch",
            fix="change rehearsal.Rehearsal.share or the batch size",
        )
    return count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """How new examples, which come first, and old ones share batches.

    Args:
        num_new: Number of new examples.
        share: Share of a batch that is old.
    """

    num_new: int
    share: float

    def split(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns what belongs to new and to old examples of an array `(n, ...)`."""
        return rows[: self.num_new], rows[self.num_new :]


class MixedOrder:
    """The examples of every step: first new ones, then old ones, each in their order.

    Args:
        count: Number of examples, new and old.
        mixture: Which of them are new, and the share.
        batch_size: Examples a step.
        seed: Seed of both orders.
        lengths: As in `Order`, for all examples.
        classes: As in `Order`, for all examples.
    """

    def __init__(
        self,
        count: int,
        mixture: Mixture,
        *,
        batch_size: int,
        seed: int,
        lengths: np.ndarray | None = None,
        classes: np.ndarray | None = None,
    ) -> None:
        num_old = old_per_step(mixture.share, batch_size)

        def order(part: int, size: int, rows: int, own_seed: int) -> Order:
            return Order(
                size,
                batch_size=rows,
                seed=own_seed,
                lengths=None if lengths is None else mixture.split(lengths)[part],
                classes=None if classes is None else mixture.split(classes)[part],
            )

        self._num_new = mixture.num_new
        self._new = order(0, mixture.num_new, batch_size - num_old, seed)
        own_seed = seeds.derive(seed, "old")
        self._old = order(1, count - mixture.num_new, num_old, own_seed)

    def indices(self, step: int) -> np.ndarray:
        """Returns the examples of a step, `(batch,)` int64."""
        new, old = self._new.indices(step), self._old.indices(step)
        return np.concatenate([new, self._num_new + old])


def order_of(
    count: int,
    mixture: Mixture | None,
    *,
    batch_size: int,
    seed: int,
    lengths: np.ndarray | None = None,
    classes: np.ndarray | None = None,
) -> Order | MixedOrder:
    """Makes the order of examples that are all new, or a mixture.

    Args:
        count: Number of examples.
        mixture: Which of them are new; None: all.
        batch_size: Examples a step.
        seed: Seed of the order.
        lengths: As in `Order`.
        classes: As in `Order`.

    Returns:
        The order.
    """
    if mixture is None:
        return Order(
            count, batch_size=batch_size, seed=seed, lengths=lengths, classes=classes
        )
    return MixedOrder(
        count,
        mixture,
        batch_size=batch_size,
        seed=seed,
        lengths=lengths,
        classes=classes,
    )


def join(new: Examples, old: Examples) -> Examples:
    """Puts two sets of examples behind each other.

    Args:
        new: The first ones.
        old: Those behind them, encoded by the same encoder.

    Returns:
        Examples of the class of both; the first `len(new)` are the new ones.

    Raises:
        DataError: They are of two kinds.
    """
    if isinstance(new, TextExamples) and isinstance(old, TextExamples):
        return new.followed_by(old)
    if isinstance(new, VectorExamples) and isinstance(old, VectorExamples):
        return new.followed_by(old)
    if isinstance(new, ImageExamples) and isinstance(old, ImageExamples):
        return JoinedImages(new, old)
    raise DataError(
        "old and new examples are not of one kind",
        received=f"old: {old.kind} ({type(old).__name__})",
        expected=f"{new.kind} ({type(new).__name__})",
    )


class JoinedImages(ImageExamples):
    """Two sets of images of one size; neither is copied.

    Args:
        new: The first ones.
        old: Those behind them.
    """

    def __init__(self, new: ImageExamples, old: ImageExamples) -> None:
        # Not that of the base class, which would decode the images.
        self._new, self._old = new, old
        self.image_shape = new.image_shape
        self.inputs = new.inputs
        self.notes = (*new.notes, *old.notes)
        self.lazy = new.lazy or old.lazy

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Returns uint8 images `(batch, height, width, channels)`."""
        indices = np.asarray(indices)
        is_old = indices >= len(self._new)
        result = np.empty((len(indices), *self.image_shape), np.uint8)
        # An empty list of images cannot be stacked.
        if not is_old.all():
            result[~is_old] = self._new.pixels(indices[~is_old])
        if is_old.any():
            result[is_old] = self._old.pixels(indices[is_old] - len(self._new))
        return result

    def scale(self, pixels: np.ndarray) -> np.ndarray:
        """Returns what the model takes for uint8 images."""
        return self._new.scale(pixels)


class JoinedRows(Examples):
    """Two sets of rows of one shape, such as packed documents.

    A row is made of several examples, so the sets stay apart, and an objective makes
    its batches of each by itself.

    Args:
        new: The first ones.
        old: Those behind them.
    """

    def __init__(self, new: Examples, old: Examples) -> None:
        self._new, self._old = new, old
        self.kind = new.kind
        self.inputs = new.inputs
        self.notes = (*new.notes, *old.notes)

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def batch(self, indices: np.ndarray, *, length: int | None = None) -> Batch:
        """Returns what a model takes for some rows, new ones first."""
        return self.each(indices, lambda rows, some: rows.batch(some, length=length))

    def each(self, indices: np.ndarray, make: Callable[[Any, np.ndarray], Any]) -> Any:
        """Makes something of the new rows and of the old, and puts it together.

        Args:
            indices: Which rows, `(batch,)`.
            make: Called with rows and indices; returns arrays in any structure.

        Returns:
            The same structure; new rows come first.
        """
        indices = np.asarray(indices)
        is_old = indices >= len(self._new)
        pairs = (
            (self._new, indices[~is_old]),
            (self._old, indices[is_old] - len(self._new)),
        )
        made = [make(rows, some) for rows, some in pairs if len(some)]
        return keras.tree.map_structure(lambda *x: np.concatenate(x), *made)
