"""What a stage hands on: its head to the next stage, its model to the world."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.backbones import graph
from tflearn.backbones.encoder_files import save_encoder
from tflearn.distribution import arrays, processes
from tflearn.regimes import adapters
from tflearn.support import files
from tflearn.support.console import say
from tflearn.support.patterns import matches
from tflearn.support.safety.tensors import load_safetensors
from tflearn.training.stage import Prepared

MODEL_FILE = "model.keras"
LABELS_FILE = "labels.json"
ADAPTER_FILE = "adapter.safetensors"
# What trained beside the model and is not part of it, such as MAE's decoder.
OBJECTIVE_FILE = "objective.safetensors"


def carry_head(previous: Prepared, current: Prepared) -> bool:
    """Gives a stage the head of the stage before, where both mean the same.

    The heads are the same if the objective, the classes and the layers' configurations
    are equal: a head that was warmed up then goes on; a head for other classes
    starts anew.

    What an objective without labels drops after training, such as the decoder of
    masked images, goes on in the same way if its weights have the same sizes.

    Args:
        previous: The stage that was trained.
        current: The next stage.

    Returns:
        Whether the head's weights were carried over.
    """
    old, new = _head_layers(previous), _head_layers(current)
    # Adapters of the head belong to its stage; what they learnt goes on.
    with adapters.merged(previous.network.deployed, strict=False):
        values = [_weights(layer) for layer in old]
    same = (
        previous.task == current.task
        and previous.dataset.classes == current.dataset.classes
        and [x.get_config() for x in old] == [x.get_config() for x in new]
        and [_shapes(x) for x in values] == [_shapes(x.weights) for x in new]
    )
    if same:
        for weights, target in zip(values, new, strict=True):
            target.set_weights(weights)
    names = f"from '{previous.stage.name}' to '{current.stage.name}'"
    say(f"head carried {names}" if same else f"new head: not carried {names}")
    if previous.task == current.task:
        weights = _objective_weights(previous)
        values = {path: graph.value_of(weight) for path, weight in weights.items()}
        for line in _carry(values, current):
            say(f"{line}, {names}")
    return same


def write_model(
    prepared: Prepared, folder: pathlib.Path, *, temperature: float | None = None
) -> None:
    """Writes the finished model so that it works without the run.

    Every process has to call it, since each may hold a part of the weights; the first
    one writes.

    Args:
        prepared: The last stage.
        folder: Gets `model.keras` (adapters merged into the weights where they can
            be), `adapter.safetensors` if the backbone has any, `labels.json`,
            `encoder/` and what else the objective encodes with,
            `objective.safetensors` with what training alone needs.
        temperature: Fitted temperature, for calibrated probabilities.
    """
    deployed = prepared.network.deployed
    if _has_adapter_in_backbone(deployed):
        with arrays.on_host(deployed.variables):
            if processes.is_chief():
                adapters.save_adapter(deployed, folder / ADAPTER_FILE)
    with adapters.exportable(deployed) as plain, arrays.on_host(plain.variables):
        _save(plain, folder)
    weights = _objective_weights(prepared)
    values = {path: graph.value_of(weight) for path, weight in weights.items()}
    if not processes.is_chief():
        return
    prepared.network.backbone.save_encoder(folder / "encoder")
    if prepared.pretext is not None:
        for name, encoder in prepared.pretext.encoders.items():
            save_encoder(encoder, folder / name)
        _write_objective(values, folder)
    files.write_json(
        folder / LABELS_FILE,
        {
            "task": prepared.task,
            "classes": list(prepared.dataset.classes),
            "input": prepared.data.input,
            "target": prepared.data.target,
            "kind": prepared.network.backbone.kind,
            "max_length": prepared.data.max_length,
            "truncate": prepared.data.truncate,
            "temperature": temperature,
        },
    )


def load_objective(prepared: Prepared, folder: pathlib.Path) -> list[str]:
    """Gives a stage what the same objective had trained beside its model.

    Args:
        prepared: The stage.
        folder: Where `write_model` wrote to.

    Returns:
        A line on what was done; none where there is nothing of the kind.
    """
    if not (folder / OBJECTIVE_FILE).is_file():
        return []
    return _carry(load_safetensors(folder / OBJECTIVE_FILE), prepared)


def _save(model: keras.Model, folder: pathlib.Path) -> None:
    if processes.is_chief():
        folder.mkdir(parents=True, exist_ok=True)
        # Keras does not write atomically: a reader must never find half a model.
        temporary = folder / f"unfinished.{MODEL_FILE}"
        model.save(temporary, include_optimizer=False)
        temporary.replace(folder / MODEL_FILE)
    elif keras.backend.backend() == "tensorflow":
        # While it saves, Keras makes variables, which all processes make together.
        with tempfile.TemporaryDirectory() as unused:
            model.save(pathlib.Path(unused) / MODEL_FILE, include_optimizer=False)


def _write_objective(values: Mapping[str, np.ndarray], folder: pathlib.Path) -> None:
    import safetensors.numpy

    if values:
        # safetensors writes the buffer as it lies.
        flat = {path: np.array(value, order="C") for path, value in values.items()}
        temporary = folder / f"unfinished.{OBJECTIVE_FILE}"
        safetensors.numpy.save_file(flat, temporary)
        temporary.replace(folder / OBJECTIVE_FILE)


def _objective_weights(prepared: Prepared) -> dict[str, keras.Variable]:
    """Returns the weights by path that only the training of an objective needs."""
    if prepared.pretext is None:
        return {}
    network = prepared.network
    kept = {id(weight) for weight in network.deployed.variables}
    return {
        path: weight
        for path, weight in graph.weights_by_path(network.model).items()
        if id(weight) not in kept
    }


def _carry(values: Mapping[str, np.ndarray], current: Prepared) -> list[str]:
    """Assigns weights if they are those of a stage, path by path and size by size."""
    weights = _objective_weights(current)
    if not weights and not values:
        return []
    parts = ", ".join(sorted({path.split("/")[0] for path in weights or values}))
    sizes = {path: tuple(weight.shape) for path, weight in weights.items()}
    if sizes != {path: value.shape for path, value in values.items()}:
        return [f"new {parts}: of other sizes"]
    for path, weight in weights.items():
        weight.assign(values[path])
    return [f"{parts} carried"]


def _weights(layer: keras.Layer) -> list[np.ndarray]:
    return [graph.value_of(weight) for weight in layer.weights]


def _shapes(arrays: Sequence[Any]) -> list[tuple[int, ...]]:
    return [tuple(array.shape) for array in arrays]


def _has_adapter_in_backbone(model: keras.Model) -> bool:
    """Tells whether there is anything for a file of adapters, which are a backbone's.

    Those of a head, which can be merged or stay in the model, belong to one task.
    """
    paths = adapters.adapters_of(model)
    whole = "backbone" not in graph.layers_by_path(model)
    return any(whole or matches("backbone", path) for path in paths)


def _head_layers(prepared: Prepared) -> list[keras.Layer]:
    model = prepared.network.deployed
    return [layer for layer in model.layers if layer.name != "backbone"]
