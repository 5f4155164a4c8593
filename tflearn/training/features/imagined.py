"""Features of the right form and without values, for what is only planned."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from tflearn.data.examples import Examples
from tflearn.training.features import fields
from tflearn.training.features.examples import FeatureExamples, Field, as_dtype
from tflearn.training.features.gather import Gathered
from tflearn.training.features.plan import SPLITS, Plan
from tflearn.training.stage import Prepared


def imagined(prepared: Prepared, planned: Plan) -> Gathered:
    """Returns what `gather` would, nothing computed and no memory taken.

    Args:
        prepared: The stage, its regime applied.
        planned: What would be cached.

    Returns:
        Features of every split, all of them zero.
    """
    planned = dataclasses.replace(planned, fields=_fields(prepared, planned))
    made = {
        split: _features(planned, prepared.examples[split])
        for split in SPLITS
        if split in prepared.examples
    }
    return Gathered(
        planned=planned,
        splits=made,
        views=[made["train"]] * planned.views,
        found=dict.fromkeys(made, "imagined"),
        precision="float32",
        seconds=0.0,
    )


def _fields(prepared: Prepared, planned: Plan) -> tuple[Field, ...]:
    """Says what features there are, masks too, from the shapes alone."""
    one = prepared.examples["train"].batch(np.zeros(1, np.int64))
    symbols = keras.tree.map_structure(
        lambda x: keras.KerasTensor(x.shape, dtype=str(x.dtype)), one
    )
    outputs: Any = planned.prefix.compute_output_spec(symbols)
    return fields.given(prepared, planned, outputs)


def _features(planned: Plan, examples: Examples) -> FeatureExamples:
    # One zero seen from everywhere takes no room.
    arrays = {
        x.name: np.broadcast_to(
            np.zeros((), as_dtype(x.stored)), (x.rows(examples), *x.shape)
        )
        for x in planned.fields
    }
    return fields.features(planned, examples, arrays)
