"""Several documents in one row that do not see each other.

The graph of a decoder is run again with its own layers, and each block is given an
attention mask that is made of the documents' numbers. Nothing is copied: both models
have the same weights.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import keras
import numpy as np
from keras import ops

from tflearn.backbones import Backbone
from tflearn.backbones.backbone import NAME
from tflearn.backbones.text import TextEncoder
from tflearn.support.errors import BackboneError

_MASK = "decoder_attention_mask"
# Mean relative differences that the order of sums can make in float32, and in half
# precision. Another token makes larger ones even at initial values, where an encoder's
# features hardly depend on each other.
_ROUNDING = 1e-5, 1e-4
# The same where rotations by other angles are rounded.
_ROTATION = 1e-4, 2e-2


@keras.saving.register_keras_serializable(package="tflearn")
class Documents(keras.layers.Layer):
    """What the numbers of a row's documents mean for attention and positions.

    Example:

    >>> mask, positions, padding = Documents()(ops.array([[1, 1, 2, 2, 0]]))
    >>> [[int(i) for i in row] for row in positions]
    [[0, 1, 0, 1, 0]]
    """

    def call(self, documents: Any) -> tuple[Any, Any, Any]:
        """Returns who sees whom, positions inside the documents, and padding.

        Args:
            documents: 1, 2, ... in order, 0 at padding, int `(batch, length)`.

        Returns:
            int32: 1 where both places lie in one document `(batch, length, length)`;
            positions that begin anew in each `(batch, length)`; 1 but at padding
            `(batch, length)`.
        """
        documents = ops.cast(documents, "int32")
        same = ops.equal(documents[:, :, None], documents[:, None, :])
        same = ops.cast(same, "int32")
        # The first place that is the same begins the document.
        begins = ops.cast(ops.argmax(same, axis=-1), "int32")
        places = ops.arange(
            documents.shape[1] or ops.shape(documents)[1], dtype="int32"
        )
        return same, places[None, :] - begins, ops.minimum(documents, 1)

    def compute_output_spec(self, documents: Any) -> tuple[Any, Any, Any]:
        """Returns the shapes of what `call` returns."""
        batch, length = documents.shape
        flat = keras.KerasTensor((batch, length), dtype="int32")
        square = keras.KerasTensor((batch, length, length), dtype="int32")
        return square, flat, keras.KerasTensor((batch, length), dtype="int32")


def isolate(backbone: Backbone, encoder: TextEncoder) -> keras.Model:
    """Makes a model whose rows may hold several documents.

    Its padding mask holds the number of the document at each place: 1, 2, ... from
    left to right, 0 at padding. With 1 everywhere it is the backbone.

    Args:
        backbone: A decoder whose blocks take `decoder_attention_mask`, as most of
            KerasHub do.
        encoder: The backbone's.

    Returns:
        A functional model of the same inputs and outputs, named `backbone`, made of
        the backbone's own layers.

    Raises:
        BackboneError: A block cannot be given a mask, or documents would see each
            other all the same.
    """
    name = encoder.input_names.get("padding_mask")
    if name is None:
        raise _cannot(backbone, "it takes no padding mask")
    inputs = backbone.new_inputs()
    documents = inputs[name]
    mask, positions, padding = Documents(name="documents")(documents)
    masked: list[str] = []

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        takes = _parameters(layer)
        uses_padding = any(x is documents for x in [*args, *kwargs.values()])
        kwargs = {k: padding if x is documents else x for k, x in kwargs.items()}
        args = tuple(padding if x is documents else x for x in args)
        if _MASK in takes:
            masked.append(layer.name)
            kwargs[_MASK] = mask
        elif uses_padding:
            raise _cannot(backbone, f"its layer '{layer.name}' takes no {_MASK}")
        if {"positions", "start_index"} <= takes:
            kwargs["positions"] = positions
        return layer(*args, **kwargs)

    model = keras.models.clone_model(
        backbone.model,
        input_tensors=inputs,
        clone_function=lambda layer: layer,
        call_function=call,
    )
    if not masked:
        raise _cannot(backbone, f"none of its layers takes {_MASK}")
    model.name = NAME
    _check_isolated(backbone, encoder, model)
    return model


def check_causal(backbone: Backbone, encoder: TextEncoder) -> None:
    """Raises an error where a token's features depend on the tokens behind it.

    Args:
        backbone: A backbone of text.
        encoder: The backbone's.

    Raises:
        BackboneError: They do: the backbone is an encoder such as BERT.
    """
    ids = _some_ids(encoder, (2, 8))
    ids[1, :4] = ids[0, :4]
    found = _features(backbone, encoder, backbone.model, ids)
    if not _close(backbone, found[0, :4], found[1, :4], _ROUNDING):
        raise BackboneError(
            "this backbone sees the tokens that it should predict",
            received=backbone.origin,
            expected="a causal decoder, such as GPT2Backbone or LlamaBackbone",
            fix="take objectives.masked_lm for an encoder such as BERT",
        )


def check_not_decoder(backbone: Backbone, objective: str) -> None:
    """Raises an error where blocks see only the tokens before each.

    Args:
        backbone: A backbone of text.
        objective: Who asks.

    Raises:
        BackboneError: Blocks take `decoder_attention_mask`, as decoders of KerasHub do.
    """
    if any(_MASK in _parameters(layer) for layer in backbone.model.layers):
        raise BackboneError(
            f"the objective '{objective}' needs a backbone that sees both sides",
            received=f"{backbone.origin}, a decoder",
            expected="an encoder such as BertBackbone",
            fix="take objectives.causal_lm for a decoder",
        )


def _check_isolated(
    backbone: Backbone, encoder: TextEncoder, model: keras.Model
) -> None:
    """Compares a document behind another one with the same document alone."""
    ids = _some_ids(encoder, (2, 8))
    ids[1, :5] = ids[0, 3:]
    documents = np.array([[1] * 3 + [2] * 5, [1] * 5 + [0] * 3], "int32")
    found = _features(backbone, encoder, model, ids, documents)
    if not _close(backbone, found[0, 3:], found[1, :5], _ROTATION):
        raise _cannot(backbone, "a document's features depend on the one before it")


def _features(
    backbone: Backbone,
    encoder: TextEncoder,
    model: keras.Model,
    ids: np.ndarray,
    documents: np.ndarray | None = None,
) -> np.ndarray:
    arrays = {
        "token_ids": ids,
        "padding_mask": np.ones_like(ids) if documents is None else documents,
        "segment_ids": np.zeros_like(ids),
    }
    inputs: Any = {name: arrays[role] for role, name in encoder.input_names.items()}
    if not isinstance(model.input, dict):
        inputs = ids
    # A model of its own: what it compiles is forgotten, and layers may change later.
    probe = keras.Model(model.input, backbone.features(model.output)["sequence"])
    return np.asarray(probe.predict_on_batch(inputs)).astype("float32")


def _some_ids(encoder: TextEncoder, shape: tuple[int, int]) -> np.ndarray:
    size = encoder.tokenizer.vocabulary_size()
    return (
        np.random.default_rng(0)
        .permutation(np.resize(np.arange(size), shape[0] * shape[1]))
        .reshape(shape)
        .astype("int32")
    )


def _close(
    backbone: Backbone,
    one: np.ndarray,
    two: np.ndarray,
    tolerances: tuple[float, float],
) -> bool:
    half = "16" in str(backbone.model.dtype_policy.compute_dtype)
    difference = np.abs(one - two).mean() / max(np.abs(one).mean(), 1e-30)
    return bool(difference <= tolerances[half])


@functools.lru_cache(maxsize=256)
def _of_class(kind: type) -> frozenset[str]:
    return frozenset(inspect.signature(kind.call).parameters)


def _parameters(layer: Any) -> frozenset[str]:
    return _of_class(type(layer)) if hasattr(layer, "call") else frozenset()


def _cannot(backbone: Backbone, reason: str) -> BackboneError:
    return BackboneError(
        "documents packed in one row would see each other in this backbone",
        received=f"{backbone.origin}: {reason}",
        expected="a decoder of KerasHub such as GPT-2, OPT, Llama, Mistral, Qwen, "
        "Falcon, Bloom, GPT-NeoX or Phi-3",
        fix="set packing to 'none' for one document a row, or to 'stream'",
    )
