"""LoRA and DoRA: a frozen kernel plus a trained product of two thin matrices."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tflearn.regimes.adapters.adapter import Adapter
from tflearn.regimes.adapters.sites import (
    before_activation,
    find_site,
    kernel_of,
    site_of,
)
from tflearn.support.errors import RegimeError


class LoRA(Adapter):
    r"""Low-rank adaptation: `outputs = host(x) + alpha / rank * (x A) B`.

    With `W` of shape `(inputs, outputs)`, `A` is `(inputs, rank)` and `B` is
    `(rank, outputs)`; the axes of kernels with more than two axes count together. `A`
    starts uniform in `+-1 / sqrt(inputs)` and `B` at zero (the table of an Embedding
    the other way round, `B` normal), so that nothing changes at first. The sum is
    taken before the layer's activation.

    Args:
        rank: Width of the product, at least 1.
        alpha: Scale of the product, divided by the rank.
        dropout: Rate of dropout on the inputs of the product, in training only.
        rslora: Divide by the square root of the rank instead.

    Example:

    >>> from tflearn.regimes import adapters
    >>> dense = keras.layers.Dense(3)
    >>> dense.build((None, 2))
    >>> adapters.attach(dense, LoRA(rank=1)).count_params()
    5

    References:
        Hu et al. 2021, https://arxiv.org/abs/2106.09685; Kalajdzievski 2023 (rsLoRA),
        https://arxiv.org/abs/2312.03732
    """

    kind = "lora"
    hosts = "Dense, EinsumDense, convolutions without groups, embeddings"
    mergeable = True

    def __init__(
        self,
        *,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        rslora: bool = False,
        **kwargs: Any,
    ) -> None:
        """Checks the hyper-parameters."""
        super().__init__(**kwargs)
        if not isinstance(rank, int) or rank < 1:
            raise RegimeError("the rank is too small", received=rank, expected=">= 1")
        if not 0 <= dropout < 1:
            raise RegimeError(
                "a rate of dropout is out of range",
                received=dropout,
                expected="at least 0, below 1",
            )
        self.rank = rank
        self.alpha = float(alpha)
        self.rate = float(dropout)
        self.rslora = rslora
        self.scaling = self.alpha / (math.sqrt(rank) if rslora else rank)
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    @classmethod
    def supports(cls, host: keras.Layer) -> bool:
        """Dense, EinsumDense, convolutions without groups, and embeddings."""
        return find_site(host) is not None and getattr(host, "groups", 1) == 1

    def options(self) -> dict[str, Any]:
        """Returns rank, alpha, dropout and rslora."""
        return {
            "rank": self.rank,
            "alpha": self.alpha,
            "dropout": self.rate,
            "rslora": self.rslora,
        }

    def build_for(self, host: keras.Layer) -> None:
        """Creates the two factors."""
        site = site_of(host)
        bound = 1 / math.sqrt(site.fan_in(host))
        uniform = keras.initializers.RandomUniform(-bound, bound)
        normal = keras.initializers.RandomNormal(stddev=1.0)
        table = isinstance(host, keras.layers.Embedding)
        self.a = self.add_weight(
            name="a",
            shape=site.shape(host, site.down, rank=self.rank),
            initializer="zeros" if table else uniform,
        )
        self.b = self.add_weight(
            name="b",
            shape=site.shape(host, site.up, rank=self.rank),
            initializer=normal if table else "zeros",
        )

    def around(
        self, host: keras.Layer, host_call: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Adds the product to what the host computes."""
        reverse = bool(kwargs.get("reverse", False))
        with before_activation(host) as activation:
            outputs = host_call(*args, **kwargs)
        added = self.low_rank(host, args[0], reverse=reverse)
        outputs = outputs + ops.cast(added, outputs.dtype)
        # The rows of a table have no activation; the logits made with it may.
        table = isinstance(host, keras.layers.Embedding) and not reverse
        return outputs if table else activation(outputs)

    def low_rank(self, host: keras.Layer, inputs: Any, *, reverse: bool = False) -> Any:
        """Returns the scaled product for some inputs.

        Args:
            host: The host.
            inputs: As the host's.
            reverse: Whether a tied embedding is used as output projection; its
                table, and so the product, is then transposed.
        """
        site = site_of(host)
        if reverse:
            if not getattr(host, "tie_weights", False):
                return ops.zeros((), dtype=host.compute_dtype)
            hidden = ops.matmul(inputs, ops.transpose(ops.convert_to_tensor(self.b)))
            rest = ops.transpose(ops.convert_to_tensor(self.a))
            return self.scaling * ops.matmul(hidden, rest)
        if self.rate and not isinstance(host, keras.layers.Embedding):
            inputs = self.dropout(inputs)
        hidden = site.project(host, inputs, self.a)
        return self.scaling * site.lift(hidden, self.b)

    def merge_into(self, host: keras.Layer) -> None:
        """Adds the product of the factors to the kernel."""
        kernel = kernel_of(host)
        kernel.assign(kernel + self.scaling * site_of(host).delta(self.a, self.b))


