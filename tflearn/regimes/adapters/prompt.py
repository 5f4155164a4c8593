"""Prompt tuning: learned virtual tokens among the inputs of a whole text backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tflearn.backbones import graph
from tflearn.regimes.adapters.adapter import Adapter
from tflearn.regimes.adapters.attach import attached
from tflearn.regimes.adapters.substitution import substituted
from tflearn.support.errors import RegimeError

# What stands at the places of virtual tokens. The id is not 0, which embeddings with
# `mask_zero` take for padding; its vector is replaced.
_FILL = {"token_ids": 1, "padding_mask": 1, "segment_ids": 0}
_AXIS = 1


class Prompt(Adapter):
    """Gives a text backbone learned vectors as if they were tokens.

    The backbone gets inputs that are `length` tokens longer, the vectors stand where
    the embeddings of these tokens would, and the outputs lose these places again, so
    that the head sees the sequence it knows. In a causal decoder the prompt stands
    before everything: only what stands before a token is seen by it. In an encoder
    it stands behind the first token, since pooled outputs and pooling heads read the
    first place, where `[CLS]` must stay.

    Args:
        length: Number of virtual tokens, at least 1.
        after_first: Whether the prompt stands behind the first token; None: in
            encoders.

    References:
        Lester et al. 2021, https://arxiv.org/abs/2104.08691
    """

    kind = "prompt"
    hosts = "a functional backbone with an input 'token_ids'"

    def __init__(
        self, *, length: int = 20, after_first: bool | None = None, **kwargs: Any
    ) -> None:
        """Checks the length."""
        super().__init__(**kwargs)
        if length < 1:
            raise RegimeError(
                "a prompt has a length", received=length, expected="length >= 1"
            )
        self.length = length
        self.after_first = after_first

    @classmethod
    def supports(cls, host: keras.Layer) -> bool:
        """Takes functional models with an input `token_ids`."""
        return isinstance(host, keras.Model) and "token_ids" in _input_names(host)

    def options(self) -> dict[str, Any]:
        """Returns length and place."""
        return {"length": self.length, "after_first": self.after_first}

    def build_for(self, host: Any) -> None:
        """Makes `vectors` `(length, dim)` from vectors of the vocabulary.

        Args:
            host: The backbone; random rows of its token embedding are copied.

        Raises:
            RegimeError: It has other inputs than text has, inputs of a fixed length,
                no token embedding, or no room for the prompt.
        """
        _check_inputs(host)
        embedding = _token_embedding(host)
        limit = _max_length(host)
        if limit is not None and limit <= self.length:
            raise _too_long(limit, self.length, 1)
        rows = keras.random.randint((self.length,), 0, embedding.input_dim)
        drawn = ops.convert_to_numpy(embedding(rows[None]))[0]
        self.vectors = self.add_weight(
            shape=drawn.shape, initializer="zeros", name="vectors"
        )
        self.vectors.assign(drawn)

    def around(
        self,
        host: Any,
        host_call: Any,
        inputs: Mapping[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Returns the host's outputs for the inputs with the prompt in them.

        Args:
            host: The backbone.
            host_call: Its own computation.
            inputs: Tensors `(batch, length)` by name.
            *args: As the host was called.
            **kwargs: As the host was called.

        Raises:
            RegimeError: Text and prompt are longer than the backbone takes.
        """
        # Token ids carry no Keras masks, and a mask of the old length would not fit.
        kwargs.pop("mask", None)
        at, end = self._place(host)
        longer = {name: self._lengthen(x, name, host) for name, x in inputs.items()}
        embedding = _token_embedding(host)
        embed = embedding.call

        def with_prompt(ids: Any, *rest: Any, **options: Any) -> Any:
            vectors = embed(ids, *rest, **options)
            shape = (ops.shape(vectors)[0], *self.vectors.shape)
            prompt = ops.cast(self.vectors, vectors.dtype)[None]
            prompt = ops.broadcast_to(prompt, shape)
            parts = [vectors[:, :at], prompt, vectors[:, end:]]
            return ops.concatenate(parts, axis=_AXIS)

        # Outside of this call, where it may turn features into logits, the embedding
        # is what it was.
        with substituted(embedding, "call", with_prompt):
            outputs = host_call(longer, *args, **kwargs)
        return keras.tree.map_structure(
            lambda tensor, symbol: _shorten(tensor, symbol, at, end),
            outputs,
            keras.tree.pack_sequence_as(outputs, host.outputs),
        )

    def _place(self, host: keras.Layer) -> tuple[int, int]:
        after = self.after_first
        if after is None:
            after = not _is_causal(host)
        return int(after), int(after) + self.length

    def _lengthen(self, tensor: Any, name: str, host: Any) -> Any:
        limit, length = _max_length(host), tensor.shape[_AXIS]
        if limit is not None and length is not None and length > limit - self.length:
            raise _too_long(limit, self.length, length)
        at, _ = self._place(host)
        shape = (ops.shape(tensor)[0], self.length)
        new = ops.cast(ops.full(shape, _FILL[name]), tensor.dtype)
        parts = [tensor[:, :at], new, tensor[:, at:]]
        return ops.concatenate(parts, axis=_AXIS)


