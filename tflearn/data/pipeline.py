"""From the rows of a split to batches: encode, order, stream.

Example:
>>> import numpy as np
>>> from tflearn import data
>>> from tflearn.data import pipeline
>>> class Encoder:
...     size = 4
...     def __call__(self, rows):
...         return rows / 10
>>> iris = data.Data(
...     source=lambda: data.sources.sklearn("iris"),
...     input="vector",
...     splits={"train": 0.8, "test": 0.2},
... )
>>> split = iris.load(target_kind="class").splits["train"]
>>> examples = pipeline.encode(split, Encoder(), data=iris)
>>> batches = pipeline.train_batches(
...     examples, split.targets, batch_size=8, seed=0, data=iris, num_outputs=3,
...     one_hot=False,
... )
>>> batches[1000][0].shape
(8, 4)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tflearn.data.batches import (
    TrainBatches,
    made_batches,
    train_batches,
)
from tflearn.data.dataset import Dataset, Split
from tflearn.data.examples import (
    Examples,
    ImageExamples,
    TextExamples,
    VectorExamples,
)
from tflearn.data.padding import padded_length, padding, settle_length
from tflearn.data.raw_batches import generator
from tflearn.data.spec import Batch, Spec
from tflearn.data.targets import class_weights
from tflearn.distribution import arrays
from tflearn.support.errors import DataError

if TYPE_CHECKING:
    from tflearn.data.data import Data

__all__ = [
    "Dataset",
    "Examples",
    "Split",
    "TrainBatches",
    "class_weights",
    "describe",
    "encode",
    "generator",
    "made_batches",
    "ordered_batches",
    "ordered_indices",
    "padding",
    "settle_length",
    "stream",
    "train_batches",
]


def encode(
    split: Split, encoder: Any, *, data: Data, any_length: bool = False
) -> Examples:
    """Encodes the inputs of a split with the encoder of a backbone.

    Texts are tokenized at once. Images are decoded and resized at once, into memory
    or a file, if they fit into one, else when they are needed.

    Args:
        split: The rows.
        encoder: A text, image or vector encoder; see `tflearn.data.spec`.
        data: The declaration.
        any_length: Whether texts may be longer than the encoder takes, since they
            will be divided.

    Returns:
        Random access to the encoded examples.

    Raises:
        DataError: The encoder takes something else than the rows hold, or texts are
            longer than it takes.
    """
    takes = _takes(encoder)
    if split.kind not in takes:
        raise DataError(
            f"the backbone cannot take the inputs of '{split.name}'",
            received=f"inputs of kind '{split.kind}' (column {data.input!r})",
            expected=f"inputs of kind {' or '.join(map(repr, takes))}",
            fix="name the right column in data.Data.input",
        )
    if "text" in takes:
        return TextExamples(
            split,
            encoder,
            max_length=data.max_length,
            truncate=data.truncate,
            any_length=any_length,
        )
    if "image" in takes:
        # Declared workers are for images that are decoded anew.
        room = 0 if data.workers else data.disk_bytes
        return ImageExamples(
            split, encoder, cache_bytes=data.cache_bytes, disk_bytes=room
        )
    return VectorExamples(split, encoder)


def describe(dataset: Dataset, examples: Mapping[str, Examples]) -> Spec:
    """Returns the specification of encoded data.

    Args:
        dataset: The rows.
        examples: The encoded examples by split.

    Returns:
        Shapes, classes and counts.
    """
    first = examples.get("train") or next(iter(examples.values()))
    num_outputs = {"number": 1, "text": 0, "none": 0}.get(
        dataset.target_kind, len(dataset.classes)
    )
    return Spec(
        inputs=first.inputs,
        target=dataset.target_kind,
        classes=dataset.classes,
        num_outputs=num_outputs,
        num_examples={name: len(split) for name, split in dataset.splits.items()},
        class_counts={
            name: _class_counts(split, dataset.classes)
            for name, split in dataset.splits.items()
        },
    )


def stream(batches: TrainBatches, *, start_step: int, num_steps: int) -> Any:
    """Streams training batches, made ahead in threads or worker processes.

    Where a run has several processes, each streams its own rows of them.

    Args:
        batches: Random access to the batches.
        start_step: The first step; the stream seeks to it.
        num_steps: How many.

    Returns:
        A `grain.IterDataset` that Keras `fit` takes on both backends. Its iterators
        start at `start_step`, each anew.
    """
    from tflearn.data.streaming import Stream

    return Stream(batches, start_step=start_step, num_steps=num_steps)


def ordered_batches(
    examples: Examples, *, batch_size: int
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Gives every example once, in batches of one static size.

    Texts come sorted by length, each batch padded to one of `padded_lengths`. The
    last batch repeats its last example until it is full. Of several processes on JAX
    each reads its own rows, and all have to go through the batches together.

    Args:
        examples: The examples.
        batch_size: Examples a batch; at most as many as there are.

    Yields:
        The inputs of a batch, and which examples they are. There may be fewer
        indices than rows: only the first ones are real, `outputs[:len(indices)]`.
    """
    size = min(batch_size, len(examples))
    for indices in ordered_indices(examples, batch_size=batch_size):
        filled = np.pad(indices, (0, size - len(indices)), mode="edge")
        length = padded_length(examples, filled)

        def make(
            rows: Any, filled: np.ndarray = filled, length: int | None = length
        ) -> Batch:
            return examples.batch(filled[rows], length=length)

        yield arrays.assemble(make, size), indices


def ordered_indices(examples: Examples, *, batch_size: int) -> Iterator[np.ndarray]:
    """Gives the indices of every example once, texts sorted by length.

    Examples that are compared with each other come in one random order, always the
    same.

    Args:
        examples: The examples.
        batch_size: Most indices at a time; the last ones may be fewer.

    Yields:
        Indices `(batch,)`.
    """
    order = np.arange(len(examples))
    if examples.lengths is not None:
        order = np.argsort(examples.lengths, kind="stable")
    if examples.compared:
        order = generator(0, len(examples)).permutation(order)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _takes(encoder: Any) -> tuple[str, ...]:
    if hasattr(encoder, "tokenize"):
        return ("text", "pair")
    if hasattr(encoder, "resize"):
        return ("image",)
    if callable(encoder):
        return ("vector",)
    raise DataError(
        "this is no encoder", received=type(encoder).__name__, expected="see data.spec"
    )


def _class_counts(split: Split, classes: tuple[str, ...]) -> dict[str, int]:
    if split.targets is None or not classes:
        return {}
    if split.targets.ndim == 2:
        counts = split.targets.sum(axis=0).astype(int)
    else:
        counts = np.bincount(split.targets, minlength=len(classes))
    return dict(zip(classes, map(int, counts), strict=True))
