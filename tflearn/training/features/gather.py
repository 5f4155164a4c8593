"""Getting the features of a stage: computed, or found where another start kept them."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tflearn.data import pipeline
from tflearn.support import compiled, environment, system
from tflearn.support import files as plain_files
from tflearn.support.console import say
from tflearn.support.errors import RunError
from tflearn.training.features import fields, files, keys, precision, views
from tflearn.training.features.comparison import TOLERANCES, agree
from tflearn.training.features.examples import Arrays, FeatureExamples, Field
from tflearn.training.features.passes import (
    MakeBatch,
    compute,
    empty,
    fitting,
    passes,
    plain,
)
from tflearn.training.features.plan import DISK_BYTES, SPLITS, Plan
from tflearn.training.stage import Prepared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gathered:
    """The features of a stage.

    Args:
        planned: What is cached; the fields as they came out, masks too.
        splits: Features by split; of the training examples those of the first view.
        views: Features of every view of the training examples.
        found: Where they came from, by split.
        precision: What the frozen layers ran in.
        seconds: How long it took.
    """

    planned: Plan
    splits: Mapping[str, FeatureExamples]
    views: Sequence[FeatureExamples]
    found: Mapping[str, str]
    precision: str
    seconds: float

    @property
    def tolerance(self) -> float:
        """How far outputs from these features may lie from live ones."""
        return _tolerance(self.planned.fields, self.precision, default=1e-3)


def gather(prepared: Prepared, planned: Plan, *, declared: str | None) -> Gathered:
    """Gets the features of all splits.

    Args:
        prepared: The stage, its regime applied.
        planned: What is cached.
        declared: The precision that an earlier process settled on, if one did.

    Returns:
        The features.

    Raises:
        RunError: They cannot be written where they have to be.
    """
    began = time.perf_counter()
    weights = keys.of_prefix(planned.prefix)
    made: dict[str, list[FeatureExamples]] = {}
    found = {}
    splits = [x for x in SPLITS if x in prepared.examples]
    size = prepared.stage.eval_batch_size
    # What is compiled for one split serves the others.
    fits = fitting([prepared.examples[x] for x in splits], size)
    name = declared or _precision(prepared, planned, weights, fits)
    with precision.computed_in(planned.prefix, name):
        for split in splits:
            made[split] = []
            for view in range(views.count(prepared) if split == "train" else 1):
                planned, features, found[split] = _features(
                    prepared, planned, split, view, weights, name, fits
                )
                made[split].append(features)
    sizes = {
        split: len(each)
        * sum(x.num_bytes(prepared.examples[split]) for x in planned.fields)
        for split, each in made.items()
    }
    return Gathered(
        planned=dataclasses.replace(planned, num_bytes=sum(sizes.values())),
        splits={split: each[0] for split, each in made.items()},
        views=made["train"],
        found=found,
        precision=name,
        seconds=time.perf_counter() - began,
    )


def _precision(
    prepared: Prepared, planned: Plan, weights: str, fits: Sequence[int]
) -> str:
    """Measures what the prefix runs in, or finds what was measured here before."""
    stage = prepared.stage
    if not stage.cache_tolerance:
        return "float32"
    here = [compiled.machine(), *keras.distribution.list_devices()]
    asked = [stage.cache_tolerance, stage.eval_batch_size, *fits]
    measured = plain_files.digest(weights, f"{asked} {here} {environment.versions()}")
    path = files.root() / f"precision.{measured}.json"
    if path.exists() and stage.cache != "memory":
        return plain_files.read_json(path)["precision"]
    found = precision.choose(
        planned.prefix,
        prepared.examples["train"],
        batch_size=stage.eval_batch_size,
        tolerance=stage.cache_tolerance,
        fits=fits,
    )
    if stage.cache != "memory":
        # What cannot be kept is measured again.
        with contextlib.suppress(OSError):
            plain_files.write_json(path, {"precision": found})
    return found


def _features(
    prepared: Prepared,
    planned: Plan,
    split: str,
    view: int,
    weights: str,
    precise: str,
    fits: Sequence[int],
) -> tuple[Plan, FeatureExamples, str]:
    examples, make, seen = prepared.examples[split], None, None
    if split == "train" and views.count(prepared) > 1:
        make = views.maker(prepared, examples, view)
        seen = views.describe(prepared, view)
    first = _first(prepared, planned, examples, make, fits)
    planned = dataclasses.replace(
        planned, fields=fields.given(prepared, planned, first)
    )
    key = plain_files.digest(
        weights,
        keys.of_examples(examples, split, prepared.dataset.fingerprint),
        keys.of_form(
            planned.fields,
            batch_size=prepared.stage.eval_batch_size,
            fits=fits,
            precision=precise,
            view=seen,
        ),
    )
    arrays, where = _arrays(
        prepared,
        planned,
        split,
        key=key,
        first=first,
        precise=precise,
        make=make,
        fits=fits,
    )
    return planned, fields.features(planned, examples, arrays), where


def _first(
    prepared: Prepared,
    planned: Plan,
    examples: pipeline.Examples,
    make: MakeBatch | None,
    fits: Sequence[int],
) -> dict[str, np.ndarray]:
    """Runs the prefix on its first batch: its outputs say what features there are."""
    size = min(prepared.stage.eval_batch_size, len(examples))
    indices, length = next(iter(passes(examples, size, fits)))
    return planned.prefix.predict_on_batch(
        (make or plain(examples))(indices, length, 0)
    )


def _arrays(
    prepared: Prepared,
    planned: Plan,
    split: str,
    *,
    key: str,
    first: Mapping[str, np.ndarray],
    precise: str,
    make: MakeBatch | None,
    fits: Sequence[int],
) -> tuple[Arrays, str]:
    """Returns the features of a split, and where they were found."""
    examples, kept = prepared.examples[split], planned.fields
    run = {
        "batch_size": prepared.stage.eval_batch_size,
        "fits": fits,
        "make_batch": make,
        "description": f"frozen layers, {split}",
    }
    if prepared.stage.cache != "memory":
        needed = sum(field.num_bytes(examples) for field in kept)
        try:
            files.make_room(needed, limit=DISK_BYTES, keep=(key,))
            for _ in range(2):
                arrays, found = files.kept(
                    planned.prefix, examples, kept, key=key, **run
                )
                size = prepared.stage.eval_batch_size
                tolerance = _tolerance(kept, precise, default=0.0)
                if not found or agree(
                    examples, kept, arrays, first, size, tolerance, fits
                ):
                    break
                say("note: kept features are not what the layers give: made anew")
                shutil.rmtree(files.root() / key)
            if planned.place == "memory":
                arrays = {name: np.array(array) for name, array in arrays.items()}
            return arrays, "kept by an earlier start" if found else "computed"
        except OSError as error:
            if planned.place == "disk":
                raise system.explain(error) or RunError(
                    "the features of frozen layers cannot be written",
                    received=str(error),
                    fix="declare Stage.cache = 'off', or make room",
                ) from error
            say(f"note: features are not kept for another start ({error})")
    arrays = empty(kept, examples)
    compute(planned.prefix, examples, kept, arrays, **run)
    return arrays, "computed"


def _tolerance(kept: Sequence[Field], precise: str, *, default: float) -> float:
    types = {precise, *(y for x in kept for y in (x.dtype, x.stored))}
    return max(TOLERANCES.get(name, default) for name in types)
