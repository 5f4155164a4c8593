"""A finished run as something to use: its model, its encoder, its classes."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np

from tflearn import backbones
from tflearn.data import Data, Split, pipeline
from tflearn.data.spec import TARGET_KINDS
from tflearn.evaluation import inference
from tflearn.support import storage
from tflearn.support.errors import RunError
from tflearn.support.safety import labels as labels_on_disk
from tflearn.training.export import LABELS_FILE, MODEL_FILE


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What `model/` of a run directory holds.

    Args:
        folder: The run directory.
        model: The whole model.
        encoder: Turns texts, images or numbers into what the model takes.
        labels: The task, the classes, the input columns, the temperature.
    """

    folder: pathlib.Path
    model: keras.Model
    encoder: Any
    labels: dict[str, Any]

    @property
    def task(self) -> str:
        """`class`, `multi_label` or `number`, or the name of an objective without."""
        return self.labels["task"]

    def check_has_targets(self) -> None:
        """Checks that the run's last stage learnt to predict something.

        Raises:
            RunError: It learnt from the inputs alone.
        """
        if self.task not in TARGET_KINDS:
            raise RunError(
                "the run's last stage has no labels to predict",
                received=f"{self.folder}: objective '{self.task}'",
                expected="a stage with labels, such as classification",
                fix="start a supervised stage from it: backbones.from_run, or "
                "experiment.Experiment.start_from; its metrics are in report.json",
            )

    def too_long(self, split: Split, data: Data) -> dict[int, str]:
        """Finds the texts that are longer than the model takes and are not to be cut.

        Args:
            split: The rows.
            data: Says how long a text may be.

        Returns:
            What is wrong, by example; empty for images and vectors.
        """
        if data.truncate or split.kind not in ("text", "pair"):
            return {}
        declared = data.max_length
        limit = declared if isinstance(declared, int) else self.encoder.max_length
        lengths = map(len, self.encoder.tokenize(list(split.inputs)).ids)
        return {
            index: f"{length:,} tokens, more than {limit:,}"
            for index, length in enumerate(lengths)
            if length > limit
        }

    def outputs(self, split: Split, data: Data, *, batch_size: int = 128) -> np.ndarray:
        """Runs the model over a split.

        Args:
            split: The rows.
            data: Says how long a text may be.
            batch_size: Examples a step.

        Returns:
            Logits or values in the order of the rows, `(examples, outputs)`.
        """
        examples = pipeline.encode(split, self.encoder, data=data)
        return inference.predict_outputs(
            self.model,
            pipeline.ordered_batches(examples, batch_size=batch_size),
            num_examples=len(examples),
        )


def open_run(folder: str | pathlib.Path) -> FinishedRun:
    """Opens the model of a finished run.

    Args:
        folder: The run directory.

    Returns:
        The run.

    Raises:
        RunError: There is no finished run in it.
    """
    labels = read_labels(folder)
    path = storage.fetched(folder)
    run = FinishedRun(
        folder=path,
        model=backbones.load_model(path / "model" / MODEL_FILE),
        encoder=backbones.load_encoder(path / "model" / "encoder"),
        labels=labels,
    )
    _check_classes(run)
    return run


def _check_classes(run: FinishedRun) -> None:
    """Checks that the labels are those of this model."""
    outputs = getattr(run.model, "outputs", None) or ()
    if run.task not in ("class", "multi_label") or len(outputs) != 1:
        return
    if outputs[0].shape[-1] != len(run.labels["classes"]):
        raise RunError(
            "the model and its labels do not belong together",
            received=f"{run.folder}: {len(run.labels['classes'])} classes, "
            f"{outputs[0].shape[-1]} outputs",
            fix="restore model/ as the run wrote it",
        )


def read_labels(folder: str | pathlib.Path) -> dict[str, Any]:
    """Reads what the model of a finished run is for, without the model.

    Args:
        folder: The run directory.

    Returns:
        The task, the classes, the input columns, the temperature.

    Raises:
        RunError: There is no finished run in it.
    """
    model = storage.fetched(folder) / "model"
    if not model.parent.is_dir():
        raise RunError("there is no such run directory", received=str(folder))
    if not (model / MODEL_FILE).is_file() or not (model / LABELS_FILE).is_file():
        raise RunError(
            "the directory holds no finished run",
            received=str(folder),
            expected=str(model / MODEL_FILE),
            fix="run the experiment to its end first, with the same --output_dir "
            "and without Experiment.export = False",
        )
    return labels_on_disk.read_labels(model / LABELS_FILE)
