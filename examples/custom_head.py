"""A head of your own: any Keras layer whose first argument is the number of outputs.

Run it: `python examples/custom_head.py` (a few seconds). In a gin file it takes the
place of tflearn's head:

    from examples import custom_head
    from tflearn import objectives

    objectives.classification.head = @custom_head.PrototypeHead
"""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="examples")
class PrototypeHead(keras.Layer):
    """Scores a class by how near the features lie to its learned prototype.

    `z_k = -|x - c_k|^2`, as in prototypical networks.

    Args:
        num_classes: Number of classes.
        name: Name of the layer.
        trainable: Whether the prototypes are trained.
        dtype: Dtype or dtype policy.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        self.num_classes = num_classes

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates one prototype a class, `(classes, dim)`."""
        self.prototypes = self.add_weight(
            shape=(self.num_classes, input_shape[-1]), name="prototypes"
        )

    def call(self, inputs: Any) -> Any:
        """Returns logits, `(batch, classes)`, for features, `(batch, dim)`."""
        gaps = ops.expand_dims(inputs, 1) - self.prototypes
        return -ops.sum(ops.square(gaps), axis=-1)

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns `(batch, classes)`."""
        return (input_shape[0], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"num_classes": self.num_classes}


def main() -> None:
    """Learns three clusters, saves the model and loads it again."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    centres = np.array([[0, 0], [4, 0], [0, 4]], "float32")
    points = centres[labels] + rng.normal(size=(600, 2)).astype("float32")

    model = keras.Sequential([keras.Input((2,)), PrototypeHead(3)])
    model.compile(
        keras.optimizers.Adam(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(points, labels, epochs=10, verbose=2)

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "clusters.keras")
        model.save(path)
        loaded = keras.saving.load_model(path)
    guesses = loaded.predict(points, verbose=0).argmax(axis=1)
    print(f"accuracy after loading: {(guesses == labels).mean():.3f}")


if __name__ == "__main__":
    main()
