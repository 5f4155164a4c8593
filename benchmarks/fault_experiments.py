"""The tiny experiments that `faults.py` kills."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from tflearn import backbones, experiment, objectives, regimes
from tflearn.backbones import import_keras_hub, vocabularies
from tflearn.data import Data, sources
from tflearn.training import optimizers

SIZE = 8
TEXTS = tuple(
    f"the {animal} {verb} {place} while it {weather}"
    for animal in ("cat", "dog", "bird", "fish")
    for verb in ("sleeps", "waits", "hides", "plays")
    for place in ("here", "there", "inside", "outside")
    for weather in ("rains", "snows")
)
LABELS = tuple("calm" if "sleeps" in x or "waits" in x else "busy" for x in TEXTS)


def _bert() -> backbones.Backbone:
    hub = import_keras_hub()
    pieces = functools.partial(
        vocabularies.wordpiece,
        lambda: TEXTS,
        vocabulary_size=60,
        special_tokens=("pad", "unknown", "start", "end", "mask"),
    )
    architecture = functools.partial(
        hub.models.BertBackbone,
        vocabulary_size=60,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=32,
        dropout=0.1,
    )
    return backbones.hub(architecture, tokenizer=pieces)


def _convolutions() -> backbones.Backbone:
    def build() -> keras.Model:
        x = inputs = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Conv2D(8, 3, name="block_0_conv")(x)
        x = keras.layers.BatchNormalization(name="block_0_norm")(x)
        x = keras.layers.Dropout(0.1, name="block_0_dropout")(x)
        return keras.Model(inputs, keras.layers.ReLU(name="block_0_relu")(x))

    return backbones.function(build)


def _splits(columns: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Takes every fourth row for validation, and every fourth for the test."""
    parts = {"train": (0, 1), "validation": (2,), "test": (3,)}
    return {
        split: {
            name: [value for i, value in enumerate(values) if i % 4 in remainders]
            for name, values in columns.items()
        }
        for split, remainders in parts.items()
    }


def _texts(target: str | None) -> Data:
    columns = _splits({"text": TEXTS, "label": LABELS})
    return Data(source=lambda: sources.arrays(columns), target=target)


def _images() -> Data:
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 200, (SIZE, SIZE, 3), dtype=np.uint8) for _ in TEXTS]
    for index, image in enumerate(pixels):
        image[..., index // 4 % 2] += 50
    columns = _splits(
        {"image": pixels, "label": [str(i // 4 % 2) for i in range(len(TEXTS))]}
    )
    return Data(
        source=lambda: sources.arrays(columns),
        input="image",
        target="label",
        augment=(functools.partial(keras.layers.RandomFlip, "horizontal"),),
    )


def _stage(
    data: Callable[[], Data],
    objective: Callable[[], Any],
    regime: Sequence[regimes.Rule],
    **settings: Any,
) -> experiment.Stage:
    settings = {"name": "tune", "interval": 4, **settings}
    return experiment.Stage(
        data=data,
        objective=objective,
        regime=regime,
        optimizer=functools.partial(
            optimizers.adamw, learning_rate=0.01, weight_decay=0.01
        ),
        budget="16 steps",
        batch_size=8,
        bootstrap=0,
        **settings,
    )


_LABELLED = functools.partial(_texts, "label")
_UNLABELLED = functools.partial(_texts, None)


def _make(
    backbone: Callable[[], backbones.Backbone], *stages: experiment.Stage
) -> experiment.Experiment:
    return experiment.Experiment(backbone=backbone, stages=stages, seed=1)


EXPERIMENTS: Mapping[str, Callable[[], experiment.Experiment]] = MappingProxyType(
    {
        "text": lambda: _make(
            _bert, _stage(_LABELLED, objectives.classification, regimes.full())
        ),
        "image": lambda: _make(
            _convolutions,
            _stage(_images, objectives.classification, regimes.scratch()),
        ),
        "lora": lambda: _make(
            _bert,
            _stage(
                _LABELLED,
                objectives.classification,
                regimes.low_rank(rank=2, dropout=0.1),
            ),
        ),
        "frozen": lambda: _make(
            _bert,
            _stage(
                _LABELLED,
                objectives.classification,
                regimes.frozen(),
                cache="disk",
            ),
        ),
        "masked_lm": lambda: _make(
            _bert, _stage(_UNLABELLED, objectives.masked_lm, regimes.scratch())
        ),
        "hybrid": lambda: _make(
            _bert,
            _stage(_UNLABELLED, objectives.masked_lm, regimes.full(), name="pretrain"),
            _stage(_LABELLED, objectives.classification, regimes.full()),
        ),
    }
)
