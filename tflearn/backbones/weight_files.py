"""Reading weights by path from the files and folders they come in."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Mapping

import keras
import numpy as np

from tflearn.backbones import graph
from tflearn.backbones.backbone import NAME, rebuilt
from tflearn.backbones.libraries import load_model
from tflearn.backbones.presets import load_preset, locate
from tflearn.support.errors import BackboneError
from tflearn.support.safety import hdf5
from tflearn.support.tensorflow import hidden_tensorflow

#: Where a finished run keeps its model.
RUN_MODEL = pathlib.Path("model", "model.keras")


def read_weights(
    path: str | os.PathLike[str], *, like: keras.Model | None = None
) -> Mapping[str, np.ndarray]:
    """Reads the weights of a backbone by path.

    Of a whole model with a layer `backbone`, such as that of a run, only the weights
    of that layer are read.

    Args:
        path: A `.keras` file, a `.weights.h5` file, a run directory, or anything that
            `preset` takes: the folder of a preset, a name, `package:NAME/PATH`.
        like: A model of the same architecture; a `.weights.h5` file does not name its
            weights and needs one.

    Returns:
        Arrays by path, as `graph.variables_by_path` names them. What a `.weights.h5`
        file holds beyond `like` appears under its place in the file.

    Raises:
        BackboneError: There are no weights there, or they cannot be read.
    """
    file = pathlib.Path(path)
    if file.name.endswith(".weights.h5"):
        return _read_h5(_existing(file), like)
    if file.suffix == ".keras":
        return _of_backbone(load_model(file))
    if (file / RUN_MODEL).is_file():
        return _of_backbone(load_model(file / RUN_MODEL))
    if file.is_file():
        raise BackboneError(
            "weights cannot be read from this kind of file",
            received=file.name,
            expected=".keras, .weights.h5, a preset or a run directory",
            fix="save the model with model.save('NAME.keras')",
        )
    return arrays_by_path(load_preset(locate(str(path))))


def arrays_by_path(model: keras.Layer) -> dict[str, np.ndarray]:
    """Returns copies of the weights of a model by path."""
    return {
        path: graph.value_of(weight)
        for path, weight in graph.weights_by_path(model).items()
    }


def _of_backbone(model: keras.Model) -> dict[str, np.ndarray]:
    inner = [layer for layer in model.layers if layer.name == NAME]
    return arrays_by_path(inner[0] if inner else model)


def _read_h5(file: pathlib.Path, like: keras.Model | None) -> dict[str, np.ndarray]:
    if like is None:
        raise BackboneError(
            "a .weights.h5 file does not name its weights",
            received=file.name,
            fix="give read_weights a model of the same architecture: like=model",
        )
    places = _places(like)
    stored = _datasets(file)
    prefix = _prefix(stored, places)
    return {
        places.get(place.removeprefix(prefix), place): array
        for place, array in stored.items()
        if place.startswith(prefix)
    }


def _places(model: keras.Model) -> dict[str, str]:
    """Returns the path of each weight by its place in the model's .weights.h5 file.

    Keras numbers weights by an order of its own. So a copy of the model, each of its
    weights filled with that weight's number, is saved and looked at.
    """
    copy = rebuilt(model)
    weights = graph.weights_by_path(copy)
    paths = list(weights)
    for number, weight in enumerate(weights.values()):
        if keras.backend.standardize_dtype(weight.dtype) not in ("float32", "float64"):
            raise BackboneError(
                "a .weights.h5 file can be read into float32 weights only",
                received=f"{paths[number]}: {weight.dtype}",
                fix="use precision float32 or mixed_bfloat16",
            )
        weight.assign(np.full(weight.shape, number, "float32"))
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "numbered.weights.h5")
        with hidden_tensorflow():
            copy.save_weights(file)
        numbered = _datasets(file)
    return {place: paths[int(array.flat[0])] for place, array in numbered.items()}


def _datasets(file: pathlib.Path) -> dict[str, np.ndarray]:
    import h5py

    hdf5.check_hdf5(file)
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item)

    try:
        with h5py.File(file, "r") as opened:
            opened.visititems(visit)
    except OSError as error:
        raise BackboneError(
            "this file is no HDF5 file, or it is damaged", received=f"{file} ({error})"
        ) from error
    return found


def _prefix(stored: Mapping[str, np.ndarray], places: Mapping[str, str]) -> str:
    """Finds where in the file of a whole model its backbone lies."""
    first = next(iter(places))
    candidates = [
        place.removesuffix(first)
        for place in stored
        if place == first or place.endswith(f"/{first}")
    ]
    return max(
        candidates,
        key=lambda prefix: sum(prefix + place in stored for place in places),
        default="",
    )


def _existing(file: pathlib.Path) -> pathlib.Path:
    if not file.is_file():
        raise BackboneError("there is no such weights file", received=str(file))
    return file
