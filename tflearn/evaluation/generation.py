"""Texts from a causal language model, with KerasHub's samplers, on both backends.

Every new token costs one forward pass over the text so far, or over as much of it as
the model takes: there is no cache of keys and values. For n tokens in a buffer of L
that is n passes over L positions, where a cache would need one pass over L and n over
one. The whole loop is compiled once a call, for one shape of batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tflearn.backbones import TextEncoder, import_keras_hub
from tflearn.support.errors import BackboneError, ConfigError, nearest

#: Samplers by name, and the argument that a number behind the name stands for.
SAMPLERS: dict[str, tuple[str | None, type]] = {
    "greedy": (None, int),
    "random": (None, int),
    "top_k": ("k", int),
    "top_p": ("p", float),
    "beam": ("num_beams", int),
    "contrastive": ("k", int),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generated:
    """A continuation.

    Args:
        text: The new text, without the prompt.
        ids: The new tokens, int32 `(length,)`, without a final end token.
        ended: Whether the model ended the text itself.
    """

    text: str
    ids: np.ndarray
    ended: bool


def make_sampler(described: str, *, temperature: float = 1.0) -> Any:
    """Makes one of KerasHub's samplers from a short description.

    Args:
        described: `greedy`, `random`, `top_k:K`, `top_p:P`, `beam:BEAMS` or
            `contrastive:K`; without a number KerasHub's own default is taken.
        temperature: Logits are divided by it; below 1 the likely gets likelier.

    Returns:
        A `keras_hub.samplers.Sampler`.

    Raises:
        ConfigError: There is no such sampler, or its number is no good.

    Example:

    >>> make_sampler("top_k:40", temperature=0.8).k
    40
    """
    name, _, number = described.partition(":")
    if name not in SAMPLERS:
        raise ConfigError(
            "there is no such sampler",
            received=described,
            expected=", ".join(SAMPLERS),
            nearest=nearest(name, SAMPLERS),
        )
    argument, kind = SAMPLERS[name]
    config: dict[str, Any] = {"temperature": temperature}
    try:
        if number and argument:
            config[argument] = kind(number)
        good = not number or (argument and 0 < config[argument])
        good = good and (argument != "p" or config.get("p", 1) <= 1)
    except ValueError:
        good = False
    if not good or temperature <= 0:
        raise ConfigError(
            "the sampler cannot work with these numbers",
            received=f"{described}, temperature {temperature:g}",
            expected=f"{name}:{argument.upper()}" if argument else name,
        )
    class_name = "".join(part.capitalize() for part in name.split("_")) + "Sampler"
    return getattr(import_keras_hub().samplers, class_name)(**config)


def generate(
    model: keras.Model,
    encoder: TextEncoder,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    sampler: Any = "greedy",
    seed: int = 0,
    batch_size: int = 16,
) -> list[Generated]:
    """Continues texts.

    A text that outgrows what the model takes is continued from its last tokens. It
    ends at `max_new_tokens`, or at the end token if the tokenizer declares one.

    Args:
        model: A functional model of the encoder's inputs; its output are logits of the
            next token at each position, `(batch, length, vocabulary)`.
        encoder: Turns the prompts into tokens.
        prompts: Beginnings of texts. An empty one needs a start token.
        max_new_tokens: Most tokens to add.
        sampler: What `make_sampler` takes, or a `keras_hub.samplers.Sampler`.
        seed: Decides what random samplers draw, together with the batches.
        batch_size: Texts at a time.

    Returns:
        One continuation a prompt, in their order.

    Raises:
        BackboneError: The model takes other inputs than the encoder makes.
        ConfigError: A prompt is empty, or a number is out of range.
    """
    if max_new_tokens < 1 or batch_size < 1:
        raise ConfigError(
            "nothing can be generated in these numbers",
            received=f"max_new_tokens={max_new_tokens}, batch_size={batch_size}",
            expected="at least 1",
        )
    if not prompts:
        return []
    tokens = _tokens(encoder, prompts)
    length = max(map(len, tokens)) + max_new_tokens
    loop = _Loop(
        model=model,
        encoder=encoder,
        sampler=_seeded(
            make_sampler(sampler) if isinstance(sampler, str) else sampler, seed
        ),
        length=length,
    )
    found: dict[int, Generated] = {}
    for rows in _batches(tokens, batch_size, equal_lengths=loop.equal_lengths):
        # Repeated rows keep the shape of the batch, for which the loop is compiled.
        padded = (rows * batch_size)[: min(batch_size, len(tokens))]
        buffers = loop.run([tokens[row] for row in padded])
        for row, buffer in zip(rows, buffers, strict=False):
            start = len(tokens[row])
            new = buffer[start : start + max_new_tokens]
            found[row] = _cut(new, loop.stop, encoder)
    return [found[row] for row in range(len(tokens))]


class _Loop(keras.Model):
    """Runs a sampler's loop inside `predict`, which both backends compile."""

    def __init__(
        self, *, model: keras.Model, encoder: TextEncoder, sampler: Any, length: int
    ) -> None:
        super().__init__(name="generation")
        hub = import_keras_hub()
        self.network = model
        self.sampler = sampler
        # Keras keeps the state of a generator that a layer holds; a sampler is none.
        self.seeds = getattr(sampler, "seed_generator", None)
        self.names = _input_names(model, encoder)
        self.stop = _end_token(encoder)
        self.length = length
        self.context = min(length, encoder.max_length)
        # KerasHub's beams count the likelihood of tokens that the prompt then replaces.
        self.equal_lengths = isinstance(sampler, hub.samplers.BeamSampler)
        self.contrastive = isinstance(sampler, hub.samplers.ContrastiveSampler)
        if self.contrastive and length > self.context:
            raise ConfigError(
                "contrastive search compares a token with the whole text",
                received=f"prompt and new tokens: {length}",
                expected=f"at most {self.context} tokens, which the model takes",
            )
        # What stands behind the text must not look as if it had ended.
        pad = encoder.packing.pad
        self.fill = pad if pad != self.stop else pad + 1
        self.built = True

    def run(self, tokens: Sequence[np.ndarray]) -> np.ndarray:
        """Returns `(batch, length)`: the prompts with what follows them."""
        buffer = np.full((len(tokens), self.length), self.fill, "int32")
        for row, ids in zip(buffer, tokens, strict=True):
            row[: len(ids)] = ids
        lengths = np.array([len(ids) for ids in tokens], "int32")
        return np.asarray(self.predict_on_batch({"buffer": buffer, "lengths": lengths}))

    def call(self, inputs: Mapping[str, Any]) -> Any:
        """Fills a buffer `(batch, length)` from the shortest prompt on."""
        buffer, lengths = inputs["buffer"], inputs["lengths"]
        more: dict[str, Any] = {}
        if self.contrastive:
            positions = ops.arange(self.length)[None, :]
            known = self._inputs(buffer, positions < lengths[:, None])
            more["hidden_states"] = self._hidden(known)
        return self.sampler(
            self._next,
            buffer,
            index=ops.min(lengths),
            mask=ops.arange(self.length)[None, :] < lengths[:, None],
            stop_token_ids=None if self.stop is None else [self.stop],
            model=self.network,
            **more,
        )

    def _next(self, buffer: Any, cache: Any, index: Any) -> tuple[Any, Any, Any]:
        """Returns logits and hidden states of the token at `index - 1`."""
        start = ops.maximum(index - self.context, 0)
        positions = start + ops.arange(self.context, dtype="int32")
        window = ops.take(buffer, positions, axis=1)
        real = ops.broadcast_to((positions < index)[None, :], ops.shape(window))
        inputs = self._inputs(window, real)
        last = index - 1 - start
        hidden = None
        if self.contrastive:
            hidden = ops.take(self._hidden(inputs), last, axis=1)
        return ops.take(self.network(inputs), last, axis=1), hidden, cache

    def _inputs(self, token_ids: Any, real: Any) -> Any:
        made = {
            "token_ids": token_ids,
            "padding_mask": ops.cast(real, "int32"),
            "segment_ids": ops.zeros_like(token_ids),
        }
        named = {name: made[role] for role, name in self.names.items()}
        return named if isinstance(self.network.input, dict) else made["token_ids"]

    def _hidden(self, inputs: Any) -> Any:
        outputs = self.network.get_layer("backbone")(inputs)
        if isinstance(outputs, dict):
            outputs = outputs["sequence_output"]
        return ops.cast(outputs, "float32")


