"""The handle that every source returns: a model, its encoder, what its outputs are."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import keras

from tflearn.backbones import encoder_files, graph
from tflearn.backbones.blocks import find_blocks
from tflearn.backbones.encoder_files import Encoder
from tflearn.backbones.text import TextEncoder
from tflearn.backbones.transfer import TransferLog
from tflearn.distribution import convolutions
from tflearn.support.errors import BackboneError
from tflearn.support.tensorflow import hidden_tensorflow

NAME = "backbone"
_BY_RANK = {
    "text": {3: "sequence", 2: "pooled"},
    "image": {4: "feature_map", 3: "sequence", 2: "pooled"},
    "vector": {3: "sequence", 2: "vector"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """A functional model that turns inputs into features.

    Args:
        model: The model; its name is `backbone`.
        kind: What it takes: `text`, `image` or `vector`.
        encoder: Turns raw inputs into what the model takes.
        origin: Where architecture and weights came from, in one line.
        log: What a transfer of weights did, if there was one.
        blocks: Patterns of its repeated blocks in order, relative to the model; empty
            when unknown.
        seq2seq: The encoder-decoder that `model` is the encoder of, made of the same
            layers and named `backbone` too; None where there is no decoder.
    """

    model: keras.Model
    kind: str
    encoder: Encoder
    origin: str
    log: TransferLog | None = None
    blocks: tuple[str, ...] = ()
    seq2seq: keras.Model | None = None

    def __post_init__(self) -> None:
        convolutions.install(graph.layers_by_path(self.model).values())

    def new_inputs(self) -> Any:
        """Makes new symbolic inputs under names that are the same in every process.

        Returns:
            A dict for text; one tensor for images (`images`) and vectors (`vectors`).
        """
        if self.kind == "text":
            return {
                name: _new_input(tensor, name)
                for name, tensor in self.model.input.items()
            }
        name = "images" if self.kind == "image" else "vectors"
        return _new_input(self.model.inputs[0], name)

    def outputs(self, inputs: Any) -> Any:
        """Calls the model on what `new_inputs` made.

        Args:
            inputs: Tensors in the structure of `new_inputs`.

        Returns:
            The model's outputs, for `features`.
        """
        if not isinstance(inputs, dict) and isinstance(self.model.input, dict):
            inputs = {name: inputs for name in self.model.input}
        return self.model(inputs)

    def features(self, outputs: Any) -> dict[str, keras.KerasTensor]:
        """Says what the model's outputs are.

        Args:
            outputs: What the model returned.

        Returns:
            Some of `sequence` `(batch, length, dim)`, `pooled` `(batch, dim)`,
            `feature_map` `(batch, height, width, dim)`, `vector` `(batch, dim)`. Of
            several feature maps, `feature_map` is the last, and each is also there
            as `pyramid:NAME`.
        """
        if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
            outputs = outputs[0]
        if not isinstance(outputs, (dict, list, tuple)):
            return {self._feature(outputs): outputs}
        named = outputs if isinstance(outputs, dict) else dict(enumerate(outputs))
        maps = {k: v for k, v in named.items() if len(v.shape) == 4}
        found = {f"pyramid:{k}": v for k, v in maps.items() if len(maps) > 1}
        for tensor in named.values():
            # Of several outputs of one kind the last is the deepest.
            found[self._feature(tensor)] = tensor
        return found

    def feature_mask(self, inputs: Any) -> keras.KerasTensor | None:
        """Says which positions of a `sequence` are real.

        Args:
            inputs: What the model is called on, by input name.

        Returns:
            Mask `(batch, length)`, true at tokens; None for images and vectors.
        """
        if not isinstance(self.encoder, TextEncoder):
            return None
        names = self.encoder.input_names
        if "padding_mask" in names:
            return inputs[names["padding_mask"]]
        return keras.ops.not_equal(inputs[names["token_ids"]], self.encoder.packing.pad)

    def fresh(self) -> Backbone:
        """Makes a backbone of the same architecture with new initial values.

        Returns:
            The backbone; its values follow `keras.utils.set_random_seed`.

        Raises:
            BackboneError: A layer does not give the configuration it is rebuilt from.
        """
        return dataclasses.replace(
            self,
            model=rebuilt(self.model),
            origin=f"{self.origin}, newly initialised",
            log=None,
            seq2seq=None,
        )

    def with_pyramid(self) -> Backbone:
        """Makes a backbone that also gives its feature maps of several sizes.

        Returns:
            A backbone of the same layers; `features` has `pyramid:P2` and so on.

        Raises:
            BackboneError: The architecture names no such feature maps.
        """
        maps = _pyramid(self.model)
        if not maps:
            raise BackboneError(
                "this backbone names no feature maps of several sizes",
                received=type(self.model).__name__,
                expected="an image backbone of KerasHub or KerasCV with a pyramid",
            )
        model = keras.Model(self.model.input, maps, name=NAME)
        return dataclasses.replace(self, model=model)

    def save_encoder(self, folder: str | os.PathLike[str]) -> None:
        """Writes the encoder, so that the model can be given raw inputs again.

        Args:
            folder: Where to; `load_encoder` reads it.
        """
        encoder_files.save_encoder(self.encoder, folder)

    def _feature(self, tensor: keras.KerasTensor) -> str:
        return _BY_RANK[self.kind].get(len(tensor.shape), "other")


def as_backbone(model: keras.Model, *, encoder: Encoder, origin: str) -> Backbone:
    """Puts a model and its encoder behind the common handle.

    Args:
        model: What `functional` returned.
        encoder: Its encoder.
        origin: Where it came from, in one line.

    Returns:
        The backbone.

    Raises:
        BackboneError: Nothing the model gives can be used as a feature.
    """
    backbone = Backbone(
        model=model,
        kind=encoder_files.kind_of(encoder),
        encoder=encoder,
        origin=origin,
        blocks=find_blocks(model),
    )
    features = backbone.features(model.output)
    if set(features) <= {"other"}:
        raise BackboneError(
            "the backbone's outputs are no features",
            received=[tuple(tensor.shape) for tensor in model.outputs],
            expected="shapes such as (batch, length, dim) or (batch, dim)",
        )
    return backbone


def functional(model: Any) -> keras.Model:
    """Checks that a model is functional and gives it the name `backbone`.

    Args:
        model: A functional or built sequential model. Classes with a configuration of
            their own (KerasHub, KerasCV) stay what they are; of any other, the layers
            are kept in a plain functional model.

    Returns:
        The model, its layers stably named.

    Raises:
        BackboneError: It is no functional model.
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise BackboneError(
            "a backbone is a functional Keras model",
            received=type(model).__name__,
            expected="keras.Model(inputs, outputs), or a Sequential with an Input",
            fix="build the model from keras.Input tensors",
        )
    if isinstance(model, keras.Sequential):
        model = keras.Model(_inputs(model), model.outputs[0], name=NAME)
    elif not _has_own_config(model):
        model = keras.Model(_inputs(model), model.output, name=NAME)
    elif model.name != NAME:
        # Some classes name their layers after the model: renaming it afterwards would
        # give a saved and loaded model other paths.
        made = _from_config(model, name=NAME)
        # One by one: a list of all values would be a second model in host memory.
        for weight, old in zip(made.weights, model.weights, strict=True):
            weight.assign(old.value)
        model = made
    graph.name_stably(model)
    return model


