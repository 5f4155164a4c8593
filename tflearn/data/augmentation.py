"""Keras layers that change training images, as a pure function of seed and step.

A Keras layer keeps the state of its random numbers in variables. Here that state is
not the layer's own: each step gives the layer states that are derived from the seed
and the step, so the batch of a step is the same whenever and wherever it is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.support import seeds
from tflearn.support.errors import ConfigError

Factories = Sequence[Callable[[], keras.Layer]]


class Augmentation:
    """A chain of Keras layers over batches of images.

    Args:
        factories: Makers of the layers. `MixUp`, `CutMix` and layers with an
            attribute `mixes_labels` that is true get `{"images", "labels"}`; all
            others get the images, float32 from 0 to 255.
        seed: Seed of the random numbers.
        image_shape: Shape the images have to have at the end.

    Raises:
        ConfigError: A factory does not make a Keras layer.
    """

    def __init__(
        self, factories: Factories, *, seed: int, image_shape: tuple[int, ...]
    ) -> None:
        self._layers = build(factories)
        self._seed = seed
        self._image_shape = tuple(image_shape)
        self._random = [
            variable
            for layer in self._layers
            for variable in layer.variables
            if variable.path.endswith("seed_generator_state")
        ]
        self._run = _compiled(self._transform)

    def __call__(
        self, images: np.ndarray, targets: np.ndarray, *, step: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Changes a batch.

        Args:
            images: uint8 `(batch, height, width, channels)`.
            targets: Targets of the batch; `(batch, classes)` float32 if a layer mixes
                labels.
            step: The step that the batch is for.

        Returns:
            uint8 images of the shape the backbone takes, and the targets.

        Raises:
            ConfigError: The images end up with another shape, or labels that are to
                be mixed are not one-hot.
        """
        if targets.ndim != 2 and any(map(_mixes, self._layers)):
            raise ConfigError(
                "mixing images needs one-hot targets",
                received=f"targets of shape {targets.shape}",
                expected="(batch, classes), float32",
                fix="leave MixUp and CutMix out, or use targets of kind 'class'",
            )
        states = [
            np.asarray([seeds.derive(self._seed, "augment", step, i), 0], np.uint32)
            for i in range(len(self._random))
        ]
        mixed, labels = self._run(images.astype(np.float32), targets, states)
        if mixed.shape[1:] != self._image_shape:
            raise ConfigError(
                "the augmentation changes the shape of the images",
                received=mixed.shape[1:],
                expected=self._image_shape,
                fix="let the last layer crop or resize to the backbone's image size",
            )
        rounded = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
        return rounded, labels if any(map(_mixes, self._layers)) else targets

    def _transform(
        self, images: Any, targets: Any, states: Sequence[Any]
    ) -> tuple[Any, Any]:
        mapping = list(zip(self._random, states, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            for layer in self._layers:
                if _mixes(layer):
                    both = layer({"images": images, "labels": targets}, training=True)
                    images, targets = both["images"], both["labels"]
                elif _takes_training(layer):
                    images = layer(images, training=True)
                else:
                    images = layer(images)
        return images, targets


def mixes_labels(factories: Factories) -> bool:
    """Tells whether a layer mixes images of several classes, and so their labels."""
    return any(map(_mixes, build(factories)))


def build(factories: Factories) -> list[keras.Layer]:
    """Makes the layers, in float32 whatever the precision of the model is.

    Raises:
        ConfigError: A factory does not make a Keras layer.
    """
    precision = keras.config.dtype_policy()
    # 0 to 255 in bfloat16 is a step of 1; the pixels would be rounded at each layer.
    keras.config.set_dtype_policy("float32")
    try:
        layers = [factory() for factory in factories]
    finally:
        keras.config.set_dtype_policy(precision)
    for layer in layers:
        if not isinstance(layer, keras.Layer):
            raise ConfigError(
                "data.Data.augment makes something that is no Keras layer",
                received=type(layer).__name__,
                expected="makers of layers, such as @keras.layers.RandomFlip",
            )
    return layers


def _mixes(layer: keras.Layer) -> bool:
    known = isinstance(layer, (keras.layers.MixUp, keras.layers.CutMix))
    return known or bool(getattr(layer, "mixes_labels", False))


def _takes_training(layer: keras.Layer) -> bool:
    import inspect

    return "training" in inspect.signature(layer.call).parameters


def _compiled(transform: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a compiled form of a function for the active backend, on the CPU.

    The accelerator is busy with training, and batches travel to it as a whole.
    """
    if keras.backend.backend() == "tensorflow":
        return _compiled_tensorflow(transform)
    return _compiled_jax(transform)


def _compiled_jax(transform: Callable[..., Any]) -> Callable[..., Any]:
    import jax

    compiled = jax.jit(transform)
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        # The process was started without JAX's CPU platform.
        device = None

    def run(*arguments: Any) -> Any:
        with jax.default_device(device) if device else contextlib.nullcontext():
            return jax.tree.map(np.asarray, compiled(*arguments))

    return run


def _compiled_tensorflow(transform: Callable[..., Any]) -> Callable[..., Any]:
    import tensorflow as tf

    compiled = tf.function(transform)

    def run(*arguments: Any) -> Any:
        with tf.device("/CPU:0"):
            tensors = tf.nest.map_structure(tf.constant, arguments)
            return tf.nest.map_structure(lambda x: x.numpy(), compiled(*tensors))

    return run
