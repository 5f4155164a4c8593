"""What rules do to adapters: attach, keep, merge, and refuse."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence

import keras

from tflearn.regimes.adapters import (
    KINDS,
    Adapter,
    activate,
    active_adapter,
    attach,
    attached,
    detach,
    make,
    reattach,
)
from tflearn.regimes.rules import Rule
from tflearn.support.errors import RegimeError, nearest
from tflearn.support.patterns import matches

_Before = tuple[keras.Layer, list[Adapter], Adapter | None]
_rehearsed: contextvars.ContextVar[dict[int, _Before] | None] = contextvars.ContextVar(
    "rehearsed", default=None
)


@contextlib.contextmanager
def rehearsal() -> Iterator[None]:
    """Lets regimes be applied without lasting effect on adapters and weights.

    Inside the block adapters come and go as the rules say, but no weight is quantized
    or merged, and afterwards every layer has the adapters that it had before. This is
    how the rules of all stages are checked before the first one trains.
    """
    touched: dict[int, _Before] = {}
    token = _rehearsed.set(touched)
    try:
        yield
    finally:
        _rehearsed.reset(token)
        for host, adapters, active in touched.values():
            detach(host)
            for adapter in adapters:
                reattach(host, adapter)
            activate(host, active.adapter_name if active else None)


def merge_declared(
    layers: Mapping[str, keras.Layer], rules: Sequence[Rule]
) -> list[Rule]:
    """Carries out the rules that merge adapters.

    Args:
        layers: Layers by path.
        rules: All rules of a regime.

    Returns:
        The rules that decide about layers.

    Raises:
        RegimeError: There is nothing to merge, or it cannot be merged.
    """
    for rule in rules:
        if not rule.merges:
            continue
        pattern = rule.pattern or "*"
        hosts = [x for path, x in layers.items() if matches(pattern, path)]
        hosts = [host for host in hosts if attached(host)]
        if not hosts:
            raise RegimeError(
                "a rule merges adapters where there are none",
                received=str(rule),
                fix="an earlier stage must have trained adapters there",
                nearest=nearest(pattern, [p for p, x in layers.items() if attached(x)]),
            )
        for host in hosts:
            _merge(host)
    return [rule for rule in rules if not rule.merges]


def attach_decided(
    layers: Mapping[str, keras.Layer], decided: Mapping[str, Rule]
) -> list[Adapter]:
    """Gives layers the adapters that rules declare; equal ones are kept.

    Args:
        layers: Layers by path.
        decided: The deciding rule of each.

    Returns:
        The adapters that are new.

    Raises:
        RegimeError: A layer has another adapter already, or is to be trained under
            one.
    """
    new: list[Adapter] = []
    for path, rule in decided.items():
        host = layers[path]
        present = active_adapter(host)
        if present is not None:
            _check_kept(path, present, rule)
        elif rule.action in KINDS:
            new.append(_attach(host, rule))
    return new


def check_reached(model: keras.Model, adapters: Sequence[Adapter]) -> None:
    """Checks that the model calls the hosts of some adapters.

    A parent may read the weights of a layer and never call it; an adapter on such a
    layer would have no effect.

    Args:
        model: Traced once with symbolic inputs, if it is functional.
        adapters: Newly attached ones.

    Raises:
        RegimeError: A host is not called.
    """
    if not adapters or not getattr(model, "inputs", None):
        return
    for adapter in adapters:
        adapter.reached = False
    _Trace(model)(keras.tree.map_structure(_small, model.input))
    missed = [x for x in adapters if not x.reached]
    if missed:
        names = [x.weights[0].path for x in missed if x.weights]
        raise RegimeError(
            f"{len(missed)} layers with an adapter are never called",
            received=", ".join(names[:5]),
            expected="layers that the model calls, not only reads weights of",
            fix="leave these layers out of the pattern",
        )


class _Trace(keras.Operation):
    """Runs a model on shapes alone."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self._model = model

    def call(self, inputs: object) -> object:
        return self._model(inputs)


def _small(tensor: keras.KerasTensor) -> keras.KerasTensor:
    # On JAX, layers that compare open sizes, as position embeddings do, cannot be
    # traced with them. Two tokens fit every table of positions.
    size = 2 if len(tensor.shape) == 2 else 64
    shape = [size if x is None else x for x in tensor.shape]
    return keras.KerasTensor(shape, dtype=tensor.dtype)


def _attach(host: keras.Layer, rule: Rule) -> Adapter:
    _remember(host)
    adapter = make(rule.action, dict(rule.options))
    return attach(host, adapter, prepare=_rehearsed.get() is None)


def _merge(host: keras.Layer) -> None:
    adapter = active_adapter(host)
    if adapter is None or len(attached(host)) > 1:
        raise RegimeError(
            "only a layer with one active adapter can be merged",
            received=f"{host.name}: {', '.join(attached(host))}",
            fix="detach the others first",
        )
    if not adapter.mergeable:
        # Raises, and says what to do.
        adapter.merge_into(host)
    _remember(host)
    detach(host)
    if _rehearsed.get() is None:
        adapter.merge_into(host)


def _check_kept(path: str, adapter: Adapter, rule: Rule) -> None:
    if rule.action == "freeze":
        return
    if (adapter.kind, adapter.options()) == (rule.action, dict(rule.options)):
        return
    options = ", ".join(f"{k}={v!r}" for k, v in adapter.options().items())
    raise RegimeError(
        "a layer has an adapter that its rule does not keep",
        received=f"{path} has {adapter.kind}({options}), its rule is {rule}",
        expected="the same adapter, or freeze, which keeps and freezes it",
        fix="put regimes.merge(pattern) first in this stage's regime",
    )


def _remember(host: keras.Layer) -> None:
    touched = _rehearsed.get()
    if touched is not None and id(host) not in touched:
        before = list(attached(host).values())
        touched[id(host)] = (host, before, active_adapter(host))
