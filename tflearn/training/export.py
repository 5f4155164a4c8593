"""What a stage hands on: its head to the next stage, its model to the world."""

from __future__ import annotations

import pathlib

import keras

from tflearn.regimes import adapters
from tflearn.support import files
from tflearn.support.console import say
from tflearn.training.stage import Prepared

MODEL_FILE = "model.keras"
LABELS_FILE = "labels.json"
ADAPTER_FILE = "adapter.safetensors"


def carry_head(previous: Prepared, current: Prepared) -> bool:
    """Gives a stage the head of the stage before, where both mean the same.

    The heads are the same if the objective, the classes and the layers' configurations
    are equal: a head that was warmed up then goes on; a head for other classes
    starts anew.

    Args:
        previous: The stage that was trained.
        current: The next stage.

    Returns:
        Whether the head's weights were carried over.
    """
    old, new = _head_layers(previous), _head_layers(current)
    same = (
        previous.task == current.task
        and previous.dataset.classes == current.dataset.classes
        and [x.get_config() for x in old] == [x.get_config() for x in new]
    )
    if same:
        for source, target in zip(old, new, strict=True):
            target.set_weights(source.get_weights())
    names = f"from '{previous.stage.name}' to '{current.stage.name}'"
    say(f"head carried {names}" if same else f"new head: not carried {names}")
    return same


def write_model(
    prepared: Prepared, folder: pathlib.Path, *, temperature: float | None = None
) -> None:
    """Writes the finished model so that it works without the run.

    Args:
        prepared: The last stage.
        folder: Gets `model.keras` (adapters merged into the weights where they can
            be), `adapter.safetensors` if there are any, `labels.json`, `encoder/`.
        temperature: Fitted temperature, for calibrated probabilities.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Keras does not write atomically: a reader must never find half a model.
    temporary = folder / f"unfinished.{MODEL_FILE}"
    deployed = prepared.network.deployed
    if adapters.adapters_of(deployed):
        adapters.save_adapter(deployed, folder / ADAPTER_FILE)
    with adapters.exportable(deployed) as plain:
        plain.save(temporary, include_optimizer=False)
    temporary.replace(folder / MODEL_FILE)
    prepared.network.backbone.save_encoder(folder / "encoder")
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


def _head_layers(prepared: Prepared) -> list[keras.Layer]:
    model = prepared.network.deployed
    return [layer for layer in model.layers if layer.name != "backbone"]
