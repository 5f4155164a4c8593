"""Logits over the vocabulary, at every position or at chosen ones.

The layers that predict tokens share their matrix with the token embedding where the
architecture allows it (Press and Wolf 2016, https://arxiv.org/abs/1608.05859).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tflearn.backbones import graph
from tflearn.support.errors import BackboneError

POSITIONS = "masked_positions"


def token_embedding(backbone: keras.Model) -> keras.Layer | None:
    """Finds the layer that embeds tokens and can turn features back into logits.

    Args:
        backbone: A functional model of token ids.

    Returns:
        A `ReversibleEmbedding`; None where there is none.
    """
    found = {
        path: layer
        for path, layer in graph.layers_by_path(backbone).items()
        if isinstance(layer, keras.layers.ReversibleEmbedding)
    }
    named = [x for path, x in found.items() if path.endswith("token_embedding")]
    return next(iter([*named, *found.values()]), None)


@keras.saving.register_keras_serializable(package="tflearn")
class MaskedTokenTransform(keras.layers.Layer):
    """Takes the features of chosen tokens through a dense layer and a norm.

    Args:
        dim: Size of the outputs; that of the token embedding if logits come from it.
        epsilon: Of the normalisation.
        name: Name of the layer.
        dtype: Precision, as Keras layers take it.

    Example:

    >>> layer = MaskedTokenTransform(4)
    >>> layer(ops.ones((2, 5, 8)), ops.array([[0, 3, 3], [1, 2, 4]])).shape == (2, 3, 4)
    True
    """

    def __init__(
        self,
        dim: int,
        *,
        epsilon: float = 1e-12,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.dim = dim
        self.epsilon = epsilon
        self.dense = keras.layers.Dense(
            dim,
            activation="gelu",
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype=self.dtype_policy,
            name="dense",
        )
        self.norm = keras.layers.LayerNormalization(
            epsilon=epsilon, dtype=self.dtype_policy, name="norm"
        )

    def build(self, features_shape: Any, positions_shape: Any = None) -> None:
        """Makes the weights for features `(batch, length, dim)`."""
        self.dense.build((None, None, features_shape[-1]))
        self.norm.build((None, None, self.dim))
        self.built = True

    def call(self, features: Any, positions: Any) -> Any:
        """Transforms chosen tokens.

        Args:
            features: `(batch, length, dim)`.
            positions: int `(batch, positions)`.

        Returns:
            `(batch, positions, dim)`.
        """
        chosen = ops.take_along_axis(features, positions[:, :, None], axis=1)
        return self.norm(self.dense(chosen))

    def compute_output_shape(self, features_shape: Any, positions_shape: Any) -> Any:
        """Returns `(batch, positions, dim)`."""
        return (*positions_shape, self.dim)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        own = {"dim": self.dim, "epsilon": self.epsilon}
        config = super().get_config()
        return {"name": config["name"], "dtype": config["dtype"], **own}


@keras.saving.register_keras_serializable(package="tflearn")
class OutputBias(keras.layers.Layer):
    """Adds a bias of its own to each token's logit.

    Args:
        name: Name of the layer.
        dtype: Precision, as Keras layers take it.
    """

    def __init__(self, *, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)

    def build(self, input_shape: Any) -> None:
        """Makes one bias a token."""
        self.bias = self.add_weight(
            shape=(input_shape[-1],), initializer="zeros", name="bias"
        )
        self.built = True

    def call(self, logits: Any) -> Any:
        """Returns the logits with the bias, in the same shape."""
        return logits + ops.cast(self.bias, logits.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        return {"name": config["name"], "dtype": config["dtype"]}


@keras.saving.register_keras_serializable(package="tflearn")
class LanguageModel(keras.Model):
    """A backbone and logits over its vocabulary.

    A functional model of the backbone's inputs; with `masked` also of
    `masked_positions`, int `(batch, positions)`. Its outputs are logits `(batch,
    length, vocabulary)`, or `(batch, positions, vocabulary)`.

    The tied embedding is a layer of the backbone that the graph calls a second time,
    not one of a head: what freezes the head leaves it alone.

    Args:
        backbone: A functional model named `backbone`.
        masked: Whether only chosen positions are predicted, as BERT does: through a
            dense layer, a norm, the embedding and a bias.
        tied: Whether logits come from the token embedding. None: where it can.
        vocabulary_size: Number of tokens, for logits of their own.
        output: Which of several outputs are the features, by name or number.
        scale: Features are multiplied by it before the embedding, as in T5.
        name: Name of the model.

    Raises:
        BackboneError: The embedding cannot be tied, or the vocabulary is open.
    """

    def __init__(
        self,
        backbone: keras.Model,
        *,
        masked: bool = False,
        tied: bool | None = None,
        vocabulary_size: int | None = None,
        output: str | int | None = None,
        scale: float = 1.0,
        name: str = "language_model",
    ) -> None:
        embedding = None if tied is False else token_embedding(backbone)
        if tied and embedding is None:
            raise _cannot_tie(backbone)
        self.backbone = backbone
        self.head_config = {
            "masked": masked,
            "tied": embedding is not None,
            "vocabulary_size": vocabulary_size,
            "output": output,
            "scale": scale,
        }
        inputs = new_inputs(backbone)
        features = self.features_of(backbone(inputs))
        positions = None
        dtype = backbone.dtype_policy
        self.transform = None
        if masked:
            dim = features.shape[-1] if embedding is None else embedding.output_dim
            positions = keras.Input((None,), dtype="int32", name=POSITIONS)
            self.transform = MaskedTokenTransform(dim, dtype=dtype, name="transform")
        self.projection: Any = embedding
        if embedding is None:
            self.projection = keras.layers.Dense(
                _size(vocabulary_size, backbone), dtype=dtype, name="logits"
            )
        has_bias = masked and embedding is not None
        self.bias = OutputBias(dtype=dtype, name="bias") if has_bias else None
        logits = self.logits(features, positions)
        if positions is not None:
            inputs = {**inputs, POSITIONS: positions}
        super().__init__(inputs=inputs, outputs=logits, name=name)

    def features_of(self, outputs: Any) -> Any:
        """Returns the features among a backbone's outputs."""
        output = self.head_config["output"]
        return outputs if output is None else outputs[output]

    def logits(self, features: Any, positions: Any = None) -> Any:
        """Turns features into logits.

        Args:
            features: `(batch, length, dim)`.
            positions: For a masked model, int `(batch, positions)`.

        Returns:
            `(batch, length or positions, vocabulary)`.
        """
        if self.transform is not None:
            features = self.transform(features, positions)
        if not self.head_config["tied"]:
            return self.projection(features)
        if self.head_config["scale"] != 1.0:
            features = features * self.head_config["scale"]
        logits = self.projection(features, reverse=True)
        return logits if self.bias is None else self.bias(logits)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        backbone = keras.saving.serialize_keras_object(self.backbone)
        return {"backbone": backbone, "name": self.name, **self.head_config}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> LanguageModel:
        """Builds the model of what `get_config` returned."""
        backbone = keras.saving.deserialize_keras_object(
            config["backbone"], custom_objects=custom_objects, safe_mode=True
        )
        return cls(**config | {"backbone": backbone})


def new_inputs(model: keras.Model) -> Any:
    """Makes new symbolic inputs in the structure of a functional model's own."""

    def new(tensor: Any, name: str) -> Any:
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)

    if isinstance(model.input, dict):
        return {name: new(tensor, name) for name, tensor in model.input.items()}
    return new(model.inputs[0], model.inputs[0].name)


def _size(vocabulary_size: int | None, backbone: keras.Model) -> int:
    size = vocabulary_size or getattr(backbone, "vocabulary_size", None)
    if size is None:
        raise BackboneError(
            "it is open how many tokens there are to predict",
            received=type(backbone).__name__,
            fix="give vocabulary_size",
        )
    return int(size)


def _cannot_tie(backbone: keras.Model) -> BackboneError:
    return BackboneError(
        "this backbone's token embedding cannot give logits",
        received=type(backbone).__name__,
        expected="a layer keras.layers.ReversibleEmbedding",
        fix="set tie_embeddings to False for an output layer of its own",
    )
