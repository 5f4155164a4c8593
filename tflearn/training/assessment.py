"""Measuring a network on a split, and finding its worst errors."""

from __future__ import annotations

import numpy as np

from tflearn.data import pipeline
from tflearn.evaluation import calibration, inference, metrics
from tflearn.support.errors import DataError
from tflearn.training.stage import Prepared


def outputs(prepared: Prepared, split: str) -> np.ndarray:
    """Runs the network over a split.

    Args:
        prepared: The stage.
        split: Name of the split.

    Returns:
        Outputs of the head in the order of the rows, `(examples, outputs)`, float32.
    """
    examples = prepared.examples[split]
    batches = pipeline.ordered_batches(
        examples, batch_size=prepared.stage.eval_batch_size
    )
    return inference.predict_outputs(
        prepared.network.model, batches, num_examples=len(examples)
    )


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
    values: np.ndarray,
    temperature: float | None = None,
) -> metrics.Evaluation:
    """Computes all metrics of a split.

    Args:
        prepared: The stage.
        split: Name of the split.
        bootstrap: Resamples for the intervals; 0 for none.
        values: What `outputs` gives for the split.
        temperature: Divides logits before the calibration figures.

    Returns:
        The evaluation.
    """
    rows = prepared.dataset.splits[split]
    return metrics.evaluate(
        prepared.objective.target_kind,
        targets(prepared, split),
        values,
        classes=prepared.dataset.classes,
        slices=rows.slices,
        bootstrap=bootstrap,
        temperature=temperature,
    )


def fit_temperature(prepared: Prepared, values: np.ndarray | None) -> float | None:
    """Fits a temperature on the validation split where the objective asks for it.

    Args:
        prepared: The stage.
        values: What `outputs` gives for that split; None where there is none.
    """
    if values is None or not prepared.objective.calibrate:
        return None
    return calibration.fit_temperature(values, targets(prepared, "validation"))
