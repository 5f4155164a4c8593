"""Training behind frozen layers, which are computed once instead of once an epoch.

What comes before the first layer that trains (`backbones.cut`) runs once over the
examples; training and validation then go on from its features. The rest of the model,
the suffix, is made of the model's own layers, so that checkpoints, the proof that
frozen stayed frozen, evaluation and export of the whole model know nothing of it.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflearn import evaluation
from tflearn.backbones.cut import Part
from tflearn.data import pipeline
from tflearn.distribution import processes, tf_training
from tflearn.support import files
from tflearn.support.console import say
from tflearn.support.errors import RunError
from tflearn.support.units import count_text, duration_text
from tflearn.training import feature_files, feature_keys, feature_plan
from tflearn.training.feature_batches import FeatureExamples, Field, passes
from tflearn.training.feature_plan import SPLITS, Plan, plan, shape_text, stored
from tflearn.training.stage import Prepared

#: How far outputs from features may lie from live ones, relative to the largest.
_TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}
_SAMPLE = 256
_DECISION = "cache.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shortcut:
    """A stage that trains from features.

    Args:
        prepared: Stands in for the stage while it trains: the suffix as its model, the
            features as its examples.
        facts: What is cached, for the report.
        seconds: How long it took to get the features.
    """

    prepared: Prepared
    facts: dict[str, Any]
    seconds: float

    def finish(self, prepared: Prepared) -> dict[str, Any]:
        """Compares features with live layers, says so, and returns all facts."""
        sample = compare(prepared, self.prepared)
        line = describe(sample)
        say(line)
        notes = [*self.facts["notes"], line]
        return self.facts | {"sample": sample, "notes": notes}


def shortcut(
    prepared: Prepared, folder: pathlib.Path, *, total_steps: int
) -> Shortcut | None:
    """Computes the features of a stage, or reads them, and says so in a line.

    Args:
        prepared: The stage, its regime applied and its model compiled.
        folder: The stage's folder: the decision is kept there, so that a process that
            resumes the stage computes as the one before it did.
        total_steps: Length of the stage.

    Returns:
        What trains instead; None: the stage as it is.

    Raises:
        RunError: The process before this one trained from features, and now that is
            not possible.
    """
    path = folder / _DECISION
    before = files.read_json(path) if path.exists() else None
    found: Plan | Shortcut | str = plan(prepared, total_steps=total_steps)
    if before is not None and not before["cached"]:
        found = before["reason"]
    if isinstance(found, Plan):
        found = _shortcut(prepared, found)
    if isinstance(found, Shortcut):
        files.write_json(path, {"cached": True})
        return found
    if before is not None and before["cached"]:
        raise RunError(
            "this stage began with cached features, and now they cannot be had",
            received=found,
            fix="start anew in another output directory",
        )
    if processes.is_chief() and prepared.stage.cache != "off":
        files.write_json(path, {"cached": False, "reason": found})
    if found:
        say(f"not cached: {found}")
    return None


def compare(prepared: Prepared, standin: Prepared) -> dict[str, Any]:
    """Compares outputs from features with live ones on a sample.

    Args:
        prepared: The stage, trained.
        standin: What stood in for it.

    Returns:
        `split`, `examples`, `headline`, its `live` and `cached` value, and
        `largest_difference` of the outputs.
    """
    split = "validation" if "validation" in prepared.examples else "train"
    live, cached, rows = _sample(prepared, standin, split)
    headline = prepared.headline
    targets = np.asarray(prepared.dataset.splits[split].targets)[rows]
    values = [
        evaluation.evaluate(
            prepared.task, targets, x, classes=prepared.dataset.classes, bootstrap=0
        )
        .metrics[headline]
        .value
        for x in (live, cached)
    ]
    return {
        "split": split,
        "examples": len(rows),
        "headline": headline,
        "live": values[0],
        "cached": values[1],
        "largest_difference": float(np.max(np.abs(live - cached))),
    }


def describe(sample: Mapping[str, Any]) -> str:
    """Returns what `compare` found in a line."""
    live, cached = (
        "undefined" if x is None else f"{x:.4g}"
        for x in (sample["live"], sample["cached"])
    )
    return (
        f"cached features against live ones on {count_text(sample['examples'])} "
        f"examples of '{sample['split']}': {sample['headline']} {cached} and {live}, "
        f"outputs differ by {sample['largest_difference']:.2g} at most"
    )


def _shortcut(prepared: Prepared, planned: Plan) -> Shortcut | str:
    """Gets the features and checks them against live outputs."""
    started = time.perf_counter()
    made, fields, places = {}, planned.fields, {}
    weights = feature_keys.of_prefix(planned.prefix)
    for split in (x for x in SPLITS if x in prepared.examples):
        examples = prepared.examples[split]
        fields, first = _first(prepared, planned, examples)
        key = files.digest(
            weights,
            feature_keys.of_examples(examples, split, prepared.dataset.fingerprint),
            feature_keys.of_form(fields, prepared.stage.eval_batch_size),
        )
        arrays, places[split] = _arrays(prepared, planned, split, fields, key, first)
        made[split] = FeatureExamples(
            examples,
            fields,
            arrays,
            names=planned.prefix.takes,
            takes=planned.suffix.takes,
            mapped=planned.place == "disk",
        )
    standin = _standin(prepared, planned.suffix, made)
    live, cached, _ = _sample(prepared, standin, "train")
    difference = float(np.max(np.abs(live - cached)) / (1 + np.max(np.abs(live))))
    tolerance = max(_TOLERANCES.get(y, 1e-3) for x in fields for y in _types(x))
    if not difference <= tolerance:
        return (
            f"outputs from features lie {difference:.2g} from live ones, "
            f"more than {tolerance:g}: something hangs on the padding, or is random"
        )
    seconds = time.perf_counter() - started
    facts = {
        "layers": list(planned.layers),
        "share": planned.share,
        "features": {x.name: shape_text(x) for x in fields},
        "bytes": sum(x.num_bytes(prepared.examples[s]) for x in fields for s in made),
        "place": planned.place,
        "found": places,
        "seconds": seconds,
    }
    how = ", ".join(f"{split} {state}" for split, state in places.items())
    planned = dataclasses.replace(planned, fields=fields, num_bytes=facts["bytes"])
    line = f"cached: {planned} in {planned.place}, {duration_text(seconds)} ({how})"
    say(line)
    facts["notes"] = [line]
    return Shortcut(prepared=standin, facts=facts, seconds=seconds)


def _types(field: Field) -> tuple[str, str]:
    return field.dtype, field.stored


def _first(
    prepared: Prepared, planned: Plan, examples: pipeline.Examples
) -> tuple[tuple[Field, ...], dict[str, np.ndarray]]:
    """Runs the prefix on its first batch: says what features there are, masks too."""
    size = min(prepared.stage.eval_batch_size, len(examples))
    indices, length = next(iter(passes(examples, size)))
    given = planned.prefix.predict_on_batch(examples.batch(indices, length=length))
    known = {field.name: field for field in planned.fields}
    fields = []
    for name, values in given.items():
        field = known.get(name) or known[name.removesuffix("_mask")]
        dtype = str(values.dtype)
        fields.append(
            dataclasses.replace(
                field,
                name=name,
                shape=tuple(values.shape[2 if field.by_token else 1 :]),
                dtype=dtype,
                stored=stored(prepared, dtype),
            )
        )
    return tuple(fields), given


def _arrays(
    prepared: Prepared,
    planned: Plan,
    split: str,
    fields: Sequence[Field],
    key: str,
    first: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], str]:
    """Returns the features of a split, and where they were found."""
    examples, mode = prepared.examples[split], prepared.stage.cache
    size, text = prepared.stage.eval_batch_size, f"frozen layers, {split}"
    if mode != "memory":
        needed = sum(field.num_bytes(examples) for field in fields)
        try:
            feature_files.make_room(needed, limit=feature_plan.DISK_BYTES, keep=(key,))
            for _ in range(2):
                arrays, found = feature_files.kept(
                    planned.prefix,
                    examples,
                    fields,
                    key=key,
                    batch_size=size,
                    description=text,
                )
                if not found or _agree(examples, fields, arrays, first, size):
                    break
                say("note: kept features are not what the layers give: made anew")
                shutil.rmtree(feature_files.root() / key)
            if planned.place == "memory":
                arrays = {name: np.array(array) for name, array in arrays.items()}
            return arrays, "kept by an earlier start" if found else "computed"
        except OSError as error:
            if planned.place == "disk":
                raise RunError(
                    "the features of frozen layers cannot be written",
                    received=str(error),
                    fix="declare Stage.cache = 'off', or make room",
                ) from error
            say(f"note: features are not kept for another start ({error})")
    arrays = feature_files.empty(fields, examples)
    feature_files.compute(
        planned.prefix, examples, fields, arrays, batch_size=size, description=text
    )
    return arrays, "computed"


def _agree(
    examples: pipeline.Examples,
    fields: Sequence[Field],
    arrays: Mapping[str, np.ndarray],
    first: Mapping[str, np.ndarray],
    size: int,
) -> bool:
    """Tells whether kept features of the first batch are what the prefix gives now."""
    size = min(size, len(examples))
    indices, length = next(iter(passes(examples, size)))
    held = FeatureExamples(examples, fields, arrays, names=(), takes=(), mapped=False)
    found = held.batch(indices, length=length)
    for field in fields:
        now, then = (x[field.name].astype("float32") for x in (first, found))
        if field.by_token and examples.lengths is not None:
            place = np.arange(now.shape[1]) < examples.lengths[indices][:, None]
            now, then = now[place], then[place]
        tolerance = max(_TOLERANCES.get(x, 0.0) for x in _types(field))
        scale = 1 + float(np.max(np.abs(now), initial=0))
        if not np.allclose(now, then, rtol=0, atol=tolerance * scale):
            return False
    return True


def _standin(
    prepared: Prepared, suffix: Part, examples: Mapping[str, FeatureExamples]
) -> Prepared:
    model: Any = prepared.network.model
    # Any, because Keras types `jit_compile` as a text alone. The optimizer is the
    # model's: the suffix has the same variables in the same order.
    compile_: Any = suffix.compile
    compile_(
        optimizer=model.optimizer,
        loss=tf_training.global_loss(prepared.loss()),
        weighted_metrics=prepared.metrics(),
        jit_compile=prepared.stage.jit_compile,
    )
    return dataclasses.replace(
        prepared,
        network=dataclasses.replace(prepared.network, model=suffix, deployed=suffix),
        examples={**prepared.examples, **examples},
        batches=prepared.batches.over(examples["train"]),
    )


def _sample(
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
