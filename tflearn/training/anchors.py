"""Anchors: what pulls weights back to where a stage began.

The pull is the gradient of a penalty on the distance to the weights that the stage
started from. It enters in the optimizer, so the reported loss is that of the task
alone, and clipping bounds the gradient of the task alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tflearn.support.errors import ConfigError, nearest
from tflearn.support.patterns import matches
from tflearn.training import fisher
from tflearn.training.layer_rates import factor_of, innermost, weight_paths

if TYPE_CHECKING:
    from tflearn.data import Data
    from tflearn.training.stage import Prepared

STEPS = ("gradient", "proximal")

#: Called with the stage and the earlier stages by name; importances by path of weight.
Importance = Callable[["Prepared", "Mapping[str, Prepared]"], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchor:
    """A pull back to the weights that a stage started from.

    Args:
        name: Name of the method.
        strength: Factor of the penalty, 0 or above.
        pattern: Which weights are held.
        step: How the pull is applied: `gradient` or `proximal`.
        importance: Computes how much every weight matters; None: all the same, 1.
        stage: Name of the earlier stage that `importance` needs, if it does.
    """

    name: str
    strength: float
    pattern: str
    step: str = "gradient"
    importance: Importance | None = None
    stage: str | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        if not 0 <= self.strength < float("inf"):
            raise ConfigError(
                f"the strength of {self.name} must be 0 or above",
                received=self.strength,
            )
        if self.step not in STEPS:
            raise ConfigError(
                "unknown step of an anchor",
                received=self.step,
                expected=STEPS,
                nearest=nearest(str(self.step), STEPS),
            )


def l2sp(
    strength: float = 0.01, *, pattern: str = "backbone/*", step: str = "gradient"
) -> Anchor:
    r"""Holds weights near those of the stage's start, all alike.

    The penalty is :math:`\frac{s}{2} \sum_i (w_i - a_i)^2` with the strength `s`,
    weights `w` and their values `a` at the start.

    Args:
        strength: The strength `s`.
        pattern: Which weights are held; those of a new head have nowhere to go back.
        step: `gradient` adds :math:`s (w - a)` to the gradient of the loss. It
            diverges where rate times strength passes 2. `proximal` moves the weight,
            after the optimizer's step with the rate `r`, by
            :math:`-\frac{r s}{1 + r s} (w - a)`, which holds at any strength, and
            which optimizers such as Adam do not rescale.

    Returns:
        The anchor.

    Example:

    >>> l2sp(0.1).name
    'L2-SP'

    References:
        Li, Grandvalet and Davoine 2018, https://arxiv.org/abs/1802.01483
    """
    return Anchor(name="L2-SP", strength=strength, pattern=pattern, step=step)


def ewc(
    strength: float = 100.0,
    *,
    stage: str | None = None,
    data: Callable[[], Data] | None = None,
    path: str | None = None,
    samples: int = 256,
    labels: str = "model",
    pattern: str = "backbone/*",
    step: str = "gradient",
) -> Anchor:
    r"""Holds weights by how much an old task depends on them.

    The penalty is :math:`\frac{s}{2} \sum_i F_i (w_i - a_i)^2`, where `F` is the
    diagonal of the Fisher information: the mean over old examples of the squared
    gradient of the log likelihood. Give exactly one of `stage`, `data` and `path`.

    Args:
        strength: The strength `s`.
        stage: Name of an earlier stage of the experiment: its network and its
            training data are the old task.
        data: Makes old data of this stage's own task; its network as it is at the
            start of the stage, with a head that was trained before, is the old model.
        path: A file that an earlier run wrote: `stages/NAME/fisher.npz`.
        samples: How many old examples; every one costs a backward pass.
        labels: `model` draws the targets from the model's own predictions, which is
            the Fisher information; `data` takes those of the data, the empirical
            one. Objectives that make their own targets take `data`.
        pattern: Which weights are held.
        step: `gradient` or `proximal`; see `l2sp`.

    Returns:
        The anchor.

    References:
        Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796
    """
    given = [x for x in (stage, data, path) if x is not None]
    if len(given) != 1:
        raise ConfigError(
            "ewc needs exactly one of stage, data and path",
            received=f"stage={stage!r}, data={data!r}, path={path!r}",
        )
    fisher.check(samples=samples, labels=labels)
    # Now, so that a wrong file shows before the first stage trains.
    stored = None if path is None else fisher.read(path)

    def importance(
        prepared: Prepared, earlier: Mapping[str, Prepared]
    ) -> dict[str, np.ndarray]:
        if stored is not None:
            return stored
        old = earlier[stage] if stage is not None else prepared
        if data is not None:
            old = fisher.with_data(prepared, data())
        return fisher.diagonal(old, pattern=pattern, samples=samples, labels=labels)

    return Anchor(
        name="EWC",
        strength=strength,
        pattern=pattern,
        step=step,
        importance=importance,
        stage=stage,
    )


def check(anchor: Anchor, model: keras.Model, *, earlier: tuple[str, ...]) -> None:
    """Checks that an anchor fits a stage.

    Args:
        anchor: The anchor.
        model: The stage's model.
        earlier: Names of the stages before it.

    Raises:
        ConfigError: The pattern matches nothing, or the stage is none of them.
    """
    paths = weight_paths(model)
    if not any(matches(anchor.pattern, path) for path in paths):
        raise ConfigError(
            f"the pattern of {anchor.name} matches no weight",
            received=anchor.pattern,
            expected=f"a pattern over paths such as {', '.join(list(paths)[:3])}",
        )
    if anchor.stage is not None and anchor.stage not in earlier:
        raise ConfigError(
            f"{anchor.name} needs an earlier stage",
            received=anchor.stage,
            expected=", ".join(earlier) or "none: this is the first stage",
            nearest=nearest(anchor.stage, earlier),
        )


def hold(
    optimizer: keras.optimizers.Optimizer,
    model: keras.Model,
    anchor: Anchor,
    *,
    start: Mapping[str, np.ndarray],
    importances: Mapping[str, np.ndarray] | None = None,
) -> int:
    """Makes an optimizer pull a model's weights back.

    Args:
        optimizer: The optimizer, built for the model's trainable variables.
        model: The model.
        anchor: What is held, and how strongly.
        start: Weights at the start of the stage by path.
        importances: How much they matter, by path; None: 1.

    Returns:
        Number of variables that are held.

    Raises:
        ConfigError: The importances are those of another model.
    """
    inner = innermost(optimizer)
    paths = {id(variable): path for path, variable in weight_paths(model).items()}
    # The anchors live in the optimizer's state, which lies on the devices as the
    # weights do, and lists in the order of the variables, as all of its slots.
    values: list[Any] = []
    factors: list[Any] = []
    for variable in model.trainable_variables:
        path = paths[id(variable)]
        held = anchor.strength > 0 and matches(anchor.pattern, path)
        value = _state(inner, variable, "anchor", start[path]) if held else None
        values.append(value)
        factor = None
        if held and importances is not None:
            factor = _state(
                inner, variable, "fisher", _importance(importances, path, variable)
            )
        factors.append(factor)
    inner.__dict__["_tflearn_anchors"] = values
    inner.__dict__["_tflearn_importances"] = factors
    if any(value is not None for value in values):
        _install(inner, anchor)
    return sum(value is not None for value in values)


def _install(inner: Any, anchor: Anchor) -> None:
    update_step = inner.update_step

    def pull(variable: Any, scale: Any) -> Any:
        """Returns the scale times the importance, and the distance to the anchor."""
        index = inner._get_variable_index(variable)
        value = inner.__dict__["_tflearn_anchors"][index]
        if value is None:
            return None
        importance = inner.__dict__["_tflearn_importances"][index]
        weight = scale if importance is None else scale * importance
        return weight, variable - value

    def pulled_gradient(gradient: Any, variable: Any, learning_rate: Any) -> Any:
        found = pull(variable, anchor.strength)
        if found is not None:
            # The gradient of an embedding is sparse on TensorFlow, the pull is not.
            dense = keras.ops.convert_to_tensor(gradient)
            gradient = keras.ops.cast(dense, variable.dtype) + found[0] * found[1]
        return update_step(gradient, variable, learning_rate)

    def pulled_weight(gradient: Any, variable: Any, learning_rate: Any) -> Any:
        result = update_step(gradient, variable, learning_rate)
        rate = learning_rate * (anchor.strength * factor_of(inner, variable))
        found = pull(variable, rate)
        if found is not None:
            weight, distance = found
            inner.assign_sub(variable, weight / (1.0 + weight) * distance)
        return result

    steps = {"gradient": pulled_gradient, "proximal": pulled_weight}
    # Past `__setattr__`, which would make it part of the tracked state.
    inner.__dict__["update_step"] = steps[anchor.step]


def _state(
    inner: Any, variable: keras.Variable, name: str, value: np.ndarray
) -> keras.Variable:
    slot = inner.add_variable_from_reference(variable, name=name)
    slot.assign(value)
    return slot


def _importance(
    importances: Mapping[str, np.ndarray], path: str, variable: keras.Variable
) -> np.ndarray:
    found = importances.get(path)
    if found is None or tuple(found.shape) != tuple(variable.shape):
        raise ConfigError(
            "the Fisher information is that of another model",
            received=f"{path}: {None if found is None else tuple(found.shape)}",
            expected=f"{path}: {tuple(variable.shape)}",
            fix="compute it with the same backbone and pattern",
        )
    return found
