"""Features against live layers: outputs on a sample, before and after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflearn import evaluation
from tflearn.data import pipeline
from tflearn.support.units import count_text
from tflearn.training.features.examples import Arrays, FeatureExamples, Field
from tflearn.training.features.passes import passes
from tflearn.training.features.precision import PRODUCTS
from tflearn.training.stage import Prepared

#: How far outputs from features may lie from live ones, relative to the largest.
TOLERANCES = {"float32": 1e-3, "float16": 2e-2, PRODUCTS: 2e-2, "bfloat16": 5e-2}
_SAMPLE = 128


def compare(prepared: Prepared, standin: Prepared, split: str) -> dict[str, Any]:
    """Compares outputs from features with live ones on a sample.

    Args:
        prepared: The stage.
        standin: What stands in for it.
        split: Of what.

    Returns:
        `split`, `examples`, `headline`, its `live` and `cached` value,
        `largest_difference` of the outputs, and `relative_difference`: in shares of
        the largest output, or of 1.
    """
    live, cached, rows = _outputs(prepared, standin, split)
    targets = prepared.dataset.splits[split].targets
    difference, largest = float(np.max(np.abs(live - cached))), np.max(np.abs(live))
    found = {
        "split": split,
        "examples": len(rows),
        "headline": prepared.headline,
        "largest_difference": difference,
        "relative_difference": difference / (1 + float(largest)),
    }
    if targets is None or split == "train":
        return found
    for name, values in (("live", live), ("cached", cached)):
        metrics = evaluation.evaluate(
            prepared.task,
            np.asarray(targets)[rows],
            values,
            classes=prepared.dataset.classes,
            bootstrap=0,
        ).metrics
        found[name] = metrics[prepared.headline].value
    return found


def describe(sample: Mapping[str, Any]) -> str:
    """Returns what `compare` found in a line."""
    live, cached = (
        "undefined" if sample.get(x) is None else f"{sample[x]:.4g}"
        for x in ("live", "cached")
    )
    return (
        f"cached features against live ones on {count_text(sample['examples'])} "
        f"examples of '{sample['split']}': {sample['headline']} {cached} and {live}, "
        f"outputs differ by {sample['largest_difference']:.2g} at most"
    )


def _outputs(
    prepared: Prepared, standin: Prepared, split: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns live outputs, those from features, and which examples they are of."""
    live, features = prepared.examples[split], standin.examples[split]
    size = min(prepared.stage.eval_batch_size, len(live))
    # Texts of all lengths in one batch, so that most are padded more than they were
    # when the features were computed: a model that looks at padding gives itself away.
    order = pipeline.generator(0, len(live)).permutation(len(live))
    rows = order[: max(size, _SAMPLE // size * size)]
    outputs: list[list[np.ndarray]] = [[], []]
    for start in range(0, len(rows), size):
        indices = rows[start : start + size]
        filled = np.pad(indices, (0, size - len(indices)), mode="edge")
        pairs = ((prepared, live), (standin, features))
        for found, (each, examples) in zip(outputs, pairs, strict=True):
            given = each.network.deployed.predict_on_batch(examples.batch(filled))
            found.append(np.asarray(given)[: len(indices)].astype("float32"))
    cached = np.concatenate(outputs[1])
    return np.concatenate(outputs[0]), cached, rows


def agree(
    examples: pipeline.Examples,
    fields: Sequence[Field],
    arrays: Arrays,
    first: Mapping[str, np.ndarray],
    size: int,
    tolerance: float,
    fits: Sequence[int],
) -> bool:
    """Tells whether kept features of the first batch are what the prefix gives now.

    Args:
        examples: The examples.
        fields: What the arrays are.
        arrays: The kept features.
        first: What the prefix gives for the first batch.
        size: Examples a batch.
        tolerance: Of the largest feature, or of 1.
        fits: As in `passes`.
    """
    indices, length = next(iter(passes(examples, min(size, len(examples)), fits)))
    held = FeatureExamples(examples, fields, arrays, names=(), takes=(), mapped=False)
    found = held.batch(indices, length=length)
    for field in fields:
        now, then = (x[field.name].astype("float32") for x in (first, found))
        if field.by_token and examples.lengths is not None:
            place = np.arange(now.shape[1]) < examples.lengths[indices][:, None]
            now, then = now[place], then[place]
        scale = 1 + float(np.max(np.abs(now), initial=0))
        if not np.allclose(now, then, rtol=0, atol=tolerance * scale):
            return False
    return True
