"""Importing the model libraries, without TensorFlow where it is not used."""

from __future__ import annotations

import importlib
import os
import pathlib
import sys
import types
import zipfile
from typing import Any

import keras

from tflearn.support.errors import BackboneError
from tflearn.support.tensorflow import hidden_tensorflow


def import_keras_hub() -> types.ModuleType:
    """Imports KerasHub, without TensorFlow where that is not the backend.

    Returns:
        The module; `keras_nlp` is another name for all of it.

    Raises:
        BackboneError: KerasHub is not installed.
    """
    return _import("keras_hub", package="keras-hub")


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a `.keras` file for inference or transfer.

    Unlike `keras.saving.load_model` alone, this keeps TensorFlow out on other
    backends when the file holds KerasHub layers. Unsafe content is refused.

    Args:
        path: A `.keras` file.

    Returns:
        The model, not compiled.

    Raises:
        BackboneError: There is no such file, or Keras cannot load it.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise BackboneError("there is no such model file", received=str(path))
    try:
        with zipfile.ZipFile(file) as archive:
            config = archive.read("config.json").decode()
        if '"keras_hub' in config or '"keras_nlp' in config:
            import_keras_hub()
        with hidden_tensorflow():
            model: Any = keras.saving.load_model(file, compile=False, safe_mode=True)
            return model
    except BackboneError:
        raise
    except Exception as error:
        raise BackboneError(
            "Keras cannot load this model file",
            received=f"{path} ({_first_line(error)})",
            expected="a .keras file written by model.save",
            fix="import the modules of your own layers before loading",
        ) from error


def _import(name: str, *, package: str) -> types.ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    try:
        with hidden_tensorflow():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BackboneError(
            f"the package {error.name} is not installed",
            fix=f"pip install {package}",
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
