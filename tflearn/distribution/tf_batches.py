"""Giving every device of a `tf.distribute` strategy its own rows of a batch.

The batch of a step is made whole and cut by index, so its rows are those that one
device would get, no row is missing and none comes twice. (TensorFlow's automatic
sharding gives every worker other files, or all workers the same rows.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from tflearn.distribution import tf_strategy, tf_workers
from tflearn.support.errors import DataError


def distribute(stream: Iterable[Any], signature: Any) -> Any:
    """Returns a stream of batches as what a strategy's `fit` takes.

    Args:
        stream: Structures of arrays `(batch, ...)`, of which every process has its own
            rows (`own_rows`).
        signature: `tf.TensorSpec`s of a batch.

    Returns:
        A `tf.distribute.DistributedDataset`; a `tf.data.Dataset` of whole batches
        without a strategy, or under one of a single device.

    Raises:
        DataError: While it is read: a batch does not divide among the devices.
    """
    import tensorflow as tf

    strategy = tf_strategy.active()
    if strategy is None or strategy.num_replicas_in_sync == 1:
        return tf.data.Dataset.from_generator(
            lambda: iter(stream), output_signature=signature
        ).prefetch(2)
    here = tf_workers.place(strategy)

    def parts() -> Iterator[Any]:
        for batch in stream:
            for replica in range(here.local):
                yield _part(batch, replica, here.local)

    def dataset(context: Any) -> Any:
        made = tf.data.Dataset.from_generator(parts, output_signature=signature)
        return made.prefetch(2 * here.local)

    return strategy.distribute_datasets_from_function(dataset)


def own_rows(strategy: Any, size: int) -> np.ndarray:
    """Returns which rows of a batch this process makes.

    Args:
        strategy: The strategy over all workers.
        size: Rows of the batch.

    Returns:
        Indices `(size / processes,)`.

    Raises:
        DataError: The batch does not divide among the devices.
    """
    here = tf_workers.place(strategy)
    return _part(np.arange(size), here.worker, here.workers)


@contextlib.contextmanager
def rows_per_replica() -> Iterator[None]:
    """Makes `predict_on_batch` of every model compute each row once.

    Keras hands a NumPy batch whole to every device and puts all their answers behind
    each other: four devices give four rows for one.
    """
    model: Any = keras.Model
    if "predict_on_batch" in vars(model):
        yield
        return
    model.predict_on_batch = _predictor(model.predict_on_batch)
    try:
        yield
    finally:
        del model.predict_on_batch


def _predictor(plain: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def predict_on_batch(self: Any, x: Any) -> Any:
        strategy = tf_strategy.active()
        if strategy is None or strategy.num_replicas_in_sync == 1:
            return plain(self, x)
        import tensorflow as tf

        rows = len(tf.nest.flatten(x)[0])
        here, count = tf_workers.place(strategy), strategy.num_replicas_in_sync
        filled = tf.nest.map_structure(lambda array: _filled(array, count), x)

        def own(context: Any) -> Any:
            # Keras puts the answers of all first devices first, then all second ones.
            worker, replica = divmod(context.replica_id_in_sync_group, here.local)
            part = _part(filled, replica * here.workers + worker, count)
            return tf.nest.map_structure(tf.convert_to_tensor, part)

        values = strategy.experimental_distribute_values_from_function(own)
        self.make_predict_function()
        found = self.predict_function([(values,)])
        return tf.nest.map_structure(lambda tensor: tensor.numpy()[:rows], found)

    return predict_on_batch


def _part(batch: Any, index: int, count: int) -> Any:
    """Returns the rows of one of `count` devices."""
    import tensorflow as tf

    def cut(array: Any) -> Any:
        if len(array) % count:
            raise DataError(
                f"a batch does not divide among {count} devices",
                received=f"{len(array)} rows",
                expected=f"a multiple of {count}",
            )
        size = len(array) // count
        return array[index * size : (index + 1) * size]

    return tf.nest.map_structure(cut, batch)


def _filled(array: Any, count: int) -> np.ndarray:
    """Repeats the last row until the rows divide."""
    array = np.asarray(array)
    missing = -len(array) % count
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1), mode="edge")
