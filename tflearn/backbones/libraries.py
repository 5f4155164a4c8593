"""Importing the model libraries, without TensorFlow where it is not used."""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras

from tflearn.support.errors import BackboneError, FileError
from tflearn.support.safety import keras_files
from tflearn.support.tensorflow import hidden_tensorflow

# Weights that a file packs (two of 4 bits in a byte), and a model that has hardly any.
_PACKED = 4
_SPARE_VALUES = 2**22


def import_keras_hub() -> types.ModuleType:
    """Imports KerasHub, without TensorFlow where that is not the backend.

    Returns:
        The module; `keras_nlp` is another name for all of it.

    Raises:
        BackboneError: KerasHub is not installed.
    """
    return _import("keras_hub", package="keras-hub")


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Loads a `.keras` file for inference or transfer; the one door for such files.

    Unlike `keras.saving.load_model` alone, this keeps TensorFlow out on other
    backends when the file holds KerasHub layers. What could run code, lead out of the
    file or claim more memory than the file's weights need is refused before anything
    is built.

    Args:
        path: A `.keras` file.

    Returns:
        The model, not compiled.

    Raises:
        FileError: The file is damaged or unsafe.
        BackboneError: There is no such file, it needs code that is not imported, or
            Keras cannot load it.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise BackboneError("there is no such model file", received=str(path))
    try:
        config, stored = keras_files.check_keras_file(file)
        if keras_files.mentions(config, ("keras_hub", "keras_nlp")):
            import_keras_hub()
        _check_known(config, file)
        with hidden_tensorflow():
            check_size(lambda: _from_config(config), stored, str(path))
            model: Any = keras.saving.load_model(file, compile=False, safe_mode=True)
            return model
    except (BackboneError, FileError):
        raise
    except Exception as error:
        raise BackboneError(
            "Keras cannot load this model file",
            received=f"{path} ({_first_line(error)})",
            expected="a .keras file written by model.save",
            fix="import the modules of your own layers before loading",
        ) from error


def check_size(build: Callable[[], Any], stored: int, name: str) -> None:
    """Checks that a model is no larger than its file, without allocating it.

    A configuration of a few hundred bytes can ask for terabytes of weights, which Keras
    would allocate before it looks at the file.

    Args:
        build: Makes the model; its weights get shapes and no values.
        stored: How many values the file holds.
        name: What messages call it.

    Raises:
        FileError: The model has many more weights than there are values.
    """
    with shapes_only():
        declared = build().count_params()
    if declared > _SPARE_VALUES + _PACKED * stored:
        raise FileError(
            "the configuration declares more weights than the file holds",
            received=f"{name}: {declared:,} declared, {stored:,} stored",
            fix="the file is damaged, or made to exhaust memory",
        )


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Lets Keras make variables that have shapes and never get values.

    Example:

    >>> with shapes_only():
    ...     large = keras.layers.Embedding(10**9, 10**3)
    ...     large.build(None)
    >>> large.count_params()
    1000000000000
    """
    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import global_seed_generator

    # Keras makes its own generator at the first use, which must not be inside.
    global_seed_generator()
    # Keras remembers them, and would give all of them values, whatever their size, when
    # it leaves its next scope.
    name = "uninitialized_variables"
    before = list(global_state.get_global_attribute(name, []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(name, before)


def _from_config(config: Any) -> Any:
    # What was compiled is no concern here, and might need code of its own.
    plain = {**config, "compile_config": None} if isinstance(config, dict) else config
    return keras.saving.deserialize_keras_object(plain, safe_mode=True)


def _check_known(config: Any, file: pathlib.Path) -> None:
    for name, module in keras_files.foreign_modules(config).items():
        if keras.saving.get_registered_object(name) is None:
            raise BackboneError(
                "the model needs code that is not loaded",
                received=f"{file}: {name} of module '{module}'",
                expected="layers of Keras, KerasHub and tflearn, or registered ones",
                fix="import the modules of your own layers before loading; a model "
                "from others that brings its own code is not loaded",
            )


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
