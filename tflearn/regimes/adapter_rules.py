"""Rules that give frozen layers an adapter, and regimes made of them.

Such a rule selects, among the layers that its pattern names, those of a kind that can
have the adapter; the others go to the next rule. Patterns that name one part of every
block are usual: `backbone/*/query|backbone/*/value`.
"""

from __future__ import annotations

from tflearn.regimes.rules import Rule, adapter_rule, frozen
from tflearn.support.errors import RegimeError, nearest

ATTENTION = "backbone/*/query|backbone/*/value"
_LOW_RANK = ("lora", "dora", "qlora")


def lora(
    pattern: str,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    rslora: bool = False,
) -> Rule:
    """Freezes the matched layers and trains a low-rank product beside each.

    Args:
        pattern: Which layers.
        rank: Width of the product.
        alpha: Its scale, divided by the rank.
        dropout: Rate of dropout on its inputs.
        rslora: Divide by the square root of the rank instead.

    Example:

    >>> str(lora("backbone/*/query", rank=4))
    "lora('backbone/*/query', rank=4, alpha=16.0, dropout=0.0, rslora=False)"

    References:
        Hu et al. 2021, https://arxiv.org/abs/2106.09685
    """
    return adapter_rule(
        "lora", pattern, rank=rank, alpha=float(alpha), dropout=dropout, rslora=rslora
    )


def dora(
    pattern: str,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    rslora: bool = False,
) -> Rule:
    """As `lora`, with the lengths of the kernel's columns trained too.

    Args:
        pattern: Which layers.
        rank: Width of the product.
        alpha: Its scale, divided by the rank.
        dropout: Rate of dropout on its inputs.
        rslora: Divide by the square root of the rank instead.

    References:
        Liu et al. 2024, https://arxiv.org/abs/2402.09353
    """
    return adapter_rule(
        "dora", pattern, rank=rank, alpha=float(alpha), dropout=dropout, rslora=rslora
    )


def qlora(
    pattern: str,
    *,
    bits: int = 8,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    block_size: int = 128,
) -> Rule:
    """As `lora`, with the frozen kernel stored in 8 or 4 bits.

    Args:
        pattern: Which layers, Dense and EinsumDense.
        bits: 8 or 4.
        rank: Width of the product.
        alpha: Its scale, divided by the rank.
        dropout: Rate of dropout on its inputs.
        block_size: Inputs that one scale of four bits serves; -1 is all of them.

    References:
        Dettmers et al. 2023, https://arxiv.org/abs/2305.14314
    """
    return adapter_rule(
        "qlora",
        pattern,
        bits=bits,
        block_size=block_size,
        rank=rank,
        alpha=float(alpha),
        dropout=dropout,
        rslora=False,
    )


def ia3(pattern: str, *, feedforward: bool = False) -> Rule:
    """Freezes the matched layers and trains a scale for each of their features.

    Args:
        pattern: Which layers.
        feedforward: Scale the inputs instead of the outputs.

    References:
        Liu et al. 2022, https://arxiv.org/abs/2205.05638
    """
    return adapter_rule("ia3", pattern, feedforward=feedforward)


def low_rank(
    *,
    targets: str = ATTENTION,
    kind: str = "lora",
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    bits: int = 8,
) -> tuple[Rule, ...]:
    """A low-rank product on some layers of a frozen backbone; the head trains.

    Args:
        targets: Which layers; queries and values of attention by default.
        kind: `lora`, `dora` or `qlora`.
        rank: Width of the product.
        alpha: Its scale, divided by the rank.
        dropout: Rate of dropout on its inputs.
        bits: Of the frozen kernels, for `qlora`.

    Returns:
        The rules.

    Raises:
        RegimeError: There is no such kind.

    Example:

    >>> [rule.action for rule in low_rank(kind="dora")]
    ['dora', 'freeze', 'train']
    """
    shared = {"rank": rank, "alpha": alpha, "dropout": dropout}
    if kind == "lora":
        rule = lora(targets, **shared)
    elif kind == "dora":
        rule = dora(targets, **shared)
    elif kind == "qlora":
        rule = qlora(targets, bits=bits, **shared)
    else:
        raise RegimeError(
            "unknown kind of low-rank adapter",
            received=kind,
            expected=_LOW_RANK,
            nearest=nearest(kind, _LOW_RANK),
        )
    return (rule, *frozen())


def rescaled(
    *,
    outputs: str = "backbone/*/key|backbone/*/value",
    inputs: str = "backbone/*feedforward_output_dense",
) -> tuple[Rule, ...]:
    """IA3 as in its paper, on a frozen backbone; the head trains.

    Args:
        outputs: Layers whose outputs are rescaled: keys and values of attention.
        inputs: Layers whose inputs are: the second of each feed-forward block.

    Returns:
        The rules.
    """
    return (
        ia3(outputs),
        ia3(inputs, feedforward=True),
        *frozen(),
    )