def _inputs(model: keras.Model) -> Any:
    """Returns a model's inputs; those that are text by name, as KerasHub has them."""
    tensors = model.inputs
    if isinstance(getattr(model, "input", None), dict):
        return model.input
    if len(tensors) == 1 and "int" not in str(tensors[0].dtype):
        return tensors[0]
    return {tensor.name.split(":")[0]: tensor for tensor in tensors}


def _has_own_config(model: keras.Model) -> bool:
    """Tells whether a functional model is a class made from arguments of its own."""
    plain = type(keras.Model(model.inputs, model.outputs))
    return type(model).get_config is not plain.get_config


def _from_config(model: keras.Model, **changes: Any) -> keras.Model:
    try:
        with hidden_tensorflow():
            return type(model).from_config(model.get_config() | changes)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _cannot_rebuild(error) from error


def rebuilt(model: keras.Model, *, new_precision: bool = False) -> keras.Model:
    """Builds a model of the same architecture with new initial values.

    Args:
        model: A functional model.
        new_precision: Whether its layers take the precision that is set now instead of
            the one that the model was made with.

    Returns:
        The new model; its paths are those of the old one.

    Raises:
        BackboneError: A layer does not give the configuration it is rebuilt from.
    """
    policy = keras.config.dtype_policy() if new_precision else None
    if _has_own_config(model):
        changes = {"dtype": policy} if policy and "dtype" in model.get_config() else {}
        made = _from_config(model, **changes)
    else:
        try:
            with hidden_tensorflow():
                copy = _cloner(model, policy)
                made = keras.models.clone_model(model, clone_function=copy)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise _cannot_rebuild(error) from error
    made.trainable = True
    for layer in graph.layers_by_path(made).values():
        layer.trainable = True
    graph.name_stably(made)
    return made


def _cloner(
    model: keras.Model, policy: keras.DTypePolicy | None
) -> Callable[[keras.Layer], keras.Layer] | None:
    """Returns how to copy a layer, in another precision if it had the usual one."""
    if policy is None:
        return None
    usual = next((x.dtype_policy.name for x in model.layers if x.weights), None)

    def copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        if layer.dtype_policy.name == usual:
            config["dtype"] = policy
        return type(layer).from_config(config)

    return copy


def _cannot_rebuild(error: Exception) -> BackboneError:
    return BackboneError(
        "the backbone cannot be built again from its configuration",
        received=str(error).splitlines()[0][:300],
        fix="give your own layers get_config, as saving them needs it too",
    )


def _pyramid(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns the feature maps of several sizes that KerasHub and KerasCV name."""
    if getattr(model, "pyramid_outputs", None):
        return dict(model.pyramid_outputs)
    names = getattr(model, "pyramid_level_inputs", None) or {}
    return {level: model.get_layer(name).output for level, name in names.items()}


def _new_input(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
