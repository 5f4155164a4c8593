"""What is done when numbers go wrong: a loss that is no number, or that jumps.

Nothing is looked at inside a step: the mean loss of an interval shows it. Which step it
was is found by training the interval again, step by step, which gives the same bits.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tflearn.distribution import tf_strategy
from tflearn.support.errors import ConfigError, nearest
from tflearn.training.layer_rates import innermost

if TYPE_CHECKING:
    from tflearn.training.stage import Prepared

POLICIES = ("stop", "skip", "rollback")
# Spikes are told from the noise of so many intervals.
_WINDOW = 5
# A loss that changes by less in a whole stage does not move.
_STILL = 1e-3
_RATE = "_tflearn_rate_factor"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Faults:
    """What a stage does about them.

    Args:
        policy: `stop` ends the run and names the rows of the step. `skip` leaves out
            steps whose gradients are no numbers, and counts them. `rollback` goes back
            to the last checkpoint and on with a lower learning rate.
        spike: A mean loss above this many times the median of the last five intervals
            counts as a fault, too; not under `skip`.
        slower: What every rollback multiplies the learning rate with.
        most: How many steps may be skipped, or rollbacks made, before the run stops.
    """

    policy: str = "stop"
    spike: float | None = None
    slower: float = 0.5
    most: int = 3

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.policy not in POLICIES:
            raise ConfigError(
                "unknown policy for faults",
                received=self.policy,
                expected=", ".join(POLICIES),
                nearest=nearest(str(self.policy), POLICIES),
            )
        if self.spike is not None and (self.spike <= 1 or self.policy == "skip"):
            raise ConfigError(
                "a spike is a loss several times higher, and no step can be blamed",
                received=f"spike = {self.spike}, policy = '{self.policy}'",
                expected="such as 3.0, with the policy 'stop' or 'rollback'",
            )
        if not 0 < self.slower < 1 or self.most < 1:
            raise ConfigError(
                "these numbers cannot be",
                received=f"slower = {self.slower}, most = {self.most}",
                expected="slower between 0 and 1, most at least 1",
            )


def find(history: Sequence[Mapping[str, float]], declared: Faults) -> str:
    """Says what is wrong with the newest interval.

    Args:
        history: One row an interval; the last one is judged.
        declared: The declaration.

    Returns:
        One line, empty if nothing is wrong.

    Example:

    >>> find([{"loss": 1.0}, {"loss": math.nan}], Faults())
    'the loss is nan'
    >>> find([{"loss": 1.0}, {"loss": 5.0}], Faults(spike=3.0))
    'the loss is 5, 5.0 times the median of the 1 intervals before'
    """
    loss = history[-1].get("loss", 0.0)
    if not math.isfinite(loss):
        return "" if declared.policy == "skip" else f"the loss is {loss}"
    before = [row["loss"] for row in history[:-1] if math.isfinite(row["loss"])]
    before = before[-_WINDOW:]
    if declared.spike is None or not before:
        return ""
    usual = statistics.median(before)
    if usual <= 0 or loss <= declared.spike * usual:
        return ""
    return (
        f"the loss is {loss:.4g}, {loss / usual:.1f} times the median of the "
        f"{len(before)} intervals before"
    )


def are_finite(weights: Sequence[keras.Variable]) -> bool:
    """Tells whether all weights are numbers, in one question to the device."""
    fine = [keras.ops.all(keras.ops.isfinite(weight.value)) for weight in weights]
    return not fine or bool(keras.ops.all(keras.ops.stack(fine)))


def still(history: Sequence[Mapping[str, float]]) -> str:
    """Warns of a loss that did not move in a whole stage.

    Args:
        history: One row an interval.

    Returns:
        One line with the evidence, empty where the loss moved.
    """
    losses = [
        row["loss"] for row in history if math.isfinite(row.get("loss", math.nan))
    ]
    if len(losses) < 3 or max(losses) - min(losses) > _STILL * abs(losses[0]):
        return ""
    return (
        f"warning: the loss did not move: {losses[0]:.6g} in the first interval, "
        f"{losses[-1]:.6g} in the last of {len(losses)}; is anything trained, and is "
        "the learning rate high enough?"
    )


def guard(
    optimizer: keras.optimizers.Optimizer, declared: Faults
) -> keras.optimizers.Optimizer:
    """Prepares an optimizer, before it is built, for what may happen.

    Args:
        optimizer: The optimizer.
        declared: The declaration.

    Returns:
        The optimizer; under `skip` inside one that leaves out such steps.
    """
    if declared.policy == "skip" and not _scales(optimizer):
        if keras.config.dtype_policy().name == "mixed_float16":
            # Keras wraps it in the same class, with a scale that float16 needs.
            return optimizer
        # It halves its scale at each step it leaves out, which is exact from 1 on, and
        # would double it after so many good ones.
        return keras.optimizers.LossScaleOptimizer(
            optimizer, initial_scale=1.0, dynamic_growth_steps=2**31 - 1
        )
    if declared.policy == "rollback":
        _add_rate_factor(innermost(optimizer))
    return optimizer


def skipped(optimizer: keras.optimizers.Optimizer, declared: Faults) -> int:
    """Returns how many steps were left out so far; 0 under other policies."""
    if declared.policy != "skip" or not _scales(optimizer):
        return 0
    scale: Any = optimizer
    return max(0, round(-math.log2(float(scale.dynamic_scale))))


def overflowed(optimizer: keras.optimizers.Optimizer, steps: int) -> int:
    """Returns how many steps were left out because float16 could not hold them.

    Args:
        optimizer: The optimizer; Keras wraps it where the precision is float16.
        steps: Steps that were asked of it.

    Returns:
        Steps; 0 in other precisions, and on several devices of TensorFlow.
    """
    is_half = keras.config.dtype_policy().name == "mixed_float16"
    if not is_half or not _scales(optimizer) or tf_strategy.replicas() > 1:
        return 0
    iterations: Any = optimizer.iterations
    return steps - int(iterations)


def slow_down(optimizer: keras.optimizers.Optimizer, factor: float) -> None:
    """Multiplies the learning rate of a guarded optimizer from now on.

    Args:
        optimizer: What `guard` returned under `rollback`.
        factor: Of the declared rate; it is part of the optimizer's saved state.
    """
    innermost(optimizer).__dict__[_RATE].assign(factor)


def locate(prepared: Prepared, *, start: int, end: int) -> dict[str, Any]:
    """Finds the step of an interval at which numbers go wrong, by training it again.

    Args:
        prepared: The stage, its model and optimizer as they were at `start`.
        start: Steps trained then.
        end: Where the interval ended.

    Returns:
        `step`, and `rows`: where the rows of its batch come from. Empty if it does not
        happen again, or on several devices of TensorFlow.
    """
    model, batches = prepared.network.model, prepared.batches
    if tf_strategy.replicas() > 1:
        return {}
    for step in range(start, end):
        model.reset_metrics()
        found: Any = model.train_on_batch(*batches[step], return_dict=True)
        if not are_finite(model.trainable_variables) or not math.isfinite(
            float(found["loss"])
        ):
            indices = np.asarray(batches.indices(step)).tolist()
            return {"step": step + 1, "rows": [row_name(prepared, x) for x in indices]}
    return {}


def row_name(prepared: Prepared, index: int) -> str:
    """Returns where a training example comes from."""
    rows, examples = prepared.dataset.splits["train"], prepared.examples["train"]
    # Packed documents, or rows that are rehearsed, are no rows of the split.
    aligned = len(examples) == len(rows) and index < len(rows)
    return rows.locate(index) if aligned else f"example {index}"


def _scales(optimizer: keras.optimizers.Optimizer) -> bool:
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def _add_rate_factor(inner: Any) -> None:
    factor = inner.add_variable((), initializer="ones", name="rate_factor")
    current = inner._get_current_learning_rate
    # Past `__setattr__`, which would make it part of the tracked state.
    inner.__dict__[_RATE] = factor
    inner.__dict__["_get_current_learning_rate"] = lambda: current() * factor
