"""The precision a run computes in."""

from __future__ import annotations

import keras

from tflearn.support.errors import ConfigError, nearest

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


def set_precision(precision: str, *, platform: str) -> str:
    """Sets Keras's dtype policy for all layers that are made from now on.

    Args:
        precision: A policy, or `auto`: mixed bfloat16 on accelerators, float32 on
            CPUs, where bfloat16 is slower or less exact for no gain.
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
        precision = "float32" if platform == "cpu" else "mixed_bfloat16"
    keras.config.set_dtype_policy(precision)
    return precision
