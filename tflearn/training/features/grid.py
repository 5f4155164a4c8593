"""A grid for a head: which rates, weight decays and seeds are tried."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from tflearn.support.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """One choice of a grid; None leaves what the stage declares.

    Args:
        rate: Learning rate.
        weight_decay: Weight decay.
        seed: Seed of the head's initial values and of the order of the examples.
    """

    rate: float | None = None
    weight_decay: float | None = None
    seed: int | None = None

    def __str__(self) -> str:
        said = {
            "rate": self.rate,
            "weight decay": self.weight_decay,
            "seed": self.seed,
        }
        return ", ".join(f"{k} {v:g}" for k, v in said.items() if v is not None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """What is tried for a head on frozen layers; the best by validation goes on.

    Args:
        rates: Learning rates; empty for that of the stage's optimizer. What it takes as
            `learning_rate`.
        weight_decays: The same for `weight_decay`.
        seeds: Seeds as `Experiment.seed`; empty for that of the run.

    Example:

    >>> [str(x) for x in Grid(rates=(0.1, 0.01), seeds=(0,)).candidates]
    ['rate 0.1, seed 0', 'rate 0.01, seed 0']
    """

    rates: Sequence[float] = ()
    weight_decays: Sequence[float] = ()
    seeds: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Checks the values."""
        if len(self.candidates) < 2:
            raise ConfigError(
                "a grid of one candidate has nothing to choose from",
                received=f"{self}",
                fix="declare several rates, weight_decays or seeds",
            )
        low = [x for x in self.rates if x <= 0] + [
            x for x in self.weight_decays if x < 0
        ]
        if low:
            raise ConfigError(
                "rates are above 0 and weight decays not below", received=low[0]
            )

    @property
    def points(self) -> tuple[tuple[float | None, float | None], ...]:
        """Rate and weight decay of the candidates of one seed, in order."""
        return tuple(
            itertools.product(self.rates or (None,), self.weight_decays or (None,))
        )

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All choices; those of one seed lie together."""
        return tuple(
            Candidate(rate=rate, weight_decay=decay, seed=seed)
            for seed in self.seeds or (None,)
            for rate, decay in self.points
        )
