"""The probe during pretraining: do the representations get better?

A closed-form classifier is fitted on the frozen features of a labelled set, every so
many intervals. It shows what the loss of a self-supervised objective does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import keras
import numpy as np

from tflearn.backbones import Backbone
from tflearn.data import Data, pipeline
from tflearn.evaluation import inference, probes
from tflearn.objectives.objective import choose_features, pooled
from tflearn.support.errors import ConfigError, DataError, nearest

KINDS = ("ridge", "knn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """The declaration of a probe.

    Args:
        data: Makes the labelled data, one class a row; the probe is fitted on `train`.
        kind: `ridge`, a linear classifier in closed form, or `knn`, a vote of the
            nearest neighbours by cosine.
        every: Intervals between two measurements.
        features: Features of the backbone, pooled as a head would have them, or `auto`.
        split: The split it is measured on. The run chooses nothing by it, but whoever
            compares runs by it should not use `test`.
        neighbours: Neighbours that vote, for `knn`.

    Raises:
        ConfigError: A value is out of its range.
    """

    data: Callable[[], Data]
    kind: str = "ridge"
    every: int = 1
    features: str = "auto"
    split: str = "test"
    neighbours: int = 20

    def __post_init__(self) -> None:
        """Checks the choices."""
        if self.kind not in KINDS:
            raise ConfigError(
                "unknown kind of probe",
                received=self.kind,
                expected=" or ".join(KINDS),
                nearest=nearest(str(self.kind), KINDS),
            )
        for field in ("every", "neighbours"):
            if getattr(self, field) < 1:
                raise ConfigError(
                    f"Probe.{field} is too small",
                    received=getattr(self, field),
                    expected="at least 1",
                )
        if self.split == "train":
            raise ConfigError(
                "a probe is fitted on the split 'train' and measured on another",
                received="split = 'train'",
                expected="'validation' or 'test'",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadyProbe:
    """A probe with its data encoded and its network built.

    Args:
        probe: The declaration.
        network: From the backbone's inputs to pooled features; its variables are the
            backbone's own, so what is measured is always their present values.
        examples: Encoded examples of `train` and the measured split.
        labels: Their classes.
        batch_size: Examples a step.
    """

    probe: Probe
    network: keras.Model
    examples: Mapping[str, pipeline.Examples]
    labels: Mapping[str, np.ndarray]
    batch_size: int

    def measure(self) -> dict[str, float]:
        """Computes the features and fits the probe anew.

        The network is compiled by the first call and kept.

        Returns:
            `{'probe_accuracy': accuracy}`.

        Raises:
            DataError: The features are not finite.
        """
        features = {
            name: inference.predict_outputs(
                self.network,
                pipeline.ordered_batches(examples, batch_size=self.batch_size),
                num_examples=len(examples),
            )
            for name, examples in self.examples.items()
        }
        rows = [
            part[name]
            for name in ("train", self.probe.split)
            for part in (features, self.labels)
        ]
        if self.probe.kind == "knn":
            return {"probe_accuracy": probes.knn(*rows, k=self.probe.neighbours)}
        return {"probe_accuracy": probes.ridge(*rows)}


def prepare(probe: Probe, backbone: Backbone, *, batch_size: int) -> ReadyProbe:
    """Loads the data of a probe and puts its network on a backbone.

    Args:
        probe: The declaration.
        backbone: The backbone that is pretrained; nothing of it is copied.
        batch_size: Examples a step.

    Returns:
        What can be measured again and again.

    Raises:
        TflearnError: The data cannot be used, the split is missing, or the backbone
            does not give the features.
    """
    data = probe.data()
    dataset = data.load(target_kind="class")
    for name in ("train", probe.split):
        if name not in dataset.splits:
            raise DataError(
                f"the data of the probe have no split '{name}'",
                received=", ".join(dataset.splits),
                fix="name another one in Probe.split, or draw it with data.Data.splits",
            )
    splits = {name: dataset.splits[name] for name in ("train", probe.split)}
    inputs = backbone.new_inputs()
    features = choose_features(backbone, probe.features)
    outputs = pooled(backbone, inputs, features=features)
    return ReadyProbe(
        probe=probe,
        network=keras.Model(inputs, outputs, name="probe"),
        examples={
            name: pipeline.encode(split, backbone.encoder, data=data)
            for name, split in splits.items()
        },
        labels={name: np.asarray(split.targets) for name, split in splits.items()},
        batch_size=batch_size,
    )
