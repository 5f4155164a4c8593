"""Training behind frozen layers, which are computed once instead of once an epoch.

What comes before the first layer that trains (`backbones.cut`) runs once over the
examples; training and evaluation then go on from its features. The rest of the model,
the suffix, is made of the model's own layers, so that checkpoints, the proof that
frozen stayed frozen and export of the whole model know nothing of it.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from tflearn.data.batches import TrainBatches
from tflearn.distribution import processes, products, tf_training
from tflearn.support import files, seeds
from tflearn.support.console import say
from tflearn.support.errors import RunError
from tflearn.support.units import duration_text
from tflearn.training import budgets
from tflearn.training.features import resident
from tflearn.training.features.comparison import compare, describe
from tflearn.training.features.gather import Gathered, gather
from tflearn.training.features.plan import Plan, plan, shape_text
from tflearn.training.features.views import ViewedBatches
from tflearn.training.stage import Prepared

_DECISION = "cache.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shortcut:
    """A stage that trains from features.

    Args:
        prepared: Stands in for the stage while it trains: the suffix as its model, the
            features as its examples.
        facts: What is cached, for the report.
        seconds: How long it took to get the features.
        tolerance: How far outputs may lie from live ones.
        fit: Runs many steps a call, if all features lie on the device.
    """

    prepared: Prepared
    facts: dict[str, Any]
    seconds: float
    tolerance: float
    fit: resident.Resident | None

    def finish(self, prepared: Prepared) -> tuple[dict[str, Any], bool]:
        """Compares features with live layers after training, and says so.

        Args:
            prepared: The stage, trained.

        Returns:
            All facts, and whether metrics of the features stand for live ones.
        """
        split = "validation" if "validation" in prepared.examples else "train"
        if split == "train" and isinstance(self.prepared.batches, ViewedBatches):
            return self.facts, False
        sample = compare(prepared, self.prepared, split)
        line = describe(sample)
        say(line)
        notes = [*self.facts["notes"], line]
        agree = bool(sample["relative_difference"] <= self.tolerance)
        return self.facts | {"sample": sample, "notes": notes}, agree


def shortcut(
    prepared: Prepared,
    folder: pathlib.Path,
    *,
    total_steps: int,
    gathered: Gathered | None = None,
) -> Shortcut | None:
    """Computes the features of a stage, or reads them, and says so in a line.

    Args:
        prepared: The stage, its regime applied and its model compiled.
        folder: The stage's folder: the decision is kept there, so that a process that
            resumes the stage computes as the one before it did.
        total_steps: Length of the stage.
        gathered: Its features, if they are there already.

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
        settled = before and before.get("precision")
        gathered = gathered or gather(prepared, found, declared=settled)
        found = _shortcut(prepared, gathered)
    if isinstance(found, Shortcut):
        precision = found.facts["precision"]
        files.write_json(path, {"cached": True, "precision": precision})
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


def _shortcut(prepared: Prepared, gathered: Gathered) -> Shortcut | str:
    """Checks features against live outputs."""
    planned, fields = gathered.planned, gathered.planned.fields
    made = standin(prepared, gathered)
    views = len(gathered.views)
    # Views are augmented, and what is live is not.
    split = "train" if views == 1 else "validation"
    if split in prepared.examples:
        difference = compare(prepared, made, split)["relative_difference"]
        if not difference <= gathered.tolerance:
            return (
                f"outputs from features lie {difference:.2g} from live ones, more than "
                f"{gathered.tolerance:g}: something hangs on the padding, or is random"
            )
    facts = {
        "layers": list(planned.layers),
        "share": planned.share,
        "features": {x.name: shape_text(x) for x in fields},
        "bytes": planned.num_bytes,
        "place": planned.place,
        "found": dict(gathered.found),
        "views": views,
        "precision": gathered.precision,
        "seconds": gathered.seconds,
    }
    how = ", ".join(f"{split} {state}" for split, state in gathered.found.items())
    time = duration_text(gathered.seconds)
    line = f"cached: {planned} in {planned.place}, {time} ({how})"
    say(line)
    facts["notes"] = [line]
    return Shortcut(
        prepared=made,
        facts=facts,
        seconds=gathered.seconds,
        tolerance=gathered.tolerance,
        fit=resident.of(made, gathered.views, head_only=planned.head_only),
    )


def standin(prepared: Prepared, gathered: Gathered) -> Prepared:
    """Returns what stands in for a stage: the suffix, and features as its examples.

    Args:
        prepared: The stage, its model compiled.
        gathered: Its features.
    """
    suffix: Any = gathered.planned.suffix
    model: Any = prepared.network.model
    # The optimizer is the model's: the suffix has the same variables in the same order.
    suffix.compile(
        optimizer=model.optimizer,
        loss=tf_training.global_loss(prepared.loss()),
        weighted_metrics=prepared.metrics(),
        jit_compile=prepared.stage.jit_compile,
    )
    # As `loop.compile_model` does. A head alone trains in loops of its own, in which it
    # was not tried, and its products are mostly too small.
    if not gathered.planned.head_only:
        products.install(suffix)
    return dataclasses.replace(
        prepared,
        network=dataclasses.replace(prepared.network, model=suffix, deployed=suffix),
        examples={**prepared.examples, **gathered.splits},
        batches=feature_batches(prepared, gathered),
    )


def feature_batches(prepared: Prepared, gathered: Gathered) -> TrainBatches:
    """Returns the batches of a stage with features in place of inputs.

    Args:
        prepared: The stage.
        gathered: Its features.
    """
    batches = [prepared.batches.over(examples) for examples in gathered.views]
    if len(batches) == 1:
        return batches[0]
    rows, new = len(prepared.examples["train"]), prepared.stage.new_per_step
    return ViewedBatches(
        batches,
        seed=seeds.derive(prepared.seed, "views"),
        epoch_steps=budgets.steps_per_epoch(rows, new),
    )
