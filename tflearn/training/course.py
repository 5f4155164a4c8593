"""The course of a stage: its phases one after the other, and what is done around them.

What a stage needs of its beginning (anchors, averages) is written into its folder when
it begins, so that a process that resumes it finds the same.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tflearn import regimes
from tflearn.backbones import graph
from tflearn.distribution import processes
from tflearn.support import storage
from tflearn.support.console import say
from tflearn.support.errors import ConfigError
from tflearn.support.patterns import matches
from tflearn.support.units import count_text
from tflearn.training import (
    anchors,
    fisher,
    loop,
    optimizer_state,
    phases,
    placement,
)
from tflearn.training.checkpoints import Checkpoints
from tflearn.training.layer_rates import innermost, weight_paths
from tflearn.training.stage import Prepared, Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leg:
    """A phase that can be trained.

    Args:
        span: Its steps and its regime.
        census: What the regime does to every layer.
        births: First step of every weight that moves, by path.
    """

    span: phases.Span
    census: regimes.Census
    births: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hold:
    """An anchor with what it holds to.

    Args:
        anchor: The anchor.
        start: Weights at the start of the stage by path.
        importances: How much they matter; None: all the same.
    """

    anchor: anchors.Anchor
    start: Mapping[str, np.ndarray]
    importances: Mapping[str, np.ndarray] | None


def check(prepared: Prepared, *, earlier: Sequence[str] = ()) -> tuple[str, ...]:
    """Checks phases, anchor and average of a stage before anything trains.

    Args:
        prepared: The stage; adapters that its regimes attach are gone afterwards.
        earlier: Names of the stages before it.

    Returns:
        Lines on what the user should know, such as phases behind the budget.

    Raises:
        TflearnError: Something does not fit.
    """
    stage = prepared.stage
    with regimes.rehearsal():
        legs = plan(prepared, prepared.total_steps or 10**9)
        notes = _choices(prepared)
        if stage.anchor is not None or stage.phases:
            # Raises for several optimizers in one, whose state cannot be handed on.
            innermost(prepared.make_optimizer(prepared.total_steps or 1))
        if stage.anchor is not None:
            model = prepared.network.model
            anchor = stage.anchor()
            anchors.check(anchor, model, earlier=tuple(earlier))
            moving = {path for leg in legs for path in leg.births}
            if not any(matches(anchor.pattern, path) for path in moving):
                raise ConfigError(
                    f"{anchor.name} holds only weights that never move",
                    received=f"pattern '{anchor.pattern}' in stage '{stage.name}'",
                    fix="leave the anchor out, or train what it names",
                )
    if stage.average is not None:
        average = stage.average()
        if average.needs_validation and "validation" not in prepared.examples:
            raise ConfigError(
                f"{average.name} chooses by the validation split, and there is none",
                received=f"stage '{stage.name}' with {', '.join(prepared.examples)}",
                fix="declare Data.splits with a validation part",
            )
    return (*notes, *_late(stage, len(legs)))


def _choices(prepared: Prepared) -> tuple[str, ...]:
    """Checks what is chosen by validation."""
    stage = prepared.stage
    chosen = [x for x in ("restore_best", "patience") if getattr(stage, x)]
    if chosen and "validation" not in prepared.examples:
        names = " and ".join(chosen)
        return (f"stage '{stage.name}' has no validation split: {names} do nothing",)
    if not stage.restore_best:
        return ()
    optimizer = prepared.make_optimizer(prepared.total_steps or 1)
    if getattr(optimizer, "use_ema", False):
        raise ConfigError(
            "the averages of use_ema are taken when a stage ends; the best validation "
            "is one of the weights that they are made of",
            received=f"stage '{stage.name}' with restore_best and use_ema",
            fix="declare one of the two",
        )
    return ()


def _late(stage: Stage, begun: int) -> tuple[str, ...]:
    late = len(stage.phases) + 1 - begun
    if not late:
        return ()
    return (f"stage '{stage.name}' ends before its last {late} regimes begin",)


def plan(prepared: Prepared, total_steps: int) -> tuple[Leg, ...]:
    """Applies every regime of a stage in turn to see what moves when.

    Args:
        prepared: The stage; afterwards the regime of its last phase is applied.
        total_steps: Length of the stage.

    Returns:
        The phases in order.

    Raises:
        TflearnError: A phase does not fit the model or the phase before it.
    """
    stage = prepared.stage
    spans = phases.spans(
        stage.phases,
        stage.regime,
        total_steps=total_steps,
        num_examples=len(prepared.examples["train"]),
        batch_size=prepared.stage.new_per_step,
    )
    in_phases = [rule for x in stage.phases for rule in x.regime if rule.merges]
    if in_phases:
        raise ConfigError(
            "adapters are merged when a stage begins, not in the middle of it",
            received=str(in_phases[0]),
            fix="declare the rule in Stage.regime",
        )
    if any(rule.adapts for x in stage.phases for rule in x.regime):
        # As in `Prepared.apply_regime`: initial values depend on the stage alone.
        keras.utils.set_random_seed(prepared.seed)
    fresh = set(apply(prepared, stage.regime).paths("fresh"))
    legs: list[Leg] = []
    for span in spans:
        census = apply(prepared, span.regime)
        extra = [path for path in census.paths("fresh") if path not in fresh]
        if extra:
            raise ConfigError(
                "layers start anew when the stage begins, not in the middle of it",
                received=f"a phase has a fresh rule for {', '.join(extra[:3])}",
                fix="declare them fresh in Stage.regime too, or train them",
            )
        before = legs[-1].births if legs else {}
        births = {path: before.get(path, span.start) for path in _moving(prepared)}
        legs.append(Leg(span=span, census=census, births=births))
    return tuple(legs)


def leg_at(legs: Sequence[Leg], step: int) -> int:
    """Returns the index of the phase that a checkpoint of a step was saved in."""
    return next(i for i, leg in enumerate(legs) if step <= leg.span.end)


def apply(prepared: Prepared, rules: Sequence[regimes.Rule]) -> regimes.Census:
    """Applies the regime of a phase to the stage's network.

    What a stage merges it has merged when its own regime was applied.
    """
    network = prepared.network
    census = regimes.apply(
        network.model,
        [rule for rule in rules if not rule.merges],
        blocks=network.backbone.blocks,
        unused=network.unused,
    )
    placement.place(network.model)
    return census


def enter(prepared: Prepared, leg: Leg, hold: Hold | None, *, total_steps: int) -> None:
    """Applies the regime of a phase and compiles the model with a new optimizer.

    Args:
        prepared: The stage.
        leg: The phase.
        hold: The stage's anchor, if it has one.
        total_steps: Length of the stage, for the schedule.
    """
    model = prepared.network.model
    apply(prepared, leg.span.regime)
    optimizer = prepared.make_optimizer(total_steps)
    loop.compile_model(
        model,
        optimizer=optimizer,
        loss=prepared.loss(),
        metrics=prepared.metrics(),
        jit_compile=prepared.stage.jit_compile,
    )
    if hold is not None:
        anchors.hold(
            model.optimizer,
            model,
            hold.anchor,
            start=hold.start,
            importances=hold.importances,
        )
    paths = {id(weight): path for path, weight in weight_paths(model).items()}
    births = {id(v): leg.births[paths[id(v)]] for v in model.trainable_variables}
    optimizer_state.own_clocks(model.optimizer, births)


def go_on(prepared: Prepared, leg: Leg, hold: Hold | None, *, total_steps: int) -> None:
    """Enters the next phase and hands the optimizer's state on.

    Args:
        prepared: The stage, at the end of the phase before.
        leg: The next phase.
        hold: The stage's anchor, if it has one.
        total_steps: Length of the stage, for the schedule.
    """
    model = prepared.network.model
    old, variables = model.optimizer, list(model.trainable_variables)
    enter(prepared, leg, hold, total_steps=total_steps)
    kept = optimizer_state.carry(
        old, variables, model.optimizer, model.trainable_variables
    )
    say(
        f"{describe(leg)}; the optimizer goes on with {kept} of "
        f"{len(model.trainable_variables)} variables"
    )


def describe(leg: Leg) -> str:
    """Returns a phase in a line."""
    rules = ", ".join(map(str, leg.span.regime))
    return (
        f"steps {leg.span.start} to {leg.span.end}: {rules}: "
        f"{count_text(leg.census.trainable)} weights move"
    )


def always_frozen(legs: Sequence[Leg]) -> regimes.Census:
    """Returns the census of the layers that no phase trains."""
    frozen = [set(leg.census.paths("frozen", "unused")) for leg in legs]
    common = set.intersection(*frozen)
    return regimes.Census(
        rows=tuple(row for row in legs[-1].census.rows if row.path in common)
    )


def start_weights(prepared: Prepared, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the weights that a stage began with, written when it began.

    Args:
        prepared: The stage; its model holds them if nothing is written yet.
        folder: The stage's folder.

    Returns:
        Values by path as `weight_paths` gives them.
    """
    model = prepared.network.model
    saved = Checkpoints(folder / "start")
    if saved.latest is None:
        saved.save(0, model)
    arrays = saved.read(0)
    saved.close()
    return named(model, arrays)


