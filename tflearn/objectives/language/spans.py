"""Cutting spans out of a text and putting sentinels in their places, as T5 does."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tflearn.support.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spans:
    """How much of a text is cut out.

    Args:
        rate: Share of the tokens that are cut out.
        mean_length: Mean number of tokens of a span.

    Raises:
        ConfigError: A number is out of its range.

    Example:

    >>> Spans(rate=0.15, mean_length=3).counts(100)
    (15, 5)
    """

    rate: float = 0.15
    mean_length: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.mean_length < 1:
            raise ConfigError(
                "spans cannot be cut out in these numbers",
                received=f"rate={self.rate}, mean_length={self.mean_length}",
                expected="0 < rate < 1, a mean length of at least 1",
            )

    def counts(self, length: int) -> tuple[int, int]:
        """Returns how many tokens of a text are cut out, in how many spans.

        Args:
            length: Tokens of the text; none are cut out of a text of one.
        """
        if length < 2:
            return 0, 0
        noise = min(max(round(self.rate * length), 1), length - 1)
        spans = max(round(noise / self.mean_length), 1)
        return noise, min(spans, noise, length - noise)

    def most(self, length: int) -> tuple[int, int]:
        """Returns the largest `counts` of texts up to a length."""
        noise = max(1, math.ceil(self.rate * length))
        return noise, max(round(noise / self.mean_length), 1)

    def choose(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Chooses spans; the text begins with what stays and ends with a span.

        Args:
            length: Tokens of the text.
            rng: Decides the lengths of spans and gaps.

        Returns:
            Number of the span that each token belongs to, from 1, and 0 where it
            stays, int `(length,)`.
        """
        noise, spans = self.counts(length)
        if not spans:
            return np.zeros(length, int)
        gaps, cut = _parts(length - noise, spans, rng), _parts(noise, spans, rng)
        sizes = np.stack([gaps, cut], axis=1).ravel()
        numbers = np.stack([np.zeros(spans, int), np.arange(1, spans + 1)], axis=1)
        return np.repeat(numbers.ravel(), sizes)


def corrupt(
    ids: np.ndarray, spans: np.ndarray, sentinels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces each span by a sentinel, and lists what they stand for.

    Args:
        ids: Token ids of a text, `(length,)`.
        spans: What `Spans.choose` returned.
        sentinels: One id a span.

    Returns:
        The text with sentinels; each sentinel followed by its span.

    Example:

    >>> text, cut = corrupt(np.array([5, 6, 7, 8]), np.array([0, 1, 1, 0]), [99])
    >>> text.tolist(), cut.tolist()
    ([5, 99, 8], [99, 6, 7])
    """
    before = np.concatenate([[0], spans[:-1]])
    begins = (spans > 0) & (spans != before)
    marks = np.asarray(sentinels)[np.maximum(spans, 1) - 1]
    text = np.where(spans > 0, marks, ids)[(spans == 0) | begins]
    places = np.flatnonzero(begins)
    return text, np.insert(ids, places, marks[places])[np.insert(spans, places, 1) > 0]


def _parts(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Divides a number into so many positive ones, all ways equally likely."""
    cuts = np.sort(rng.permutation(total - 1)[: count - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))
