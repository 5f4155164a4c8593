"""The loops that add token after token to a batch of texts.

Each runs inside `predict`, which both backends compile, for one shape of batch.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tflearn.backbones import TextEncoder, import_keras_hub
from tflearn.support.errors import BackboneError, ConfigError

_DECODER = "decoder_"


class Loop(keras.Model):
    """Fills a buffer of tokens from the shortest beginning on.

    Args:
        network: A functional model; its output are logits of the next token at each
            position, `(batch, length, vocabulary)`.
        encoder: The encoder of its texts.
        sampler: A `keras_hub.samplers.Sampler`.
        length: Tokens of the buffer: the longest beginning and what is added.
    """

    def __init__(
        self, network: keras.Model, encoder: TextEncoder, sampler: Any, *, length: int
    ) -> None:
        super().__init__(name="generation")
        self.network = network
        self.sampler = sampler
        # Keras keeps the state of a generator that a layer holds; a sampler is none.
        self.seeds = getattr(sampler, "seed_generator", None)
        self.length = length
        self.stop = end_token(encoder)
        self.stops = None if self.stop is None else [self.stop]
        # What stands behind the text must not look as if it had ended.
        pad = encoder.packing.pad
        self.fill = pad if pad != self.stop else pad + 1
        self.built = True

    def run(
        self, tokens: Sequence[np.ndarray], others: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Decodes a batch.

        Args:
            tokens: Beginnings, int `(length,)` each.
            others: What else the network takes, `(batch, ...)` by name.

        Returns:
            `(batch, length)`: the beginnings with what follows them.
        """
        buffer = np.full((len(tokens), self.length), self.fill, "int32")
        for row, ids in zip(buffer, tokens, strict=True):
            row[: len(ids)] = ids
        lengths = np.array([len(ids) for ids in tokens], "int32")
        return np.asarray(
            self.predict_on_batch({"buffer": buffer, "lengths": lengths, **others})
        )

    def call(self, inputs: Mapping[str, Any]) -> Any:
        """Fills the buffer `(batch, length)`."""
        others = dict(inputs)
        buffer, lengths = others.pop("buffer"), others.pop("lengths")
        known = ops.arange(self.length)[None, :] < lengths[:, None]
        return self.decode(buffer, known, others)

    @abc.abstractmethod
    def decode(self, buffer: Any, known: Any, others: dict[str, Any]) -> Any:
        """Fills the places of a buffer that are not known.

        Args:
            buffer: int `(batch, length)`.
            known: bool, of the same shape; a beginning of each row is known.
            others: What else the network takes, by name.
        """


class PlainLoop(Loop):
    """Calls the network on the text so far for each new token.

    A causal model that is given more than it takes goes on from the last tokens; the
    decoder of an encoder-decoder has no beginning that it could do without.
    """

    def __init__(
        self, network: keras.Model, encoder: TextEncoder, sampler: Any, *, length: int
    ) -> None:
        super().__init__(network, encoder, sampler, length=length)
        self.names = input_names(network, encoder)
        self.context = min(length, encoder.max_length)
        hub = import_keras_hub()
        self.contrastive = isinstance(sampler, hub.samplers.ContrastiveSampler)
        if self.contrastive and length > self.context:
            raise ConfigError(
                "contrastive search compares a token with the whole text",
                received=f"prompt and new tokens: {length}",
                expected=f"at most {self.context} tokens, which the model takes",
            )

    def decode(self, buffer: Any, known: Any, others: dict[str, Any]) -> Any:
        """Fills the places of a buffer that are not known."""
        more: dict[str, Any] = {}
        if self.contrastive:
            more["hidden_states"] = self._hidden(self._inputs(buffer, known, others))
        return self.sampler(
            self._next,
            buffer,
            # Samplers repeat what is in the cache where they try several texts.
            cache=others or None,
            index=ops.min(ops.sum(ops.cast(known, "int32"), axis=1)),
            mask=known,
            stop_token_ids=self.stops,
            model=self.network,
            **more,
        )

    def _next(self, buffer: Any, cache: Any, index: Any) -> tuple[Any, Any, Any]:
        """Returns logits and hidden states of the token at `index - 1`."""
        start = ops.maximum(index - self.context, 0)
        positions = start + ops.arange(self.context, dtype="int32")
        window = ops.take(buffer, positions, axis=1)
        real = ops.broadcast_to((positions < index)[None, :], ops.shape(window))
        inputs = self._inputs(window, real, cache or {})
        last = index - 1 - start
        hidden = None
        if self.contrastive:
            hidden = ops.take(self._hidden(inputs), last, axis=1)
        return ops.take(self.network(inputs), last, axis=1), hidden, cache

    def _inputs(self, token_ids: Any, real: Any, others: Mapping[str, Any]) -> Any:
        made = {
            "token_ids": token_ids,
            "padding_mask": ops.cast(real, "int32"),
            "segment_ids": ops.zeros_like(token_ids),
        }
        named = {name: made[role] for role, name in self.names.items()}
        whole = isinstance(self.network.input, dict)
        return {**named, **others} if whole else made["token_ids"]

    def _hidden(self, inputs: Any) -> Any:
        outputs = self.network.get_layer("backbone")(inputs)
        if isinstance(outputs, dict):
            prefix = _DECODER if is_encoder_decoder(self.network) else ""
            outputs = outputs[f"{prefix}sequence_output"]
        return ops.cast(outputs, "float32")


def is_encoder_decoder(model: keras.Model) -> bool:
    """Tells whether a model's decoder is given tokens of its own."""
    return isinstance(model.input, dict) and f"{_DECODER}token_ids" in model.input


def end_token(encoder: TextEncoder) -> int | None:
    """Returns the id of the token that ends a text; None where there is none."""
    if encoder.packing.end:
        return encoder.packing.end[0]
    return getattr(encoder.tokenizer, "end_token_id", None)


def input_names(model: keras.Model, encoder: TextEncoder) -> dict[str, str]:
    """Returns which inputs of a model take the text that is continued.

    Args:
        model: A functional model.
        encoder: The encoder of its texts.

    Returns:
        Names of inputs by role: `token_ids`, `padding_mask`, `segment_ids`.

    Raises:
        BackboneError: Others are left over.
    """
    if not isinstance(model.input, dict):
        return {"token_ids": "token_ids"}
    known = {name: role for role, name in encoder.input_names.items()}
    taken = dict(known)
    if is_encoder_decoder(model):
        taken = {f"{_DECODER}{role}": role for role in ("token_ids", "padding_mask")}
    strange = [name for name in model.input if name not in {**known, **taken}]
    if strange:
        raise BackboneError(
            "the model takes inputs that cannot be made from a prompt",
            received=", ".join(strange),
            expected=", ".join({**known, **taken}),
        )
    return {taken[name]: name for name in model.input if name in taken}
