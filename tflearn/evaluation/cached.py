"""Decoding with a cache of keys and values, by KerasHub's own tasks.

KerasHub has a task for each architecture that generates: its `generate_step` runs the
encoder and the text so far once, then one token at a time. Here it runs on the very
layers of a model; that it computes what the model computes is not taken on trust.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from tflearn.backbones import TextEncoder, import_keras_hub
from tflearn.evaluation.decoding import Loop, is_encoder_decoder
from tflearn.heads.language_model import LanguageModel

_TOKENS, _GIVEN = 8, 4
# Of the spread of the logits, for the precision that layers compute in.
_TOLERANCE = {"float32": 1e-3, "float64": 1e-3}
_COARSE = 0.05


class CachedLoop(Loop):
    """Runs the `generate_step` of a task of KerasHub.

    Args:
        task: What `task_of` returned.
        network: The model of the same layers.
        encoder: The encoder of its texts.
        sampler: A `keras_hub.samplers.Sampler`.
        length: Tokens of the buffer.
    """

    def __init__(
        self,
        task: Any,
        network: keras.Model,
        encoder: TextEncoder,
        sampler: Any,
        *,
        length: int,
    ) -> None:
        super().__init__(network, encoder, sampler, length=length)
        self.task = task
        task.sampler = sampler

    def decode(self, buffer: Any, known: Any, others: dict[str, Any]) -> Any:
        """Fills the places of a buffer that are not known."""
        return _step(self.task, buffer, known, others, self.stops)


def task_of(
    model: keras.Model, encoder: TextEncoder, *, length: int
) -> tuple[Any | None, str]:
    """Finds the task of KerasHub that decodes what a model predicts with a cache.

    Args:
        model: What text is generated with.
        encoder: The encoder of its texts.
        length: Tokens of the longest text.

    Returns:
        The task, or None if there is none whose logits equal the model's; and one
        line: which, or why not.
    """
    without = "without a cache of keys and values: "
    if not isinstance(model, LanguageModel):
        return None, f"{without}the model is no LanguageModel"
    if length > encoder.max_length:
        limit = f"the {encoder.max_length} tokens that the model takes"
        return None, f"{without}{length} tokens are more than {limit}"
    found = _task_class(model.backbone)
    if found is None:
        name = type(model.backbone).__name__
        return None, f"{without}KerasHub has no task of {name} that generates"
    task = found(backbone=model.backbone, preprocessor=None)
    if set(task.input) != set(model.input):
        return None, f"{without}{found.__name__} takes other inputs"
    _share_logits(task, model)
    if not _agrees(task, model, encoder):
        return None, f"{without}{found.__name__} computes other logits than the model"
    return task, f"with a cache of keys and values, by {found.__name__}"


def _task_class(backbone: Any) -> Any | None:
    hub = import_keras_hub()
    bases = (hub.models.CausalLM, hub.models.Seq2SeqLM)
    tasks: list[Any] = [x for x in vars(hub.models).values() if inspect.isclass(x)]
    fitting = (
        task
        for task in tasks
        if issubclass(task, bases) and task.backbone_cls is type(backbone)
    )
    return next(fitting, None)


def _share_logits(task: Any, model: LanguageModel) -> None:
    """Makes the logits of a task those of the model: its own output layer, its scale.

    The call is wrapped on this instance; the graph of the task is not used.
    """
    name = "call_decoder_with_cache" if is_encoder_decoder(model) else "call_with_cache"
    call: Callable[..., Any] = getattr(task, name)

    def with_own_logits(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        _, hidden, *caches = call(*args, **kwargs)
        return (model.logits(hidden), hidden, *caches)

    setattr(task, name, with_own_logits)
    # On JAX a sampler's loop passes on only those variables that the task holds.
    task.projection = model.projection


def _step(task: Any, buffer: Any, known: Any, others: Any, stops: Any) -> Any:
    prefix = "decoder_" if others else ""
    inputs = {f"{prefix}token_ids": buffer, f"{prefix}padding_mask": known, **others}
    return task.generate_step(inputs, stop_token_ids=stops)[f"{prefix}token_ids"]


def _agrees(task: Any, model: LanguageModel, encoder: TextEncoder) -> bool:
    """Compares logits of a few random tokens, one step at a time and at once."""
    length = min(_TOKENS, encoder.max_length)
    rng = np.random.default_rng(0)
    size = int(model.output.shape[-1])
    arrays = {
        name: rng.integers(0, size, (2, length)).astype("int32")
        if name.endswith("token_ids")
        else np.ones((2, length), "int32")
        for name in model.input
    }
    if is_encoder_decoder(model):
        arrays["encoder_padding_mask"][1, length // 2 :] = 0
    compared = _Comparison(task, model, length)
    stepped, whole = map(np.asarray, compared.predict_on_batch(arrays))
    tolerance = _TOLERANCE.get(model.backbone.compute_dtype, _COARSE)
    difference = np.abs(stepped - whole).max()
    return bool(difference <= tolerance * np.ptp(whole))


class _Comparison(keras.Model):
    """Computes logits of known tokens with the cache and without."""

    def __init__(self, task: Any, model: LanguageModel, length: int) -> None:
        super().__init__(name="comparison")
        self.task, self.model = task, model
        self.places = range(min(_GIVEN, length - 1), length)
        self.built = True

    def call(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """Returns both, `(batch, places, vocabulary)` each."""
        recorder = _Recorder(self.places)
        self.task.sampler = recorder
        prefix = "decoder_" if is_encoder_decoder(self.model) else ""
        others = {k: v for k, v in inputs.items() if k.startswith("encoder_")}
        tokens = inputs[f"{prefix}token_ids"]
        first, last = self.places.start, self.places.stop
        known = ops.broadcast_to(ops.arange(last)[None, :] < first, ops.shape(tokens))
        _step(self.task, tokens, known, others, None)
        whole = self.model(inputs)[:, first - 1 : last - 1]
        return ops.stack(recorder.logits, axis=1), ops.cast(whole, "float32")


class _Recorder:
    """Stands in for a sampler: notes the logits and changes no token."""

    def __init__(self, places: range) -> None:
        self.places = places
        self.logits: list[Any] = []

    def __call__(self, next: Any, prompt: Any, cache: Any = None, **others: Any) -> Any:
        del others
        for place in self.places:
            logits, _, cache = next(prompt, cache, place)
            self.logits.append(ops.cast(logits, "float32"))
        return prompt