class DoRA(LoRA):
    """Weight-decomposed LoRA: direction by LoRA, length of each column trained.

    With `V = W + alpha / rank * A B`, the kernel is `m * V / |V|`, `m` and the norm
    for each output, `m` starting at `|W|`. No gradient flows through the norm, as the
    paper proposes. The norm is computed at every step from the whole kernel: more
    memory and time than LoRA, none once merged. Arguments as of `LoRA`; dropout acts
    on the product alone.

    References:
        Liu et al. 2024, https://arxiv.org/abs/2402.09353
    """

    kind = "dora"
    hosts = "Dense, EinsumDense, convolutions without groups, untied embeddings"

    @classmethod
    def supports(cls, host: keras.Layer) -> bool:
        """As LoRA, but for embeddings that also serve as output projection."""
        reversible = isinstance(host, keras.layers.ReversibleEmbedding)
        return super().supports(host) and not reversible

    def build_for(self, host: keras.Layer) -> None:
        """Creates the two factors and the lengths."""
        super().build_for(host)
        site = site_of(host)
        self.magnitude = self.add_weight(
            name="magnitude", shape=site.shape(host, site.kept), initializer="ones"
        )
        self.magnitude.assign(site.norm(kernel_of(host)))

    def around(
        self, host: keras.Layer, host_call: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Rescales the sum of the host's and the product's outputs, bias left out."""
        site = site_of(host)
        with before_activation(host) as activation:
            outputs = host_call(*args, **kwargs)
        outputs = outputs + ops.cast(self.low_rank(host, args[0]), outputs.dtype)
        factor = ops.cast(self._factor(host), outputs.dtype)
        bias = _bias(host, site)
        if bias is not None:
            outputs = outputs - bias
        outputs = site.scale(outputs, factor, letters=site.outputs, over=site.kept)
        return activation(outputs if bias is None else outputs + bias)

    def merge_into(self, host: keras.Layer) -> None:
        """Writes the rescaled sum into the kernel."""
        site, factor = site_of(host), self._factor(host)
        super().merge_into(host)
        kernel = kernel_of(host)
        kernel.assign(site.scale(kernel, factor, letters=site.kernel, over=site.kept))

    def _factor(self, host: keras.Layer) -> Any:
        site = site_of(host)
        # Squares of many weights are summed: not in half precision.
        kernel, a, b, magnitude = (
            ops.cast(x, "float32")
            for x in (kernel_of(host), self.a, self.b, self.magnitude)
        )
        norm = site.norm(kernel + self.scaling * site.delta(a, b))
        return magnitude / ops.stop_gradient(norm)


def _bias(host: keras.Layer, site: Any) -> Any:
    bias = getattr(host, "bias", None)
    if bias is None:
        return None
    bias = ops.convert_to_tensor(bias)
    if isinstance(host, (keras.layers.Dense, keras.layers.EinsumDense)):
        return bias
    if host.data_format == "channels_last":
        return bias
    return ops.reshape(bias, (1, -1) + (1,) * host.rank)
