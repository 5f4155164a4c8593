"""Regimes that move only weights of one sort: biases, or normalisation layers."""

from __future__ import annotations

import keras

from tflearn.backbones import graph
from tflearn.regimes.rules import Rule, adapter_rule, frozen


def is_normalization(layer: keras.Layer) -> bool:
    """Tells whether a layer normalises and then scales or shifts by weights.

    Args:
        layer: Any layer. Those of models of their own (`LlamaLayerNorm`,
            `RMSNormalization`) share no base class, so the class's name tells.

    Example:

    >>> norm = keras.layers.LayerNormalization()
    >>> norm.build((None, 4))
    >>> is_normalization(norm)
    True
    """
    # Wrappers and blocks (`SpectralNormalization`, `ConvNormAct`) hold layers that have
    # weights; `keras.layers.Normalization` has statistics only.
    inner = any(x.weights for x in graph.layers_by_path(layer).values())
    learned = {"gamma", "beta", "scale", "bias", "weight"}
    named = any(weight.name in learned for weight in layer.weights)
    return "norm" in type(layer).__name__.lower() and named and not inner


# What `Rule.only` may name.
SORTS = {"normalization": is_normalization}


def bitfit(*, pattern: str = "backbone/*") -> tuple[Rule, ...]:
    """BitFit: the biases of the backbone and the head train.

    Each layer with a bias (`bias`, or `beta` of a normalisation) stays frozen and gets
    a learned difference that is added to it; see `adapters.BiasShift` for why.

    Args:
        pattern: Which layers' biases.

    Returns:
        The rules.

    Example:

    >>> [str(rule) for rule in bitfit()]
    ["bias('backbone/*')", "freeze('backbone/*')", "train('*')"]

    References:
        Ben Zaken et al. 2022, https://arxiv.org/abs/2106.10199
    """
    shift = adapter_rule("bias", pattern)
    return (shift, *frozen())


def norm_only(*, pattern: str = "backbone/*") -> tuple[Rule, ...]:
    """The normalisation layers of the backbone and the head train.

    Args:
        pattern: Which layers; of these, normalisation layers of any kind are trained.
            Batch normalisation also updates its statistics.

    Returns:
        The rules.

    Example:

    >>> [str(rule) for rule in norm_only()]
    ["train('backbone/*', only='normalization')", "freeze('backbone/*')", "train('*')"]

    References:
        Frankle et al. 2021, https://arxiv.org/abs/2003.00152
    """
    norms = Rule(action="train", pattern=pattern, only="normalization")
    return (norms, *frozen())
