"""A stage: its declaration, and what it has become when it is ready to train."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras

from tflearn import evaluation, objectives, regimes
from tflearn.data import Data, Spec, pipeline
from tflearn.data.rehearsal import Rehearsal, Rehearsed
from tflearn.evaluation import Scorer
from tflearn.regimes import adapters
from tflearn.training import (
    anchors,
    averaging,
    faults,
    optimizers,
    phases,
    placement,
)
from tflearn.training import probe as probes
from tflearn.training.features.grid import Grid


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
        interval: Steps between validations and checkpoints. By default an epoch; where
            validation has more examples than that, a tenth of the steps, but no fewer
            than train on so many.
        save_steps: Steps between further checkpoints inside an interval; without, a
            run that is killed repeats the interval it was in.
        keep_last: How many of the newest checkpoints stay.
        keep_every: Checkpoints at multiples of so many steps stay, too.
        faults: What is done about a loss that is no number, or that jumps; see
            `tflearn.training.faults`.
        patience: Stop after so many validations without a better headline metric.
        restore_best: End with the weights of the best validation, not the last ones.
        eval_batch_size: Examples a step when nothing is trained.
        bootstrap: Resamples for the confidence intervals of the test metrics.
        report_splits: Splits that are measured for the report, of those there are.
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
        cache: What becomes of frozen layers that nothing trainable feeds: `auto`
            computes them once where that pays; `memory` and `disk` demand it, and say
            where; `off` computes them at every step. See `tflearn.training.features`.
        cache_dtype: Type that features are kept in: `auto`, the one they have, or
            `float16`.
        cache_views: How many augmented views of every image are computed once, where
            images are augmented; with 0 they are augmented, and computed, anew.
        grid: Rates, weight decays and seeds that are tried for a head on frozen
            layers before the best goes on; see `tflearn.training.features.grid`.
        cache_tolerance: How far features may lie from those in float32, in shares of
            the largest one, so that frozen layers run in the fastest precision that
            keeps it; with 0 they run in the declared one.
        count_flops: Whether the operations of the training are counted for the report,
            which takes a trace of the step.
    """

    name: str
    data: Callable[[], Data]
    objective: Callable[[], objectives.Objective | objectives.SelfSupervised]
    regime: Sequence[regimes.Rule]
    optimizer: Callable[..., keras.optimizers.Optimizer]
    budget: str
    batch_size: int
    interval: int | None = None
    save_steps: int | None = None
    keep_last: int = 2
    keep_every: int | None = None
    faults: faults.Faults = faults.Faults()
    patience: int | None = None
    restore_best: bool = False
    eval_batch_size: int = 128
    bootstrap: int = 1000
    report_splits: Sequence[str] = ("validation", "test")
    jit_compile: bool | str = "auto"
    phases: Sequence[phases.Phase] = ()
    anchor: Callable[[], anchors.Anchor] | None = None
    average: Callable[[], averaging.Average] | None = None
    rehearsal: Rehearsal | None = None
    probe: Callable[[], probes.Probe] | None = None
    cache: str = "auto"
    cache_dtype: str = "auto"
    cache_views: int = 0
    cache_tolerance: float = 0.0
    grid: Grid | None = None
    count_flops: bool = False

    @property
    def new_per_step(self) -> int:
        """Examples of a batch that are not rehearsed; an epoch is made of these."""
        old = self.rehearsal.old_per_step(self.batch_size) if self.rehearsal else 0
        return self.batch_size - old


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
        total_steps: Length of the stage; None for a budget of time or FLOPs, which is
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
        return self.objective.lower_is_better

    @property
    def sign(self) -> int:
        """Factor that makes a higher headline the better one."""
        return -1 if self.lower_is_better else 1

    def apply_regime(self) -> regimes.Census:
        """Applies the stage's regime to its network and returns the census."""
        if any(rule.adapts for rule in self.stage.regime):
            # Initial values of adapters depend on the stage alone.
            keras.utils.set_random_seed(self.seed)
        census = regimes.apply(
            self.network.model,
            self.stage.regime,
            blocks=self.network.backbone.blocks,
            unused=self.network.unused,
        )
        backbone = self.network.backbone
        if backbone.kind == "text":
            adapters.check_room(backbone.model, self._longest)
        # Adapters are new variables.
        placement.place(self.network.model)
        return census

    @property
    def _longest(self) -> int:
        """Most tokens of a text, as declared or as the examples have them."""
        fixed = (spec.shape[0] or 0 for spec in self.spec.inputs.values())
        padded = (x for part in self.examples.values() for x in part.padded_lengths)
        declared = self.dataset.data.max_length
        return max(declared if isinstance(declared, int) else 0, *fixed, *padded)

    def make_optimizer(self, total_steps: int) -> keras.optimizers.Optimizer:
        """Makes a new optimizer and fits it to the network as it trains now."""
        optimizer = optimizers.build(self.stage.optimizer, total_steps=total_steps)
        optimizers.configure(
            optimizer, self.network.model, blocks=self.network.backbone.blocks
        )
        return faults.guard(optimizer, self.stage.faults)
