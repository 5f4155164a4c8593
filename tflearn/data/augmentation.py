"""Keras layers that change training images, as a pure function of seed and step.

Keras decides how random a layer is: `RandomCrop` cuts the same window out of all
images of a batch, `RandomTranslation` moves each by itself. `RandAugment` computes
all of its operations for every batch and keeps two: that takes long without a fast
processor (32 images of 32x32 on 2 cores: 28 ms on TensorFlow; 110 ms on JAX, after
20 seconds to compile).

A Keras layer keeps the state of its random numbers in variables. Here that state is
not the layer's own: each step gives the layer states that are derived from the seed
and the step, so the batch of a step is the same whenever and wherever it is made.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
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
        self.layers = build(factories)
        self._steps = [_Layer(layer) for layer in self.layers]
        self._mixes = any(layer.mixes for layer in self._steps)
        self._seed = seed
        self._image_shape = tuple(image_shape)

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
        if targets.ndim != 2 and self._mixes:
            raise ConfigError(
                "mixing images needs one-hot targets",
                received=f"targets of shape {targets.shape}",
                expected="(batch, classes), float32",
                fix="leave MixUp and CutMix out, or use targets of kind 'class'",
            )
        mixed: Any = images.astype(np.float32)
        labels: Any = targets
        with _on_cpu():
            for number, layer in enumerate(self._steps):
                seed = seeds.derive(self._seed, "augment", step, number)
                mixed, labels = layer(mixed, labels, seed=seed)
        return self._pixels(mixed), np.asarray(labels) if self._mixes else targets

    def _pixels(self, mixed: Any) -> np.ndarray:
        shape = tuple(mixed.shape[1:])
        if shape != self._image_shape:
            raise ConfigError(
                "the augmentation changes the shape of the images",
                received=shape,
                expected=self._image_shape,
                fix="let the last layer crop or resize to the backbone's image size",
            )
        return np.clip(np.rint(np.asarray(mixed)), 0, 255).astype(np.uint8)


class _Layer:
    """A layer whose random numbers depend on nothing but the seed of a call."""

    def __init__(self, layer: keras.Layer) -> None:
        self.mixes = _mixes(layer)
        self._layer = layer
        self._takes_training = "training" in inspect.signature(layer.call).parameters
        self._random = [
            variable
            for variable in layer.variables
            if variable.path.endswith("seed_generator_state")
        ]
        self._compiled: Callable[..., Any] | None = _compile(self._call)
        self._is_traced = False

    def __call__(self, images: Any, targets: Any, *, seed: int) -> tuple[Any, Any]:
        states = [
            np.asarray([seeds.derive(seed, number), 0], np.uint32)
            for number in range(len(self._random))
        ]
        if self._is_traced:
            return self._run(images, targets, states)
        # Only for the first call, which `train_batches` makes: the filter is shared
        # by all threads.
        with warnings.catch_warnings():
            # Keras's MixUp asks JAX for 64-bit integers and gets 32-bit ones.
            warnings.filterwarnings("ignore", message="Explicitly requested dtype")
            result = self._run(images, targets, states)
        self._is_traced = True
        return result

    def _run(self, images: Any, targets: Any, states: Sequence[Any]) -> tuple[Any, Any]:
        if self._compiled is not None:
            try:
                return self._compiled(images, targets, states)
            except Exception:
                # JAX cannot trace some layers, RandomCrop among them. What is wrong
                # with the declaration fails again below.
                self._compiled = None
        return self._call(images, targets, states)

    def _call(
        self, images: Any, targets: Any, states: Sequence[Any]
    ) -> tuple[Any, Any]:
        values = [keras.ops.convert_to_tensor(state) for state in states]
        mapping = list(zip(self._random, values, strict=True))
        training = {"training": True} if self._takes_training else {}
        with keras.StatelessScope(state_mapping=mapping):
            if not self.mixes:
                return self._layer(images, **training), targets
            both = self._layer({"images": images, "labels": targets}, **training)
            return both["images"], both["labels"]


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


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    import jax

    return jax.jit(function)


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    """Keeps the work off the accelerator, which is busy with training."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.device("/CPU:0")
    import jax

    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:
        # The process was started without JAX's CPU platform.
        return contextlib.nullcontext()
