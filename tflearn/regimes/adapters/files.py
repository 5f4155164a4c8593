"""Adapters in a file of their own, keyed by the paths of their layers."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tflearn.backbones import graph
from tflearn.backbones.libraries import shapes_only
from tflearn.regimes.adapters.attach import attach, attached
from tflearn.regimes.adapters.kinds import make
from tflearn.regimes.adapters.merging import forget_traces
from tflearn.support.errors import FileError, RegimeError, nearest
from tflearn.support.safety import json_files
from tflearn.support.safety.tensors import read_safetensors

_FORMAT = "tflearn-adapters-1"


def save_adapter(
    model: keras.Model, file: str | os.PathLike[str], *, name: str = "default"
) -> int:
    """Writes the adapters of one name, without the model they belong to.

    Args:
        model: A backbone, or a model with a layer named `backbone`, whose adapters
            are then saved.
        file: A `.safetensors` file; it appears whole or not at all. Kind and
            hyper-parameters by layer are in its metadata.
        name: Which adapters.

    Returns:
        Number of weights that were saved.

    Raises:
        RegimeError: There are none of that name, or a weight is not finite.
    """
    import safetensors.numpy

    by_layer = {path: attached(layer) for path, layer in _layers(model).items()}
    found = {
        path: by_name[name] for path, by_name in by_layer.items() if name in by_name
    }
    if not found:
        names = {x for y in by_layer.values() for x in y}
        raise RegimeError(
            "the backbone has no adapter of this name",
            received=name,
            expected=", ".join(sorted(names)) or "a backbone with adapters",
            nearest=nearest(name, names),
        )
    tensors = {
        # safetensors writes the buffer as it lies.
        f"{path}/{key}": np.ascontiguousarray(graph.value_of(variable))
        for path, adapter in found.items()
        for key, variable in graph.weights_by_path(adapter).items()
    }
    _check_finite(tensors)
    header = {
        path: {"kind": adapter.kind, "options": adapter.options()}
        for path, adapter in found.items()
    }
    metadata = {
        "format": _FORMAT,
        "adapters": json.dumps(header),
        "digest": _digest(tensors),
    }
    target = pathlib.Path(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"unfinished.{target.name}")
    temporary.write_bytes(safetensors.numpy.save(tensors, metadata=metadata))
    temporary.replace(target)
    return sum(x.size for x in tensors.values())


def load_adapter(
    model: keras.Model, file: str | os.PathLike[str], *, name: str = "default"
) -> tuple[str, ...]:
    """Attaches the adapters of a file; outputs equal the saved ones to the last bit.

    Nothing of the model changes unless all of the file fits.

    Args:
        model: A backbone of the same architecture and weights, or a model with a
            layer named `backbone`.
        file: What `save_adapter` wrote.
        name: Name to attach them under; they become the active ones.

    Returns:
        Paths of the layers that got an adapter, relative to the backbone (`.` is
        itself).

    Raises:
        RegimeError: The file is damaged, or a layer or weight is missing, extra or of
            another shape.
    """
    header, tensors = _read(pathlib.Path(file))
    layers = _layers(model)
    hosts = {path: _host(layers, path, name) for path in header}
    expected = _expected(header, hosts)
    _check_entries(tensors, expected)
    for path, entry in header.items():
        adapter = attach(hosts[path], make(entry["kind"], entry["options"]), name=name)
        for key, variable in graph.weights_by_path(adapter).items():
            variable.assign(tensors[f"{path}/{key}"])
    forget_traces(model)
    return tuple(header)


def _read(file: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        tensors, metadata = read_safetensors(file)
        if metadata.get("format") != _FORMAT:
            raise RegimeError(
                "not a file of adapters",
                received=f"{file}: format {metadata.get('format')!r}",
                expected=_FORMAT,
            )
        header = json_files.parse(metadata["adapters"], f"{file}: adapters")
    except (OSError, KeyError, FileError) as error:
        raise RegimeError("cannot read adapters", received=f"{file}: {error}") from None
    if not isinstance(header, dict) or not all(map(_is_entry, header.values())):
        raise RegimeError(
            "the header of the adapters is damaged",
            received=str(file),
            expected="kind and options by layer",
        )
    _check_finite(tensors)
    if metadata.get("digest") != _digest(tensors):
        raise RegimeError(
            "the weights are not those that were saved",
            received=str(file),
            fix="the file was damaged or edited: save it again",
        )
    return header, tensors


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("kind"), str)
        and isinstance(entry.get("options"), dict)
    )


def _host(layers: Mapping[str, keras.Layer], path: str, name: str) -> keras.Layer:
    if path not in layers:
        raise RegimeError(
            "the backbone has no layer that the file names",
            received=path,
            nearest=nearest(path, layers),
        )
    if name in attached(layers[path]):
        raise RegimeError(
            "a layer has an adapter of this name already",
            received=f"{path}: '{name}'",
            fix="load under another name, or detach that one",
        )
    return layers[path]


def _expected(
    header: Mapping[str, Any], hosts: Mapping[str, keras.Layer]
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes that the adapters would have, without attaching any."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, entry in header.items():
        adapter = make(entry["kind"], entry["options"])
        if not adapter.supports(hosts[path]):
            raise RegimeError(
                f"an adapter of kind '{adapter.kind}' does not fit this layer",
                received=f"{path} ({type(hosts[path]).__name__})",
            )
        # Shapes alone: a file may ask for an adapter of any rank.
        with shapes_only():
            adapter.build_for(hosts[path])
        for key, variable in graph.weights_by_path(adapter).items():
            shapes[f"{path}/{key}"] = tuple(variable.shape)
    return shapes


def _check_entries(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> None:
    problems = {
        "missing": [x for x in expected if x not in tensors],
        "extra": [x for x in tensors if x not in expected],
        "wrongly shaped": [
            f"{x} {tensors[x].shape} instead of {shape}"
            for x, shape in expected.items()
            if x in tensors and tensors[x].shape != shape
        ],
    }
    found = [f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names]
    if found:
        raise RegimeError(
            "the file does not fit the backbone",
            received="; ".join(found),
            expected="exactly the weights of the adapters it declares",
            fix="load it onto the backbone it was trained on",
        )


def _check_finite(tensors: Mapping[str, np.ndarray]) -> None:
    bad = [key for key, x in tensors.items() if not np.isfinite(x).all()]
    if bad:
        raise RegimeError(
            "weights of an adapter are not finite", received=", ".join(bad[:5])
        )


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for key in sorted(tensors):
        total.update(key.encode() + np.ascontiguousarray(tensors[key]).tobytes())
    return total.hexdigest()


def _layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns the layers of the backbone, and itself, which may have a prompt."""
    backbone = graph.layers_by_path(model).get("backbone", model)
    return {".": backbone, **graph.layers_by_path(backbone)}
