"""The precision a run computes in."""

from __future__ import annotations

import keras

from tflearn.distribution import products
from tflearn.support.errors import ConfigError, nearest

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


def set_precision(precision: str, *, platform: str) -> str:
    """Sets Keras's dtype policy for all layers that are made from now on.

    Args:
        precision: A policy, or `auto`: what `by_rule` says. A run that trains long
            enough measures instead; see `tflearn.training.precision_trial`.
        platform: `cpu`, `gpu` or `tpu`.

    Returns:
        The policy that was set.

    Raises:
        ConfigError: The precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ConfigError(
            "unknown precision",
            received=precision,
            expected=PRECISIONS,
            nearest=nearest(precision, PRECISIONS),
        )
    if precision == "auto":
        precision = by_rule(platform)
    keras.config.set_dtype_policy(precision)
    return precision


def by_rule(platform: str) -> str:
    """Returns mixed bfloat16 on accelerators, float32 on CPUs.

    Args:
        platform: `cpu`, `gpu` or `tpu`.
    """
    return "float32" if platform == "cpu" else "mixed_bfloat16"


def candidates(platform: str) -> tuple[str, ...]:
    """Returns the precisions that may be the fastest on the hardware.

    Args:
        platform: `cpu`, `gpu` or `tpu`.

    Returns:
        On CPUs bfloat16 only where they multiply it in hardware; TPUs do nothing else.
    """
    if platform == "tpu":
        return ("mixed_bfloat16",)
    if platform == "cpu":
        fast = products.has_matrix_units()
        return ("float32", "mixed_bfloat16") if fast else ("float32",)
    return ("float32", "mixed_bfloat16", "mixed_float16")
