"""The repeated blocks of a backbone, found by the names of its layers.

Most architectures repeat one kind of block and number it. Either a block is one layer
with layers inside (`transformer_layer_3`, `vit_encoder/transformer_block_1`), or it is
several layers with a common beginning (`stack0_block1_1_conv`, `stack0_block1_2_bn`).
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Mapping, Sequence

import keras

from tflearn.backbones import graph
from tflearn.support.patterns import matches

# A common beginning that ends in a numbered "block": `stack1_block0`, `block2a`.
_FLAT = re.compile(r"(.*?(?:block|expanded_conv)_?\d+[a-z]?)_.+")
_NUMBER = re.compile(r"\d+[a-z]?(?![a-z])")
_LAST_NUMBER = re.compile(r"\d+$")

_Layers = Mapping[str, keras.Layer]


def find_blocks(model: keras.Model) -> tuple[str, ...]:
    """Returns the repeated blocks of a model in order.

    Args:
        model: A functional model.

    Returns:
        Patterns (see `tflearn.support.patterns`) relative to the model, one a block,
        from the input to the output: `transformer_layer_0` where a block is a layer,
        `stack0_block1_*` where it is several. Empty where nothing is numbered.

    Example:

    >>> x = inputs = keras.Input((4,))
    >>> for index in range(2):
    ...     x = keras.layers.Dense(4, name=f"block_{index}")(x)
    >>> find_blocks(keras.Model(inputs, x))
    ('block_0', 'block_1')
    """
    layers = {
        path: layer
        for path, layer in graph.layers_by_path(model).items()
        if layer.weights
    }
    parents = {path.rsplit("/", 1)[0] for path in layers if "/" in path}
    simple = [path for path in layers if "/" not in path and path not in parents]
    families = _numbered([x for x in layers if x in parents], layers, _NUMBER)
    families.append(_prefixed(simple))
    # Single layers are blocks only where nothing bigger is numbered.
    found = [x for x in families if x] or _numbered(simple, layers, _LAST_NUMBER)
    sizes = _sizes(layers, parents)
    return tuple(max(found, key=lambda x: _rank(x, sizes), default=()))


def _numbered(
    paths: Sequence[str], layers: _Layers, number: re.Pattern[str]
) -> list[list[str]]:
    """Groups paths that differ in numbers only."""
    families: dict[str, list[str]] = collections.defaultdict(list)
    for path in paths:
        name = path.rsplit("/", 1)[-1]
        if graph.has_default_name(layers[path]):
            # The first layer of a class has no number: `residual`, `residual_1`. An
            # unnamed Dense or Conv2D says nothing about being a block.
            if not type(layers[path]).__module__.startswith("keras."):
                families[re.sub(r"_\d+$", "", path) + "#"].append(path)
        elif number.search(name):
            families[number.sub("#", path)].append(path)
    return list(families.values())


def _prefixed(paths: Sequence[str]) -> list[str]:
    """Groups layers whose names begin with the same numbered block."""
    starts = (_FLAT.fullmatch(path) for path in paths)
    # A dict keeps the order in which the blocks first appear.
    return list(dict.fromkeys(f"{match[1]}_*" for match in starts if match))


def _rank(family: Sequence[str], sizes: Mapping[str, int]) -> tuple[bool, int, int]:
    """Ranks a family by what it is called, what it holds and how high it lies."""
    inside = sum(
        size
        for path, size in sizes.items()
        if any(matches(pattern, path) for pattern in family)
    )
    last = family[0].rsplit("/", 1)[-1]
    called = "block" in last or "layer" in last
    mostly = inside * 2 >= sum(sizes.values())
    return called and mostly, inside, -family[0].count("/")


def _sizes(layers: _Layers, parents: set[str]) -> dict[str, int]:
    """Returns the number of weights of the layers that have none inside."""
    return {
        path: sum(math.prod(weight.shape) for weight in layer.weights)
        for path, layer in layers.items()
        if path not in parents
    }
