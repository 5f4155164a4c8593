"""The mesh of devices on JAX, as Keras asks for it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.distribution import layouts
from tflearn.distribution.plan import SHARDED, Distribution


class _BatchLayout(keras.distribution.TensorLayout):
    """Splits the first dimension over several axes, which Keras's layout cannot."""

    def __init__(self, mesh: Any, axes: Sequence[str]) -> None:
        super().__init__((None,), mesh)
        self._batch_axes = tuple(axes)

    @property
    def backend_layout(self) -> Any:
        """A `jax.sharding.NamedSharding`."""
        import jax

        # The empty one fits numbers too.
        axes = (self._batch_axes,) if self._batch_axes else ()
        spec = jax.sharding.PartitionSpec(*axes)
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
        # Keras asks for the number of replicas while it makes the mesh.
        self.axes = dict(axes)
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
        # Of what every process put on its devices: alike in all if the sum is.
        self.values = 0
        self.kind = kind

    @property
    def num_model_replicas(self) -> int:
        """In how many parts a batch is split."""
        return layouts.data_parallel_size(self.axes)

    def get_data_layout(self, data_shape: Sequence[int]) -> Any:
        """Splits a batch by its first dimension.

        A batch that does not divide, as the last one of an evaluation, is computed
        whole on every device: padding would enter statistics that look at the others.

        Args:
            data_shape: Shape of the rows that this process has made of the batch.
        """
        parts = len(self.own_rows(self.num_model_replicas))
        whole = not data_shape or data_shape[0] % parts
        return self._batch_layout(() if whole else layouts.batch_axes(self.axes))

    def own_rows(self, size: int) -> np.ndarray:
        """Returns which rows of a batch this process makes, ascending.

        Processes that hold parts of one copy of the model make the same rows.

        Args:
            size: Rows of the batch; if they do not divide, every process makes all.
        """
        if size % self.num_model_replicas:
            return np.arange(size)
        layout = self._batch_layout(layouts.batch_axes(self.axes)).backend_layout
        mine = layout.addressable_devices_indices_map((size,)).values()
        return np.unique(np.concatenate([np.arange(size)[part] for part in mine]))

    def batch(self, rows: Any) -> Any:
        """Puts a batch on the devices, of which every process has all rows.

        Args:
            rows: Arrays `(batch, ...)` in any structure; numbers and what is on devices
                already stay as they are.
        """
        import jax

        def put(array: Any) -> Any:
            if isinstance(array, jax.Array) or np.ndim(array) == 0:
                return array
            array = np.asarray(array)
            return self.assemble(array[self.own_rows(len(array))], len(array))

        return keras.tree.map_structure(put, rows)

    def assemble(self, own: Any, size: int) -> Any:
        """Makes a batch of the rows that every process has made of it.

        Args:
            own: Arrays in any structure, the rows of `own_rows`.
            size: Rows of the batch.

        Returns:
            The same structure; every array `(size, ...)` lies on the devices.
        """
        import jax

        layout = self.get_data_layout((len(self.own_rows(size)),)).backend_layout
        return keras.tree.map_structure(
            lambda array: jax.make_array_from_process_local_data(
                layout, array, (size, *array.shape[1:])
            ),
            own,
        )

    def value(self, value: Any, layout: Any) -> Any:
        """Puts a value on the devices that every process has in its memory.

        JAX would gather it from all processes to see whether it is the same.

        Args:
            value: An array; one that lies on the devices of all processes is left.
            layout: A layout of this mesh.
        """
        import jax
        import jax.core

        if isinstance(value, jax.core.Tracer):
            return value
        if isinstance(value, jax.Array) and not value.is_fully_addressable:
            return value
        array = np.asarray(value, order="C")
        # A sum, since the order in which variables are made may differ.
        self.values += zlib.crc32(array.reshape(-1).view(np.uint8).data, array.size)
        return jax.make_array_from_callback(
            array.shape, layout.backend_layout, lambda index: array[index]
        )

    def _batch_layout(self, axes: Sequence[str]) -> _BatchLayout:
        return _BatchLayout(self.device_mesh, axes)

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
