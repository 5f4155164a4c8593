"""A backbone of your own: any function that returns a functional Keras model."""

from __future__ import annotations

import keras


def perceptron(width: int = 32, depth: int = 2) -> keras.Model:
    """Makes a multi-layer perceptron on two features.

    Args:
        width: Units of a hidden layer.
        depth: Number of hidden layers; they are the blocks of `partial(last=...)`.

    Returns:
        A model from `(batch, 2)` to `(batch, width)`.
    """
    x = inputs = keras.Input((2,), name="features")
    for index in range(depth):
        x = keras.layers.Dense(width, activation="gelu", name=f"block_{index}")(x)
    return keras.Model(inputs, x)


if __name__ == "__main__":
    perceptron().summary()
