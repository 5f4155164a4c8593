"""Steps from features that lie on the device: an interval a call.

Where nothing but the head trains, a step is so short that handing it over from Python
costs more than the step itself. Here `fit` hands over the numbers of the rows of many
steps at once, and a loop on the device runs Keras's own training step on each. The
loop is compiled once for any number of steps, so the bits of a step do not hang on
where a call begins: a run that is resumed ends as if it had never stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.data.batches import TrainBatches
from tflearn.distribution import processes, tf_strategy
from tflearn.training.features.calls import Steps, calls
from tflearn.training.features.examples import FeatureExamples
from tflearn.training.features.views import numbered
from tflearn.training.stage import Prepared

#: Operations of a call, so that a run that is asked to end does so within seconds.
_CALL_OPERATIONS = 2e11
_MOST_STEPS = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resident:
    """Runs the steps of a stage whose features lie on the device.

    Args:
        batches: What is trained on, for its form.
        rows: The same with numbers of rows in place of features: `(rows, targets)`,
            or with weights of the examples behind.
        arrays: The features on the device by name, `(examples of all views, ...)`.
        dtypes: Types that the suffix takes them in.
        most: Steps a call.
        save_steps: A call ends at its multiples.
    """

    batches: TrainBatches
    rows: TrainBatches
    arrays: Mapping[str, Any]
    dtypes: Mapping[str, str]
    most: int
    save_steps: int | None

    def __call__(
        self,
        model: keras.Model,
        *,
        start_step: int,
        num_steps: int,
        interval: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        """Trains for some steps, as Keras's `fit` would step by step.

        Args:
            model: The compiled suffix.
            start_step: The first step.
            num_steps: How many.
            interval: Steps of what Keras calls an epoch.
            callbacks: Told of the last step of every call.
        """
        own: Any = model
        # `fit` would take numbers of rows for what the model takes.
        own._symbolic_build(data_batch=self.batches[start_step])
        names = list(own.get_metrics_result())
        plan = calls(
            start_step,
            num_steps,
            interval=interval,
            most=self.most,
            save_steps=self.save_steps,
        )
        own.train_function = self._function(own, names)
        try:
            own.fit(
                self._feed(plan),
                steps_per_epoch=len(plan[0]),
                epochs=len(plan),
                shuffle=False,
                verbose=0,
                callbacks=Steps(
                    list(callbacks), plan, model=own, epochs=len(plan), steps=interval
                ),
            )
        finally:
            own.train_function = None

    def over(self, batches: TrainBatches, views: Sequence[FeatureExamples]) -> Resident:
        """Returns what runs the steps of other batches of the same features.

        Args:
            batches: The other batches.
            views: The features of every view.
        """
        rows = numbered(batches, views)
        return dataclasses.replace(self, batches=batches, rows=rows)

    def data(self, rows: Any, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
        """Returns the batch of a step, its features looked up on the device.

        Args:
            rows: What `rows[step]` gives.
            arrays: The features.
        """
        numbers, *others = rows
        found = {
            name: keras.ops.cast(
                keras.ops.take(array, numbers, axis=0), self.dtypes[name]
            )
            for name, array in arrays.items()
        }
        return (found, *others)

    def call_rows(self, first: int, last: int) -> tuple[Any, ...]:
        """Returns the rows of the steps of a call, `(most, batch, ...)` each."""
        steps = [self.rows[step] for step in range(first, last)]
        # What fills up is never looked at, so that all calls have one shape.
        steps += [steps[0] if steps else self.rows[first]] * (self.most - len(steps))
        return tuple(np.stack(parts) for parts in zip(*steps, strict=True))

    def _stream(self, plan: Sequence[Sequence[tuple[int, int]]]) -> Iterator[Any]:
        for interval in plan:
            for first, last in interval:
                count = np.array([last - first], np.int32)
                yield (self.call_rows(first, last), count)

    def _feed(self, plan: Sequence[Sequence[tuple[int, int]]]) -> Any:
        if keras.backend.backend() != "tensorflow":
            return self._stream(plan)
        import tensorflow as tf

        one = next(self._stream(plan))
        signature = tf.nest.map_structure(
            lambda x: tf.TensorSpec(x.shape, x.dtype), one
        )
        return tf.data.Dataset.from_generator(
            lambda: self._stream(plan), output_signature=signature
        )

    def _function(self, model: Any, names: Sequence[str]) -> Callable[..., Any]:
        logs = dict.fromkeys(names, 0.0)
        if keras.backend.backend() == "tensorflow":
            return self._tf_function(model, logs)
        import jax

        def steps(state: Any, arrays: Any, rows: Any, count: Any) -> Any:
            def step(number: Any, state: Any) -> Any:
                one = jax.tree.map(lambda x: x[number], rows)
                return model.train_step(state, self.data(one, arrays))[1]

            return jax.lax.fori_loop(0, count[0], step, state)

        run = jax.jit(steps, donate_argnums=0)

        def function(state: Any, iterator: Iterator[Any]) -> Any:
            # Keras reads the metrics where it needs them.
            return logs, run(state, self.arrays, *next(iterator))

        return function

    def _tf_function(self, model: Any, logs: Mapping[str, float]) -> Callable[..., Any]:
        import tensorflow as tf

        @tf.function(jit_compile=model.jit_compile)
        def step(data: Any) -> None:
            model.distribute_strategy.run(model.train_step, args=(data,))

        @tf.function
        def steps(rows: Any, count: Any) -> None:
            def one(number: Any) -> Any:
                step(self.data([x[number] for x in rows], self.arrays))
                return number + 1

            tf.while_loop(lambda x: x < count[0], one, [tf.constant(0)])

        def function(iterator: Any) -> Any:
            steps(*iterator.get_next())
            return logs

        return function


def of(
    prepared: Prepared, views: Sequence[FeatureExamples], *, head_only: bool
) -> Resident | None:
    """Returns what runs many steps of a stage a call, where that is possible.

    Args:
        prepared: What stands in for a stage.
        views: The features of its training examples.
        head_only: Whether nothing but the head trains.

    Returns:
        None where more than the head trains, features differ in length, lie in files
        or are not all that the head takes, or there are several devices.
    """
    model: Any = prepared.network.model
    if not head_only or not _fits(model, views[0]):
        return None
    work = max(1.0, 6 * model.products * prepared.stage.batch_size)
    most = int(np.clip(_CALL_OPERATIONS // work, 1, _MOST_STEPS))
    return Resident(
        batches=prepared.batches,
        rows=numbered(prepared.batches, views),
        arrays=on_device(views),
        dtypes={field.name: field.dtype for field in views[0].fields},
        most=min(most, prepared.interval),
        save_steps=prepared.stage.save_steps,
    )


def on_device(views: Sequence[FeatureExamples]) -> dict[str, Any]:
    """Returns the features of all views on the device, in the type they are kept in."""
    parts = {x.name: [view.arrays[x.name] for view in views] for x in views[0].fields}
    return {
        name: keras.ops.convert_to_tensor(
            arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        )
        for name, arrays in parts.items()
    }


def _fits(model: Any, features: FeatureExamples) -> bool:
    several = processes.count() > 1 or tf_strategy.replicas() > 1
    whole = not features.takes and features.lengths is None and not features.lazy
    spread = keras.distribution.distribution() is not None
    return whole and not several and not spread and not model.run_eagerly
