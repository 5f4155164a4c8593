"""Prefix tuning: learned keys and values that every query of a layer attends to."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tflearn.regimes.adapters.adapter import Adapter
from tflearn.regimes.adapters.substitution import substituted
from tflearn.support.errors import RegimeError


class Prefix(Adapter):
    """Puts learned keys and values before those of an attention layer.

    `softmax(q [p_k; k]^T / sqrt(d)) [p_v; v]` a head: the mask is extended so that
    every query, causal or not, sees the whole prefix. Positions of the text stay as
    they are. There is no reparametrisation by a network.

    Args:
        length: Number of virtual keys, at least 1.
        stddev: Standard deviation of their initial values.

    Example:

    >>> from tflearn.regimes import adapters
    >>> attention = keras.layers.MultiHeadAttention(num_heads=2, key_dim=3)
    >>> attention.build((None, 5, 6), (None, 5, 6))
    >>> prefix = adapters.attach(attention, Prefix(length=4))
    >>> tuple(prefix.key.shape)
    (4, 2, 3)

    References:
        Li and Liang 2021, https://arxiv.org/abs/2101.00190
    """

    kind = "prefix"
    hosts = "keras.layers.MultiHeadAttention and classes derived from it"

    def __init__(
        self, *, length: int = 10, stddev: float = 0.02, **kwargs: Any
    ) -> None:
        """Checks the length."""
        super().__init__(**kwargs)
        if length < 1:
            raise RegimeError(
                "a prefix has a length", received=length, expected="length >= 1"
            )
        self.length = length
        self.stddev = stddev

    @classmethod
    def supports(cls, host: keras.Layer) -> bool:
        """Takes `keras.layers.MultiHeadAttention` and classes derived from it."""
        return isinstance(host, keras.layers.MultiHeadAttention)

    def options(self) -> dict[str, Any]:
        """Returns length and standard deviation."""
        return {"length": self.length, "stddev": self.stddev}

    def build_for(self, host: Any) -> None:
        """Makes `key` and `value`, each `(length, heads, dim of a head)`.

        Args:
            host: The attention layer.

        Raises:
            RegimeError: It attends over other axes than one, or is told to use flash
                attention.
        """
        rank = len(host.query_dense.equation.split("->")[1])
        axes = tuple(host.attention_axes)
        if rank != 4 or axes != (1,) or host._flash_attention:
            raise RegimeError(
                "this attention layer does not allow a prefix",
                received=f"{host.name}: outputs of heads of rank {rank}, attention "
                f"axes {axes}, flash_attention={host._flash_attention}",
                expected="attention over axis 1 of (batch, length, dim) without "
                "flash_attention=True, which takes no mask of another length",
                fix="leave the layer out with pattern=..., or use regimes.prompt",
            )
        for name, dim in (("key", host.key_dim), ("value", host.value_dim)):
            weight = self.add_weight(
                shape=(self.length, host.num_heads, dim),
                initializer=keras.initializers.RandomNormal(stddev=self.stddev),
                name=name,
            )
            setattr(self, name, weight)

    def around(self, host: Any, host_call: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns what the host returns when its attention sees the prefix.

        Args:
            host: The attention layer.
            host_call: Its own computation.
            *args: As the host was called.
            **kwargs: As the host was called.
        """
        attend = host._compute_attention

        def with_prefix(
            query: Any,
            key: Any,
            value: Any,
            attention_mask: Any = None,
            *rest: Any,
            use_causal_mask: bool = False,
            **options: Any,
        ) -> Any:
            if use_causal_mask:
                # Keras leaves the mask to a kernel that knows square ones only.
                causal = _causal(ops.shape(query)[1], ops.shape(key)[1])
                attention_mask = (
                    causal
                    if attention_mask is None
                    else (ops.logical_and(ops.cast(attention_mask, "bool"), causal))
                )
            if attention_mask is not None:
                attention_mask = self._extend(attention_mask, ops.shape(key)[1])
            key, value = _before(self.key, key), _before(self.value, value)
            # Position: the subclasses of KerasHub call by name, Keras by position.
            return attend(query, key, value, attention_mask, *rest, **options)

        # The documented place to change attention is this method of the layer; on the
        # instance it serves the layer's own call, cache included.
        with substituted(host, "_compute_attention", with_prefix):
            return host_call(*args, **kwargs)

    def _extend(self, mask: Any, length: Any) -> Any:
        """Lets every query see the prefix.

        Args:
            mask: `(..., queries, keys)`; a size of 1 stands for any.
            length: Number of keys.
        """
        mask = ops.cast(mask, "int32")
        ones = (1,) * (len(mask.shape) - 1)
        mask = mask * ops.ones((*ones, length), "int32")
        pad = [[0, 0]] * (len(mask.shape) - 1) + [[self.length, 0]]
        return ops.cast(ops.pad(mask, pad, constant_values=1), "bool")


def _before(prefix: Any, rest: Any) -> Any:
    """Puts `(length, heads, dim)` before `(batch, keys, heads, dim)`."""
    shape = (ops.shape(rest)[0], *prefix.shape)
    repeated = ops.broadcast_to(ops.cast(prefix, rest.dtype)[None], shape)
    return ops.concatenate([repeated, rest], axis=1)


def _causal(queries: Any, keys: Any) -> Any:
    rows, columns = ops.arange(queries)[:, None], ops.arange(keys)[None]
    return (rows >= columns)[None]
