"""From an arm to an experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from tflearn import experiment, regimes
from tflearn.comparison.declaration import Arm
from tflearn.experiment import Built, Experiment, Stage
from tflearn.support.errors import ConfigError


@runtime_checkable
class Overridable(Protocol):
    """A declaration that others can be put over; `tflearn.config` provides it."""

    def with_bindings(self, bindings: Sequence[str]) -> Overridable:
        """Returns the declaration with others put over it."""
        ...

    def experiment(self) -> Any:
        """Makes the declared experiment."""
        ...

    def comparison(self) -> Any:
        """Makes the declared comparison."""
        ...


def declared(base: Experiment, arm: Arm) -> tuple[Experiment, Arm]:
    """Applies the overrides of an arm to the base experiment.

    Args:
        base: The experiment.
        arm: The arm.

    Returns:
        The experiment, and the arm as the changed declaration has it.

    Raises:
        ConfigError: The experiment was not declared in gin, or a binding is wrong.
    """
    if not arm.overrides:
        return base, arm
    if not isinstance(base.declaration, Overridable):
        raise ConfigError(
            f"arm '{arm.name}' overrides gin bindings of an experiment without them",
            fix="give Arm.backbone, regime, optimizer or stages",
        )
    changed = base.declaration.with_bindings(arm.overrides)
    # Factories of one declaration must not be mixed with those of another.
    (own,) = [x for x in changed.comparison().arms if x.name == arm.name]
    return changed.experiment(), own


def leading(base: Experiment, arm: Arm) -> tuple[Stage, ...]:
    """Returns the stages before the last one, those of the arm at their end."""
    return (*base.stages[:-1], *arm.stages)


def last(base: Experiment, arm: Arm) -> Stage:
    """Returns the last stage as an arm has it."""
    stage = base.stages[-1]
    return dataclasses.replace(
        stage,
        regime=stage.regime if arm.regime is None else arm.regime,
        optimizer=arm.optimizer or stage.optimizer,
        budget=arm.budget or stage.budget,
    )


def whole(base: Experiment, arm: Arm) -> Experiment:
    """Returns the experiment that an arm is, its overrides applied before."""
    return dataclasses.replace(
        base,
        backbone=arm.backbone or base.backbone,
        stages=(*leading(base, arm), last(base, arm)),
    )


def check(base: Experiment, arm: Arm, built: Built) -> None:
    """Checks that an arm can be built, before anything trains.

    Args:
        base: The experiment.
        arm: The arm.
        built: The experiment, built.

    Raises:
        TflearnError: It cannot.
    """
    if arm.is_apart or arm.stages:
        experiment.build(whole(*declared(base, arm)))
        return
    prepared = built.stages[-1]
    stage = dataclasses.replace(prepared, stage=last(base, arm))
    with regimes.rehearsal():
        stage.apply_regime()
        stage.make_optimizer(stage.total_steps or 1)
