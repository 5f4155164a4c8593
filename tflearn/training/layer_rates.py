"""Learning rates and weight decay by layer, for any Keras optimizer.

A Keras optimizer has one learning rate and one weight decay. Every one of them moves
a weight in `update_step(gradient, variable, learning_rate)` and shrinks it in
`_apply_weight_decay(variables)`; both are replaced on the instance, so that clipping,
accumulation, averaging, loss scaling and the saved state stay what they were.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from tflearn.backbones import graph
from tflearn.regimes.trainability import layer_paths
from tflearn.support.errors import ConfigError, nearest
from tflearn.support.patterns import matches

#: Names of weights that weight decay leaves alone.
NO_DECAY = ("bias", "beta", "gamma", "scale")

_DECLARED = "_tflearn_declared_rates"
_FACTORS = "_tflearn_rate_factors"
_LINES = "_tflearn_rate_lines"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """What was declared about the rates of layers.

    Args:
        decay: Factor from one block of the backbone to the one below it, or None.
        rates: Factors of the learning rate by pattern; the first match decides.
        weight_decays: Weight decay by pattern, in place of the optimizer's own.
    """

    decay: float | None = None
    rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    weight_decays: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the values."""
        given = dict(self.rates)
        if self.decay is not None:
            given["decay"] = self.decay
        for name, value in given.items():
            if not 0 < value < float("inf"):
                raise ConfigError(
                    f"the factor of the learning rate for '{name}' must be above 0",
                    received=value,
                    fix="keep layers as they are with a rule: regimes.freeze(pattern)",
                )
        for name, value in self.weight_decays.items():
            if not 0 <= value < float("inf"):
                raise ConfigError(
                    f"the weight decay of '{name}' is negative", received=value
                )


def declare(optimizer: keras.optimizers.Optimizer, rates: Rates) -> None:
    """Notes on an optimizer what `configure` will set; several factors multiply.

    Args:
        optimizer: The optimizer.
        rates: What was declared.
    """
    target = innermost(optimizer)
    # Past `__setattr__`, which would track what it is given.
    target.__dict__[_DECLARED] = (*target.__dict__.get(_DECLARED, ()), rates)


def declared(optimizer: keras.optimizers.Optimizer) -> tuple[Rates, ...]:
    """Returns what `declare` noted."""
    return _inner(optimizer).__dict__.get(_DECLARED, ())


def configure(
    optimizer: keras.optimizers.Optimizer,
    model: keras.Model,
    *,
    blocks: Sequence[str] = (),
) -> tuple[str, ...]:
    """Gives every weight of a model the rate and the decay that were declared for it.

    Args:
        optimizer: An optimizer that is not built yet.
        model: The model it will train.
        blocks: Patterns of the backbone's blocks in order, relative to it.

    Returns:
        Lines that say what each part of the model got; none without a declaration.

    Raises:
        ConfigError: A pattern matches nothing, or the backbone has no known blocks.
    """
    if not declared(optimizer):
        return ()
    target = innermost(optimizer)
    weights = weight_paths(model)
    factors = dict.fromkeys(weights, 1.0)
    decays: dict[str, float] = {}
    for rates in declared(target):
        if rates.decay is not None:
            for path, factor in block_factors(model, blocks, rates.decay).items():
                factors[path] *= factor
        for path, factor in _by_pattern(rates.rates, weights).items():
            factors[path] *= factor
        decays |= _by_pattern(rates.weight_decays, weights)
    for rates in declared(target):
        _check_decays(rates.weight_decays, weights)
    if any(factor != 1.0 for factor in factors.values()) or decays:
        # TensorFlow hands over its own variable, Keras knows both by one key.
        key = target._var_key
        _install(
            target,
            {key(weights[path]): factor for path, factor in factors.items()},
            {key(weights[path]): decay for path, decay in decays.items()},
        )
    target.__dict__[_LINES] = _lines(factors, decays)
    return target.__dict__[_LINES]


