"""A backbone with fewer blocks: a student that begins as a part of its teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tflearn.backbones import transfer, weight_files
from tflearn.backbones.backbone import Backbone, as_backbone, functional
from tflearn.support.errors import BackboneError
from tflearn.support.tensorflow import hidden_tensorflow

_LENGTH = "num_layers"


def shortened(source: Callable[[], Backbone], *, keep: Sequence[int]) -> Backbone:
    """Some blocks of a backbone, with all that lies before and behind them.

    Args:
        source: Makes the whole backbone: another function of `tflearn.backbones`.
        keep: Numbers of the blocks that are kept, ascending from 0.

    Returns:
        A backbone with the weights and the encoder of the whole one.

    Raises:
        BackboneError: The architecture is not made of a number of equal blocks, or
            has no such blocks.

    References:
        Sanh et al. 2019 (DistilBERT), https://arxiv.org/abs/1910.01108
    """
    whole = source()
    config = whole.model.get_config()
    if config.get(_LENGTH) != len(whole.blocks):
        raise BackboneError(
            "this backbone cannot be shortened",
            received=f"{type(whole.model).__name__}, {len(whole.blocks)} blocks",
            expected=f"a backbone of KerasHub with one block for each of its {_LENGTH}",
        )
    numbers = range(len(whole.blocks))
    if not keep or list(keep) != sorted({*keep} & {*numbers}):
        raise BackboneError(
            "shortened.keep names the blocks that are kept",
            received=keep,
            expected=f"ascending numbers from 0 to {len(numbers) - 1}",
        )
    with hidden_tensorflow():
        make: Any = type(whole.model).from_config
        model = functional(make(config | {_LENGTH: len(keep)}))
    made = as_backbone(
        model,
        encoder=whole.encoder,
        origin=f"blocks {', '.join(map(str, keep))} of {whole.origin}",
    )
    log = transfer.transfer(_renumbered(whole, keep), made.model)
    return dataclasses.replace(made, log=log)


def _renumbered(whole: Backbone, keep: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns the kept weights under the paths that they have in the new model."""
    places = {
        f"{block}/": f"{whole.blocks[keep.index(number)]}/" if number in keep else None
        for number, block in enumerate(whole.blocks)
    }
    found: dict[str, np.ndarray] = {}
    for path, array in weight_files.arrays_by_path(whole.model).items():
        block = next((x for x in places if path.startswith(x)), None)
        place = block and places[block]
        if block is None:
            found[path] = array
        elif place:
            found[place + path.removeprefix(block)] = array
    return found