def check_room(host: keras.Layer, length: int) -> None:
    """Checks, before anything trains, that texts fit beside the prompts of a backbone.

    Args:
        host: The backbone.
        length: Most tokens of a text, special ones included.

    Raises:
        RegimeError: Text and prompt are longer than the backbone takes.
    """
    limit = _max_length(host)
    for adapter in attached(host).values():
        if (
            isinstance(adapter, Prompt)
            and limit is not None
            and length > limit - adapter.length
        ):
            raise _too_long(limit, adapter.length, length)


def _shorten(tensor: Any, symbol: keras.KerasTensor, at: int, end: int) -> Any:
    """Takes the virtual places out of an output that has one place a token."""
    if len(symbol.shape) <= _AXIS or symbol.shape[_AXIS] is not None:
        return tensor
    return ops.concatenate([tensor[:, :at], tensor[:, end:]], axis=_AXIS)


def _input_names(host: Any) -> list[str]:
    return list(host.input) if isinstance(getattr(host, "input", None), dict) else []


def _check_inputs(host: Any) -> None:
    names = _input_names(host)
    other = [name for name in names if name not in _FILL]
    fixed = [x.name for x in host.inputs if x.shape[_AXIS] is not None]
    if other or fixed:
        raise RegimeError(
            "a prompt does not fit the inputs of this backbone",
            received=", ".join(other or fixed)
            + ("" if other else " of a fixed length"),
            expected=f"inputs (batch, any length) among {', '.join(_FILL)}",
            fix="use regimes.prefix or regimes.lora instead",
        )


def _token_embedding(host: keras.Layer) -> Any:
    layers = graph.layers_by_path(host)
    found = [
        layer
        for path, layer in layers.items()
        if isinstance(layer, keras.layers.Embedding)
        and path.rsplit("/", 1)[-1] == "token_embedding"
    ]
    if len(found) != 1:
        raise RegimeError(
            "a prompt needs to know the token embedding",
            received=f"{len(found)} layers of this name in {', '.join(layers)[:200]}",
            expected="one keras.layers.Embedding named 'token_embedding'",
        )
    return found[0]


def _max_length(host: keras.Layer) -> int | None:
    """Returns how many positions a backbone has learned; None without a limit."""
    tables = [
        layer.sequence_length
        for layer in graph.layers_by_path(host).values()
        if hasattr(layer, "position_embeddings") and hasattr(layer, "sequence_length")
    ]
    return min(tables, default=None)


def _is_causal(host: keras.Layer) -> bool:
    # KerasHub has no other common sign: TransformerDecoder, GemmaDecoderBlock, ...
    layers = graph.layers_by_path(host).values()
    return any("Decoder" in type(layer).__name__ for layer in layers)


def _too_long(limit: int, prompt: int, text: int) -> RegimeError:
    return RegimeError(
        "text and prompt are longer than the backbone takes",
        received=f"{text} tokens and a prompt of {prompt}",
        expected=f"together at most {limit}",
        fix=f"set data.Data.max_length to at most {limit - prompt}"
        if limit > prompt
        else "take a shorter prompt",
    )
