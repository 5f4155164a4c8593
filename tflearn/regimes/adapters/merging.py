"""Merging adapters into weights, for good or for the length of an export."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import numpy as np

from tflearn.backbones import graph
from tflearn.regimes.adapters.adapter import Adapter
from tflearn.regimes.adapters.attach import (
    activate,
    active_adapter,
    adapters_of,
    attached,
    detach,
    reattach,
)
from tflearn.support.errors import RegimeError, nearest
from tflearn.support.patterns import matches


def merge(model: keras.Model, pattern: str = "*") -> tuple[str, ...]:
    """Writes active adapters into the weights of their hosts and takes them off.

    Args:
        model: The model; its outputs stay the same up to rounding.
        pattern: Which hosts, by path.

    Returns:
        Paths of the layers that were merged.

    Raises:
        RegimeError: There is no adapter there, one cannot be merged, or a layer has
            several (the others belong to the weights as they were).

    Example:

    >>> from tflearn.regimes import adapters
    >>> dense = keras.layers.Dense(3, name="query")
    >>> model = keras.Sequential([keras.Input((2,)), dense])
    >>> _ = adapters.attach(dense, adapters.LoRA())
    >>> merge(model)
    ('query',)
    """
    hosts = _hosts(model, pattern)
    if not hosts:
        raise RegimeError(
            "there is no adapter to merge",
            received=pattern,
            expected="a pattern that names layers with adapters",
            nearest=nearest(pattern, adapters_of(model)),
        )
    for path, host in hosts.items():
        if len(attached(host)) > 1:
            raise RegimeError(
                "a layer has several adapters",
                received=f"{path}: {', '.join(attached(host))}",
                fix="detach all but the one to merge",
            )
    _merge_all(hosts)
    forget_traces(model)
    return tuple(hosts)


@contextlib.contextmanager
def merged(model: keras.Model, *, strict: bool = True) -> Iterator[keras.Model]:
    """Merges a model's adapters for the length of a `with` block.

    Args:
        model: The model; inside the block a plain one, afterwards what it was, to the
            last bit.
        strict: Whether an adapter that cannot be merged is an error; else it stays.

    Yields:
        The model.

    Raises:
        RegimeError: An adapter cannot be merged.
    """
    hosts = _hosts(model, "*")
    chosen = {
        path: host
        for path, host in hosts.items()
        if strict or all(x.mergeable for x in attached(host).values())
    }
    kept = {path: _Kept(host) for path, host in chosen.items()}
    try:
        _merge_all(chosen)
        forget_traces(model)
        yield model
    finally:
        for saved in kept.values():
            saved.put_back()
        forget_traces(model)


def switch(model: keras.Model, name: str | None) -> tuple[str, ...]:
    """Makes the adapters of one name the active ones, throughout a model.

    Args:
        model: The model. Another compiled model that has the same layers must be told
            by `forget_traces`.
        name: Name under which they were attached or loaded; None for the bare model.

    Returns:
        Paths of the layers whose adapter is now active.

    Raises:
        RegimeError: No adapter has that name.
    """
    hosts = _hosts(model, "*")
    names = {key for host in hosts.values() for key in attached(host)}
    if name is not None and name not in names:
        raise RegimeError(
            "no adapter has this name",
            received=name,
            expected=", ".join(sorted(names)) or "a model with adapters",
            nearest=nearest(name, names),
        )
    for host in hosts.values():
        activate(host, name)
    forget_traces(model)
    return tuple(path for path, host in hosts.items() if active_adapter(host))


def forget_traces(model: keras.Model) -> None:
    """Makes a compiled model trace its functions anew.

    Args:
        model: A model whose layers now compute something else.
    """
    for part in (model, *graph.layers_by_path(model).values()):
        if isinstance(part, keras.Model):
            part.train_function = part.test_function = part.predict_function = None


class _Kept:
    """A host's weights and adapters as they are now."""

    def __init__(self, host: keras.Layer) -> None:
        self._host = host
        self._active = active_adapter(host)
        self._adapters: list[Adapter] = list(attached(host).values())
        inner = {id(w) for x in self._adapters for w in x.variables}
        own = [w for w in host.weights if id(w) not in inner]
        self._values: list[tuple[keras.Variable, np.ndarray]] = [
            (w, graph.value_of(w)) for w in own
        ]

    def put_back(self) -> None:
        for weight, value in self._values:
            weight.assign(value)
        detach(self._host)
        for adapter in self._adapters:
            reattach(self._host, adapter)
        activate(self._host, self._active.adapter_name if self._active else None)


def _merge_all(hosts: dict[str, keras.Layer]) -> None:
    for path, host in hosts.items():
        adapter = active_adapter(host)
        if adapter is not None and not adapter.mergeable:
            raise RegimeError(
                f"an adapter of kind '{adapter.kind}' cannot be merged",
                received=path,
                fix="keep it, or name only others by a pattern",
            )
    for host in hosts.values():
        adapter = active_adapter(host)
        detach(host)
        if adapter is not None:
            adapter.merge_into(host)


def _hosts(model: keras.Model, pattern: str) -> dict[str, keras.Layer]:
    layers = graph.layers_by_path(model)
    return {path: layers[path] for path in adapters_of(model) if matches(pattern, path)}
