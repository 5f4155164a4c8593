"""Attaching adapters to layers in place, and what a layer then calls.

Keras calls `layer.call`; a function of that name on the instance hides the method of
the class there alone, so that configurations, other instances and models whose graph
was built long ago need not know. Two things use it here: a frozen layer ignores
`training=True`, and a host hands its call to its active adapter. Both may hold for
one layer: the host's own part then runs in inference mode, its adapter trains.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras

from tflearn.backbones import graph
from tflearn.regimes.adapters.adapter import Adapter
from tflearn.support.errors import RegimeError

# Layers with quantized weights are called through a method of their own.
_METHODS = ("call", "quantized_call")
_FROZEN = "_runs_in_inference_mode"


def attach(
    host: keras.Layer,
    adapter: Adapter,
    *,
    name: str = "default",
    prepare: bool = True,
) -> Adapter:
    """Gives a layer an adapter, which becomes its active one.

    Args:
        host: A built layer; it is changed in place, wherever it is used.
        adapter: A new adapter.
        name: Tells several adapters of one layer apart.
        prepare: Whether the adapter may change the host's own weights, as
            quantization does.

    Returns:
        The adapter, with its weights.

    Raises:
        RegimeError: The layer is of a kind that the adapter does not support, is not
            built, or has an adapter of that name.

    Example:

    >>> from tflearn.regimes import adapters
    >>> dense = keras.layers.Dense(3, name="query")
    >>> dense.build((None, 2))
    >>> lora = attach(dense, adapters.LoRA(rank=4))
    >>> list(graph.variables_by_path(dense))
    ['adapter/a', 'adapter/b', 'bias', 'kernel']
    """
    _check(host, adapter, name)
    if prepare:
        adapter.prepare(host)
    adapter.name = "adapter" if name == "default" else f"adapter_{name}"
    adapter.adapter_name = name
    with _scopes(host):
        adapter.build_for(host)
    adapter.built = True
    return reattach(host, adapter)


def reattach(host: keras.Layer, adapter: Adapter) -> Adapter:
    """Gives a layer an adapter that it had before, and makes it the active one.

    Args:
        host: The layer.
        adapter: What `detach` returned.

    Returns:
        The adapter.
    """
    for other in attached(host).values():
        other.active = False
    adapter.active = True
    with _unlocked(host):
        setattr(host, adapter.name, adapter)
    install(host)
    return adapter


def detach(host: keras.Layer, *, name: str | None = None) -> list[Adapter]:
    """Takes adapters off a layer, whose own weights stay as they are.

    Args:
        host: The layer.
        name: The adapter to take off; all of them if it is not given.

    Returns:
        The adapters that were taken off.
    """
    taken = [x for key, x in attached(host).items() if name in (None, key)]
    with _unlocked(host):
        for adapter in taken:
            delattr(host, adapter.name)
            host._tracker.untrack(adapter)
    install(host)
    return taken


def attached(host: keras.Layer) -> dict[str, Adapter]:
    """Returns the adapters of one layer by name, in the order of attachment."""
    return {
        x.adapter_name: x
        for key, x in vars(host).items()
        if isinstance(x, Adapter) and key == x.name
    }


def active_adapter(host: keras.Layer) -> Adapter | None:
    """Returns the adapter that a layer calls, if any."""
    return next((x for x in attached(host).values() if x.active), None)


def adapters_of(model: keras.Layer) -> dict[str, dict[str, Adapter]]:
    """Returns all adapters in a model.

    Args:
        model: Any model or layer.

    Returns:
        Adapters by name, by path of their host (as in `graph.layers_by_path`).
    """
    layers = graph.layers_by_path(model)
    return {path: found for path, x in layers.items() if (found := attached(x))}


def activate(host: keras.Layer, name: str | None) -> None:
    """Makes one adapter of a layer the active one.

    Args:
        host: The layer.
        name: Which; None switches all off.
    """
    for key, adapter in attached(host).items():
        adapter.active = key == name
    install(host)


def set_inference_mode(layer: keras.Layer, *, on: bool) -> None:
    """Makes a layer's own computation ignore `training=True`, or heed it again.

    Args:
        layer: Any layer.
        on: Whether to ignore it.
    """
    layer.__dict__[_FROZEN] = on
    install(layer)


def install(layer: keras.Layer) -> None:
    """Puts in place of a layer's call what its state asks for.

    Args:
        layer: Any layer.
    """
    adapter = active_adapter(layer)
    for method in _METHODS:
        layer.__dict__.pop(method, None)
        own = call = getattr(layer, method, None)
        if own is None or call is None:
            continue
        heeds_training = "training" in inspect.signature(layer.call).parameters
        if layer.__dict__.get(_FROZEN) and heeds_training:
            call = _in_inference_mode(call)
        if adapter is not None:
            call = _adapted(layer, adapter, call)
        if call is not own:
            layer.__dict__[method] = call


def _in_inference_mode(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def frozen_call(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **(kwargs | {"training": False}))

    return frozen_call


def _adapted(
    host: keras.Layer, adapter: Adapter, call: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(call)
    def adapted_call(*args: Any, **kwargs: Any) -> Any:
        adapter.reached = True
        return adapter.around(host, call, *args, **kwargs)

    return adapted_call


def _check(host: keras.Layer, adapter: Adapter, name: str) -> None:
    if not host.built:
        raise RegimeError(
            "an adapter needs a layer that has its weights",
            received=host.name,
            fix="call or build the model first",
        )
    if not adapter.supports(host):
        raise RegimeError(
            f"an adapter of kind '{adapter.kind}' does not fit this layer",
            received=f"{host.name} ({type(host).__name__})",
            expected=adapter.hosts,
        )
    if not name.isidentifier():
        raise RegimeError(
            "the name of an adapter must be letters, digits and underscores",
            received=name,
        )
    if name in attached(host):
        raise RegimeError(
            "the layer has an adapter of this name already",
            received=f"{host.name}: '{name}'",
            fix="detach or merge that one, or choose another name",
        )


@contextlib.contextmanager
def _unlocked(layer: keras.Layer) -> Iterator[None]:
    # A built layer refuses new sublayers, and Keras has no public way to allow one.
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if locked:
            layer._tracker.lock()


@contextlib.contextmanager
def _scopes(host: keras.Layer) -> Iterator[None]:
    # Keras names variables, and an optimizer its slots, after the scope they are made
    # in; layouts of distributed weights are looked up by that name.
    with contextlib.ExitStack() as stack:
        for part in filter(None, (host.path or host.name).split("/")):
            stack.enter_context(keras.name_scope(part))
        yield
