"""Rules and regimes that add something small to the structure of a backbone."""

from __future__ import annotations

from tflearn.regimes.rules import Rule, adapter_rule, frozen

# The last projections of the two parts of a transformer block, as KerasHub's encoders
# and decoders, its Llama- and Gemma-like decoders and its ViT name them (`dense_1` is a
# default name, which paths count from zero).
ATTENTION_OUTPUTS = "backbone/*/attention_output"
FEED_FORWARD_OUTPUTS = (
    "backbone/*/feedforward_output_dense|backbone/*/ffw_linear|backbone/*/mlp/dense_1"
)


def bottleneck(
    pattern: str, *, size: int = 64, activation: str = "gelu", scale: float = 1.0
) -> Rule:
    """Puts a bottleneck adapter behind the matched layers, which are kept.

    Args:
        pattern: Which layers; of these, Dense, EinsumDense and convolutions get one.
        size: Width of the bottleneck.
        activation: Name of the activation in it.
        scale: Factor of what is added to a layer's output.

    Example:

    >>> str(bottleneck("backbone/block_*/mlp", size=8))
    "bottleneck('backbone/block_*/mlp', size=8, activation='gelu', scale=1.0)"
    """
    return adapter_rule(
        "bottleneck", pattern, size=size, activation=activation, scale=scale
    )


def pfeiffer(
    *, size: int = 64, activation: str = "gelu", scale: float = 1.0
) -> tuple[Rule, ...]:
    """Bottleneck adapters behind the feed-forward part of every block; the head trains.

    Args:
        size: Width of the bottlenecks.
        activation: Name of the activation in them.
        scale: Factor of what is added.

    Returns:
        The rules; in a backbone that has no layers of the names that are looked for
        they are an error.

    References:
        Pfeiffer et al. 2020, https://arxiv.org/abs/2005.00247
    """
    behind = bottleneck(
        FEED_FORWARD_OUTPUTS, size=size, activation=activation, scale=scale
    )
    return (behind, *frozen())


def houlsby(
    *, size: int = 64, activation: str = "gelu", scale: float = 1.0
) -> tuple[Rule, ...]:
    """Bottleneck adapters behind attention and feed-forward part; the head trains.

    Args:
        size: Width of the bottlenecks.
        activation: Name of the activation in them.
        scale: Factor of what is added.

    Returns:
        The rules; in a backbone that has no layers of the names that are looked for
        they are an error.

    References:
        Houlsby et al. 2019, https://arxiv.org/abs/1902.00751
    """
    # Two rules, not one pattern: each of the parts must be found.
    behind_attention = bottleneck(
        ATTENTION_OUTPUTS, size=size, activation=activation, scale=scale
    )
    rest = pfeiffer(size=size, activation=activation, scale=scale)
    return (behind_attention, *rest)


def prefix(
    *, length: int = 10, stddev: float = 0.02, pattern: str = "backbone/*"
) -> tuple[Rule, ...]:
    """Prefix tuning: learned keys and values in attention layers; the head trains.

    Args:
        length: Virtual keys a layer.
        stddev: Standard deviation of their initial values.
        pattern: Which layers; of these, those of `keras.layers.MultiHeadAttention` and
            classes derived from it get a prefix. Others are an error if there is none.

    Returns:
        The rules.

    References:
        Li and Liang 2021, https://arxiv.org/abs/2101.00190
    """
    rule = adapter_rule("prefix", pattern, length=length, stddev=stddev)
    return (rule, *frozen())


def prompt(*, length: int = 20, after_first: bool | None = None) -> tuple[Rule, ...]:
    """Prompt tuning: learned virtual tokens in the input; the head trains.

    Args:
        length: Virtual tokens. The text may be that much shorter than the backbone
            takes.
        after_first: Whether they stand behind the first token; None: in encoders,
            where `[CLS]` must stay first.

    Returns:
        The rules; a backbone that takes no prompt is an error.

    References:
        Lester et al. 2021, https://arxiv.org/abs/2104.08691
    """
    rule = adapter_rule("prompt", "backbone", length=length, after_first=after_first)
    return (rule, *frozen())
