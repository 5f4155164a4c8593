"""Paths of layers and variables, and the blocks that are found by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest

from tflearn import backbones
from tflearn.backbones import graph
from tflearn.backbones.backbone import functional, rebuilt
from tflearn.backbones.blocks import find_blocks
from tflearn.support.patterns import matches

hub = backbones.import_keras_hub()

TEXT: dict[str, Any] = {
    "vocabulary_size": 20,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 16,
    "max_sequence_length": 16,
}
SIZE = {"image_shape": (32, 32, 3)}


def bert() -> keras.Model:
    return hub.models.BertBackbone(**TEXT)


def gpt2() -> keras.Model:
    return hub.models.GPT2Backbone(**TEXT)


def llama() -> keras.Model:
    return hub.models.LlamaBackbone(
        vocabulary_size=20,
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=16,
    )


def resnet() -> keras.Model:
    return hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 2],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        **SIZE,
    )


def efficientnet() -> keras.Model:
    return hub.models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 2],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 6],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1", "v1"],
        width_coefficient=1.0,
        depth_coefficient=1.0,
        **SIZE,
    )


def vit() -> keras.Model:
    return hub.models.ViTBackbone(
        patch_size=8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, **SIZE
    )


def swin() -> keras.Model:
    return hub.models.SwinTransformerBackbone(
        embed_dim=8, depths=(1, 1), num_heads=(1, 1), window_size=4, **SIZE
    )


def dino() -> keras.Model:
    return hub.models.DINOV2Backbone(
        patch_size=8,
        num_layers=2,
        hidden_dim=8,
        num_heads=2,
        intermediate_dim=16,
        **SIZE,
    )


def mix_transformer() -> keras.Model:
    return hub.models.MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 1],
        layerwise_sr_ratios=[1, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[3, 3],
        layerwise_strides=[2, 2],
        hidden_dims=[8, 8],
        **SIZE,
    )


def mobilenet() -> keras.Model:
    return keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.35
    )


def perceptron() -> keras.Model:
    x = inputs = keras.Input((4,))
    for index in range(3):
        x = keras.layers.Dense(4, name=f"block_{index}")(x)
        x = keras.layers.Dropout(0.5)(x)
    return keras.Model(inputs, x)


class Residual(keras.layers.Layer):
    """A block of the user's own, without a name of its own."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.first = keras.layers.Dense(units)
        self.second = keras.layers.Dense(units)

    def call(self, inputs: Any) -> Any:
        return inputs + self.second(self.first(inputs))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units}


def residual() -> keras.Model:
    x = inputs = keras.Input((4,))
    for _ in range(2):
        x = Residual(4)(x)
    return keras.Model(inputs, x)


BLOCKS: dict[Callable[[], keras.Model], tuple[str, ...]] = {
    bert: ("transformer_layer_0", "transformer_layer_1"),
    gpt2: ("transformer_layer_0", "transformer_layer_1"),
    llama: ("transformer_layer_0", "transformer_layer_1"),
    resnet: ("stack0_block0_*", "stack1_block0_*", "stack1_block1_*"),
    efficientnet: ("block1a_*", "block2a_*", "block2b_*"),
    vit: ("vit_encoder/transformer_block_1", "vit_encoder/transformer_block_2"),
    swin: ("stage_0/blocks_0", "stage_1/blocks_0"),
    dino: ("backbone_encoder/layers_0", "backbone_encoder/layers_1"),
    mix_transformer: ("hierarchical_encoder_0_0", "hierarchical_encoder_1_0"),
    mobilenet: tuple(f"block_{index}_*" for index in range(1, 17)),
    perceptron: ("block_0", "block_1", "block_2"),
    residual: ("residual", "residual_1"),
}
MAKERS = pytest.mark.parametrize("make", BLOCKS, ids=lambda make: make.__name__)


@MAKERS
def test_paths_are_complete_unique_and_the_same_for_a_copy(make) -> None:
    model = functional(make())
    layers = graph.layers_by_path(model)
    assert len({id(layer) for layer in layers.values()}) == len(layers)
    assert all(path.rpartition("/")[0] in {"", *layers} for path in layers)

    variables = graph.variables_by_path(model)
    assert sorted(map(id, variables.values())) == sorted(map(id, model.variables))
    owners = {path.rpartition("/")[0] for path in variables}
    assert owners <= set(layers)

    # A second copy in one process gets other automatic names, not other paths.
    copy = rebuilt(model)
    assert list(graph.layers_by_path(copy)) == list(layers)
    assert list(graph.variables_by_path(copy)) == list(variables)
    assert copy.name == model.name == "backbone"


@MAKERS
def test_the_repeated_blocks_are_found_in_order(make) -> None:
    model = functional(make())
    assert find_blocks(model) == BLOCKS[make]
    paths = list(graph.layers_by_path(model))
    for block in find_blocks(model):
        assert any(matches(block, path) for path in paths)


def test_nothing_is_called_a_block_where_nothing_is_numbered() -> None:
    model = keras.Sequential([keras.Input((3,))])
    for _ in range(3):
        model.add(keras.layers.Dense(3))
    assert find_blocks(functional(model)) == ()


def test_default_names_are_counted_inside_each_parent() -> None:
    first, second = functional(residual()), functional(residual())
    expected = [
        "residual",
        "residual/dense",
        "residual/dense_1",
        "residual_1",
        "residual_1/dense",
        "residual_1/dense_1",
    ]
    assert list(graph.layers_by_path(first)) == expected
    assert list(graph.layers_by_path(second)) == expected
    # What a summary and a saved file say is what a path says.
    assert [layer.name for layer in second.layers[1:]] == ["residual", "residual_1"]


def test_given_names_are_kept_and_never_taken() -> None:
    relu = keras.layers.ReLU
    layers = [relu(name="x"), relu(), relu(name="x"), relu(), relu(name="x_1")]
    names = graph.stable_names(layers)
    assert names[0] == "x" and names[4] == "x_1"
    assert names[1] == "re_lu" and names[3] == "re_lu_1"
    assert len(set(names)) == 5


def test_a_shared_layer_has_one_path() -> None:
    shared = keras.layers.Dense(3, name="shared")
    inner = keras.Sequential([keras.Input((3,)), shared], name="inner")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, shared(inner(inputs)))
    paths = graph.layers_by_path(model)
    assert sum(layer is shared for layer in paths.values()) == 1
    assert len(graph.variables_by_path(model)) == 2


def test_states_of_random_generators_are_variables_but_no_weights() -> None:
    model = functional(perceptron())
    states = [x for x in graph.variables_by_path(model) if "seed_generator" in x]
    assert states == [
        "dropout/seed_generator_state",
        "dropout_1/seed_generator_state",
        "dropout_2/seed_generator_state",
    ]
    assert not [x for x in graph.weights_by_path(model) if "seed_generator" in x]


def test_statistics_of_normalisation_are_weights() -> None:
    assert "conv1_bn/moving_mean" in graph.weights_by_path(resnet())
