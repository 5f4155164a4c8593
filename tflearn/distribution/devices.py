"""What computes: the CPU, or an accelerator."""

from __future__ import annotations

import keras


def computed_on() -> str:
    """Returns `cpu` or `accelerator`: what is fast, and what compiling is worth."""
    kinds = keras.distribution.list_devices()
    return "cpu" if all(x.lower().startswith("cpu") for x in kinds) else "accelerator"
