"""A stage: its declaration, and everything that is built of it before it trains."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tflearn import evaluation, objectives, regimes
from tflearn.backbones import Backbone
from tflearn.data import Data, Spec, pipeline
from tflearn.data.rehearsal import Mixed, Rehearsal, Rehearsed
from tflearn.evaluation import Scorer
from tflearn.objectives.objective import attach, unused_layers
from tflearn.support import seeds
from tflearn.support.errors import ConfigError
from tflearn.training import anchors, averaging, budgets, optimizers, phases
from tflearn.training import probe as probes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """The declaration of one training run inside an experiment.

    Args:
        name: Name of the stage and of its folder.
        data: Makes the data.
        objective: Makes the objective.
        regime: Ordered rules over layers; see `tflearn.regimes`. With phases, what
            holds behind the last of them.
        optimizer: Makes the optimizer; called with `total_steps` if it takes it.
        budget: How long, such as `"3 epochs"`; see `tflearn.training.budgets`.
        batch_size: Examples a step, over all devices.
        interval: Steps between validations and checkpoints; an epoch by default.
        patience: Stop after so many validations without a better headline metric.
        restore_best: End with the weights of the best validation, not the last ones.
        eval_batch_size: Examples a step when nothing is trained.
        bootstrap: Resamples for the confidence intervals of the test metrics.
        jit_compile: As in `keras.Model.compile`.
        phases: Parts of the stage with regimes of their own, before `regime` holds;
            see `tflearn.training.phases`.
        anchor: Makes a pull back to the weights of the stage's start; see
            `tflearn.training.anchors`.
        average: Makes what is done with the weights after training; see
            `tflearn.training.averaging`.
        rehearsal: Old data that make up a share of each batch; see
            `tflearn.data.rehearsal`.
        probe: Makes a probe of the representations, measured at interval ends; see
            `tflearn.training.probe`.
    """

    name: str
    data: Callable[[], Data]
    objective: Callable[[], objectives.Objective | objectives.SelfSupervised]
    regime: Sequence[regimes.Rule]
    optimizer: Callable[..., keras.optimizers.Optimizer]
    budget: str
    batch_size: int
    interval: int | None = None
    patience: int | None = None
    restore_best: bool = False
    eval_batch_size: int = 128
    bootstrap: int = 1000
    jit_compile: bool | str = "auto"
    phases: Sequence[phases.Phase] = ()
    anchor: Callable[[], anchors.Anchor] | None = None
    average: Callable[[], averaging.Average] | None = None
    rehearsal: Rehearsal | None = None
    probe: Callable[[], probes.Probe] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A stage that is ready to train.

    Args:
        stage: The declaration.
        data: The declared data.
        dataset: Its rows: splits, classes, notes.
        spec: Shapes and counts.
        examples: Encoded examples by split.
        objective: The objective.
        network: Backbone and head; shares the backbone with the other stages.
        batches: The training batch of any step.
        loss: Makes the loss that the batches' targets need.
        metrics: Makes the metrics shown during training.
        pretext: What the objective became, if it makes its own targets.
        scorer: Computes the pretext's statistics.
        rehearsed: Old rows that are mixed in, if any.
        probe: The probe of the representations, if any.
        seed: Seed of the initial values of adapters.
        total_steps: Length of the stage; None for a budget of time, which is
            measured when the stage starts.
        interval: Steps between validations.
    """

    stage: Stage
    data: Data
    dataset: pipeline.Dataset
    spec: Spec
    examples: Mapping[str, pipeline.Examples]
    objective: objectives.Objective | objectives.SelfSupervised
    network: objectives.Network
    batches: pipeline.TrainBatches
    loss: Callable[[], keras.losses.Loss]
    metrics: Callable[[], list[keras.metrics.Metric]]
    total_steps: int | None
    interval: int
    pretext: objectives.Pretext | None = None
    scorer: Scorer | None = None
    rehearsed: Rehearsed | None = None
    probe: probes.ReadyProbe | None = None
    seed: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines on rows that were left out, repeated or cut, counted."""
        cut = (note for part in self.examples.values() for note in part.notes)
        old = self.rehearsed.notes if self.rehearsed else ()
        return (*self.dataset.notes, *cut, *old)

    @property
    def new_per_step(self) -> int:
        """Examples of a batch that are not rehearsed; an epoch is made of these."""
        return _new_per_step(self.stage)

    @property
    def task(self) -> str:
        """The kind of targets, or the objective's name if it makes its own."""
        if isinstance(self.objective, objectives.SelfSupervised):
            return self.objective.name
        return self.objective.target_kind

    @property
    def headline(self) -> str:
        """The metric that early stopping and the best checkpoint go by."""
        if isinstance(self.objective, objectives.SelfSupervised):
            return self.objective.headline
        return evaluation.headline(self.objective.target_kind)

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower headline is better."""
        objective = self.objective
        return (
            isinstance(objective, objectives.SelfSupervised)
            and objective.lower_is_better
        )

    def apply_regime(self) -> regimes.Census:
        """Applies the stage's regime to its network and returns the census."""
        if any(rule.adapts for rule in self.stage.regime):
            # Initial values of adapters depend on the stage alone.
            keras.utils.set_random_seed(self.seed)
        return regimes.apply(
            self.network.model,
            self.stage.regime,
            blocks=self.network.backbone.blocks,
            unused=self.network.unused,
        )

    def make_optimizer(self, total_steps: int) -> keras.optimizers.Optimizer:
        """Makes a new optimizer and fits it to the network as it trains now."""
        optimizer = optimizers.build(self.stage.optimizer, total_steps=total_steps)
        optimizers.configure(
            optimizer, self.network.model, blocks=self.network.backbone.blocks
        )
        return optimizer


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
    dataset = data.load(target_kind=objective.target_kind)
    examples = {
        name: pipeline.encode(
            split,
            backbone.encoder,
            data=data,
            any_length=getattr(objective, "any_length", False),
        )
        for name, split in dataset.splits.items()
    }
    old = stage.rehearsal and stage.rehearsal.load(
        dataset,
        backbone.encoder,
        any_length=getattr(objective, "any_length", False),
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
    total_steps, interval = _steps(stage, len(examples["train"]))
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
    if dataset.data.augment or dataset.data.balance != "none":
        raise ConfigError(
            f"the objective '{objective.name}' makes its own batches",
            received="data.Data.augment or data.Data.balance",
            fix="bind the views of the objective instead",
        )
    kind = examples["train"].kind
    if kind not in objective.inputs:
        raise ConfigError(
            f"the objective '{objective.name}' does not take these inputs",
            received=f"inputs of kind '{kind}'",
            expected=" or ".join(map(repr, objective.inputs)),
        )
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


def _steps(stage: Stage, num_examples: int) -> tuple[int | None, int]:
    budget = budgets.parse(stage.budget)
    new = _new_per_step(stage)
    epoch = budgets.steps_per_epoch(num_examples, new)
    interval = stage.interval or epoch
    if budget.seconds is not None:
        return None, interval
    total = budgets.total_steps(budget, num_examples=num_examples, batch_size=new)
    return total, min(interval, total)


def _new_per_step(stage: Stage) -> int:
    old = stage.rehearsal.old_per_step(stage.batch_size) if stage.rehearsal else 0
    return stage.batch_size - old


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
    if not stage.name or set(stage.name) & set("/\\ "):
        raise ConfigError(
            "a stage's name is a folder's name",
            received=stage.name,
            expected="letters, digits, '-' and '_'",
        )
