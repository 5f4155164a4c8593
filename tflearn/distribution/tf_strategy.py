"""The `tf.distribute` strategy of a run on TensorFlow, and what it cannot do.

A declaration means the same on both backends: the batch is the global one, and the
loss curve is that of one device. What TensorFlow cannot do is refused when the
experiment is built, with what to declare instead.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras

from tflearn.distribution import tf_workers
from tflearn.distribution.processes import Here
from tflearn.support.errors import ConfigError

if TYPE_CHECKING:
    from tflearn.distribution.plan import Distribution

_ON_JAX = "the same declaration works with --backend=jax"
_strategies = itertools.count(1)


def start(distribution: Distribution) -> Here | None:
    """Joins the other processes of a run, before anything lists devices.

    TensorFlow allows that only as long as it has not looked for devices itself.

    Args:
        distribution: The declaration.

    Returns:
        This process among them; None if there is one.
    """
    cluster = tf_workers.cluster(distribution)
    if cluster is None:
        return None
    _refuse(distribution)
    joined = tf_workers.strategy(cluster, devices=distribution.devices)
    return Here(
        cluster.index,
        len(cluster.workers),
        functools.partial(tf_workers.gather, joined),
    )


def make_strategy(distribution: Distribution, names: Sequence[str]) -> Any:
    """Makes the strategy of a declaration.

    Args:
        distribution: The declaration; `auto` and `data` are the same here.
        names: The devices of this process, as Keras lists them.

    Returns:
        A `tf.distribute.Strategy`: over the workers if there are several processes,
        else `OneDeviceStrategy` or `MirroredStrategy`.

    Raises:
        ConfigError: TensorFlow cannot do what is declared.
    """
    import tensorflow as tf

    _refuse(distribution)
    _refuse_devices(names)
    cluster = tf_workers.cluster(distribution)
    if cluster is not None:
        return tf_workers.strategy(cluster, devices=distribution.devices)
    devices = [name.upper() for name in names]
    if len(devices) == 1:
        return tf.distribute.OneDeviceStrategy(f"/{devices[0]}")
    return _mirrored(tuple(devices))


@contextlib.contextmanager
def scope(strategy: Any) -> Iterator[None]:
    """Makes everything that Keras creates inside lie on the devices of a strategy.

    Args:
        strategy: What `make_strategy` returned.
    """
    from tflearn.distribution import tf_batches

    with strategy.scope(), tf_batches.rows_per_replica():
        yield


def active() -> Any:
    """Returns the strategy that Keras works under now, or None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_strategy() if tf.distribute.has_strategy() else None


def replicas() -> int:
    """Returns in how many parts the active strategy splits a batch; 1 without one."""
    strategy = active()
    return 1 if strategy is None else strategy.num_replicas_in_sync


def check(
    model: keras.Model,
    *,
    optimizer: keras.optimizers.Optimizer,
    loss: keras.losses.Loss,
    jit_compile: bool | str = "auto",
    batch_size: int | None = None,
) -> tuple[str, ...]:
    """Refuses what would train otherwise than on one device, before it trains.

    Args:
        model: The model, its regime applied.
        optimizer: Its optimizer.
        loss: Its loss.
        jit_compile: As in `keras.Model.compile`.
        batch_size: Examples a step over all devices.

    Returns:
        Lines on what is done differently so that the result is the same.

    Raises:
        ConfigError: TensorFlow cannot train this on several devices.
    """
    from tflearn.distribution import tf_training

    count = replicas()
    if count == 1:
        return ()
    if batch_size is not None and batch_size % count:
        below = batch_size // count * count
        raise ConfigError(
            f"a batch does not divide among {count} devices",
            received=f"batch_size = {batch_size}",
            expected=" or ".join(str(x) for x in (below, below + count) if x),
        )
    if optimizer.gradient_accumulation_steps:
        raise ConfigError(
            "TensorFlow cannot accumulate gradients on several devices (Keras updates "
            "the weights inside a condition, which no strategy allows)",
            received=f"gradient_accumulation_steps = "
            f"{optimizer.gradient_accumulation_steps}",
            fix=f"a larger batch_size; or {_ON_JAX}",
        )
    if jit_compile is True:
        raise ConfigError(
            "XLA does not compile a step over several devices on TensorFlow",
            received="jit_compile = True",
            fix=f"jit_compile = 'auto'; {_ON_JAX}, where XLA is always on",
        )
    if getattr(loss, "needs_whole_batch", False):
        raise ConfigError(
            "this loss looks at the whole batch at once, and on TensorFlow each device "
            "would see its own rows alone",
            received=type(loss).__name__,
            fix=f"kind = 'single'; or {_ON_JAX}, where it sees the whole batch",
        )
    return tf_training.check_layers(model)


def check_compiled(model: Any) -> None:
    """Refuses several steps in one call, which no strategy can do.

    Args:
        model: A compiled model.

    Raises:
        ConfigError: It was compiled with `steps_per_execution` above 1.
    """
    if replicas() > 1 and model.steps_per_execution > 1:
        raise ConfigError(
            "TensorFlow cannot run several steps at once on several devices",
            received=f"steps_per_execution = {model.steps_per_execution}",
            fix=f"steps_per_execution = 1; or {_ON_JAX}, which runs ahead by itself",
        )


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> Any:
    import tensorflow as tf

    class Mirrored(tf.distribute.MirroredStrategy):
        """Mirrored, one strategy in a process for the same devices."""

        # TensorFlow remembers every sum over devices by a number, and a second strategy
        # would begin with the numbers of the first: the process aborts.
        _collective_key_base = 1000 * next(_strategies)

    return Mirrored(list(devices))


def _refuse(distribution: Distribution) -> None:
    if distribution.kind in ("fully_sharded", "tensor"):
        raise ConfigError(
            "TensorFlow cannot split weights over devices: its strategies give every "
            "device all of them",
            received=f"kind = '{distribution.kind}' on the TensorFlow backend",
            fix=f"kind = 'data'; or {_ON_JAX}",
        )
    if distribution.kind == "single" and tf_workers.cluster(distribution):
        raise ConfigError(
            "several processes are more than a single device",
            received="kind = 'single' with several processes",
            fix="kind = 'data'",
        )


def _refuse_devices(names: Sequence[str]) -> None:
    if any(name.lower().startswith("tpu") for name in names):
        raise ConfigError(
            "TPUs are driven through JAX: Keras names TensorFlow 2.19 as the last "
            "version with TPU support",
            received=f"{', '.join(names)} on the TensorFlow backend",
            fix=_ON_JAX,
        )
