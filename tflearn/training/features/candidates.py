"""A stage as a candidate of its grid declares it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tflearn.backbones import graph
from tflearn.regimes.trainability import layer_paths
from tflearn.support.errors import ConfigError
from tflearn.training import layer_rates
from tflearn.training.features.grid import Candidate
from tflearn.training.features.plan import Plan
from tflearn.training.preparation import reseeded
from tflearn.training.stage import Prepared, Stage


def check(prepared: Prepared, planned: Plan | str) -> None:
    """Refuses a grid that cannot be searched, before anything trains.

    Args:
        prepared: The stage, its regime applied.
        planned: What of it is computed once, or why nothing is.

    Raises:
        ConfigError: More than a head on cached features trains, there is no
            validation split, or the optimizer does not take what is varied.
    """
    grid = prepared.stage.grid
    if grid is None:
        return
    if isinstance(planned, str) or not planned.head_only or planned.by_token:
        trains = "" if isinstance(planned, str) else "more than a head on features "
        raise ConfigError(
            "a grid is trained on features of one size, which frozen layers give once",
            received=trains or planned or "Stage.cache = 'off'",
            fix="freeze all but the head, with a pooling; or leave out Stage.grid",
        )
    if "validation" not in prepared.examples:
        raise ConfigError(
            "a grid picks by the validation split",
            received="splits " + ", ".join(prepared.examples),
            fix="declare one in data.Data.splits",
        )
    if layer_rates.declared(make_optimizer(prepared, grid.candidates[0], 1)):
        raise ConfigError(
            "a grid sets one rate for all layers",
            received="an optimizer with rates of layers",
            fix="use a plain one, such as optimizers.adamw",
        )


def with_optimizer(prepared: Prepared, candidate: Candidate) -> Prepared:
    """Returns a stage whose optimizer has the rate and the decay of a candidate.

    Raises:
        ConfigError: The stage's factory does not take them.
    """
    stage = tuned(prepared.stage, candidate, what="the grid")
    return dataclasses.replace(prepared, stage=stage)


def tuned(stage: Stage, candidate: Candidate, *, what: str) -> Stage:
    """Returns a declared stage whose optimizer has the rate and decay of a candidate.

    Args:
        stage: The declaration.
        candidate: What the optimizer's factory is called with.
        what: Who varies them, for the message.

    Raises:
        ConfigError: The stage's factory does not take them.
    """
    values = {
        "learning_rate": candidate.rate,
        "weight_decay": candidate.weight_decay,
    }
    options = {name: x for name, x in values.items() if x is not None}
    factory: Callable[..., Any] = stage.optimizer
    taken = inspect.signature(factory).parameters
    for name in options:
        if name not in taken:
            raise ConfigError(
                f"the optimizer does not take what {what} varies",
                received=f"{name}, for a factory of {', '.join(taken)}",
                fix="use optimizers.adamw or a Keras optimizer",
            )
    return dataclasses.replace(stage, optimizer=functools.partial(factory, **options))


def make_optimizer(
    prepared: Prepared, candidate: Candidate, total_steps: int
) -> keras.optimizers.Optimizer:
    """Makes the optimizer of a candidate."""
    return with_optimizer(prepared, candidate).make_optimizer(total_steps)


def seeded(prepared: Prepared, seed: int | None) -> Prepared:
    """Gives the head the initial values of a seed; returns the stage in its order.

    Args:
        prepared: The stage; the head of its network is changed.
        seed: None leaves all as it is.
    """
    if seed is None:
        return prepared
    made = reseeded(prepared, seed)
    values = head_values(made)
    variables = graph.variables_by_path(prepared.network.model)
    for path, value in values.items():
        variables[path].assign(value)
    return dataclasses.replace(prepared, batches=made.batches)


def head_values(prepared: Prepared) -> dict[str, np.ndarray]:
    """Returns what the head holds by path, the state of its random numbers too."""
    inside = {
        id(variable)
        for path, layer in layer_paths(prepared.network.model).items()
        if path.split("/")[0] == "backbone"
        for variable in layer.variables
    }
    return {
        path: graph.value_of(variable)
        for path, variable in graph.variables_by_path(prepared.network.model).items()
        if id(variable) not in inside
    }
