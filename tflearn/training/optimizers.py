"""Optimizers with a schedule over the length of the run.

A stage's optimizer is a factory that is called with `total_steps`, because the
schedule must know where the run ends. Any Keras optimizer goes through `scheduled`;
`adamw` and `sgd` are the usual choices in one line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tflearn.support.errors import ConfigError, nearest
from tflearn.training import layer_rates

SCHEDULES = ("linear", "cosine", "constant")


def adamw(
    total_steps: int,
    *,
    learning_rate: float = 5e-5,
    weight_decay: float = 0.01,
    clip_norm: float | None = 1.0,
    schedule: str = "linear",
    warmup: float = 0.1,
) -> keras.optimizers.Optimizer:
    """Makes AdamW with warm-up and decay, and clipping by the global norm.

    Args:
        total_steps: Length of the run in steps.
        learning_rate: The highest rate, reached after the warm-up.
        weight_decay: Decoupled decay; biases and norms are left out.
        clip_norm: Largest global norm of the gradients, or None.
        schedule: `linear`, `cosine` or `constant`.
        warmup: Share of the steps with a rising rate.

    Returns:
        The optimizer.

    Example:

    >>> float(adamw(100, learning_rate=1e-3).learning_rate)
    0.0

    References:
        Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101
    """
    rate = rate_schedule(
        total_steps, learning_rate=learning_rate, schedule=schedule, warmup=warmup
    )
    return keras.optimizers.AdamW(
        learning_rate=rate, weight_decay=weight_decay, global_clipnorm=clip_norm
    )


def sgd(
    total_steps: int,
    *,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    clip_norm: float | None = None,
    schedule: str = "cosine",
    warmup: float = 0.1,
) -> keras.optimizers.Optimizer:
    """Makes stochastic gradient descent with momentum, warm-up and decay.

    Args:
        total_steps: Length of the run in steps.
        learning_rate: The highest rate, reached after the warm-up.
        momentum: Share of the last update that is kept.
        clip_norm: Largest global norm of the gradients, or None.
        schedule: `linear`, `cosine` or `constant`.
        warmup: Share of the steps with a rising rate.

    Returns:
        The optimizer.
    """
    rate = rate_schedule(
        total_steps, learning_rate=learning_rate, schedule=schedule, warmup=warmup
    )
    return keras.optimizers.SGD(
        learning_rate=rate, momentum=momentum, global_clipnorm=clip_norm
    )


def scheduled(
    total_steps: int,
    *,
    method: Callable[..., keras.optimizers.Optimizer] = keras.optimizers.AdamW,
    learning_rate: float = 1e-3,
    schedule: str = "cosine",
    warmup: float = 0.1,
) -> keras.optimizers.Optimizer:
    """Makes any Keras optimizer with a schedule over the run.

    Everything else about the optimizer (EMA, accumulation, clipping, decay) is bound
    on the optimizer itself: `keras.optimizers.Lion.gradient_accumulation_steps = 4`.

    Args:
        total_steps: Length of the run in steps.
        method: Optimizer class, or a factory that takes `learning_rate`.
        learning_rate: The highest rate, reached after the warm-up.
        schedule: `linear`, `cosine` or `constant`.
        warmup: Share of the steps with a rising rate.

    Returns:
        The optimizer.
    """
    rate = rate_schedule(
        total_steps, learning_rate=learning_rate, schedule=schedule, warmup=warmup
    )
    return method(learning_rate=rate)


def layerwise(
    total_steps: int,
    *,
    optimizer: Callable[..., keras.optimizers.Optimizer] = adamw,
    decay: float = 0.8,
) -> keras.optimizers.Optimizer:
    """Makes an optimizer whose rate shrinks from block to block towards the input.

    The head has the full rate, the last block `decay` times it, the block below
    `decay ** 2`, and so on; embeddings have the lowest.

    Args:
        total_steps: Length of the run in steps.
        optimizer: Makes the optimizer.
        decay: Factor from one block to the one below it, above 0.

    Returns:
        The optimizer; `configure` gives it the rates of a model.

    References:
        Clark et al. 2020, https://arxiv.org/abs/2003.10555
    """
    made = build(optimizer, total_steps=total_steps)
    layer_rates.declare(made, layer_rates.Rates(decay=decay))
    return made


def by_pattern(
    total_steps: int,
    *,
    optimizer: Callable[..., keras.optimizers.Optimizer] = adamw,
    rates: Mapping[str, float] | None = None,
    weight_decays: Mapping[str, float] | None = None,
) -> keras.optimizers.Optimizer:
    """Makes an optimizer with rates and weight decays of their own for some weights.

    Args:
        total_steps: Length of the run in steps.
        optimizer: Makes the optimizer; may be another `by_pattern` or a `layerwise`,
            whose factors then multiply.
        rates: Factors of the learning rate by pattern over weights such as
            `backbone/block_0/dense/kernel`; the first match decides, no match is 1.
        weight_decays: Weight decays by pattern, in place of the optimizer's own.

    Returns:
        The optimizer; `configure` gives it the rates of a model.

    Example:

    >>> made = by_pattern(100, rates={"backbone/*": 0.1})
    >>> layer_rates.declared(made)[0].rates
    {'backbone/*': 0.1}
    """
    made = build(optimizer, total_steps=total_steps)
    layer_rates.declare(
        made,
        layer_rates.Rates(
            rates=dict(rates or {}), weight_decays=dict(weight_decays or {})
        ),
    )
    return made


@keras.saving.register_keras_serializable(package="tflearn")
class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises linearly to its peak and then decays to 0, or stays.

    With `t` the share of the steps after the warm-up, the rate is `peak * (1 - t)`
    for `linear`, `peak * (1 + cos(pi * t)) / 2` for `cosine`, `peak` for `constant`.

    Args:
        peak: The highest rate.
        total_steps: Step at which the decay ends.
        warmup_steps: Steps with a rising rate.
        schedule: `linear`, `cosine` or `constant`.

    Example:

    >>> rate = WarmupDecay(1.0, total_steps=10, warmup_steps=2, schedule="linear")
    >>> [round(float(rate(step)), 3) for step in (0, 1, 2, 6, 10)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(
        self, peak: float, *, total_steps: int, warmup_steps: int, schedule: str
    ) -> None:
        """Stores the shape of the schedule."""
        if schedule not in SCHEDULES:
            raise ConfigError(
                "unknown schedule",
                received=schedule,
                expected=SCHEDULES,
                nearest=nearest(str(schedule), SCHEDULES),
            )
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.schedule = schedule

    def __call__(self, step: Any) -> Any:
        """Returns the rate at a step."""
        # Keras types what its operations return as possibly None.
        ops: Any = keras.ops
        step = ops.cast(step, "float32")
        rising = step / max(1, self.warmup_steps)
        after = (step - self.warmup_steps) / max(
            1, self.total_steps - self.warmup_steps
        )
        after = ops.clip(after, 0.0, 1.0)
        falling = {
            "linear": 1.0 - after,
            "cosine": 0.5 * (1.0 + ops.cos(3.141592653589793 * after)),
            "constant": ops.ones_like(after),
        }[self.schedule]
        return self.peak * ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self) -> dict[str, object]:
        """Returns the arguments, so that the optimizer can be saved."""
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "schedule": self.schedule,
        }


def rate_schedule(
    total_steps: int, *, learning_rate: float, schedule: str, warmup: float
) -> Any:
    """Makes the schedule of a run from shares of its length.

    Args:
        total_steps: Length of the run in steps.
        learning_rate: The highest rate, above 0.
        schedule: `linear`, `cosine` or `constant`.
        warmup: Share of the steps with a rising rate, in `[0, 1)`.

    Returns:
        The schedule.

    Raises:
        ConfigError: A value is out of its range.
    """
    if not learning_rate > 0:
        raise ConfigError("the learning rate must be above 0", received=learning_rate)
    if not 0 <= warmup < 1:
        raise ConfigError(
            "warmup is a share of the run", received=warmup, expected="0 <= warmup < 1"
        )
    return WarmupDecay(
        learning_rate,
        total_steps=total_steps,
        warmup_steps=round(warmup * total_steps),
        schedule=schedule,
    )


def build(
    factory: Callable[..., keras.optimizers.Optimizer], *, total_steps: int
) -> keras.optimizers.Optimizer:
    """Calls a stage's optimizer factory, with `total_steps` if it takes it.

    Args:
        factory: One of this module's functions, a Keras optimizer class, or any
            function that returns an optimizer.
        total_steps: Length of the run in steps.

    Returns:
        The optimizer.

    Raises:
        ConfigError: The factory returns something else.
    """
    takes_steps = "total_steps" in inspect.signature(factory).parameters
    optimizer = factory(total_steps=total_steps) if takes_steps else factory()
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ConfigError(
            "the optimizer factory returned no optimizer",
            received=type(optimizer).__name__,
            expected="a keras.optimizers.Optimizer",
        )
    return optimizer


def configure(
    optimizer: keras.optimizers.Optimizer,
    model: keras.Model,
    *,
    blocks: Sequence[str] = (),
) -> tuple[str, ...]:
    """Fits an optimizer to a model: what decays, and at which rate each layer learns.

    Must run before the optimizer is built.

    Args:
        optimizer: An optimizer that is not built yet.
        model: The model it will train, its trainable layers settled.
        blocks: Patterns of the backbone's blocks in order, relative to it.

    Returns:
        Lines on rates and decays by layer; none where nothing was declared.

    Raises:
        ConfigError: A pattern matches nothing, or the backbone has no known blocks.
    """
    exclude_bias_and_norm(optimizer, model)
    return layer_rates.configure(optimizer, model, blocks=blocks)


def exclude_bias_and_norm(
    optimizer: keras.optimizers.Optimizer, model: keras.Model
) -> int:
    """Leaves biases and the weights of norms out of weight decay.

    Must run before the optimizer is built: afterwards it does nothing on JAX.

    Args:
        optimizer: An optimizer that is not built yet.
        model: The model it will train.

    Returns:
        Number of variables left out; 0 without weight decay.
    """
    own = any(rates.weight_decays for rates in layer_rates.declared(optimizer))
    if not (optimizer.weight_decay or own):
        return 0
    spared = [v for v in model.trainable_variables if v.name in layer_rates.NO_DECAY]
    if spared:
        optimizer.exclude_from_weight_decay(var_list=spared)
    return len(spared)


def describe(optimizer: keras.optimizers.Optimizer) -> str:
    """Returns the optimizer and its schedule in one line."""
    config = optimizer.get_config()
    rate = config.pop("learning_rate")
    if isinstance(rate, dict):
        values = ", ".join(f"{k}={v}" for k, v in rate["config"].items())
        rate = f"{rate['class_name']}({values})"
    shown = (
        "weight_decay",
        "momentum",
        "global_clipnorm",
        "clipnorm",
        "use_ema",
        "gradient_accumulation_steps",
    )
    extras = "".join(f", {key}={config[key]}" for key in shown if config.get(key))
    return f"{type(optimizer).__name__}(learning_rate={rate}{extras})"
