"""Keras `fit` in intervals: train, validate, record, checkpoint, repeat.

An interval is what Keras calls an epoch. Everything that can be resumed happens at
the end of an interval, so a run that starts again from a checkpoint repeats whole
intervals and ends with the same bits.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from tflearn.backbones import graph
from tflearn.data import pipeline
from tflearn.distribution import processes, tf_batches, tf_strategy, tf_training
from tflearn.training.checkpoints import state_variables

Logs = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """The steps of a stage.

    Args:
        total_steps: Where it ends.
        interval_steps: Steps between validations.
        start_step: Where it starts; above 0 when resumed.
        seconds: Wall-clock limit, checked at interval ends; with 0 nothing is trained.
    """

    total_steps: int
    interval_steps: int
    start_step: int = 0
    seconds: float | None = None


class _Intervals(keras.callbacks.Callback):
    """Calls back with the step at the end of each interval."""

    def __init__(
        self, schedule: Schedule, on_interval: Callable[[int, Logs], bool]
    ) -> None:
        super().__init__()
        self._schedule = schedule
        self._on_interval = on_interval
        limit = float("inf") if schedule.seconds is None else schedule.seconds
        self._deadline = time.monotonic() + limit

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        done = (epoch + 1) * self._schedule.interval_steps
        step = min(self._schedule.start_step + done, self._schedule.total_steps)
        stop = self._on_interval(step, logs or {})
        # Clocks differ: all processes stop at the same step, or none does.
        if processes.agree(stop or time.monotonic() >= self._deadline):
            model: Any = self.model
            model.stop_training = True


def train(
    model: keras.Model,
    batches: pipeline.TrainBatches,
    *,
    schedule: Schedule,
    on_interval: Callable[[int, Logs], bool],
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Trains a compiled model from `start_step` to `total_steps`.

    Args:
        model: The compiled model, its optimizer built.
        batches: Random access to the batch of any step.
        schedule: Where to start, stop and pause.
        on_interval: Called with the step and the interval's mean metrics; returns
            True to stop.
        callbacks: Further Keras callbacks; they run before `on_interval`.
    """
    remaining = schedule.total_steps - schedule.start_step
    if remaining > 0 and schedule.seconds != 0:
        stream = pipeline.stream(
            batches, start_step=schedule.start_step, num_steps=remaining
        )
        with warnings.catch_warnings(), tf_training.training(model):
            # The last interval may be shorter than the others: that is the plan.
            warnings.filterwarnings("ignore", message=".*input ran out of data")
            # Any, because Keras types `verbose` as a text alone.
            fit: Any = model.fit
            fit(
                feed(stream, batches),
                steps_per_epoch=schedule.interval_steps,
                epochs=-(-remaining // schedule.interval_steps),
                shuffle=False,
                verbose=0,
                callbacks=[*callbacks, _Intervals(schedule, on_interval)],
            )
    if model.optimizer.use_ema:
        # Idempotent; a run that was killed between its last step and here needs it.
        model.optimizer.finalize_variable_values(model.trainable_variables)
        for variable in model.trainable_variables:
            # On JAX weight and average now are one array; the next function that is
            # allowed to overwrite the weights would delete it under the average.
            variable.assign(keras.ops.copy(variable.value))


def feed(stream: Iterable[Any], batches: pipeline.TrainBatches) -> Any:
    """Returns a stream of batches in the form the active backend's `fit` takes.

    Args:
        stream: A Grain dataset.
        batches: What it streams; gives the structure of a batch.

    Returns:
        The stream itself on JAX. On TensorFlow a `tf.data.Dataset` that allows any
        length: Keras would fix the lengths it sees in the first two batches; and that
        gives every device its rows, if there are several.
    """
    if keras.backend.backend() != "tensorflow":
        return stream
    import tensorflow as tf

    signature = tf.nest.map_structure(
        lambda array: (
            tf.TensorSpec([None] * array.ndim, array.dtype)
            if array.dtype.kind in "ib" and array.ndim > 1
            else tf.TensorSpec([None, *array.shape[1:]], array.dtype)
        ),
        batches[0],
    )
    return tf_batches.distribute(stream, signature)


def compile_model(
    model: keras.Model,
    *,
    optimizer: keras.optimizers.Optimizer,
    loss: keras.losses.Loss,
    metrics: Sequence[keras.metrics.Metric],
    jit_compile: bool | str = "auto",
) -> None:
    """Compiles a model and builds its optimizer, so that both can be restored.

    Args:
        model: The model, its trainable layers settled.
        optimizer: A new optimizer.
        loss: The loss.
        metrics: Metrics shown during training.
        jit_compile: As in `keras.Model.compile`.
    """
    # Any, because Keras types `jit_compile` as a text alone.
    compile_: Any = model.compile
    compile_(
        optimizer=optimizer,
        loss=tf_training.global_loss(loss),
        weighted_metrics=list(metrics),
        jit_compile=jit_compile,
    )
    tf_strategy.check_compiled(model)
    tf_training.sum_before_clipping(model.optimizer)
    optimizer.build(model.trainable_variables)


def measure_step_seconds(
    model: keras.Model, batches: pipeline.TrainBatches, *, steps: int = 8
) -> float:
    """Measures the duration of a training step, then puts everything back.

    Args:
        model: The compiled model, its optimizer built.
        batches: The batches it will train on.
        steps: How many steps are timed, after as many to compile and warm up.

    Returns:
        Mean seconds a step.
    """
    variables = state_variables(model, model.optimizer)
    before: Mapping[str, Any] = {
        path: graph.value_of(x) for path, x in variables.items()
    }
    _train_steps(model, batches, steps)
    start = time.perf_counter()
    _train_steps(model, batches, steps)
    seconds = (time.perf_counter() - start) / steps
    for path, variable in variables.items():
        variable.assign(before[path])
    model.reset_metrics()
    return seconds


def _train_steps(
    model: keras.Model, batches: pipeline.TrainBatches, steps: int
) -> None:
    if tf_strategy.replicas() == processes.count() == 1:
        for step in range(steps):
            model.train_on_batch(*batches[step])
        return
    # `train_on_batch` would hand the whole batch to every device, or process.
    stream = pipeline.stream(batches, start_step=0, num_steps=steps)
    with tf_training.training(model):
        fit: Any = model.fit
        fit(feed(stream, batches), steps_per_epoch=steps, shuffle=False, verbose=0)
