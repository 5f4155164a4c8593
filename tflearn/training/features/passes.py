"""One pass over the examples: its batches, their lengths, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import rich.progress

from tflearn.backbones.part import Part
from tflearn.data.examples import Examples
from tflearn.data.padding import few_lengths
from tflearn.distribution.devices import computed_on
from tflearn.support.console import console
from tflearn.support.errors import RunError
from tflearn.training.features.examples import (
    Arrays,
    Field,
    as_dtype,
    offsets,
    tokens,
)

#: Makes the batch of some examples, `(indices, length, number of the batch)`.
MakeBatch = Callable[[np.ndarray, int | None, int], object]

#: A length of batches must be compiled, which takes as long as so many tokens: on two
#: cores and MiniLM 0.8 s, 7,000 tokens in float32 and 16,000 where products may be
#: rounded; accelerators compile no faster, but compute.
_SHAPE_TOKENS = {"cpu": 8_192, "accelerator": 2**20}


def passes(
    examples: Examples, batch_size: int, fits: Sequence[int] = ()
) -> Iterator[tuple[np.ndarray, int | None]]:
    """Gives every example once, texts sorted by length and hardly padded.

    Args:
        examples: The examples.
        batch_size: Examples a batch; the last one may have fewer.
        fits: Lengths of batches, as `fitting` returns them; by default those of these
            examples alone.

    Yields:
        Indices `(batch,)` and the length to pad to, None where there is none.
    """
    if examples.lengths is None:
        for start in range(0, len(examples), batch_size):
            yield np.arange(start, min(start + batch_size, len(examples))), None
        return
    fits = fits or fitting([examples], batch_size)
    for part, longest in _sorted(examples, batch_size):
        fit = next(x for x in fits if x >= longest)
        yield part, min(fit, examples.padded_lengths[-1])


def fitting(splits: Sequence[Examples], batch_size: int) -> list[int]:
    """Chooses the lengths that batches of texts are padded to, ascending.

    Args:
        splits: What will be gone through.
        batch_size: Examples a batch.
    """
    longest = [
        length
        for examples in splits
        if examples.lengths is not None
        for _, length in _sorted(examples, batch_size)
    ]
    worth = _SHAPE_TOKENS[computed_on()] / batch_size
    return few_lengths(longest, worth) if longest else []


def _sorted(examples: Examples, batch_size: int) -> list[tuple[np.ndarray, int]]:
    """Returns batches of texts sorted by length, and the longest of each."""
    lengths: Any = examples.lengths
    order = np.argsort(lengths, kind="stable")
    starts = range(0, len(order), batch_size)
    parts = [order[start : start + batch_size] for start in starts]
    return [(part, int(np.max(lengths[part]))) for part in parts]


def plain(examples: Examples) -> MakeBatch:
    """Returns what makes batches of examples as they are."""
    return lambda indices, length, _: examples.batch(indices, length=length)


def compute(
    prefix: Part,
    examples: Examples,
    fields: Sequence[Field],
    arrays: Arrays,
    *,
    batch_size: int,
    fits: Sequence[int] = (),
    make_batch: MakeBatch | None = None,
    first: int = 0,
    on_batch: Callable[[int], None] = lambda done: None,
    description: str = "frozen layers",
) -> None:
    """Runs the prefix over examples and puts what it gives into arrays.

    Args:
        prefix: The prefix.
        examples: The examples.
        fields: What the arrays are.
        arrays: Are filled.
        batch_size: Examples a batch.
        fits: As in `passes`.
        make_batch: Makes a batch; by default the examples as they are.
        first: Batches that are there already.
        on_batch: Called with the number of batches that are there.
        description: Text of the progress bar.

    Raises:
        RunError: A feature is not finite in the type that it is kept in.
    """
    starts, size = offsets(examples), min(batch_size, len(examples))
    make = make_batch or plain(examples)
    plan = list(passes(examples, size, fits))
    for number, (indices, length) in enumerate(
        rich.progress.track(plan[first:], description, console=console, transient=True),
        start=first,
    ):
        filled = np.pad(indices, (0, size - len(indices)), mode="edge")
        given = prefix.predict_on_batch(make(filled, length, number))
        for field in fields:
            values = np.asarray(given[field.name])[: len(indices)]
            _put(arrays[field.name], field, values, examples, indices, starts)
        on_batch(number + 1)


def _put(
    array: np.ndarray,
    field: Field,
    values: np.ndarray,
    examples: Examples,
    indices: np.ndarray,
    starts: np.ndarray,
) -> None:
    with np.errstate(over="ignore"):
        stored = values.astype(array.dtype, copy=False)
    narrower = stored.dtype != values.dtype
    if narrower and not np.array_equal(np.isfinite(stored), np.isfinite(values)):
        raise RunError(
            "features are too large for the type that they are to be kept in",
            received=f"{float(np.max(np.abs(values))):.3g} in {field.stored}",
            fix="leave Stage.cache_dtype at 'auto'",
        )
    if not field.by_token or examples.lengths is None:
        array[indices] = stored
        return
    place, rows = tokens(examples.lengths, starts, indices, values.shape[1])
    array[rows] = stored[place]


def empty(fields: Sequence[Field], examples: Examples) -> dict[str, np.ndarray]:
    """Returns arrays in memory for the features of some examples."""
    return {
        x.name: np.empty((x.rows(examples), *x.shape), as_dtype(x.stored))
        for x in fields
    }
