"""The mesh of devices on JAX, as Keras asks for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.distribution import layouts
from tflearn.distribution.plan import SHARDED, Distribution


class _BatchLayout(keras.distribution.TensorLayout):
    """Splits the first dimension over several axes, which Keras's layout cannot."""

    def __init__(self, mesh: Any, axes: Sequence[str], rank: int) -> None:
        super().__init__((None,) * rank, mesh)
        self._batch_axes = tuple(axes)

    @property
    def backend_layout(self) -> Any:
        """A `jax.sharding.NamedSharding`."""
        import jax

        spec = jax.sharding.PartitionSpec(self._batch_axes)
        return jax.sharding.NamedSharding(self.device_mesh.backend_mesh, spec)


class Mesh(keras.distribution.ModelParallel):
    """Where batches and variables lie; the active one is `active()`.

    Keras asks for the layout of a variable when it makes it, and its path then is not
    the one by which tflearn's rules know it. So a variable is made as `general` splits
    its shape, which needs no more memory than its share, and is laid out by its path
    once the model is whole.

    Args:
        declared: The declaration.
        kind: The kind; never `auto`.
        names: The devices as Keras lists them.
        axes: Sizes of the axes.
    """

    def __init__(
        self,
        declared: Distribution,
        *,
        kind: str,
        names: Sequence[str],
        axes: Mapping[str, int],
    ) -> None:
        mesh = keras.distribution.DeviceMesh(
            shape=tuple(axes.values()), axis_names=tuple(axes), devices=np.array(names)
        )
        super().__init__(
            layout_map=keras.distribution.LayoutMap(mesh),
            batch_dim_name="data",
            # Every process makes its own rows.
            auto_shard_dataset=False,
        )
        self.declared = declared
        self.kind = kind
        self.axes = dict(axes)

    @property
    def num_model_replicas(self) -> int:
        """In how many parts a batch is split."""
        return layouts.data_parallel_size(self.axes)

    def get_data_layout(self, data_shape: Sequence[int]) -> Any:
        """Splits a batch by its first dimension.

        A batch that does not divide, as the last one of an evaluation, is computed
        whole on every device: padding would enter statistics that look at the others.
        """
        whole = not data_shape or data_shape[0] % self.num_model_replicas
        axes = () if whole else layouts.batch_axes(self.axes)
        return _BatchLayout(self.device_mesh, axes, len(data_shape))

    def get_variable_layout(self, variable: Any) -> Any:
        """Splits a variable by its shape, unless it follows another one already."""
        known = getattr(variable, "_layout", None)
        if known is not None:
            return known
        shape = tuple(variable.shape)
        layout: layouts.Layout = (None,) * len(shape)
        if self.kind in SHARDED:
            layout = layouts.general(self.kind, shape, self.axes)
        return self.layout(layout)

    def layout(self, axes: layouts.Layout) -> Any:
        """Returns what Keras calls a layout on this mesh."""
        return keras.distribution.TensorLayout(axes, self.device_mesh)

    def get_tensor_layout(self, path: str) -> None:
        """Leaves what lies between layers to the compiler."""
        return None

    @property
    def size(self) -> int:
        """Number of devices."""
        return math.prod(self.axes.values())


def active() -> Mesh | None:
    """Returns the mesh that Keras works on now, if it is one of these."""
    found = keras.distribution.distribution()
    return found if isinstance(found, Mesh) else None


def lay_out(variable: keras.Variable, axes: layouts.Layout, mesh: Mesh) -> None:
    """Moves a variable to another layout; its values stay.

    Args:
        variable: A variable of a model; slots that are made for it later follow it.
        axes: The layout.
        mesh: The active mesh.
    """
    # Keras has no public way to change where a variable lies.
    known: Any = variable
    if known._layout is None or tuple(known._layout.axes) != tuple(axes):
        known._layout = mesh.layout(axes)
        variable.assign(variable.value)
