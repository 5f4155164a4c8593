"""Training all candidates of a grid at once, in one vectorised pass. JAX only.

`vmap` runs Keras's own training step over the candidates: over the heads, over what the
optimizer keeps, and over its rate and its decay. What a step takes is looked up once
for all candidates of one seed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.data import pipeline
from tflearn.training import layer_rates
from tflearn.training.features.calls import calls
from tflearn.training.features.candidates import seeded
from tflearn.training.features.grid import Grid
from tflearn.training.features.resident import Resident
from tflearn.training.stage import Prepared

Score = Callable[[np.ndarray], float]


def train(
    prepared: Prepared,
    made: Prepared,
    grid: Grid,
    first: Resident,
    *,
    order: Callable[[Prepared], Resident],
    total_steps: int,
    score: Score,
) -> list[list[float]]:
    """Trains all candidates and scores them at the end of every interval.

    Args:
        prepared: The stage, its model compiled with an optimizer whose rate and decay,
            where the grid varies them, are 1.
        made: What stands in for it.
        grid: The candidates.
        first: Runs the steps of the stand-in.
        order: Makes what runs the steps of a stage in the order of its seed.
        total_steps: Length of the stage.
        score: Returns the headline of outputs on the validation split.

    Returns:
        Scores by candidate: of every interval where that matters, else of the last.
    """
    import jax

    model: Any = made.network.model
    model._symbolic_build(data_batch=made.batches[0])
    runs, state = _of_each_seed(prepared, grid, order, model)
    hyper = [np.asarray(x, "float32") for x in zip(*_points(grid), strict=True)]

    def step(state: Any, hyper: Any, data: Any) -> Any:
        with _set_to(model.optimizer, grid, *hyper):
            return model.train_step(state, data)[1]

    each = jax.vmap(jax.vmap(step, in_axes=(0, 0, None)), in_axes=(0, None, 0))

    def steps(state: Any, arrays: Any, rows: Any, count: Any) -> Any:
        def one(number: Any, state: Any) -> Any:
            chosen = jax.tree.map(lambda x: x[:, number], rows)
            data = jax.vmap(lambda x: first.data(x, arrays))(chosen)
            return each(state, hyper, data)

        return jax.lax.fori_loop(0, count, one, state)

    run = jax.jit(steps, donate_argnums=0)
    predict = _predictor(model)
    # Where the last weights are what the stage ends with, nothing else counts.
    every = prepared.stage.restore_best or prepared.stage.patience is not None
    scores: list[list[float]] = [[] for _ in grid.candidates]
    plan = calls(
        0, total_steps, interval=made.interval, most=first.most, save_steps=None
    )
    for interval in plan:
        for begin, end in (x for x in interval if x[0] < x[1]):
            rows = [x.call_rows(begin, end) for x in runs]
            stacked = tuple(np.stack(x) for x in zip(*rows, strict=True))
            state = run(state, first.arrays, stacked, end - begin)
        if not (every or interval is plan[-1]):
            continue
        outputs, sane = _outputs(predict, state, made), _sane(state[3], len(scores))
        for values, found, fine in zip(scores, outputs, sane, strict=True):
            values.append(score(found) if fine else math.nan)
    return scores


def _points(grid: Grid) -> list[tuple[float, float]]:
    return [(rate or 0.0, decay or 0.0) for rate, decay in grid.points]


def _of_each_seed(
    prepared: Prepared,
    grid: Grid,
    order: Callable[[Prepared], Resident],
    model: Any,
) -> tuple[list[Resident], Any]:
    """Returns the order of each seed, and the state that all candidates start from.

    Its arrays are `(seeds, points, ...)`.
    """
    import jax

    runs, states = [], []
    for seed in grid.seeds or (None,):
        runs.append(order(seeded(prepared, seed)))
        optimizer = [x.value for x in model.optimizer.variables]
        states.append(
            (
                [x.value for x in model.trainable_variables],
                [x.value for x in model.non_trainable_variables],
                optimizer,
                [x.value for x in model.metrics_variables],
            )
        )
    points = len(grid.points)
    state = jax.tree.map(
        lambda *x: jax.numpy.repeat(jax.numpy.stack(x)[:, None], points, axis=1),
        *states,
    )
    return runs, state


@contextlib.contextmanager
def _set_to(optimizer: Any, grid: Grid, rate: Any, decay: Any) -> Iterator[None]:
    """Lets an optimizer step with a rate and a decay that are traced."""
    inner: Any = layer_rates.innermost(optimizer)
    names = ("_get_current_learning_rate", "weight_decay")
    before = {name: inner.__dict__[name] for name in names if name in inner.__dict__}
    current = inner._get_current_learning_rate
    # Past `__setattr__`, which would track what is traced.
    if grid.rates:
        # It was made with a rate of 1: what is left is the schedule.
        inner.__dict__[names[0]] = lambda: current() * rate
    if grid.weight_decays:
        inner.__dict__[names[1]] = decay
    try:
        yield
    finally:
        for name in names:
            inner.__dict__.pop(name, None)
        inner.__dict__.update(before)


def _predictor(model: Any) -> Callable[..., Any]:
    import jax

    def predict(trained: Any, others: Any, inputs: Any) -> Any:
        outputs, _ = model.stateless_call(trained, others, inputs, training=False)
        return outputs

    each = jax.vmap(jax.vmap(predict, in_axes=(0, 0, None)), in_axes=(0, 0, None))
    return jax.jit(each)


def _sane(metrics: Sequence[Any], count: int) -> np.ndarray:
    """Tells of which candidates the losses so far are numbers, bool `(count,)`."""
    sums = [np.asarray(x).reshape(count, -1) for x in metrics]
    return np.all([np.isfinite(x).all(axis=1) for x in sums], axis=0)


def _outputs(predict: Callable[..., Any], state: Any, made: Prepared) -> Sequence[Any]:
    """Returns the outputs of every candidate, `(examples, outputs)` each."""
    examples = made.examples["validation"]
    size = made.stage.eval_batch_size
    found: Any = None
    for inputs, indices in pipeline.ordered_batches(examples, batch_size=size):
        given = np.asarray(predict(state[0], state[1], inputs), "float32")
        if found is None:
            shape = (given.shape[0] * given.shape[1], len(examples), *given.shape[3:])
            found = np.empty(shape, "float32")
        rows = given.reshape(-1, *given.shape[2:])[:, : len(indices)]
        found[:, indices] = rows
    return found


def is_possible() -> bool:
    """Tells whether the active backend can do it."""
    return keras.backend.backend() == "jax"
