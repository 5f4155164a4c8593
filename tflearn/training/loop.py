"""Keras `fit` in intervals: train, validate, record, checkpoint, repeat.

An interval is what Keras calls an epoch. A run is resumed at the end of one, or inside:
then what the metrics had added up is part of what was saved, so that the interval's row
has the same bits as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.backbones import graph
from tflearn.data import pipeline, waiting
from tflearn.distribution import (
    processes,
    products,
    tf_batches,
    tf_strategy,
    tf_training,
)
from tflearn.training import interruption
from tflearn.training.variables import state_variables

Logs = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """The steps of a stage.

    Args:
        total_steps: Where it ends.
        interval_steps: Steps between validations.
        start_step: Where it starts; above 0 when resumed.
        seconds: Wall-clock limit, checked at interval ends; with 0 nothing is trained.
        inside: Steps of the first interval that were done before the start.
        metrics: What its metrics had added up then.
        save_steps: Steps after which `on_inside` is called; None: only when the run
            is asked to end.
    """

    total_steps: int
    interval_steps: int
    start_step: int = 0
    seconds: float | None = None
    inside: int = 0
    metrics: Sequence[np.ndarray] = ()
    save_steps: int | None = None


#: Called inside an interval with the step, how many steps of the interval are done, and
#: whether the run has been asked to end.
OnInside = Callable[[int, int, bool], None]

#: Runs steps in place of Keras's `fit` over a stream of batches; called with the model,
#: `start_step`, `num_steps`, `interval` and `callbacks`.
Fit = Callable[..., None]


class _Intervals(keras.callbacks.Callback):
    """Calls back with the step at the end of each interval, and inside."""

    def __init__(
        self,
        schedule: Schedule,
        on_interval: Callable[[int, Logs], bool],
        on_inside: OnInside | None,
    ) -> None:
        super().__init__()
        self._schedule = schedule
        self._on_interval = on_interval
        self._on_inside = on_inside
        limit = float("inf") if schedule.seconds is None else schedule.seconds
        self._deadline = time.monotonic() + limit
        self._inside, self._taken = schedule.inside, 0
        self.step = schedule.start_step
        self.stopped = False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if self._inside:
            # Keras has just set them to nothing.
            model: Any = self.model
            pairs = zip(model.metrics_variables, self._schedule.metrics, strict=True)
            for variable, value in pairs:
                variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        # Keras counts anew in every interval, and several steps of one call at once.
        taken = batch + 1 - self._taken
        self._taken += taken
        self.step += taken
        self._inside += taken
        ends = interruption.asked(self.step)
        if self._on_inside is None or self._is_end():
            return
        every = self._schedule.save_steps
        if ends or (every is not None and self.step % every < taken):
            # On JAX the variables are empty until a callback asks for the model.
            _ = self.model
            self._on_inside(self.step, self._inside, ends)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._inside = self._taken = 0
        stop = self._on_interval(self.step, logs or {})
        # Clocks differ: all processes stop at the same step, or none does.
        if processes.agree(stop or time.monotonic() >= self._deadline):
            model: Any = self.model
            model.stop_training = self.stopped = True

    def _is_end(self) -> bool:
        schedule = self._schedule
        return (
            self._inside >= schedule.interval_steps or self.step >= schedule.total_steps
        )


def train(
    model: keras.Model,
    batches: pipeline.TrainBatches,
    *,
    schedule: Schedule,
    on_interval: Callable[[int, Logs], bool],
    on_inside: OnInside | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    fit: Fit | None = None,
) -> None:
    """Trains a compiled model from `start_step` to `total_steps`.

    Args:
        model: The compiled model, its optimizer built.
        batches: Random access to the batch of any step.
        schedule: Where to start, stop and pause.
        on_interval: Called with the step and the interval's mean metrics; returns
            True to stop.
        on_inside: Called inside an interval where a checkpoint is due.
        callbacks: Further Keras callbacks; they run before `on_interval`.
        fit: Runs the steps in another way than one by one, with the same results.
    """
    intervals = _Intervals(schedule, on_interval, on_inside)
    if schedule.inside:
        # Keras makes the metrics' variables at the first batch: too late to set them.
        build: Any = model
        build._symbolic_build(data_batch=batches[schedule.start_step])
    run = fit or functools.partial(_step_by_step, batches)
    with _weights_kept(model.optimizer):
        for steps, length in _parts(schedule):
            run(
                model,
                start_step=intervals.step,
                num_steps=steps,
                interval=length,
                callbacks=[*callbacks, intervals],
            )
            if intervals.stopped:
                break
    # An optimizer that scales the loss does not say what the one inside it does.
    if getattr(model.optimizer, "inner_optimizer", model.optimizer).use_ema:
        # Idempotent; a run that was killed between its last step and here needs it.
        model.optimizer.finalize_variable_values(model.trainable_variables)
        for variable in model.trainable_variables:
            # On JAX weight and average now are one array; the next function that is
            # allowed to overwrite the weights would delete it under the average.
            variable.assign(keras.ops.copy(variable.value))


def _parts(schedule: Schedule) -> list[tuple[int, int]]:
    """Returns the steps of each call of `fit`, and those of its intervals."""
    remaining = schedule.total_steps - schedule.start_step
    if remaining <= 0 or schedule.seconds == 0:
        return []
    length = schedule.interval_steps
    # Keras has intervals of one length: what is left of one is a call of its own.
    left = min(length - schedule.inside, remaining) if schedule.inside else 0
    parts = [(left, left), (remaining - left, length)]
    return [(steps, length) for steps, length in parts if steps]


def _step_by_step(
    batches: pipeline.TrainBatches,
    model: keras.Model,
    *,
    start_step: int,
    num_steps: int,
    interval: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    stream = pipeline.stream(batches, start_step=start_step, num_steps=num_steps)
    with waiting.raised_as_it_was(stream):
        _fit(model, feed(stream, batches), num_steps, interval, callbacks)


class _Callbacks(keras.callbacks.CallbackList):
    """Hands on the metrics of a step as they lie on the device.

    Keras would read them for every step, and wait until the device has come so far.
    """

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs=logs)


def _fit(
    model: keras.Model,
    stream: Any,
    steps: int,
    interval: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    epochs = -(-steps // interval)
    with warnings.catch_warnings(), tf_training.training(model):
        # The last interval may be shorter than the others: that is the plan.
        warnings.filterwarnings("ignore", message=".*input ran out of data")
        # Any, because Keras types `verbose` as a text alone.
        fit: Any = model.fit
        fit(
            stream,
            steps_per_epoch=interval,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=_Callbacks(
                list(callbacks), add_history=True, model=model, epochs=epochs
            ),
        )


@contextlib.contextmanager
def _weights_kept(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Keeps `fit` from putting averages in the place of weights that still train."""
    # Past `__setattr__`, which would make it part of the tracked state.
    optimizer.__dict__["finalize_variable_values"] = lambda variables: None
    try:
        yield
    finally:
        del optimizer.__dict__["finalize_variable_values"]


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
    if isinstance(signature[0], dict):
        # Features of tokens are no integers, and of any length too.
        for name, spec in batches.examples.inputs.items():
            if name in signature[0]:
                shape = [None, *spec.shape]
                signature[0][name] = tf.TensorSpec(shape, signature[0][name].dtype)
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
    products.install(model)
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
