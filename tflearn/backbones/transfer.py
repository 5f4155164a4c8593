"""Moving weights into a backbone, with every mismatch listed both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tflearn.backbones import graph
from tflearn.support.errors import BackboneError, nearest
from tflearn.support.patterns import matches

_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferLog:
    """What a transfer did.

    Args:
        loaded: Paths of the weights that were set.
        skipped: Paths of weights of the backbone that kept their values, as allowed.
        unused: Paths of weights of the source that were left out, as allowed.
        parameters: Number of values that were set.
        source: Where the weights came from, in one line.
    """

    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    unused: tuple[str, ...]
    parameters: int
    source: str = ""

    def __str__(self) -> str:
        """Returns one line for the user."""
        line = f"{len(self.loaded)} weights ({self.parameters:,} values) transferred"
        if self.skipped:
            line += f", {len(self.skipped)} of the backbone kept"
        if self.unused:
            line += f", {len(self.unused)} of the source left out"
        return line


def transfer(
    source: Mapping[str, np.ndarray],
    target: keras.Model,
    *,
    rename: Sequence[tuple[str, str]] = (),
    skip: Sequence[str] = (),
) -> TransferLog:
    """Sets the weights of a model from arrays of the same paths and shapes.

    Nothing is left out silently: a weight that only one side has, or that has another
    shape, is an error unless a pattern in `skip` names it. After the transfer every
    value is read back and compared.

    Args:
        source: Arrays by path, as `read_weights` returns them.
        target: The model; nothing is changed if there is an error.
        rename: Pairs of the beginning of a path in the source and what to put in its
            place; the first pair that fits a path is used.
        skip: Patterns of paths, of either side, that may be left out.

    Returns:
        What was done.

    Raises:
        BackboneError: Weights are missing, unused, of another shape, or not finite; a
            pattern or a pair names nothing; or a value did not arrive.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="d")])
    >>> arrays = {"d/kernel": np.ones((2, 1)), "d/bias": np.ones(1)}
    >>> str(transfer(arrays, model))
    '2 weights (3 values) transferred'
    """
    renamed = _renamed(source, rename)
    weights = graph.weights_by_path(target)
    _check_skip(skip, [*renamed, *weights])
    allowed = {
        path
        for path in [*renamed, *weights]
        if any(matches(pattern, path) for pattern in skip)
    }
    _check_same(renamed, weights, allowed)
    loaded = [path for path in weights if path not in allowed]
    _check_finite(renamed, loaded)
    for path in loaded:
        weights[path].assign(renamed[path].astype(_numpy_type(weights[path])))
    _check_arrived(renamed, weights, loaded)
    return TransferLog(
        loaded=tuple(loaded),
        skipped=tuple(path for path in weights if path in allowed),
        unused=tuple(path for path in renamed if path in allowed),
        parameters=sum(renamed[path].size for path in loaded),
    )


def check_finite_weights(model: keras.Model, *, origin: str) -> None:
    """Checks that a model that was loaded holds numbers only.

    Args:
        model: The model.
        origin: Where it came from, for the message.

    Raises:
        BackboneError: A weight is NaN or infinite.
    """
    wrong = [
        path
        for path, weight in graph.weights_by_path(model).items()
        if not np.isfinite(graph.value_of(weight).astype("float32")).all()
    ]
    if wrong:
        raise BackboneError(
            f"{len(wrong)} weights are NaN or infinite",
            received=f"{_some(wrong)} of {origin}",
            fix="the file is damaged, or its training diverged; take another one",
        )


def _renamed(
    source: Mapping[str, np.ndarray], rename: Sequence[tuple[str, str]]
) -> dict[str, np.ndarray]:
    used = [False] * len(rename)
    renamed: dict[str, np.ndarray] = {}
    for path, array in source.items():
        new = path
        for index, (old, replacement) in enumerate(rename):
            if path == old or path.startswith(old.rstrip("/") + "/"):
                new = (replacement + path[len(old.rstrip("/")) :]).lstrip("/")
                used[index] = True
                break
        if new in renamed:
            raise BackboneError(
                "two weights of the source get the same path", received=new
            )
        renamed[new] = array
    for (old, _), hit in zip(rename, used, strict=True):
        if not hit:
            raise BackboneError(
                "a pair in rename names nothing of the source",
                received=old,
                expected=f"the beginning of a path such as {_some(source)}",
                nearest=nearest(old, source),
            )
    return renamed


def _check_skip(skip: Sequence[str], paths: Sequence[str]) -> None:
    for pattern in skip:
        if not any(matches(pattern, path) for path in paths):
            raise BackboneError(
                "a pattern in skip matches no weight",
                received=pattern,
                expected=f"a pattern over paths such as {_some(paths)}",
                nearest=nearest(pattern, paths),
            )


def _check_same(
    source: Mapping[str, np.ndarray],
    weights: Mapping[str, keras.Variable],
    allowed: set[str],
) -> None:
    missing = [x for x in weights if x not in source and x not in allowed]
    unused = [x for x in source if x not in weights and x not in allowed]
    shapes = [
        f"{path} {tuple(source[path].shape)} instead of {tuple(weights[path].shape)}"
        for path in weights
        if path in source
        and path not in allowed
        and tuple(source[path].shape) != tuple(weights[path].shape)
    ]
    if not (missing or unused or shapes):
        return
    parts = [
        f"{len(names)} {what}: {_some(names)}"
        for names, what in (
            (missing, "missing in the source"),
            (unused, "of the source that the backbone does not have"),
            (shapes, "of another shape"),
        )
        if names
    ]
    raise BackboneError(
        "the weights do not fit the backbone",
        received="; ".join(parts),
        fix="map paths with rename, or allow what may be left out with skip",
    )


def _check_finite(source: Mapping[str, np.ndarray], paths: Sequence[str]) -> None:
    wrong = [x for x in paths if not np.isfinite(source[x].astype("float32")).all()]
    if wrong:
        raise BackboneError(
            f"{len(wrong)} weights of the source are NaN or infinite",
            received=_some(wrong),
            fix="the file is damaged, or its training diverged; take another one",
        )


def _check_arrived(
    source: Mapping[str, np.ndarray],
    weights: Mapping[str, keras.Variable],
    paths: Sequence[str],
) -> None:
    for path in paths:
        value = graph.value_of(weights[path])
        if not np.array_equal(value, source[path].astype(value.dtype)):
            raise BackboneError("a transferred value did not arrive", received=path)


def _numpy_type(variable: keras.Variable) -> np.dtype:
    return np.asarray(variable.value).dtype


def _some(names: Sequence[str] | Mapping[str, object]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
