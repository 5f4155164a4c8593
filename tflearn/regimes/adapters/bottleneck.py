"""Bottleneck adapters: a small residual network behind a layer's output."""

from __future__ import annotations

from typing import Any

import keras

from tflearn.regimes.adapters.adapter import Adapter
from tflearn.support.errors import RegimeError


class Bottleneck(Adapter):
    """Adds a small network of its output to what a layer returns.

    `y = h + scale * up(activation(down(h)))`, with `h` the host's output. `up` starts
    at zero, so that the model begins as it was.

    Args:
        size: Width of the bottleneck, at least 1.
        activation: Name of the activation in it.
        scale: Factor of what is added.

    Example:

    >>> from tflearn.regimes import adapters
    >>> dense = keras.layers.Dense(6)
    >>> dense.build((None, 4))
    >>> adapters.attach(dense, Bottleneck(size=2)).count_params()
    32

    References:
        Houlsby et al. 2019, https://arxiv.org/abs/1902.00751
        Pfeiffer et al. 2020, https://arxiv.org/abs/2005.00247
    """

    kind = "bottleneck"
    hosts = "Dense, EinsumDense, convolutions (channels last)"

    def __init__(
        self,
        *,
        size: int = 64,
        activation: str = "gelu",
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """Checks the size."""
        super().__init__(**kwargs)
        if size < 1:
            raise RegimeError(
                "a bottleneck has a width", received=size, expected="size >= 1"
            )
        self.size = size
        self.activation = activation
        self.scale = scale
        self.down = keras.layers.Dense(
            size, activation=activation, name="down", dtype=self.dtype_policy
        )

    @classmethod
    def supports(cls, host: keras.Layer) -> bool:
        """Takes layers with one output whose last axis is a fixed width."""
        return _width(host) is not None

    def options(self) -> dict[str, Any]:
        """Returns size, activation and scale."""
        return {"size": self.size, "activation": self.activation, "scale": self.scale}

    def build_for(self, host: keras.Layer) -> None:
        """Makes `down` `(dim, size)` and `up` `(size, dim)` with their biases."""
        width = _width(host)
        self.up = keras.layers.Dense(
            width,
            kernel_initializer="zeros",
            name="up",
            dtype=self.dtype_policy,
        )
        self.down.build((None, width))
        self.up.build((None, self.size))

    def around(
        self, host: keras.Layer, host_call: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Returns the host's output with the bottleneck's added.

        Args:
            host: The host.
            host_call: Its own computation; gives `(..., dim)`.
            *args: As the host was called.
            **kwargs: As the host was called.
        """
        outputs = host_call(*args, **kwargs)
        added = self.up(self.down(outputs))
        return outputs + keras.ops.cast(self.scale * added, outputs.dtype)


def _width(host: keras.Layer) -> int | None:
    if isinstance(host, keras.layers.Dense):
        return host.units
    if isinstance(host, keras.layers.EinsumDense):
        return host.partial_output_shape[-1]
    convolutions = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
    if isinstance(host, convolutions) and host.data_format == "channels_last":
        return host.filters
    return None
