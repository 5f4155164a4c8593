"""Rules, and the named regimes that are lists of them.

A regime is an ordered list of rules over layer paths; the first rule that matches a
layer decides. Layers of the backbone lie under `backbone/`, everything an objective
adds under `head/`. Patterns are those of `tflearn.support.patterns`.
"""

from __future__ import annotations

import dataclasses

ACTIONS = ("freeze", "train", "fresh", "merge")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What to do with the layers that a selector names.

    Exactly one of `pattern`, `last` and `above` is given.

    Args:
        action: `freeze`, `train`, `fresh` (new initial values, then train), `merge`
            (of adapters, decides nothing) or a kind of adapter.
        pattern: Wildcard pattern over layer paths.
        last: Selects the last so many repeated blocks of the backbone and what
            follows them in it.
        above: A path pattern; selects the backbone's layers behind the matched ones.
        options: Hyper-parameters of the adapter, by name.
        only: With a pattern, selects among the matched layers those of a sort:
            `normalization`.
    """

    action: str
    pattern: str | None = None
    last: int | None = None
    above: str | None = None
    options: tuple[tuple[str, object], ...] = ()
    only: str | None = None

    @property
    def adapts(self) -> bool:
        """Whether the rule gives layers an adapter."""
        return self.action not in ACTIONS

    @property
    def merges(self) -> bool:
        """Whether the rule merges adapters and decides about no layer."""
        return self.action == "merge"

    def __str__(self) -> str:
        """Returns the rule as a user would write it."""
        if self.last is not None:
            return f"{self.action}_last({self.last})"
        if self.above is not None:
            return f"{self.action}_above('{self.above}')"
        given = (*self.options, *([("only", self.only)] if self.only else []))
        options = "".join(f", {name}={value!r}" for name, value in given)
        return f"{self.action}('{self.pattern}'{options})"


def freeze(pattern: str = "*") -> Rule:
    """Keeps the matched layers as they are, in inference mode.

    Args:
        pattern: Which layers.

    Example:

    >>> str(freeze("backbone/*"))
    "freeze('backbone/*')"
    """
    return Rule(action="freeze", pattern=pattern)


def train(pattern: str = "*") -> Rule:
    """Trains the matched layers from the weights they have.

    Args:
        pattern: Which layers.
    """
    return Rule(action="train", pattern=pattern)


def fresh(pattern: str = "*") -> Rule:
    """Gives the matched layers new initial values and trains them.

    Args:
        pattern: Which layers.
    """
    return Rule(action="fresh", pattern=pattern)


def merge(pattern: str = "*") -> Rule:
    """Writes adapters of an earlier stage into the weights of their layers.

    It is carried out before the other rules of the stage, which decide about the
    layers afterwards.

    Args:
        pattern: Which layers; there must be an adapter in them.
    """
    return Rule(action="merge", pattern=pattern)


def train_last(blocks: int) -> Rule:
    """Trains the last repeated blocks of the backbone and what follows them in it.

    Args:
        blocks: How many blocks, at least 1.
    """
    return Rule(action="train", last=blocks)


def train_above(layer: str) -> Rule:
    """Trains the backbone's layers behind the matched ones (towards the head).

    Args:
        layer: Pattern of a direct layer of the backbone, such as
            `backbone/transformer_layer_3`; the matched layer itself is not trained.
    """
    return Rule(action="train", above=layer)


def adapter_rule(kind: str, pattern: str, **options: object) -> Rule:
    """Freezes the matched layers and gives those that can have it an adapter.

    Args:
        kind: Kind of adapter, see `tflearn.regimes.adapters.KINDS`.
        pattern: Which layers.
        **options: Its hyper-parameters.
    """
    return Rule(action=kind, pattern=pattern, options=tuple(options.items()))


def scratch() -> tuple[Rule, ...]:
    """Nothing is transferred: every weight starts anew and trains."""
    return (fresh("*"),)


def frozen() -> tuple[Rule, ...]:
    """A linear probe: the backbone is kept, the head trains.

    References:
        Alain and Bengio 2016, https://arxiv.org/abs/1610.01644
    """
    return (freeze("backbone/*"), train("*"))


def partial(
    *, last: int | None = None, pattern: str | None = None, above: str | None = None
) -> tuple[Rule, ...]:
    """A part of the backbone trains with the head; give exactly one selector.

    Args:
        last: The last so many blocks.
        pattern: The layers that match.
        above: The layers behind the matched one.

    Returns:
        The rules: that part trains, the rest of the backbone is frozen.

    Example:

    >>> [str(rule) for rule in partial(last=2)]
    ['train_last(2)', "freeze('backbone/*')", "train('*')"]
    """
    part = Rule(action="train", last=last, pattern=pattern, above=above)
    return (part, *frozen())


def full() -> tuple[Rule, ...]:
    """Every weight trains, the backbone's from the values it has."""
    return (train("*"),)
