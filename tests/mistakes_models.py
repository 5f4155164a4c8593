"""Models for `test_mistakes`; a gin file names them."""

from __future__ import annotations

import keras


def perceptron() -> keras.Model:
    inputs = keras.Input((2,), name="features")
    x = keras.layers.Dense(4, activation="tanh", name="block_0")(inputs)
    return keras.Model(inputs, keras.layers.Dense(4, name="block_1")(x))


def convolution() -> keras.Model:
    inputs = keras.Input((8, 8, 3), name="image")
    return keras.Model(inputs, keras.layers.Conv2D(4, 3, name="conv")(inputs))


def subclassed() -> keras.Model:
    class Model(keras.Model):
        def call(self, inputs):
            return inputs

    return Model()


def nothing() -> None:
    return None


def narrow_head(num_classes: int, name: str) -> keras.layers.Layer:
    return keras.layers.Dense(num_classes + 1, name=name)
