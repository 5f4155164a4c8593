"""The headline metric on resamples of a split, kept for comparisons.

Runs that were tested on the same examples share the resamples, so that the difference
of two runs can be judged on each of them.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflearn.data import Dataset
from tflearn.evaluation import Evaluation
from tflearn.support import files
from tflearn.training.stage import Prepared

FILE = "resamples.json"


def write(
    folder: pathlib.Path, prepared: Prepared, evaluations: Mapping[str, Evaluation]
) -> None:
    """Writes the resamples of every split beside a stage's report.

    Args:
        folder: The stage's folder.
        prepared: The stage.
        evaluations: By split.
    """
    found: dict[str, Any] = {}
    for split, evaluation in evaluations.items():
        samples = evaluation.metrics[evaluation.headline].samples
        if samples is None or not samples.size:
            continue
        found[split] = {
            "metric": evaluation.headline,
            "examples": _examples(prepared.dataset, split),
            "seed": evaluation.seed,
            "values": [None if np.isnan(x) else float(x) for x in samples],
        }
    files.write_json(folder / FILE, found)


def _examples(dataset: Dataset, name: str) -> str:
    """Returns a fingerprint of examples: other files have the same row numbers."""
    split = dataset.splits[name]
    rows = np.ascontiguousarray(split.rows).tobytes()
    if split.targets is None:
        return files.digest(rows, split.digest)
    # Not the inputs: arms may read other columns of the same rows.
    targets = np.ascontiguousarray(split.targets)
    if targets.dtype.hasobject:
        targets = targets.astype(str)
    return files.digest(rows, "/".join(dataset.classes), targets.tobytes())


def read(folder: pathlib.Path, split: str) -> tuple[str, np.ndarray] | None:
    """Reads the resamples of a split.

    Args:
        folder: The stage's folder.
        split: Name of the split.

    Returns:
        What they were drawn from, the same for runs that share them, and the values,
        `(resamples,)`, NaN where undefined; None if none were kept.
    """
    path = folder / FILE
    found = files.read_json(path).get(split) if path.is_file() else None
    if found is None:
        return None
    values = np.array([np.nan if x is None else x for x in found["values"]], "float64")
    return (
        f"{found['metric']} {found['examples']} {found['seed']} {values.size}",
        values,
    )