def lines(optimizer: keras.optimizers.Optimizer) -> tuple[str, ...]:
    """Returns the lines that `configure` gave for an optimizer."""
    return _inner(optimizer).__dict__.get(_LINES, ())


def factor_of(optimizer: keras.optimizers.Optimizer, variable: Any) -> float:
    """Returns the factor that `configure` gave a variable, 1 by default."""
    factors = optimizer.__dict__.get(_FACTORS, {})
    return factors.get(optimizer._var_key(variable), 1.0)


def innermost(optimizer: keras.optimizers.Optimizer) -> Any:
    """Returns the optimizer that moves the weights, inside one that scales the loss.

    Raises:
        ConfigError: It is several optimizers at once.
    """
    inner = _inner(optimizer)
    if hasattr(inner, "_inner_optimizers"):
        raise ConfigError(
            "this needs a single optimizer",
            received=type(inner).__name__,
            fix="use optimizers.by_pattern for different rates in one optimizer",
        )
    return inner


def weight_paths(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns the weights of a model by the paths that patterns are matched against.

    Args:
        model: A functional model, its backbone a layer named `backbone`.

    Returns:
        Weights by path, `backbone/block_0/dense/kernel` or `head/head/dense/bias`.
    """
    under = "backbone" in graph.layers_by_path(model)
    return {
        path
        if not under or path.split("/")[0] in ("backbone", "head")
        # As `layer_paths`: whatever is not the backbone lies under `head/`.
        else f"head/{path}": weight
        for path, weight in graph.weights_by_path(model).items()
    }


def block_factors(
    model: keras.Model, blocks: Sequence[str], decay: float
) -> dict[str, float]:
    r"""Returns the factor of every weight under a decay from block to block.

    With `n` blocks, a weight of block `i` (from 0) has the factor
    :math:`decay^{n - i}`; what lies before the first block, such as embeddings, has
    :math:`decay^{n + 1}`; what lies behind the last one, and the head, has 1. Layers
    between two blocks belong to the lower one.

    Args:
        model: A functional model, its backbone a layer named `backbone`.
        blocks: Patterns of the blocks in order, relative to the backbone.
        decay: The factor from one block to the one below it.

    Returns:
        Factors by path of the weight.

    References:
        Clark et al. 2020, https://arxiv.org/abs/2003.10555;
        Bao et al. 2022, https://arxiv.org/abs/2106.08254
    """
    if not blocks:
        raise ConfigError(
            "the blocks of this backbone are not known",
            fix="name the layers: optimizers.by_pattern.rates = {'backbone/*': 0.1}",
        )
    patterns = [f"backbone/{block}" for block in blocks]
    paths = [path for path in layer_paths(model) if path.startswith("backbone/")]
    # Number of the block a layer lies in, from 1; 0 where it lies in none.
    inside = [
        next((i for i, x in enumerate(patterns, start=1) if matches(x, path)), 0)
        for path in paths
    ]
    last = max(position for position, number in enumerate(inside) if number)
    depths: dict[str, int] = {}
    begun = 0
    for position, (path, number) in enumerate(zip(paths, inside, strict=True)):
        begun = max(begun, number)
        behind = position > last
        depths[path] = len(blocks) + 1 if behind else number or begun
    return {
        path: decay ** (len(blocks) + 1 - depths.get(path.rsplit("/", 1)[0], 0))
        if path.startswith("backbone/")
        else 1.0
        for path in weight_paths(model)
    }


def _inner(optimizer: Any) -> Any:
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


def _by_pattern(
    values: Mapping[str, float], weights: Mapping[str, Any]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for pattern, value in values.items():
        hits = [path for path in weights if matches(pattern, path)]
        if not hits:
            parents = {
                "/".join(path.split("/")[:depth])
                for path in weights
                for depth in (2, 3)
            }
            raise ConfigError(
                "a pattern of the optimizer matches no weight",
                received=pattern,
                expected=f"a pattern over paths such as {', '.join(list(weights)[:3])}",
                nearest=nearest(pattern, sorted(parents)),
            )
        for path in hits:
            found.setdefault(path, value)
    return found


def _check_decays(
    values: Mapping[str, float], weights: Mapping[str, keras.Variable]
) -> None:
    for pattern, value in values.items():
        names = {w.name for path, w in weights.items() if matches(pattern, path)}
        if value and names <= set(NO_DECAY):
            raise ConfigError(
                "biases and the weights of norms never decay",
                received=f"{pattern}: {value}",
                expected="a pattern that matches other weights too",
            )


def _install(
    optimizer: Any, factors: Mapping[Any, float], decays: Mapping[Any, float]
) -> None:
    update_step: Callable[..., Any] = optimizer.update_step
    apply_weight_decay: Callable[..., Any] = optimizer._apply_weight_decay
    # Read once: under `tf.distribute` the threads of all replicas take turns inside
    # the block below, and one must not take for its own what another has set. Muon
    # keeps a second decay for the weights that it gives to Adam.
    names = [x for x in ("weight_decay", "adam_weight_decay") if hasattr(optimizer, x)]
    own = {name: getattr(optimizer, name) for name in names}

    def scaled_update_step(gradient: Any, variable: Any, learning_rate: Any) -> Any:
        factor = factors[optimizer._var_key(variable)]
        # A factor of 1 must leave every bit as it is.
        rate = learning_rate if factor == 1.0 else learning_rate * factor
        return update_step(gradient, variable, rate)

    def apply_scaled_weight_decay(variables: Sequence[Any]) -> None:
        groups: dict[tuple[float | None, float], list[Any]] = {}
        for variable in variables:
            key = optimizer._var_key(variable)
            groups.setdefault((decays.get(key), factors[key]), []).append(variable)
        for (decay, factor), members in groups.items():
            with _weight_decay(optimizer, own, decay, factor):
                apply_weight_decay(members)

    # Past `__setattr__`, which would make them part of the tracked state.
    optimizer.__dict__[_FACTORS] = factors
    optimizer.__dict__["update_step"] = scaled_update_step
    optimizer.__dict__["_apply_weight_decay"] = apply_scaled_weight_decay


@contextlib.contextmanager
def _weight_decay(
    optimizer: Any,
    own: Mapping[str, float | None],
    decay: float | None,
    factor: float,
) -> Iterator[None]:
    """Sets the decay of an optimizer for the weights of one group."""
    for name, value in own.items():
        chosen = value if decay is None else decay
        optimizer.__dict__[name] = chosen * factor if chosen else chosen
    try:
        yield
    finally:
        optimizer.__dict__.update(own)


def _lines(
    factors: Mapping[str, float], decays: Mapping[str, float]
) -> tuple[str, ...]:
    found = []
    groups = _groups(factors)
    if len(groups) > 1:
        # Long lists hide the few layers that are special.
        common = max(groups, key=lambda value: len(groups[value]))
        rest = f"; {common:.4g} elsewhere"
        del groups[common]
        found.append(f"learning rate x {_shown(groups)}{rest}")
    else:
        found.append(f"learning rate x {next(iter(groups)):.4g} everywhere")
    if decays:
        found.append(f"weight decay {_shown(_groups(decays))}")
    return tuple(found)


def _groups(values: Mapping[str, float]) -> dict[float, list[str]]:
    """Returns the parts of the model that have a value, by value."""
    groups: dict[float, dict[str, None]] = {}
    for path, value in sorted(values.items(), key=lambda item: item[1]):
        parts = groups.setdefault(value, {})
        parts["/".join(path.split("/")[:2])] = None
    return {value: list(parts) for value, parts in groups.items()}


def _shown(groups: Mapping[float, Sequence[str]]) -> str:
    return "; ".join(
        f"{value:.4g}: {', '.join(parts)}" for value, parts in groups.items()
    )
