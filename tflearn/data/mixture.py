"""Two sets of examples in one: their batches, and which of each a step holds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tflearn.data.examples import Examples, ImageExamples, fitting_lengths
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
        Examples `0` to `len(new) - 1` are the new ones.

    Raises:
        DataError: They are of two kinds or shapes.
    """
    if new.kind != old.kind or set(new.inputs) != set(old.inputs):
        raise DataError(
            "old and new examples are not of one kind",
            received=f"old: {old.kind} ({', '.join(old.inputs)})",
            expected=f"{new.kind} ({', '.join(new.inputs)})",
        )
    if isinstance(new, ImageExamples) and isinstance(old, ImageExamples):
        return JoinedImages(new, old)
    return Joined(new, old)


class Joined(Examples):
    """Two sets of examples, batches of both padded to one length.

    Args:
        new: The first ones.
        old: Those behind them.
    """

    def __init__(self, new: Examples, old: Examples) -> None:
        self._parts = (new, old)
        self.kind = new.kind
        self.inputs = new.inputs
        self.notes = (*new.notes, *old.notes)
        self.lazy = new.lazy or old.lazy
        if new.lengths is not None and old.lengths is not None:
            self.lengths = np.concatenate([new.lengths, old.lengths])
            # Of both sets together: the lengths of each would be twice as many shapes
            # to compile for.
            limit = max(*new.padded_lengths, *old.padded_lengths)
            self.padded_lengths = fitting_lengths(self.lengths, limit)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def batch(self, indices: np.ndarray, *, length: int | None = None) -> Batch:
        """Returns what a model takes for some examples, in the order of the indices.

        Args:
            indices: Which examples, `(batch,)`.
            length: Length to pad to; None: one that holds all of them.
        """
        if length is None and self.lengths is not None:
            longest = int(np.max(self.lengths[indices]))
            length = next(fit for fit in self.padded_lengths if fit >= longest)
        new, old = self._parts
        take = functools.partial(_gather, np.asarray(indices), len(new))
        return take(
            functools.partial(new.batch, length=length),
            functools.partial(old.batch, length=length),
        )


class JoinedImages(ImageExamples):
    """Two sets of images of one size.

    Args:
        new: The first ones.
        old: Those behind them.
    """

    def __init__(self, new: ImageExamples, old: ImageExamples) -> None:
        # Neither set is encoded anew: the constructor of the base class is not called.
        self._parts = (new, old)
        self.image_shape = new.image_shape
        self.inputs = new.inputs
        self.notes = (*new.notes, *old.notes)
        self.lazy = new.lazy or old.lazy

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Returns uint8 images `(batch, height, width, channels)`."""
        new, old = self._parts
        return _gather(np.asarray(indices), len(new), new.pixels, old.pixels)

    def scale(self, pixels: np.ndarray) -> np.ndarray:
        """Returns what the model takes for uint8 images."""
        return self._parts[0].scale(pixels)


def _gather(
    indices: np.ndarray,
    num_new: int,
    new: Callable[[np.ndarray], Any],
    old: Callable[[np.ndarray], Any],
) -> Any:
    """Takes rows of two sets, each from its own function, in the order of indices."""
    is_old = indices >= num_new
    if not is_old.any():
        return new(indices)
    if is_old.all():
        return old(indices - num_new)
    first, second = new(indices[~is_old]), old(indices[is_old] - num_new)

    def place(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        rows = np.empty((len(indices), *a.shape[1:]), a.dtype)
        rows[~is_old], rows[is_old] = a, b
        return rows

    if isinstance(first, dict):
        return {name: place(first[name], second[name]) for name in first}
    return place(first, second)