def named(
    model: keras.Model, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Gives the weights of a checkpoint the paths that patterns are matched against.

    Args:
        model: The model.
        arrays: Its variables by path, as a checkpoint names them.

    Returns:
        Its weights by path as `weight_paths` gives them.
    """
    raw = {id(v): path for path, v in graph.variables_by_path(model).items()}
    return {
        path: np.asarray(arrays[raw[id(weight)]])
        for path, weight in weight_paths(model).items()
    }


def make_hold(
    prepared: Prepared,
    folder: pathlib.Path,
    start: Mapping[str, np.ndarray],
    earlier: Mapping[str, Prepared],
) -> Hold | None:
    """Makes the anchor of a stage, or reads what belongs to it.

    Args:
        prepared: The stage, its model as it began.
        folder: The stage's folder.
        start: Its weights at the start by path.
        earlier: The stages before it by name.

    Returns:
        The anchor, None if the stage has none.
    """
    if prepared.stage.anchor is None:
        return None
    anchor = prepared.stage.anchor()
    anchors.check(anchor, prepared.network.model, earlier=tuple(earlier))
    path = folder / "fisher.npz"
    importances = None
    if anchor.importance is not None:
        if not processes.on_first(path.exists):
            found = anchor.importance(prepared, earlier)
            if processes.is_chief():
                fisher.write(path, found)
                storage.push(folder)
            processes.meet()
            if not processes.is_chief():
                storage.pull(folder, deep=False)
        importances = fisher.read(path)
    say(
        f"{anchor.name} holds '{anchor.pattern}' at the weights of the stage's start "
        f"with strength {anchor.strength:.4g}; the loss shown is without it"
    )
    return Hold(anchor=anchor, start=start, importances=importances)


def _moving(prepared: Prepared) -> list[str]:
    model = prepared.network.model
    moving = {id(variable) for variable in model.trainable_variables}
    return [path for path, w in weight_paths(model).items() if id(w) in moving]
