"""Fingerprints of all that features depend on, so that none is ever out of date."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.backbones import graph
from tflearn.backbones.part import Call, Part
from tflearn.data.examples import Examples, ImageExamples
from tflearn.regimes.adapters import attached
from tflearn.support import environment
from tflearn.training.features.examples import Field
from tflearn.training.features.passes import passes

#: Another one when the files are written in another way.
_FORMAT = "2"
_LIBRARIES = ("keras", "keras-hub", "jax", "tensorflow", "numpy")
# Keras counts the names that it gives through the life of a process.
_NAMES = ("name", "trainable", "registered_name", "build_config")
_BATCH = 256


def of_prefix(prefix: Part) -> str:
    """Returns a digest of a prefix: its operations, how they follow, its weights.

    Args:
        prefix: The prefix; frozen adapters in it count.
    """
    total = hashlib.sha256()
    numbers: dict[int, int] = {}
    seen: set[int] = set()
    for call in prefix.calls:
        operation = call.operation
        places = [numbers.setdefault(n, len(numbers)) for n in call.inputs]
        said = [type(operation).__qualname__, call.dtype, places, _arguments(call)]
        for layer in _layers(operation):
            said += [type(layer).__qualname__, _config(layer)]
            said += [
                [name, x.kind, x.active, x.options()]
                for name, x in attached(layer).items()
            ]
        for number in call.outputs:
            numbers.setdefault(number, len(numbers))
        total.update(json.dumps(said, sort_keys=True, default=str).encode())
        for variable in getattr(operation, "weights", ()):
            if id(variable) not in seen:
                seen.add(id(variable))
                total.update(str(variable.dtype).encode())
                total.update(graph.value_of(variable).tobytes())
    return total.hexdigest()


def of_examples(examples: Examples, split: str, fingerprint: str) -> str:
    """Returns a digest of what the prefix is fed: the encoded examples themselves.

    Args:
        examples: The examples.
        split: Its name.
        fingerprint: Digest of the rows; stands for images that are decoded anew every
            epoch, of which only the first ones are looked at.
    """
    total = hashlib.sha256(f"{examples.kind} {len(examples)}".encode())
    images = isinstance(examples, ImageExamples)
    if examples.lazy:
        total.update(f"{split} {fingerprint}".encode())
    for indices, length in [] if examples.lazy else passes(examples, _BATCH):
        if images and isinstance(examples, ImageExamples):
            _update(total, examples.pixels(indices))
        else:
            _update(total, examples.batch(indices, length=length))
    # How the pixels are scaled.
    _update(total, examples.batch(np.arange(min(8, len(examples)))))
    return total.hexdigest()


def of_form(
    fields: Sequence[Field],
    *,
    batch_size: int,
    fits: Sequence[int],
    precision: str,
    view: object,
) -> str:
    """Returns a digest of how features are computed and written.

    Args:
        fields: The features.
        batch_size: Examples a batch: it decides about the last bits.
        fits: Lengths of batches: they do, too.
        precision: What the prefix runs in.
        view: What the examples were augmented with, if they were.
    """
    versions = environment.versions()
    return json.dumps(
        [
            _FORMAT,
            keras.backend.backend(),
            {name: versions.get(name) for name in _LIBRARIES},
            [dataclasses.astuple(field) for field in fields],
            batch_size,
            list(fits),
            precision,
            view,
        ],
        default=str,
    )


def _update(total: Any, batch: Any) -> None:
    for array in keras.tree.flatten(batch):
        total.update(f"{array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())


def _layers(operation: Any) -> list[keras.Layer]:
    if not isinstance(operation, keras.Layer):
        return []
    return [operation, *graph.layers_by_path(operation).values()]


def _arguments(call: Call) -> Any:
    if call.arguments is None:
        return None
    plain = keras.tree.map_structure(
        lambda x: "tensor" if isinstance(x, keras.KerasTensor) else x,
        (call.arguments.args, call.arguments.kwargs),
    )
    own = {
        k: v
        for k, v in vars(call.operation).items()
        if isinstance(v, (int, float, str, tuple))
    }
    is_layer = isinstance(call.operation, keras.Layer)
    # Operations that are no layers keep their settings in plain attributes.
    return [plain, None if is_layer else _nameless(own)]


def _config(layer: keras.Layer) -> Any:
    try:
        return _nameless(layer.get_config())
    except (NotImplementedError, TypeError, ValueError):
        return None


def _nameless(value: Any) -> Any:
    """Leaves out names, which Keras counts through the life of a process."""
    if isinstance(value, Mapping):
        return {str(k): _nameless(v) for k, v in value.items() if k not in _NAMES}
    if isinstance(value, (list, tuple)):
        return [_nameless(item) for item in value]
    return value
