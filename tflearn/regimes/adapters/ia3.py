"""IA3: activations of a frozen layer, rescaled by trained vectors."""

from __future__ import annotations

from typing import Any

import keras

from tflearn.regimes.adapters.adapter import Adapter
from tflearn.regimes.adapters.sites import (
    before_activation,
    find_site,
    kernel_of,
    site_of,
)


class IA3(Adapter):
    """Infused adapter: `outputs = scale * host(x)`, or `host(scale * x)`.

    The scales start at one. The paper rescales the keys and values of attention, and
    the inputs of the second layer of each feed-forward block.

    Args:
        feedforward: Rescale the inputs of the layer instead of its outputs (which are
            taken before the activation).

    References:
        Liu et al. 2022, https://arxiv.org/abs/2205.05638
    """

    kind = "ia3"
    hosts = "Dense, EinsumDense, convolutions"
    mergeable = True

    def __init__(self, *, feedforward: bool = False, **kwargs: Any) -> None:
        """Stores which side is rescaled."""
        super().__init__(**kwargs)
        self.feedforward = feedforward

    @classmethod
    def supports(cls, host: keras.Layer) -> bool:
        """Dense, EinsumDense and convolutions."""
        return find_site(host) is not None and not isinstance(
            host, keras.layers.Embedding
        )

    def options(self) -> dict[str, Any]:
        """Returns which side is rescaled."""
        return {"feedforward": self.feedforward}

    def build_for(self, host: keras.Layer) -> None:
        """Creates the scales."""
        site = site_of(host)
        letters = site.features if self.feedforward else site.kept
        self.scale = self.add_weight(
            name="scale", shape=site.shape(host, letters), initializer="ones"
        )

    def around(
        self, host: keras.Layer, host_call: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Rescales the inputs or the outputs."""
        site = site_of(host)
        if self.feedforward:
            inputs = site.scale(
                args[0], self.scale, letters=site.inputs, over=site.features
            )
            return host_call(inputs, *args[1:], **kwargs)
        with before_activation(host) as activation:
            outputs = host_call(*args, **kwargs)
        return activation(
            site.scale(outputs, self.scale, letters=site.outputs, over=site.kept)
        )

    def merge_into(self, host: keras.Layer) -> None:
        """Multiplies the kernel (and the bias, if the outputs are rescaled)."""
        site, kernel = site_of(host), kernel_of(host)
        over = site.features if self.feedforward else site.kept
        kernel.assign(site.scale(kernel, self.scale, letters=site.kernel, over=over))
        bias = getattr(host, "bias", None)
        if bias is not None and not self.feedforward:
            bias.assign(_scaled_bias(bias, self.scale, host, site.kept))


def _scaled_bias(bias: Any, scale: Any, host: keras.Layer, kept: str) -> Any:
    if not isinstance(host, keras.layers.EinsumDense):
        return bias * scale
    # The bias may lack axes of the kernel; then it cannot be rescaled alone.
    outputs = host.equation.replace(" ", "").split("->")[1]
    axes = "".join(x for x in outputs if x in (host.bias_axes or ""))
    return keras.ops.einsum(f"{axes},{kept}->{axes}", bias, scale)
