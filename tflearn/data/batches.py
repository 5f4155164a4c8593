"""The training batch of any step."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from tflearn.data.augmentation import Augmentation
from tflearn.data.examples import Examples, ImageExamples
from tflearn.data.input_clock import Clock
from tflearn.data.mixture import MixedOrder, Mixture, order_of
from tflearn.data.order import Order
from tflearn.data.raw_batches import (
    MadeBatches,
    MakeBatch,
    RawBatches,
    Share,
    TrainBatch,
    own_rows,
)
from tflearn.data.targets import class_weights
from tflearn.data.waiting import STALL_SECONDS
from tflearn.support import seeds
from tflearn.support.errors import ConfigError

if TYPE_CHECKING:
    from tflearn.data.data import Data


class TrainBatches:
    """Random access to the training batch of any step, without an end.

    `batches[s]` is a pure function of the data, the seed and `s`:
    `(inputs, targets)`, or `(inputs, targets, sample_weight)`.

    Args:
        raw: The batches before augmentation.
        examples: The training examples.
        augmentation: Changes the images, or None.
        workers: Processes that make raw batches.
        stall_seconds: After so long a batch that did not come will not come.
    """

    def __init__(
        self,
        raw: RawBatches | MadeBatches,
        examples: Examples,
        *,
        augmentation: Augmentation | None,
        workers: int,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self.raw = raw
        self.examples = examples
        self.workers = workers if examples.lazy else 0
        self.stall_seconds = stall_seconds
        self._augmentation = augmentation

    def __getitem__(self, step: int) -> TrainBatch:
        if step < 0:
            raise IndexError(step)
        return self.finish(step, self.raw[step])

    def part(self, step: int, share: Share | None) -> TrainBatch:
        """Returns the rows of a batch that this process makes.

        Args:
            step: The step.
            share: As `tflearn.distribution.arrays.share` gives it.
        """
        raw = self.raw.part(step, self.raw_share(share))
        return self.finish_part(step, raw, share)

    def indices(self, step: int) -> np.ndarray:
        """Returns the examples of a step, `(batch,)` int64."""
        return self.raw.order.indices(step)

    def raw_share(self, share: Share | None) -> Share | None:
        """Returns which rows `finish_part` takes: those that have to be read."""
        # Keras draws an augmentation for the whole batch, so all of it is read.
        return None if self._augmentation else share

    def finish_part(
        self, step: int, raw: TrainBatch, share: Share | None
    ) -> TrainBatch:
        """Augments and scales the raw part of a step."""
        batch = self.finish(step, raw)
        return own_rows(batch, share) if self._augmentation else batch

    def over(self, examples: Examples) -> TrainBatches:
        """Returns these batches made of something else for the same rows.

        Args:
            examples: What stands in for the examples, such as features of them; they
                are not augmented.
        """
        other = TrainBatches(
            self.raw.over(examples), examples, augmentation=None, workers=0
        )
        vars(other)["clock"] = self.clock
        return other

    @functools.cached_property
    def clock(self) -> Clock:
        """How long training waits for these batches."""
        return Clock()

    @property
    def is_costly(self) -> bool:
        """Whether making a batch takes so long that several threads pay."""
        views = isinstance(self.raw, MadeBatches) and self.examples.kind == "image"
        return self.examples.lazy or views or self._augmentation is not None

    def finish(self, step: int, raw: TrainBatch) -> TrainBatch:
        """Augments and scales the raw batch of a step."""
        if self._augmentation is None or not isinstance(self.examples, ImageExamples):
            return raw
        images, targets, *weights = raw
        images, targets = self._augmentation(images, targets, step=step)
        return (self.examples.scale(images), targets, *weights)


def made_batches(
    examples: Examples,
    make_batch: MakeBatch,
    *,
    batch_size: int,
    seed: int,
    mixture: Mixture | None = None,
) -> TrainBatches:
    """Gives random access to training batches that an objective makes.

    Args:
        examples: The training examples.
        make_batch: Called with examples, indices `(batch,)` and a generator.
        batch_size: Examples a step.
        seed: Seed of order and generators.
        mixture: Which of the examples are new, if some are rehearsed.

    Returns:
        The batches.
    """
    order = order_of(
        len(examples),
        mixture,
        batch_size=batch_size,
        seed=seeds.derive(seed, "order"),
        lengths=examples.lengths,
    )
    raw = MadeBatches(examples, order, make_batch, seed=seeds.derive(seed, "objective"))
    return TrainBatches(raw, examples, augmentation=None, workers=0)


def train_batches(
    examples: Examples,
    targets: np.ndarray | None,
    *,
    batch_size: int,
    seed: int,
    data: Data,
    num_outputs: int,
    one_hot: bool,
    mixture: Mixture | None = None,
) -> TrainBatches:
    """Gives random access to training batches.

    Args:
        examples: The training examples.
        targets: Their targets, as `Split.targets` has them.
        batch_size: Examples a step.
        seed: Seed of order and augmentation.
        data: The declaration: augmentation, balance, workers.
        num_outputs: Number of classes.
        one_hot: Whether class numbers become float32 rows `(classes,)`.
        mixture: Which of the examples are new, if some are rehearsed.

    Returns:
        The batches.

    Raises:
        ConfigError: There are no targets, or the declaration does not fit them.
    """
    if targets is None:
        raise ConfigError("training needs targets", fix="declare data.Data.target")
    augmentation = _augmentation(examples, data, seeds.derive(seed, "augmentation"))
    order = order_of(
        len(examples),
        mixture,
        batch_size=batch_size,
        seed=seeds.derive(seed, "order"),
        lengths=examples.lengths,
        classes=_classes(targets, data) if data.balance == "sampling" else None,
    )
    batches = TrainBatches(
        _raw(examples, targets, order, data, num_outputs, one_hot, mixture),
        examples,
        augmentation=augmentation,
        workers=data.workers,
        stall_seconds=data.stall_seconds,
    )
    if augmentation is not None:
        # What is wrong with an augmentation shows before anything is trained.
        batches[0]
    return batches


def _raw(
    examples: Examples,
    targets: np.ndarray,
    order: Order | MixedOrder,
    data: Data,
    num_outputs: int,
    one_hot: bool,
    mixture: Mixture | None,
) -> RawBatches:
    classes = _classes(targets, data)
    weights = None
    if classes is not None and data.balance == "class_weights":
        sets = (classes,) if mixture is None else mixture.split(classes)
        weights = np.concatenate([class_weights(x, num_outputs) for x in sets])
    if classes is not None and one_hot:
        targets = np.eye(num_outputs, dtype=np.float32)[classes]
    return RawBatches(
        examples, targets, order, weights=weights, pixels=bool(data.augment)
    )


def _classes(targets: np.ndarray, data: Data) -> np.ndarray | None:
    """Returns the targets if they are one class an example."""
    if targets.dtype.kind == "i":
        return targets
    if data.balance != "none":
        raise ConfigError(
            "classes can only be balanced where each example has one",
            received=f"balance = '{data.balance}'",
        )
    return None


def _augmentation(examples: Examples, data: Data, seed: int) -> Augmentation | None:
    if not data.augment:
        return None
    if not isinstance(examples, ImageExamples):
        raise ConfigError(
            "data.Data.augment changes images",
            received=f"inputs of kind '{examples.kind}'",
        )
    return Augmentation(data.augment, seed=seed, image_shape=examples.image_shape)
