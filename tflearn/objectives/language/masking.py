"""Which tokens are masked, and by what: anew in every batch."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tflearn.support.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masking:
    """How tokens are masked.

    Args:
        rate: Share of the tokens of a text that are chosen; at least one.
        keep: Share of the chosen ones that stay as they are.
        random: Share of the chosen ones that become another token.

    Raises:
        ConfigError: A share is out of its range.
    """

    rate: float = 0.15
    keep: float = 0.1
    random: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ConfigError(
                "the rate of masked tokens is a share",
                received=self.rate,
                expected="0 < rate < 1",
            )
        if min(self.keep, self.random) < 0 or self.keep + self.random > 1:
            raise ConfigError(
                "keep and random are shares of the chosen tokens",
                received=f"keep={self.keep}, random={self.random}",
                expected="at least 0 each, together at most 1",
            )

    def most(self, length: int) -> int:
        """Returns how many tokens of a row of some length are chosen at most."""
        return max(1, math.ceil(self.rate * length))

    def counts(self, eligible: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns how many tokens of each row are chosen, int `(batch,)`.

        The expected number is exactly `rate` times that of the eligible ones, but for
        rows where that would be none.

        Args:
            eligible: Which tokens may be chosen, bool `(batch, length)`.
            rng: Decides between the whole numbers around the expected one.
        """
        available = eligible.sum(axis=1)
        wanted = np.floor(self.rate * available + rng.random(len(eligible)))
        wanted = np.clip(wanted, 1, self.most(eligible.shape[1]))
        return np.minimum(wanted, available).astype(int)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masked:
    """A masked batch.

    Args:
        ids: Token ids that the model sees, int32 `(batch, length)`.
        positions: Places of the chosen tokens, int32 `(batch, positions)`; 0 where a
            row has fewer.
        targets: What stood there, int32 `(batch, positions)`.
        weights: 1 at chosen ones, 0 where a row has fewer, float32 `(batch,
            positions)`.
    """

    ids: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def choose_tokens(
    eligible: np.ndarray, masking: Masking, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses tokens one by one.

    Args:
        eligible: Which tokens may be chosen, bool `(batch, length)`.
        masking: How many.
        rng: Decides which.

    Returns:
        Positions int32 and weights float32, `(batch, positions)` each.
    """
    order = np.where(eligible, rng.random(eligible.shape), 2.0).argsort(axis=1)
    counts = masking.counts(eligible, rng)
    most = masking.most(eligible.shape[1])
    weights = np.arange(most) < counts[:, None]
    return _padded(order[:, :most], weights)


def choose_words(
    eligible: np.ndarray,
    continues: np.ndarray,
    masking: Masking,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses words with all their tokens.

    Words are taken in random order as long as they fit into the number of tokens that
    are to be chosen; if none fits, the beginning of the first.

    Args:
        eligible: Which tokens may be chosen, bool `(batch, length)`.
        continues: Which tokens go on with the word before, bool `(batch, length)`.
        masking: How many.
        rng: Decides which.

    Returns:
        Positions int32 and weights float32, `(batch, positions)` each.
    """
    most = masking.most(eligible.shape[1])
    counts = masking.counts(eligible, rng)
    positions = np.zeros((len(eligible), most), int)
    weights = np.zeros((len(eligible), most), bool)
    for row, count in enumerate(counts.tolist()):
        places = np.flatnonzero(eligible[row])
        # A word also ends where something special stands between two tokens.
        begins = ~continues[row, places] | (np.diff(places, prepend=-9) > 1)
        words = np.split(places, np.flatnonzero(begins)[1:])
        chosen: list[int] = []
        for number in rng.permutation(len(words)).tolist():
            word = words[number].tolist()
            if len(chosen) + len(word) <= count:
                chosen += word
        chosen = chosen or words[0][:count].tolist()
        positions[row, : len(chosen)] = chosen
        weights[row, : len(chosen)] = True
    return _padded(positions, weights)


def mask(
    ids: np.ndarray,
    chosen: tuple[np.ndarray, np.ndarray],
    masking: Masking,
    rng: np.random.Generator,
    *,
    mask_id: int,
    replacements: np.ndarray,
) -> Masked:
    """Puts the mask token over chosen tokens, leaves some, replaces some.

    Args:
        ids: Token ids, int32 `(batch, length)`.
        chosen: Positions and weights.
        masking: How many are kept and replaced.
        rng: Decides which.
        mask_id: The mask token.
        replacements: Tokens that may stand in for another, int `(n,)`.

    Returns:
        The masked batch.
    """
    positions, weights = chosen
    targets = np.take_along_axis(ids, positions, axis=1)
    fate = rng.random(positions.shape)
    drawn = rng.choice(replacements, size=positions.shape)
    seen = np.where(fate < masking.keep, targets, mask_id)
    seen = np.where(fate >= 1 - masking.random, drawn, seen)
    rows, columns = np.nonzero(weights)
    result = ids.copy()
    result[rows, positions[rows, columns]] = seen[rows, columns]
    return Masked(
        ids=result,
        positions=positions,
        targets=np.where(weights > 0, targets, 0).astype("int32"),
        weights=weights,
    )


def _padded(
    positions: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return np.where(weights, positions, 0).astype("int32"), weights.astype("float32")
