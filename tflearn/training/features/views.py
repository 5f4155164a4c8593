"""Several augmented views of every example, computed once each.

Random augmentation before the cut would make features useless after one epoch. With
`Stage.cache_views = K` the frozen layers see K views of every image, and each epoch
trains on one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tflearn.data.augmentation import Augmentation, build
from tflearn.data.batches import Share, TrainBatch, TrainBatches
from tflearn.data.examples import Examples, ImageExamples
from tflearn.data.spec import TensorSpec
from tflearn.support import seeds
from tflearn.support.errors import ConfigError
from tflearn.training.features.passes import MakeBatch
from tflearn.training.stage import Prepared


def count(prepared: Prepared) -> int:
    """Returns how many views of the training examples are computed; 1: as they are."""
    return prepared.stage.cache_views if prepared.data.augment else 1


def check(prepared: Prepared) -> None:
    """Refuses views where nothing is augmented, and a number that makes none.

    Raises:
        ConfigError: The declaration makes no sense.
    """
    views = prepared.stage.cache_views
    if views < 0:
        raise ConfigError(
            "a negative number of views", received=f"Stage.cache_views = {views}"
        )
    if views and (prepared.stage.cache == "off" or not prepared.data.augment):
        what = "augment" if not prepared.data.augment else "cache"
        raise ConfigError(
            "views are random augmentations whose features are cached",
            received=f"Stage.cache_views = {views}, and nothing to {what}",
            fix="leave out Stage.cache_views, or declare data.Data.augment and a "
            "Stage.cache other than 'off'",
        )


def maker(prepared: Prepared, examples: Examples, view: int) -> MakeBatch:
    """Returns what makes the batches of a view: a pure function of seed and view.

    Args:
        prepared: The stage.
        examples: Its training examples.
        view: Number of the view.
    """
    if not isinstance(examples, ImageExamples):
        raise ConfigError("only images have views", received=examples.kind)
    augmentation = Augmentation(
        prepared.data.augment,
        seed=seeds.derive(prepared.seed, "views", view),
        image_shape=examples.image_shape,
    )

    def make(indices: np.ndarray, length: int | None, number: int) -> Any:
        # What mixes labels is not cached, so the targets do not matter.
        nothing = np.zeros(len(indices), np.int32)
        changed, _ = augmentation(examples.pixels(indices), nothing, step=number)
        return examples.scale(changed)

    return make


def describe(prepared: Prepared, view: int) -> list[Any]:
    """Returns all that a view hangs on beside the examples, for a fingerprint."""
    layers = [
        [type(x).__qualname__, {**x.get_config(), "name": ""}]
        for x in build(prepared.data.augment)
    ]
    return [prepared.seed, view, layers]


class ViewedBatches(TrainBatches):
    """Batches of which each epoch takes another view.

    Of every round of as many epochs as there are views, each takes one, in an order of
    its own.

    Args:
        views: The batches of each view, of the same rows.
        seed: Seed of the order.
        epoch_steps: Steps an epoch.
    """

    def __init__(
        self, views: Sequence[TrainBatches], *, seed: int, epoch_steps: float
    ) -> None:
        super().__init__(views[0].raw, views[0].examples, augmentation=None, workers=0)
        self._views = tuple(views)
        self._seed = seed
        self._epoch_steps = epoch_steps

    def view(self, step: int) -> int:
        """Returns the number of the view of a step."""
        turn, place = divmod(int(step // self._epoch_steps), len(self._views))
        rng = np.random.default_rng([self._seed, turn])
        return int(rng.permutation(len(self._views))[place])

    def over_each(self, views: Sequence[Examples]) -> ViewedBatches:
        """Returns these batches made of something else for each view."""
        made = [each.over(x) for each, x in zip(self._views, views, strict=True)]
        return ViewedBatches(made, seed=self._seed, epoch_steps=self._epoch_steps)

    def __getitem__(self, step: int) -> TrainBatch:
        return self._views[self.view(step)][step]

    def part(self, step: int, share: Share | None) -> TrainBatch:
        """Returns the rows of a batch that this process makes."""
        return self._views[self.view(step)].part(step, share)


class Rows(Examples):
    """The numbers of examples in place of the examples.

    Args:
        examples: What they number.
        first: Number of the first one.
    """

    def __init__(self, examples: Examples, *, first: int = 0) -> None:
        self.kind = examples.kind
        self.inputs = {"rows": TensorSpec(shape=(), dtype="int32")}
        self._count = len(examples)
        self._first = first

    def __len__(self) -> int:
        return self._count

    def batch(self, indices: np.ndarray, *, length: int | None = None) -> Any:
        """Returns the numbers, int32 `(batch,)`."""
        return (np.asarray(indices) + self._first).astype(np.int32)


def numbered(batches: TrainBatches, views: Sequence[Examples]) -> TrainBatches:
    """Returns batches with numbers of rows as inputs, of all views in turn.

    Args:
        batches: What a stand-in trains on.
        views: The features of every view.
    """
    size = len(views[0])
    rows = [Rows(view, first=number * size) for number, view in enumerate(views)]
    if isinstance(batches, ViewedBatches):
        return batches.over_each(rows)
    return batches.over(rows[0])
