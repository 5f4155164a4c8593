"""What makes a step over several devices on TensorFlow the step of one device.

Keras computes on every device as if its rows were all: it clips the gradients of a
device before they are summed, divides a weighted loss by the weights of a device, takes
the statistics of BatchNormalization over a device's rows, and draws one and the same
dropout mask on all devices. Here each of the first three gets its sum over all devices,
and each device draws masks of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from tflearn.distribution import tf_strategy
from tflearn.support.errors import ConfigError

# Distance of the seeds of two devices.
_STRIDE = 1_000_003


@keras.saving.register_keras_serializable(package="tflearn")
class GlobalMean(keras.losses.Loss):
    r"""A loss whose mean is taken over the batch of all devices.

    With values :math:`l` and weights :math:`w`, device :math:`r` returns
    :math:`\sum_{i \in r} w_i l_i / \sum_i w_i`, so that the sum over the devices is the
    loss of the whole batch. (Keras divides by the weights of the device and by the
    number of devices: rows on a device with little weight would count for more.)

    Args:
        loss: Its values, and how they are reduced.
    """

    def __init__(self, loss: keras.losses.Loss) -> None:
        super().__init__(name=loss.name, reduction=loss.reduction, dtype=loss.dtype)
        self.loss = loss

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Computes this device's share of the loss."""
        import tensorflow as tf

        value = self.loss(y_true, y_pred, sample_weight)
        weight = self._weight(y_pred, sample_weight)
        context = tf.distribute.get_replica_context()
        if weight is None or context is None:
            return value
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, weight)
        count = tf.cast(context.num_replicas_in_sync, value.dtype)
        return value * tf.math.divide_no_nan(count * weight, total)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> GlobalMean:
        """Makes the loss of its configuration."""
        loss = keras.saving.deserialize_keras_object(config["loss"], safe_mode=True)
        return cls(loss)

    def _weight(self, y_pred: Any, sample_weight: Any) -> Any:
        """Returns what Keras divides by on this device, unless that is its rows."""
        reduction = self.loss.reduction
        if reduction not in ("mean", "sum_over_batch_size", "mean_with_sample_weight"):
            return None
        # Keras weighs what a layer masks with 0.
        mask = getattr(y_pred, "_keras_mask", None)
        weighted = reduction == "mean_with_sample_weight" and sample_weight is not None
        if not weighted and mask is None:
            return None
        ops = keras.ops
        weight = ops.cast(sample_weight if weighted else mask, self.dtype)
        if weighted and mask is not None:
            factor = ops.cast(mask, self.dtype)
            while len(factor.shape) > len(weight.shape):
                weight = ops.expand_dims(weight, -1)
            weight = weight * factor
        return ops.sum(weight)


def global_loss(loss: keras.losses.Loss) -> keras.losses.Loss:
    """Returns a loss that several devices share; the loss itself on one device."""
    return loss if tf_strategy.replicas() == 1 else GlobalMean(loss)


def sum_before_clipping(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes an optimizer sum the gradients of all devices before it clips them.

    Args:
        optimizer: Changed in place where it clips and a strategy has several devices.
    """
    inner: Any = optimizer
    while isinstance(inner, keras.optimizers.LossScaleOptimizer):
        inner = inner.inner_optimizer
    clips = inner.clipnorm, inner.global_clipnorm, inner.clipvalue
    if tf_strategy.replicas() == 1 or not any(clips):
        return
    clip, reduce_ = inner._clip_gradients, inner._all_reduce_sum_gradients

    def summed_and_clipped(gradients: Any) -> Any:
        # Keras pairs gradients with variables, of which it uses nothing but the names.
        pairs = reduce_([(gradient, None) for gradient in gradients])
        return clip([gradient for gradient, _ in pairs])

    # Past `__setattr__`, which would make them part of the tracked state.
    inner.__dict__["_clip_gradients"] = summed_and_clipped
    inner.__dict__["_all_reduce_sum_gradients"] = lambda pairs: pairs


def check_layers(model: keras.Model) -> tuple[str, ...]:
    """Refuses statistics of a batch that cannot be taken over all devices.

    Args:
        model: The model, its regime applied.

    Returns:
        A line on the layers that will be synchronized, if there are any.

    Raises:
        ConfigError: A layer that trains keeps statistics of its own making.
    """
    found = _with_statistics(model)
    for layer in found:
        if not hasattr(layer, "synchronized"):
            raise ConfigError(
                "on TensorFlow each device would take the statistics of this layer "
                "over its own rows",
                received=f"{type(layer).__name__} '{layer.name}'",
                fix="freeze it, or use keras.layers.BatchNormalization; or run with "
                "--backend=jax, where statistics are those of the whole batch",
            )
    if not found:
        return ()
    return (
        f"{len(found)} BatchNormalization layers take their statistics over all "
        f"{tf_strategy.replicas()} devices",
    )


@contextlib.contextmanager
def training(model: keras.Model) -> Iterator[None]:
    """Inside, `fit` trains a model on several devices as it would on one.

    Args:
        model: The compiled model; it is left as it was.
    """
    if tf_strategy.replicas() == 1:
        yield
        return
    with _synchronized(model), _own_masks(model):
        yield


@contextlib.contextmanager
def _synchronized(model: keras.Model) -> Iterator[None]:
    # For the time of training alone: a saved model must load on every backend.
    layers = [x for x in _with_statistics(model) if not x.synchronized]
    for layer in layers:
        layer.synchronized = True
    try:
        yield
    finally:
        for layer in layers:
            layer.synchronized = False


@contextlib.contextmanager
def _own_masks(model: Any) -> Iterator[None]:
    # Keras lists the random generators of a layer nowhere public.
    generators = {
        id(generator): generator
        for layer in model._flatten_layers()
        for generator in getattr(layer, "_seed_generators", ())
    }.values()
    for generator in generators:
        generator.next = _folded(generator.next)
    try:
        yield
    finally:
        for generator in generators:
            del generator.next


def _folded(draw: Any) -> Any:
    import tensorflow as tf

    def next_seed(ordered: bool = True) -> Any:
        seed = draw(ordered)
        context = tf.distribute.get_replica_context()
        if context is None:
            return seed
        offset = tf.cast(context.replica_id_in_sync_group, seed.dtype) * _STRIDE
        return seed + tf.stack([offset, tf.zeros_like(offset)])

    return next_seed


def _with_statistics(model: Any) -> list[Any]:
    """Returns the layers that train and keep statistics of batches."""
    return [
        layer
        for layer in model._flatten_layers()
        if layer.trainable
        and (
            isinstance(layer, keras.layers.BatchNormalization)
            or hasattr(layer, "moving_mean")
        )
    ]
