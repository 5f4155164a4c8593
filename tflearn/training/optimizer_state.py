"""Handing the state of an optimizer on when other weights begin to move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tflearn.support.errors import RunError
from tflearn.training.layer_rates import innermost

_AVERAGES = "_model_variables_moving_average"
_Slots = dict[tuple[str, int], keras.Variable]


def carry(
    old: keras.optimizers.Optimizer,
    old_variables: Sequence[keras.Variable],
    new: keras.optimizers.Optimizer,
    new_variables: Sequence[keras.Variable],
) -> int:
    """Gives a new optimizer the state of an old one of the same kind.

    Step count and scale of the loss are copied, and all slots of the variables that
    both know. A variable that only the new one knows starts with empty slots; the
    average of its values starts with its value.

    Args:
        old: A built optimizer.
        old_variables: What it was built for.
        new: A built optimizer.
        new_variables: What it was built for.

    Returns:
        Number of variables whose slots went over.

    Raises:
        RunError: The two are not of one kind.
    """
    old_slots, old_others = _slots(old, old_variables)
    new_slots, new_others = _slots(new, new_variables)
    if [x.shape for x in old_others] != [x.shape for x in new_others]:
        raise RunError(
            "the state of the optimizer cannot be handed on",
            received=f"{len(old_others)} and {len(new_others)} common variables",
            fix="make the same optimizer in every phase",
        )
    for source, target in zip(old_others, new_others, strict=True):
        _copy(source, target)
    known = {id(variable) for variable in old_variables}
    for (name, variable), target in new_slots.items():
        if variable in known:
            _copy(old_slots[name, variable], target)
    for variable in new_variables:
        if id(variable) not in known and (_AVERAGES, id(variable)) in new_slots:
            # Keras starts an average at step 0 alone; later it would grow from zero.
            _copy(variable, new_slots[_AVERAGES, id(variable)])
    return sum(id(variable) in known for variable in new_variables)


def own_clocks(
    optimizer: keras.optimizers.Optimizer, births: Mapping[int, int]
) -> None:
    """Lets variables that begin to move later count their steps from there.

    Adam corrects its averages by the number of steps that went into them. With the
    optimizer's count, a weight that begins at step 1000 would take first steps of
    about three times the rate.

    Args:
        optimizer: The optimizer; its schedule still follows its own count.
        births: First step by `id` of the variable; 0 for those that are missing.
    """
    inner = innermost(optimizer)
    update_step = inner.update_step
    first = {inner._var_key(v): births.get(id(v), 0) for v in _known(inner)}

    def update_step_by_own_clock(gradient: Any, variable: Any, rate: Any) -> Any:
        birth = first.get(inner._var_key(variable), 0)
        if not birth:
            return update_step(gradient, variable, rate)
        clock = inner._iterations
        # Past `__setattr__`, which would track it; the optimizer reads it by name.
        inner.__dict__["_iterations"] = clock - birth
        try:
            return update_step(gradient, variable, rate)
        finally:
            inner.__dict__["_iterations"] = clock

    if any(first.values()):
        inner.__dict__["update_step"] = update_step_by_own_clock


def _known(inner: Any) -> list[keras.Variable]:
    return list(inner._trainable_variables)


def _slots(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> tuple[_Slots, list[keras.Variable]]:
    """Splits an optimizer's state into slots of a variable and what all share."""
    # Every Keras optimizer keeps its slots in lists in the order of the variables;
    # their names are not unique, so the lists are what tells whose a slot is.
    found: _Slots = {}
    for name, items in vars(innermost(optimizer)).items():
        if name in ("_variables", "_trainable_variables"):
            continue
        if not isinstance(items, list) or len(items) != len(variables):
            continue
        for variable, item in zip(variables, items, strict=True):
            if isinstance(item, keras.Variable):
                found[name, id(variable)] = item
    owned = {id(slot) for slot in found.values()}
    return found, [x for x in optimizer.variables if id(x) not in owned]


def _copy(source: keras.Variable, target: keras.Variable) -> None:
    # A copy: on JAX the next step may overwrite the array of the old variable.
    target.assign(keras.ops.copy(source.value))
