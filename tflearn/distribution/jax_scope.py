"""What Keras does otherwise inside the mesh of a run on JAX."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from tflearn.distribution import processes
from tflearn.distribution.arrays import to_host
from tflearn.distribution.jax_mesh import Mesh, active


@contextlib.contextmanager
def scope(mesh: Mesh) -> Iterator[None]:
    """Makes everything that Keras creates inside lie on a mesh.

    Args:
        mesh: The mesh.
    """
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(mesh)
    # Keras has no public way to say how a value gets to the devices of a variable, or
    # a batch of `predict_on_batch` to those of a model.
    assigned = _replaced(keras.Variable, "_direct_assign", _assigner)
    predicted = _replaced(keras.Model, "predict_on_batch", _predictor)
    try:
        with assigned, predicted:
            yield
    finally:
        keras.distribution.set_distribution(before)


@contextlib.contextmanager
def _replaced(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    inherited = name not in vars(owner)
    plain = getattr(owner, name)
    setattr(owner, name, wrap(plain))
    try:
        yield
    finally:
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, plain)


def _assigner(plain: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def direct_assign(self: Any, value: Any) -> None:
        mesh = active()
        if mesh is not None and self._layout is not None and processes.count() > 1:
            value = mesh.value(value, self._layout)
        plain(self, value)

    return direct_assign


def _predictor(plain: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Makes `predict_on_batch` compute every row once; Keras lets all devices do all.

    What comes out is gathered, so that every process has the answers to all rows.
    """

    def predict_on_batch(self: Any, x: Any) -> Any:
        mesh = active()
        if mesh is None:
            return plain(self, x)
        self.make_predict_function()
        function = self.predict_function

        def gathered(state: Any, iterator: Any) -> Any:
            outputs, state = function(state, iterator)
            return keras.tree.map_structure(to_host, outputs), state

        self.predict_function = gathered
        try:
            return plain(self, mesh.batch(x))
        finally:
            self.predict_function = function

    return predict_on_batch
