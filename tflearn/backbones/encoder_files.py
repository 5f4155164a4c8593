"""Encoders on disk, so that a finished model can be given raw inputs again."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile
from typing import Any

import keras

from tflearn.backbones.images import ImageEncoder, Scaling
from tflearn.backbones.libraries import import_keras_hub
from tflearn.backbones.text import Packing, TextEncoder
from tflearn.backbones.vectors import VectorEncoder
from tflearn.backbones.vocabularies import TrainedTokenizer, load_tokenizer
from tflearn.support import files
from tflearn.support.errors import BackboneError
from tflearn.support.safety import keras_files
from tflearn.support.tensorflow import hidden_tensorflow

Encoder = TextEncoder | ImageEncoder | VectorEncoder

ENCODER_FILE = "encoder.json"
_MOST_PIXELS_A_SIDE = 2**14
_TOKENIZER = "tokenizer"
_KINDS: dict[str, type] = {
    "text": TextEncoder,
    "image": ImageEncoder,
    "vector": VectorEncoder,
}


def kind_of(encoder: Encoder) -> str:
    """Returns `text`, `image` or `vector`."""
    return next(kind for kind, cls in _KINDS.items() if isinstance(encoder, cls))


def save_encoder(encoder: Encoder, folder: str | os.PathLike[str]) -> None:
    """Writes an encoder: its settings as JSON, its vocabulary as KerasHub does.

    Args:
        encoder: The encoder.
        folder: Gets `encoder.json` and, for text, `tokenizer/`.
    """
    target = pathlib.Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"kind": kind_of(encoder)}
    if isinstance(encoder, TextEncoder):
        assets = target / _TOKENIZER
        assets.mkdir(exist_ok=True)
        encoder.tokenizer.save_assets(str(assets))
        settings |= {
            "tokenizer": _layer(encoder.tokenizer),
            "packing": dataclasses.asdict(encoder.packing),
            "max_length": encoder.max_length,
            "input_names": dict(encoder.input_names),
        }
    else:
        settings |= dataclasses.asdict(encoder)
    files.write_json(target / ENCODER_FILE, settings)


def load_encoder(folder: str | os.PathLike[str]) -> Encoder:
    """Reads back what `save_encoder` wrote.

    Args:
        folder: The folder of a saved encoder, such as `RUN/model/encoder`.

    Returns:
        The encoder; it gives the same arrays as the saved one.

    Raises:
        BackboneError: The folder holds no encoder.
    """
    source = pathlib.Path(folder)
    try:
        settings = files.read_json(source / ENCODER_FILE)
        kind = settings.pop("kind")
        if kind == "text":
            return _load_text(settings, source)
        if kind == "image":
            scaling = {k: _tuples(v) for k, v in settings.pop("scaling").items()}
            made = ImageEncoder(
                scaling=Scaling(**scaling),
                **{name: _tuples(value) for name, value in settings.items()},
            )
            _check_image_size(made.image_size)
            return made
        return VectorEncoder(**settings)
    except BackboneError:
        raise
    except Exception as error:
        # Settings of wrong types, and vocabularies that their libraries refuse.
        raise BackboneError(
            "there is no complete encoder in this folder",
            received=f"{folder} ({type(error).__name__}: {error})",
            expected=f"{ENCODER_FILE} of a finished run's model/encoder",
        ) from error


def same_vocabulary(encoder: Encoder, folder: str | os.PathLike[str]) -> bool:
    """Tells whether an encoder has the vocabulary of a saved one.

    Args:
        encoder: The encoder.
        folder: What `save_encoder` wrote.

    Returns:
        Whether the files of both are equal; true where neither has a vocabulary.
    """
    with tempfile.TemporaryDirectory() as temporary:
        save_encoder(encoder, temporary)
        return _assets(temporary) == _assets(folder)


def _assets(folder: str | os.PathLike[str]) -> dict[str, bytes]:
    root = pathlib.Path(folder, _TOKENIZER)
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def _layer(tokenizer: Any) -> Any:
    """Describes a KerasHub tokenizer; one of ours is described by its assets."""
    if isinstance(tokenizer, TrainedTokenizer):
        return None
    with hidden_tensorflow():
        return keras.saving.serialize_keras_object(tokenizer)


def _load_tokenizer(layer: Any, assets: pathlib.Path) -> Any:
    if layer is None:
        return load_tokenizer(assets)
    keras_files.check_config(layer, str(assets.parent / ENCODER_FILE))
    import_keras_hub()
    with hidden_tensorflow():
        tokenizer = keras.saving.deserialize_keras_object(layer, safe_mode=True)
    tokenizer.load_assets(str(assets))
    return tokenizer


def _load_text(settings: dict[str, Any], source: pathlib.Path) -> TextEncoder:
    tokenizer = _load_tokenizer(settings["tokenizer"], source / _TOKENIZER)
    packing = {name: _tuples(value) for name, value in settings["packing"].items()}
    return TextEncoder(
        tokenizer=tokenizer,
        packing=Packing(**packing),
        max_length=settings["max_length"],
        input_names=settings["input_names"],
    )


def _check_image_size(size: Any) -> None:
    height, width = size
    for length in (height, width):
        if type(length) is not int or not 0 < length <= _MOST_PIXELS_A_SIDE:
            raise ValueError(f"images of {height} x {width} pixels")


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
