"""What is known of an experiment before anything of it is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """How well a vocabulary knows some texts.

    Args:
        texts: How many texts were read.
        pieces: Tokens without the special ones.
        words: Runs of letters and digits, and every other sign by itself.
        unknown: Tokens that stand for what the vocabulary lacks.
        vocabulary: Tokens that there are.
    """

    texts: int
    pieces: int
    words: int
    unknown: int
    vocabulary: int

    @property
    def pieces_per_word(self) -> float:
        """Tokens a word: 1 where every word is in the vocabulary.

        Example:

        >>> Tokens(texts=1, pieces=6, words=4, unknown=0, vocabulary=99).pieces_per_word
        1.5
        """
        return self.pieces / max(1, self.words)

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that stand for what the vocabulary lacks."""
        return self.unknown / max(1, self.pieces)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnLoss:
    """What a language model's own task costs it on the texts.

    Args:
        nats: Cross-entropy, a token.
        uniform: What knowing nothing would cost: the log of the vocabulary.
    """

    nats: float
    uniform: float

    @property
    def share(self) -> float:
        """Cross-entropy as a share of that of knowing nothing."""
        return self.nats / self.uniform


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """What a linear model makes of the features, none of them trained.

    Args:
        score: Cross-validated accuracy for classes, R² for numbers.
        error: Its standard error over the folds.
        chance: Accuracy of naming the most frequent class; 0 for numbers.
        rows: Rows that it was measured on.
        metric: `accuracy` or `R²`.
    """

    score: float
    error: float
    chance: float
    rows: int
    metric: str = "accuracy"

    @property
    def gain(self) -> float:
        """Share of the way from chance to perfect.

        Example:

        >>> Probe(score=0.75, error=0.01, chance=0.5, rows=400).gain
        0.5
        """
        return (self.score - self.chance) / max(1e-9, 1 - self.chance)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Situation:
    """An experiment as a prior can read it; None is not known or does not apply.

    Args:
        arms: Names of the arms that can be run.
        kind: What the backbone takes: `text`, `image` or `vector`.
        rows: Training rows, or the fewest of a learning curve.
        classes: Number of classes; 0 where there are none.
        fewest: Rows of the rarest class among `rows`.
        is_pretrained: Whether the backbone has learnt something before.
        parameters: Of the whole model.
        state_bytes: Weights, gradients and two moments of all of them.
        memory_bytes: What a device has.
        device: What it is called.
        too_large: Arms that were found not to fit.
        is_compiled: Whether that was told by compiling all arms, so that what is
            counted does not matter.
        epochs: How often a run sees its rows.
        seeds: Runs of an arm.
        tokens: What the vocabulary says.
        own_loss: What the backbone's own task says.
        probe: What its features say.
        unknown: What could not be read, each with the reason.
    """

    arms: Sequence[str]
    kind: str = "text"
    rows: int = 0
    classes: int = 0
    fewest: int = 0
    is_pretrained: bool | None = None
    parameters: int = 0
    state_bytes: int = 0
    memory_bytes: float | None = None
    device: str = "this machine"
    too_large: Sequence[str] = ()
    is_compiled: bool = False
    epochs: float | None = None
    seeds: int = 1
    tokens: Tokens | None = None
    own_loss: OwnLoss | None = None
    probe: Probe | None = None
    unknown: Sequence[str] = ()

    def to_json(self) -> Mapping[str, Any]:
        """Returns all of it as plain data."""
        return dataclasses.asdict(self)
