"""Measuring a network on a split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tflearn import evaluation, objectives
from tflearn.data import pipeline
from tflearn.evaluation import calibration, inference
from tflearn.support import seeds
from tflearn.support.errors import DataError
from tflearn.training.stage import Prepared

#: Outputs of the head, `(examples, outputs)`; or by name a statistic of every example.
Measured = np.ndarray | Mapping[str, np.ndarray]


def measure(prepared: Prepared, split: str) -> Measured:
    """Runs the network over a split.

    Args:
        prepared: The stage.
        split: Name of the split.

    Returns:
        Outputs of the head in the order of the rows, float32 `(examples, outputs)`;
        for an objective that makes its own targets its statistics by name,
        `(examples,)` each. Those targets are the same in every call.
    """
    examples = prepared.examples[split]
    size = prepared.stage.eval_batch_size
    if prepared.pretext is None or prepared.scorer is None:
        batches = pipeline.ordered_batches(examples, batch_size=size)
        return inference.predict_outputs(
            prepared.network.deployed, batches, num_examples=len(examples)
        )
    make_batch, seed = prepared.pretext.make_batch, seeds.derive(0, "evaluate", split)
    order = list(pipeline.ordered_indices(examples, batch_size=size))
    rows = prepared.scorer.score(
        make_batch(examples, indices, pipeline.generator(seed, number))
        for number, indices in enumerate(order)
    )
    places = np.argsort(np.concatenate(order), kind="stable")
    return {name: row[places] for name, row in rows.items()}


def targets(prepared: Prepared, split: str) -> np.ndarray:
    """Returns the targets of a split.

    Raises:
        DataError: The split has none.
    """
    found = prepared.dataset.splits[split].targets
    if found is None:
        raise DataError(f"the split '{split}' has no targets")
    return found


def assess(
    prepared: Prepared,
    split: str,
    *,
    bootstrap: int,
    values: Measured,
    temperature: float | None = None,
) -> evaluation.Evaluation:
    """Computes all metrics of a split.

    Args:
        prepared: The stage.
        split: Name of the split.
        bootstrap: Resamples for the intervals; 0 for none.
        values: What `measure` gives for the split.
        temperature: Divides logits before the calibration figures.

    Returns:
        The evaluation.
    """
    rows = prepared.dataset.splits[split]
    if prepared.pretext is None:
        return evaluation.evaluate(
            prepared.objective.target_kind,
            targets(prepared, split),
            np.asarray(values),
            classes=prepared.dataset.classes,
            slices=rows.slices,
            bootstrap=bootstrap,
            temperature=temperature,
        )
    # Packed rows hold parts of several rows of the data: no row of a slice alone.
    aligned = len(prepared.examples[split]) == len(rows)
    return evaluation.evaluate_statistics(
        prepared.objective.name,
        dict(values),
        prepared.pretext.summarize,
        headline=prepared.headline,
        lower_is_better=prepared.lower_is_better,
        slices=rows.slices if aligned else {},
        bootstrap=bootstrap,
    )


def fit_temperature(prepared: Prepared, values: Measured | None) -> float | None:
    """Fits a temperature on the validation split where the objective asks for it.

    Args:
        prepared: The stage.
        values: What `measure` gives for that split; None where there is none.
    """
    objective = prepared.objective
    if not isinstance(objective, objectives.Objective) or not objective.calibrate:
        return None
    if not isinstance(values, np.ndarray):
        return None
    return calibration.fit_temperature(values, targets(prepared, "validation"))
