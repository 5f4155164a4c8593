"""Making a stage ready to train: data, examples, network, batches, probe."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import keras

from tflearn import objectives
from tflearn.backbones import Backbone
from tflearn.data import pipeline
from tflearn.data.rehearsal import Mixed, Rehearsed
from tflearn.evaluation import Scorer
from tflearn.objectives.objective import attach, unused_layers
from tflearn.support import seeds
from tflearn.support.errors import ConfigError, nearest
from tflearn.training import budgets
from tflearn.training import probe as probes
from tflearn.training.stage import Prepared, Stage

_LONG = 10**9
_CHOICES = {
    "cache": ("auto", "off", "memory", "disk"),
    "cache_dtype": ("auto", "float16"),
    "report_splits": ("validation", "test"),
}


def prepare(stage: Stage, backbone: Backbone, *, seed: int) -> Prepared:
    """Loads a stage's data, encodes it and puts the head on the backbone.

    Args:
        stage: The declaration.
        backbone: Shared by all stages of the experiment.
        seed: The experiment's seed.

    Returns:
        The stage, ready to train.

    Raises:
        TflearnError: Something of the declaration or the data is wrong.
    """
    _check(stage)
    data, objective = stage.data(), stage.objective()
    dataset = pipeline.settle_length(
        data.load(target_kind=objective.target_kind),
        backbone.encoder,
        any_length=objective.any_length,
    )
    data = dataset.data
    examples = encode(objective, dataset, backbone)
    old = stage.rehearsal and stage.rehearsal.load(
        dataset,
        backbone.encoder,
        any_length=objective.any_length,
    )
    rows = _rows(objective, dataset, examples["train"], old)
    # The head's initial values depend on the stage alone, not on what ran before.
    keras.utils.set_random_seed(seeds.derive(seed, "head", stage.name))
    seed = seeds.derive(seed, "batches", stage.name)
    if isinstance(objective, objectives.SelfSupervised):
        examples, made = _pretext(
            stage, objective, backbone, dataset, examples, old, seed
        )
    else:
        made = _supervised(stage, objective, backbone, dataset, rows, seed)
    total_steps, interval = _steps(stage, examples)
    return Prepared(
        stage=stage,
        data=data,
        dataset=dataset,
        spec=pipeline.describe(dataset, examples),
        examples=examples,
        objective=objective,
        total_steps=total_steps,
        interval=interval,
        rehearsed=old,
        seed=seeds.derive(seed, "adapters"),
        probe=stage.probe
        and probes.prepare(stage.probe(), backbone, batch_size=stage.eval_batch_size),
        **made,
    )


def reseeded(prepared: Prepared, seed: int) -> Prepared:
    """Returns a stage with labels as an experiment with another seed would have it.

    Args:
        prepared: The stage.
        seed: The other experiment's seed.

    Returns:
        The stage with another head, on the same backbone, and another order of the
        examples.
    """
    stage, objective = prepared.stage, prepared.objective
    if isinstance(objective, objectives.SelfSupervised):
        raise ConfigError("only a head has a seed", received=objective.name)
    train, old = prepared.examples["train"], prepared.rehearsed
    rows = _rows(objective, prepared.dataset, train, old)
    keras.utils.set_random_seed(seeds.derive(seed, "head", stage.name))
    made = _supervised(
        stage,
        objective,
        prepared.network.backbone,
        prepared.dataset,
        rows,
        seeds.derive(seed, "batches", stage.name),
    )
    return dataclasses.replace(prepared, **made)


def encode(
    objective: objectives.Objective | objectives.SelfSupervised,
    dataset: pipeline.Dataset,
    backbone: Backbone,
) -> dict[str, pipeline.Examples]:
    """Encodes the splits of a data set as an objective takes them.

    Args:
        objective: Says whether it divides texts that are too long.
        dataset: The rows.
        backbone: Brings the encoder.

    Returns:
        Encoded examples by split.
    """
    return {
        name: pipeline.encode(
            split,
            backbone.encoder,
            data=dataset.data,
            any_length=objective.any_length,
        )
        for name, split in dataset.splits.items()
    }


def _rows(
    objective: objectives.Objective | objectives.SelfSupervised,
    dataset: pipeline.Dataset,
    examples: pipeline.Examples,
    old: Rehearsed | None,
) -> Mixed:
    """Pairs the training examples with what an objective with labels takes."""
    targets, old_targets = dataset.splits["train"].targets, None
    if isinstance(objective, objectives.Objective) and objective.teach is not None:
        targets = objective.teach(dataset)
        old_targets = old and objective.teach(old.dataset)
    if old is None or isinstance(objective, objectives.SelfSupervised):
        return Mixed(examples, targets, None)
    return old.mix(examples, targets, old_targets=old_targets)


def _supervised(
    stage: Stage,
    objective: objectives.Objective,
    backbone: Backbone,
    dataset: pipeline.Dataset,
    rows: Mixed,
    seed: int,
) -> dict[str, Any]:
    """Puts the head on the backbone and makes batches of examples with targets."""
    examples, targets, mixture = rows
    num_outputs = pipeline.describe(dataset, {"train": examples}).num_outputs
    one_hot = objective.one_hot or dataset.data.mixes_labels
    hints = 0
    if objective.teach is not None and targets is not None:
        hints = targets.shape[1] - 2 * num_outputs
    return {
        "network": attach(objective, backbone, num_outputs=num_outputs, hints=hints),
        "batches": pipeline.train_batches(
            examples,
            targets,
            batch_size=stage.batch_size,
            seed=seed,
            data=dataset.data,
            num_outputs=num_outputs,
            one_hot=one_hot,
            mixture=mixture,
        ),
        "loss": functools.partial(objective.loss, one_hot),
        "metrics": functools.partial(objective.metrics, one_hot),
    }


def _check_pretext(
    objective: objectives.SelfSupervised,
    dataset: pipeline.Dataset,
    examples: pipeline.Examples,
) -> None:
    if dataset.data.augment or dataset.data.balance != "none":
        raise ConfigError(
            f"the objective '{objective.name}' makes its own batches",
            received="data.Data.augment or data.Data.balance",
            fix="bind the views of the objective instead",
        )
    kind = examples.kind
    if kind not in objective.inputs:
        raise ConfigError(
            f"the objective '{objective.name}' does not take these inputs",
            received=f"inputs of kind '{kind}'",
            expected=" or ".join(map(repr, objective.inputs)),
        )


def _pretext(
    stage: Stage,
    objective: objectives.SelfSupervised,
    backbone: Backbone,
    dataset: pipeline.Dataset,
    examples: Mapping[str, pipeline.Examples],
    old: Rehearsed | None,
    seed: int,
) -> tuple[dict[str, pipeline.Examples], dict[str, Any]]:
    """Makes the network of an objective that makes its own targets."""
    _check_pretext(objective, dataset, examples["train"])
    pretext = objective.bind(backbone)
    arranged = {
        name: pretext.arrange(part, dataset.splits[name].targets)
        for name, part in examples.items()
    }
    train, mixture = arranged["train"], None
    if old is not None:
        targets = dataset.splits["train"].targets
        train, _, mixture = old.arrange(
            examples["train"], targets, pretext.arrange, arranged=train
        )
    unused = pretext.features and unused_layers(backbone, pretext.features)
    return arranged, {
        "network": objectives.Network(
            model=pretext.model,
            deployed=pretext.deployed or pretext.model,
            backbone=backbone,
            unused=unused or frozenset(),
            num_outputs=0,
        ),
        "batches": pipeline.made_batches(
            train,
            pretext.make_batch,
            batch_size=stage.batch_size,
            seed=seed,
            mixture=mixture,
        ),
        "loss": pretext.loss,
        "metrics": pretext.metrics,
        "pretext": pretext,
        "scorer": Scorer(pretext.model, pretext.statistics),
    }


def _steps(
    stage: Stage, examples: Mapping[str, pipeline.Examples]
) -> tuple[int | None, int]:
    budget = budgets.parse(stage.budget)
    new, num_examples = stage.new_per_step, len(examples["train"])
    epoch = budgets.steps_per_epoch(num_examples, new)
    # With few labels, validating after every epoch would take many times what the
    # epoch takes.
    validated = budgets.steps_per_epoch(len(examples.get("validation", ())), new)
    few = stage.interval is None and validated > epoch
    interval = stage.interval or epoch
    if budget.is_measured:
        # `training.length` takes a twentieth of the steps, once they are known.
        return None, _LONG if few else interval
    total = budgets.total_steps(budget, num_examples=num_examples, batch_size=new)
    if few:
        # Equal parts: none of a step or two at the end.
        interval = math.ceil(total / max(1, total // max(validated, total // 10)))
    return total, min(interval, total)


def _check(stage: Stage) -> None:
    for field in ("batch_size", "eval_batch_size", "interval", "patience", "bootstrap"):
        value = getattr(stage, field)
        least = 0 if field == "bootstrap" else 1
        if value is not None and value < least:
            raise ConfigError(
                f"{field} of stage '{stage.name}' is too small",
                received=value,
                expected=f"at least {least}",
            )
    for field, choices in _CHOICES.items():
        declared = getattr(stage, field)
        for value in (declared,) if isinstance(declared, str) else declared:
            if value not in choices:
                raise ConfigError(
                    f"no such {field} of stage '{stage.name}'",
                    received=value,
                    expected=", ".join(choices),
                    nearest=nearest(str(value), choices),
                )
    if not stage.name or set(stage.name) & set("/\\ "):
        raise ConfigError(
            "a stage's name is a folder's name",
            received=stage.name,
            expected="letters, digits, '-' and '_'",
        )
