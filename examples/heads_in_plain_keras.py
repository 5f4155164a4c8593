"""Heads and poolings of tflearn in a model that is otherwise plain Keras.

Run it: `python examples/heads_in_plain_keras.py` (a few seconds). It trains a small
convolutional network on scikit-learn's digits, saves it, loads it again and prints
its test metrics with their intervals.
"""

from __future__ import annotations

import pathlib
import tempfile

import keras
import numpy as np
from sklearn.datasets import load_digits

from tflearn import evaluation
from tflearn.heads import ClassificationHead, GeneralizedMeanPooling


def make_model() -> keras.Model:
    """Makes a classifier of images, `(batch, 8, 8, 1)`."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            GeneralizedMeanPooling(),
            ClassificationHead(10, hidden=(64,), dropout=0.1, cosine=True),
        ]
    )


def main() -> None:
    """Trains, saves, loads and evaluates."""
    keras.utils.set_random_seed(0)
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    train, test = slice(0, 1400), slice(1400, None)

    model = make_model()
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(images[train], labels[train], batch_size=64, epochs=8, verbose=2)

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "digits.keras")
        model.save(path)
        loaded = keras.saving.load_model(path)
    logits = loaded.predict(images[test], verbose=0)
    np.testing.assert_array_equal(logits, model.predict(images[test], verbose=0))

    result = evaluation.evaluate(
        "class", labels[test], logits, classes=[str(digit) for digit in range(10)]
    )
    for name, found in result.metrics.items():
        print(f"{name:28} {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]")


if __name__ == "__main__":
    main()
