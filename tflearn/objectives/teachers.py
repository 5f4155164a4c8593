"""Who teaches: a finished run, or a backbone for its features alone."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn import backbones
from tflearn.backbones import Backbone
from tflearn.data import Dataset, pipeline
from tflearn.objectives.objective import choose_features, pooled
from tflearn.support import cache, environment, files, storage
from tflearn.support.errors import ConfigError, RunError
from tflearn.support.safety import arrays as arrays_on_disk
from tflearn.support.safety import labels as labels_on_disk

_ANSWERS = "answers.npz"
_LABELS = pathlib.Path("model", "labels.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher:
    """A model that is asked and never trained.

    Args:
        origin: Where it came from, in one line.
        encoder: Turns texts, images or numbers into what it takes.
        inputs: Its symbolic inputs.
        tensors: Its symbolic `outputs` `(batch, outputs)` and `features` `(batch,
            dim)`, those that it has.
        task: What its outputs are: `class`, `multi_label`, `number`; else "".
        classes: Names of its classes in the order of its outputs.
        limits: How texts are cut for it, as fields of `data.Data`.
        fingerprint: Of all that its answers depend on; they are then kept for later
            starts of a run. None: they are not.
    """

    origin: str
    encoder: Any
    inputs: Any
    tensors: dict[str, keras.KerasTensor]
    task: str = ""
    classes: tuple[str, ...] = ()
    limits: dict[str, Any] = dataclasses.field(default_factory=dict)
    fingerprint: str | None = None

    def answers(
        self, dataset: Dataset, wanted: Sequence[str], *, batch_size: int = 128
    ) -> dict[str, np.ndarray]:
        """Asks about every training example, in inference mode, once.

        Args:
            dataset: The data; the raw inputs are encoded with the teacher's encoder.
            wanted: Some of `outputs`, `features`.
            batch_size: Examples a step.

        Returns:
            float32 `(n, outputs)` and `(n, dim)` by name, in the order of the rows.

        Raises:
            ConfigError: The teacher does not have what is wanted.
            DataError: It cannot take the inputs.
        """
        missing = [name for name in wanted if name not in self.tensors]
        if missing:
            raise ConfigError(
                f"the teacher has no {missing[0]}",
                received=self.origin,
                expected=f"a teacher with {' and '.join(wanted)}",
                fix="of a backbone only the features can be learned: alpha = 0"
                if missing == ["outputs"]
                else "take a run with a head, or teachers.backbone",
            )

        def ask() -> dict[str, np.ndarray]:
            return self._ask(dataset, wanted, batch_size)

        if self.fingerprint is None:
            return ask()
        key = files.digest(
            self.fingerprint,
            dataset.fingerprint,
            repr((tuple(wanted), self.limits, batch_size)),
            # All of it may decide the last bits.
            repr(environment.versions()),
            keras.backend.backend() + keras.config.dtype_policy().name,
        )
        return cache.reuse("teachers", key, make=ask, read=_read, write=_write)

    def _ask(
        self, dataset: Dataset, wanted: Sequence[str], batch_size: int
    ) -> dict[str, np.ndarray]:
        data = dataclasses.replace(dataset.data, **self.limits)
        examples = pipeline.encode(dataset.splits["train"], self.encoder, data=data)
        model = keras.Model(self.inputs, {name: self.tensors[name] for name in wanted})
        found = {
            name: np.empty((len(examples), self.tensors[name].shape[-1]), "float32")
            for name in wanted
        }
        for inputs, rows in pipeline.ordered_batches(examples, batch_size=batch_size):
            answer: Any = model.predict_on_batch(inputs)
            for name in wanted:
                values = np.asarray(answer[name])[: len(rows)]
                found[name][rows] = values.reshape(len(rows), -1)
        return found


def _read(folder: pathlib.Path) -> dict[str, np.ndarray]:
    return arrays_on_disk.load_npz(folder / _ANSWERS)


def _write(answers: Mapping[str, np.ndarray], folder: pathlib.Path) -> None:
    arrays: dict[str, Any] = dict(answers)
    np.savez(folder / _ANSWERS, **arrays)


def run(folder: str | os.PathLike[str]) -> Teacher:
    """A finished run: the outputs of its head, and the features that the head gets.

    Args:
        folder: The run directory.

    Returns:
        The teacher.

    Raises:
        RunError: The directory holds no finished run.
    """
    path = storage.fetched(folder)
    if not (path / _LABELS).is_file():
        raise RunError(
            "the teacher is no finished run",
            received=str(folder),
            expected=f"a directory with {_LABELS}",
            fix="run the teacher's experiment to its end first",
        )
    labels = labels_on_disk.read_labels(path / _LABELS)
    model = backbones.load_model(path / "model" / "model.keras")
    tensors = {"outputs": model.output}
    heads = [layer for layer in model.layers if layer.name == "head"]
    if heads and isinstance(heads[0].input, keras.KerasTensor):
        tensors["features"] = heads[0].input
    return Teacher(
        origin=f"run {folder}",
        encoder=backbones.load_encoder(path / "model" / "encoder"),
        inputs=model.input,
        tensors=tensors,
        task=labels["task"],
        classes=tuple(labels["classes"]),
        limits={name: labels[name] for name in ("max_length", "truncate")},
        fingerprint=_fingerprint(path / "model"),
    )


def _fingerprint(model: pathlib.Path) -> str:
    parts = [model / "model.keras", *sorted((model / "encoder").rglob("*"))]
    return files.digest(*(part.read_bytes() for part in parts if part.is_file()))


def backbone(
    source: Callable[[], Backbone],
    *,
    features: str = "auto",
    pooling: Callable[..., keras.Layer] | None = None,
) -> Teacher:
    """A backbone without a head: its pooled features alone.

    Args:
        source: Makes the backbone: a function of `tflearn.backbones`.
        features: Which of its features, or `auto`.
        pooling: Pooling layer class or factory; None chooses by the features.

    Returns:
        The teacher.
    """
    made = source()
    inputs = made.new_inputs()
    name = choose_features(made, features)
    vectors = pooled(made, inputs, features=name, pooling=pooling)
    if len(vectors.shape) != 2:
        raise ConfigError(
            "a teacher's features are one vector an example",
            received=tuple(vectors.shape),
            expected="(batch, dim)",
            fix="name a pooling in teachers.backbone.pooling",
        )
    return Teacher(
        origin=made.origin,
        encoder=made.encoder,
        inputs=inputs,
        tensors={"features": vectors},
        # Longer texts than a model without a task can take are cut.
        limits={"max_length": None, "truncate": True},
    )
