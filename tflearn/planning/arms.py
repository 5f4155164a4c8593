"""The regimes of a plan: an experiment with another last stage, built for a device."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import keras

from tflearn import experiment, regimes
from tflearn.comparison import Arm, Comparison, defaults
from tflearn.comparison.arms import declared, whole
from tflearn.distribution import Distribution, ahead
from tflearn.experiment import Built, Experiment
from tflearn.planning import calibration
from tflearn.support.tensorflow import hidden_tensorflow
from tflearn.training import layer_rates, optimizers
from tflearn.training.stage import Stage

Optimizer = Callable[..., keras.optimizers.Optimizer]
#: The arm that changes nothing.
DECLARED = "declared"


def settle(
    base: Experiment, declared: Comparison, built: Built
) -> tuple[list[Arm], list[tuple[str, str]]]:
    """Returns the arms of a plan: those that a comparison runs, and the declared one.

    Args:
        base: The experiment.
        declared: The comparison that is declared for it, or the default one.
        built: The experiment, built.

    Returns:
        The arms; and names of those that the experiment does not allow, with reasons.
    """
    if declared.arms:
        return list(declared.arms), []
    usual, left_out = defaults.default(base, declared, built)
    found = [x.arm(base, declared) for x in usual]
    own = tuple(base.stages[-1].regime)
    if own not in [x.rules for x in usual]:
        found.insert(0, Arm(name=DECLARED))
    return found, [(x.name, x.reason) for x in left_out]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """What makes a stage take less memory.

    Args:
        rematerialize: Pattern of layers that are computed again.
        parts: In how many parts a batch is computed, their gradients added up.
        regime: Another regime.
    """

    rematerialize: str | None = None
    parts: int = 1
    regime: Sequence[regimes.Rule] | None = None


def changed(base: Experiment, arm: Arm, change: Change) -> Experiment:
    """Returns the experiment that an arm is, with a change of its last stage.

    Args:
        base: The experiment.
        arm: The arm.
        change: The change.
    """
    found = whole(*declared(base, arm))
    *leading, last = found.stages
    distribution = found.distribution
    if change.rematerialize is not None:
        distribution = dataclasses.replace(
            distribution, rematerialize=change.rematerialize
        )
    return dataclasses.replace(
        found, stages=(*leading, _stage(last, change)), distribution=distribution
    )


def _stage(stage: Stage, change: Change) -> Stage:
    if change.regime is not None:
        # Phases have regimes of their own.
        stage = dataclasses.replace(stage, regime=change.regime, phases=())
    if change.parts == 1:
        return stage
    return dataclasses.replace(
        stage,
        optimizer=accumulating(stage.optimizer, change.parts),
        batch_size=stage.batch_size // change.parts,
        eval_batch_size=eval_batch_size(stage, change.parts),
    )


def eval_batch_size(stage: Stage, parts: int) -> int:
    """Returns how large batches of evaluations are where a batch is in parts.

    Args:
        stage: The stage.
        parts: How many.
    """
    return max(1, stage.eval_batch_size // parts)


def accumulating(optimizer: Optimizer, steps: int) -> Optimizer:
    """Returns a factory of an optimizer that adds gradients up over some steps.

    Args:
        optimizer: Makes the optimizer.
        steps: How many steps.
    """

    def make(total_steps: int) -> keras.optimizers.Optimizer:
        made = optimizers.build(optimizer, total_steps=total_steps)
        layer_rates.innermost(made).gradient_accumulation_steps = steps
        return made

    return make


@contextlib.contextmanager
def built(experiment_: Experiment, *, precision: str, is_here: bool) -> Iterator[Built]:
    """Builds an experiment on one device of this machine.

    Args:
        experiment_: The experiment.
        precision: What it computes in.
        is_here: Whether its variables have values; for other devices they need none.
    """
    keras.utils.clear_session()
    calibration.release()
    single = Distribution(
        kind="single", rematerialize=experiment_.distribution.rematerialize
    )
    alone = dataclasses.replace(experiment_, distribution=single, precision=precision)
    with contextlib.ExitStack() as opened:
        opened.enter_context(hidden_tensorflow())
        if not is_here:
            opened.enter_context(ahead.unallocated_variables())
        made = experiment.build(alone)
        opened.enter_context(made.devices.scope())
        yield made
