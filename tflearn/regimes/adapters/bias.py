"""BitFit's part of a layer: a difference that is added to its bias."""

from __future__ import annotations

import contextlib
from typing import Any

import keras

from tflearn.regimes.adapters.adapter import Adapter
from tflearn.regimes.adapters.substitution import substituted

_NAMES = ("bias", "beta")


class BiasShift(Adapter):
    """Adds a learned difference, zero at first, to the biases of a layer.

    A layer is frozen whole or not at all, since flags of single variables are lost
    when a model is saved and a trained layer leaves inference mode. So the bias of a
    frozen layer is not moved but shifted: its gradient is that of the bias, weight
    decay pulls towards the pretrained value, and merging writes the sum.

    Example:

    >>> from tflearn.regimes import adapters
    >>> dense = keras.layers.Dense(3, activation="relu")
    >>> dense.build((None, 2))
    >>> shift = adapters.attach(dense, BiasShift())
    >>> [tuple(weight.shape) for weight in shift.weights]
    [(3,)]

    References:
        Ben Zaken et al. 2022, https://arxiv.org/abs/2106.10199
    """

    kind = "bias"
    hosts = "layers that own a weight named 'bias' or 'beta'"
    mergeable = True

    @classmethod
    def supports(cls, host: keras.Layer) -> bool:
        """Takes layers that own a variable named `bias` or `beta`."""
        return bool(_biases(host))

    def build_for(self, host: keras.Layer) -> None:
        """Makes one difference a bias, of its shape and under its name."""
        self.shifts = {
            attribute: self.add_weight(
                shape=bias.shape, initializer="zeros", name=bias.name
            )
            for attribute, bias in _biases(host).items()
        }

    def around(
        self, host: keras.Layer, host_call: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Returns what the host computes with its biases shifted.

        Args:
            host: The host.
            host_call: Its own computation.
            *args: As the host was called.
            **kwargs: As the host was called.
        """
        with contextlib.ExitStack() as stack:
            for attribute, bias in _biases(host).items():
                shifted = keras.ops.add(bias, self.shifts[attribute])
                stack.enter_context(substituted(host, attribute, shifted))
            return host_call(*args, **kwargs)

    def merge_into(self, host: keras.Layer) -> None:
        """Adds the differences to the host's biases."""
        for attribute, bias in _biases(host).items():
            bias.assign(bias.value + self.shifts[attribute].value)


def _biases(host: keras.Layer) -> dict[str, keras.Variable]:
    """Returns the biases of a layer by the attribute that holds them."""
    return {
        attribute: value
        for attribute, value in vars(host).items()
        if isinstance(value, keras.Variable) and value.name in _NAMES
    }
