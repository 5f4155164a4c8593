"""The few lengths that texts are padded to, and how much of a batch that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tflearn.distribution.devices import computed_on

if TYPE_CHECKING:
    from tflearn.data.batches import TrainBatches
    from tflearn.data.dataset import Dataset
    from tflearn.data.examples import Examples

_LENGTH_MULTIPLE = 8
# More lengths than these are never compiled: those of long texts are coarser multiples.
_MOST_LENGTHS = 16
# A length must be compiled, which takes as long as training on so many tokens: with
# MiniLM 7 s on two cores; accelerators compile no faster, but compute.
_STEP_TOKENS = {"cpu": 12_288, "accelerator": 2**21}
# How long training is taken to be: three epochs, and some hundred batches of few texts.
_EPOCHS, _LEAST_ROWS = 3, 6_400
# Steps that are looked at, evenly spread over an epoch.
_STEPS = 512
#: Share of the training texts that `max_length = 'auto'` leaves whole.
AUTO_SHARE = 0.995
# Training texts from which it is chosen.
_LOOKED_AT = 10_000


def fitting_lengths(lengths: np.ndarray, limit: int) -> tuple[int, ...]:
    """Returns the few lengths that texts are padded to when they are trained on.

    Those for which computing padding and compiling the lengths take least time in all;
    more texts and slower devices have more lengths.

    Args:
        lengths: Tokens of each text, `(n,)`.
        limit: The longest that is taken.

    Returns:
        Ascending lengths; the last one holds every text.

    Example:

    >>> fitting_lengths(np.array([3, 9, 10, 30]), limit=24)
    (8, 16, 24)
    >>> fitting_lengths(np.array([3] * 50 + [30]), limit=32)
    (8, 32)
    """
    longest = int(np.max(lengths))
    times = max(_EPOCHS, _LEAST_ROWS / len(lengths))
    few = few_lengths(
        lengths,
        cost=_STEP_TOKENS[computed_on()] / times,
        multiple=_rounded(-(-longest // _MOST_LENGTHS)),
    )
    most = min(_rounded(longest) or _LENGTH_MULTIPLE, limit)
    return tuple(sorted({min(length, most) for length in few}))


def few_lengths(
    longest: Sequence[int] | np.ndarray,
    cost: float,
    *,
    multiple: int = _LENGTH_MULTIPLE,
) -> list[int]:
    """Chooses the lengths of batches: each is compiled, and padding is computed.

    The multiples for which the sum of all padded lengths, and a cost for each length
    there is, is the smallest.

    Args:
        longest: Tokens of every text, or of the longest text of every batch, `(n,)`.
        cost: What one more length costs, in the same tokens.
        multiple: Lengths are multiples of it.

    Returns:
        Ascending lengths; the last one holds every text.

    Example:

    >>> few_lengths([3, 7, 9, 60, 61], cost=20)
    [16, 64]
    >>> few_lengths([3, 7, 9, 60, 61], cost=1)
    [8, 16, 64]
    """
    needed = np.maximum(-(-np.asarray(longest) // multiple), 1) * multiple
    sizes, counts = np.unique(needed, return_counts=True)
    # best[i]: the least cost of the i shortest sizes, and which are taken for it.
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for end in range(1, len(sizes) + 1):
        size = int(sizes[end - 1])
        best.append(
            min(
                (
                    best[start][0] + size * int(counts[start:end].sum()) + cost,
                    [*best[start][1], size],
                )
                for start in range(end)
            )
        )
    return best[-1][1]


def chosen_length(lengths: np.ndarray, limit: int) -> int:
    """Chooses the longest text from how long the texts are.

    Args:
        lengths: Tokens of each training text, `(n,)`.
        limit: The longest that the backbone takes.

    Returns:
        A length that leaves `AUTO_SHARE` of the texts whole.

    Example:

    >>> chosen_length(np.array([5] * 999 + [400]), limit=512)
    8
    """
    quantile: Any = np.quantile(lengths, AUTO_SHARE, method="inverted_cdf")
    return min(_rounded(int(quantile)), limit)


def settle_length(dataset: Dataset, encoder: Any, *, any_length: bool) -> Dataset:
    """Chooses the longest text from the training texts, if that is declared.

    Args:
        dataset: The rows.
        encoder: The encoder of the backbone.
        any_length: Whether texts are divided, so that none is too long.

    Returns:
        The rows with a number, and a note, where `data.Data.max_length` was `auto`.
    """
    train = dataset.splits.get("train")
    if dataset.data.max_length != "auto" or train is None:
        return dataset
    if any_length or not hasattr(encoder, "tokenize"):
        data = dataclasses.replace(dataset.data, max_length=None)
        return dataclasses.replace(dataset, data=data)
    some = list(train.inputs[:: max(1, len(train) // _LOOKED_AT)])
    lengths = encoder.tokenize(some).ids
    limit = chosen_length(np.array(list(map(len, lengths))), encoder.max_length)
    data = dataclasses.replace(dataset.data, max_length=limit, truncate=True)
    note = f"max_length is {limit}: {AUTO_SHARE:.1%} of the training texts are whole"
    return dataclasses.replace(dataset, data=data, notes=(*dataset.notes, note))


def padded_length(examples: Examples, indices: np.ndarray) -> int | None:
    """Returns the length that a batch of texts is padded to; None for all others.

    A process that makes some of its rows has to know what the others need.
    """
    lengths, fits = examples.lengths, examples.padded_lengths
    if lengths is None or not fits:
        return None
    longest = int(np.max(lengths[indices]))
    return next(fit for fit in fits if fit >= longest)


def padding(batches: TrainBatches) -> dict[str, Any]:
    """Returns how much of the batches of an epoch is padding.

    Args:
        batches: The batches.

    Returns:
        `lengths` that batches are padded to, and `padding_share` of their tokens; empty
        for what is no text, or is packed.
    """
    examples = batches.examples
    if examples.lengths is None or not examples.padded_lengths or not len(examples):
        return {}
    size = len(batches.indices(0))
    steps = -(-len(examples) // size)
    real, whole, met = 0, 0, set()
    for step in np.unique(np.linspace(0, steps - 1, min(steps, _STEPS)).astype(int)):
        indices = batches.indices(int(step))
        length = padded_length(examples, indices)
        if length is None:
            return {}
        met.add(length)
        real += int(np.sum(examples.lengths[indices]))
        whole += length * len(indices)
    return {"lengths": sorted(met), "padding_share": 1 - real / whole}


def _rounded(length: int) -> int:
    return -(-length // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
