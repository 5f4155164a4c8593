"""The encoder of a model that came without one, told by its inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

from tflearn.backbones import images, tokenizers
from tflearn.backbones.encoder_files import Encoder
from tflearn.backbones.images import ImageEncoder, Scaling
from tflearn.backbones.vectors import VectorEncoder
from tflearn.support.errors import BackboneError, TflearnError, nearest
from tflearn.support.tensorflow import hidden_tensorflow


def encoder_for(
    model: keras.Model,
    *,
    kind: str | None = None,
    tokenizer: Any | None = None,
    max_length: int | None = None,
    image_size: tuple[int, int] | None = None,
    scaling: str | Callable[[], Scaling] = "unit",
) -> Encoder:
    """Makes the encoder for a model that came without one.

    Args:
        model: A functional model.
        kind: `text`, `image` or `vector`; None tells it by the inputs.
        tokenizer: The tokenizer, for text.
        max_length: Most tokens of a text.
        image_size: Height and width, where the model leaves them open.
        scaling: Range of pixels, see `images.SCALINGS`.

    Returns:
        The encoder.

    Raises:
        BackboneError: The inputs cannot be made from text, images or vectors.
    """
    kind = kind or _kind(model)
    if kind == "text":
        if tokenizer is None:
            raise BackboneError(
                "a text backbone needs a tokenizer",
                received="tokenizer=None",
                expected="a function that makes a tokenizer",
                fix="such as @keras_hub.models.BertTokenizer with its vocabulary "
                "bound, or @vocabularies.bpe to train one",
            )
        return tokenizers.text_encoder(tokenizer, model, max_length=max_length)
    if kind == "image":
        return image_encoder(model, image_size, scaling=scaling)
    if kind == "vector":
        size = model.inputs[0].shape[-1]
        if len(model.inputs) == 1 and len(model.inputs[0].shape) == 2 and size:
            return VectorEncoder(size=size)
        raise _strange_inputs(model)
    kinds = ("text", "image", "vector")
    raise BackboneError(
        "unknown kind of backbone",
        received=kind,
        expected=", ".join(kinds),
        nearest=nearest(kind, kinds),
    )


def image_encoder(
    model: keras.Model,
    image_size: tuple[int, int] | None,
    *,
    scaling: str | Callable[[], Scaling],
) -> ImageEncoder:
    """Makes the encoder for a model of images.

    Args:
        model: A functional model of `(batch, height, width, channels)`.
        image_size: Height and width, where the model leaves them open.
        scaling: Range of pixels, see `images.SCALINGS`.

    Returns:
        The encoder.

    Raises:
        BackboneError: It is no model of images, or their size remains open.
    """
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise _strange_inputs(model)
    if keras.config.image_data_format() != "channels_last":
        raise BackboneError(
            "images are (batch, height, width, channels) here",
            received=keras.config.image_data_format(),
            expected="channels_last",
            fix="keras.config.set_image_data_format('channels_last')",
        )
    *own, channels = model.inputs[0].shape[1:]
    size = tuple(image_size or own)
    agrees = all(a in (None, b) for a, b in zip(own, size, strict=False))
    if None in size or channels is None or len(size) != 2 or not agrees:
        raise BackboneError(
            "the size of images is open, or another one than the backbone takes",
            received=f"image_size={image_size}",
            expected=f"height and width for an input of {(*own, channels)}",
            fix="set image_size to (height, width)",
        )
    height, width = (int(side) for side in size)
    return ImageEncoder(
        image_size=(height, width),
        channels=int(channels),
        scaling=images.chosen_scaling(scaling),
    )


def call(build: Callable[[], Any]) -> Any:
    """Calls a factory; what it refuses is an error of the declaration.

    Args:
        build: A class or function with its arguments bound.

    Returns:
        What it returns.

    Raises:
        BackboneError: It refuses its arguments.
    """
    return call_sized(build, None)


def call_sized(build: Callable[..., Any], tokenizer: Any | None) -> Any:
    """Calls the factory of a text model; it need not know how large a vocabulary is.

    Args:
        build: A class or function. If its `vocabulary_size` has no value, it is given
            the tokenizer's.
        tokenizer: The tokenizer, for text.

    Returns:
        What it returns.

    Raises:
        BackboneError: It refuses its arguments.

    Example:

    >>> from tflearn.backbones import vocabularies
    >>> call_sized(lambda vocabulary_size: vocabulary_size, vocabularies.utf8_bytes())
    257
    """
    try:
        with hidden_tensorflow():
            return build()
    except TflearnError:
        raise
    except (TypeError, ValueError, IndexError) as error:
        if tokenizer is None or not _lacks_size(error):
            name = getattr(build, "__name__", repr(build))
            raise BackboneError(
                f"{name} cannot be built with these arguments",
                received=reason_of(error),
            ) from error
    size = tokenizer.vocabulary_size()
    sized = functools.partial(build, vocabulary_size=size)
    return call(functools.update_wrapper(sized, build, updated=()))


def _lacks_size(error: Exception) -> bool:
    # What is bound in gin cannot be seen from outside, but Python and gin name the
    # parameters without a value before anything is built.
    text = str(error)
    missing = isinstance(error, TypeError) and "missing" in text
    return missing and "'vocabulary_size'" in text


def reason_of(error: Exception) -> str:
    """Returns an exception's kind and the beginning of its message, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def _kind(model: keras.Model) -> str:
    if tokenizers.is_text_model(model):
        return "text"
    ranks = [len(tensor.shape) for tensor in model.inputs]
    if ranks == [4]:
        return "image"
    if ranks == [2]:
        return "vector"
    raise _strange_inputs(model)


def _strange_inputs(model: keras.Model) -> BackboneError:
    return BackboneError(
        "this model's inputs cannot be made from text, images or vectors",
        received={x.name.split(":")[0]: tuple(x.shape) for x in model.inputs},
        expected="token_ids (batch, length), images (batch, height, width, channels) "
        "or vectors (batch, size)",
    )