def _tokens(encoder: TextEncoder, prompts: Sequence[str]) -> list[np.ndarray]:
    """Tokenizes beginnings: a text that is to go on has no end token."""
    packing = dataclasses.replace(encoder.packing, end=())
    tokens = dataclasses.replace(encoder, packing=packing).tokenize(list(prompts)).ids
    for row, ids in enumerate(tokens):
        if not len(ids):
            raise ConfigError(
                "an empty prompt gives the model nothing to go on from",
                received=f"prompt {row}: {prompts[row]!r}",
                fix="give a prompt, or declare the special token 'start' for the "
                "tokenizer that the model is trained with",
            )
    return tokens


def _input_names(model: keras.Model, encoder: TextEncoder) -> dict[str, str]:
    if not isinstance(model.input, dict):
        return {"token_ids": "token_ids"}
    known = {name: role for role, name in encoder.input_names.items()}
    strange = [name for name in model.input if name not in known]
    if strange:
        raise BackboneError(
            "the model takes inputs that cannot be made from a prompt",
            received=", ".join(strange),
            expected=", ".join(known),
        )
    return {known[name]: name for name in model.input}


def _end_token(encoder: TextEncoder) -> int | None:
    if encoder.packing.end:
        return encoder.packing.end[0]
    return getattr(encoder.tokenizer, "end_token_id", None)


def _seeded(sampler: Any, seed: int) -> Any:
    """Copies a sampler; the copy draws the same numbers whenever it is made."""
    config = sampler.get_config()
    if "seed" in config:
        config |= {"seed": seed}
    return type(sampler).from_config(config)


def _batches(
    tokens: Sequence[np.ndarray], batch_size: int, *, equal_lengths: bool
) -> Iterator[list[int]]:
    # Prompts of one length together: the loop starts behind the shortest one.
    rows = sorted(range(len(tokens)), key=lambda row: (len(tokens[row]), row))
    batch: list[int] = []
    for row in rows:
        differs = batch and len(tokens[row]) != len(tokens[batch[0]])
        if len(batch) == batch_size or (equal_lengths and differs):
            yield batch
            batch = []
        batch.append(row)
    yield batch


def _cut(ids: np.ndarray, stop: int | None, encoder: TextEncoder) -> Generated:
    ends = np.flatnonzero(ids == stop) if stop is not None else []
    if len(ends):
        ids = ids[: ends[0]]
    return Generated(text=encoder.decode(ids), ids=ids, ended=bool(len(ends)))
