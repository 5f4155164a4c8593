"""How many operations training takes, counted in the train step as it is traced.

Matrix products and convolutions count (`distribution.work`); what the compiler makes of
them, and what an adapter or a schedule adds between them, does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tflearn.data import pipeline
from tflearn.distribution import tf_strategy, tf_work, work
from tflearn.support.errors import ConfigError
from tflearn.training.stage import Prepared

#: Steps whose batches are looked at, since texts differ in length.
_LOOKED_AT = 64
#: Shapes of batches that are traced; what lies between is interpolated.
_MOST_SHAPES = 4


def of_step(model: keras.Model, batch: Any) -> int:
    """Counts the operations of one train step.

    Args:
        model: The compiled model, its optimizer built.
        batch: A batch; its shapes count.

    Returns:
        Floating-point operations of products, forward and backward.

    Raises:
        ConfigError: TensorFlow does not tell them for this model.
    """
    step: Any = model
    # `fit` does this before its first step; it makes the metrics' variables.
    step._symbolic_build(data_batch=batch)
    if keras.backend.backend() == "tensorflow":
        return _on_tensorflow(step, batch)
    import jax

    def stand(value: Any) -> Any:
        dtype = jax.dtypes.canonicalize_dtype(
            keras.backend.standardize_dtype(value.dtype)
        )
        return jax.ShapeDtypeStruct(tuple(value.shape), dtype)

    state = tuple(
        [stand(variable) for variable in group]
        for group in (
            step.trainable_variables,
            step.non_trainable_variables,
            step.optimizer.variables,
            step.metrics_variables,
        )
    )
    traced = jax.make_jaxpr(step.train_step)(
        state, keras.tree.map_structure(stand, batch)
    )
    return work.product_flops(traced.jaxpr)


def of_stage(prepared: Prepared) -> float:
    """Counts the operations of a mean train step of a stage.

    Args:
        prepared: The stage, compiled. With phases, the regime that holds counts.

    Returns:
        Operations, averaged over the shapes of the first batches.
    """
    return _of_batches(prepared.network.model, prepared.batches)


def of_training(
    prepared: Prepared, trained: Prepared, *, steps: int
) -> tuple[float | None, str]:
    """Counts the operations of a whole stage, if its declaration asks for that.

    Args:
        prepared: The stage, compiled.
        trained: What stood in for it while it trained: the same, or a suffix that goes
            on from features that were computed once.
        steps: Steps it trained.

    Returns:
        Operations; those of the features of the training examples count once. Where
        they cannot be counted None, and why.
    """
    if not prepared.stage.count_flops:
        return None, ""
    try:
        return _of_training(prepared, trained, steps), ""
    except ConfigError as error:
        # What was trained is not lost for a figure of the report.
        return None, str(error)


def _of_training(prepared: Prepared, trained: Prepared, steps: int) -> float:
    each = of_stage(trained)
    if trained.network.model is prepared.network.model:
        return steps * each
    passes = len(prepared.examples["train"]) / prepared.stage.batch_size
    # What a live step has more than one from features is the frozen part.
    return steps * each + passes * max(0.0, of_stage(prepared) - each)


def _of_batches(model: keras.Model, batches: pipeline.TrainBatches) -> float:
    varies = batches.examples.lengths is not None
    found = [batches[step] for step in range(_LOOKED_AT if varies else 1)]
    sizes = np.array([_size(batch) for batch in found], "float64")
    by_size = dict(zip(sizes.tolist(), found, strict=True))
    ordered = sorted(by_size)
    places = np.linspace(0, len(ordered) - 1, min(_MOST_SHAPES, len(ordered)))
    counted: Mapping[float, int] = {
        ordered[place]: of_step(model, by_size[ordered[place]])
        for place in sorted(set(places.astype(int).tolist()))
    }
    return float(np.interp(sizes, list(counted), list(counted.values())).mean())


def _size(batch: Any) -> int:
    return sum(math.prod(array.shape) for array in keras.tree.flatten(batch))


def _on_tensorflow(model: Any, batch: Any) -> int:
    import tensorflow as tf

    if tf_strategy.replicas() > 1:
        raise ConfigError(
            "the FLOPs of a train step are counted on one device of TensorFlow",
            received=f"{tf_strategy.replicas()} devices",
            fix="count steps, examples or time, or use --backend=jax",
        )
    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec(array.shape, array.dtype), batch
    )
    traced = tf.function(model.train_step).get_concrete_function(signature)
    return tf_work.graph_flops(traced.graph)
