"""Several processes on TensorFlow: who they are, and a strategy that Keras can use.

Keras 3.15 calls a multi-worker strategy wrongly in two places of `fit`: it averages
the first batch over the workers to learn its shapes, and it averages the metrics, which
are scalars, along an axis. Both calls are `strategy.reduce`, so a strategy that
understands what they mean makes `fit`, `evaluate` and `predict` right, and nothing of
Keras has to be changed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tflearn.distribution.processes import HEARTBEAT_SECONDS, START_SECONDS
from tflearn.support.errors import ConfigError

if TYPE_CHECKING:
    from tflearn.distribution.plan import Distribution

#: The Keras whose two calls were read, and with which `fit` equals one device.
VERIFIED = "3.15."

_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a run.

    Args:
        workers: `host:port` of every process.
        index: Which one this is.
    """

    workers: tuple[str, ...]
    index: int


@dataclasses.dataclass(frozen=True)
class Place:
    """Where this process stands in a strategy.

    Args:
        worker: Its index.
        workers: How many there are.
        local: Devices of this process.
    """

    worker: int
    workers: int
    local: int


def cluster(distribution: Distribution) -> Cluster | None:
    """Returns the processes of a run, as declared or as `TF_CONFIG` says.

    Args:
        distribution: The declaration. From `coordinator` and `processes` alone the
            others are known if all run on this machine: process `i` listens on the
            coordinator's port plus `i`. Several machines need `TF_CONFIG`.

    Returns:
        The processes, or None if there is one.

    Raises:
        ConfigError: Declaration and environment disagree, or say too little.

    Example:

    >>> from tflearn.distribution import Distribution
    >>> cluster(Distribution(
    ...     coordinator="localhost:5000", processes=2, process_id=1
    ... )).workers
    ('localhost:5000', 'localhost:5001')
    """
    text = os.environ.get("TF_CONFIG")
    declared = distribution.processes
    if text:
        found = _parse(text)
        if declared not in (None, len(found.workers)):
            raise ConfigError(
                "TF_CONFIG names another number of processes than was declared",
                received=f"{len(found.workers)} in TF_CONFIG",
                expected=f"processes = {declared}",
            )
        return found if len(found.workers) > 1 else None
    if declared in (None, 1):
        return None
    return _declared(distribution, declared)


def strategy(found: Cluster, *, devices: int | None = None) -> Any:
    """Joins the other processes and makes the strategy over all of them.

    Args:
        found: The processes. TensorFlow joins one cluster in the life of a process.
        devices: Devices that each process uses, for the check that they are there.

    Returns:
        A `tf.distribute.MultiWorkerMirroredStrategy` that Keras can use.

    Raises:
        ConfigError: Keras is not the version whose `fit` this makes right.
    """
    if not keras.__version__.startswith(VERIFIED):
        raise ConfigError(
            "several processes on TensorFlow need a Keras whose `fit` was checked",
            received=f"keras {keras.__version__}",
            expected=f"keras {VERIFIED}x",
            fix="--backend=jax, which needs no such care",
        )
    made = _join(found)
    if devices is not None and devices != place(made).local:
        raise ConfigError(
            "every process uses all of its devices on TensorFlow",
            received=f"devices = {devices}",
            expected=f"{place(made).local}",
            fix="hide devices from the process, such as with CUDA_VISIBLE_DEVICES",
        )
    return made


def place(strategy: Any) -> Place:
    """Returns where this process stands in a strategy."""
    resolver = getattr(strategy, "cluster_resolver", None)
    count = strategy.num_replicas_in_sync
    if resolver is None or not resolver.cluster_spec().as_dict():
        return Place(0, 1, count)
    workers = resolver.cluster_spec().num_tasks("worker")
    return Place(int(resolver.task_id), workers, count // workers)


def gather(strategy: Any, array: np.ndarray) -> np.ndarray:
    """Puts the arrays of all processes behind each other.

    Args:
        strategy: The strategy over all workers.
        array: uint8, of one shape in all processes.

    Returns:
        `(processes, ...)`, uint8.
    """
    import tensorflow as tf

    here = place(strategy)
    filled = np.zeros((here.workers, *array.shape), np.int32)
    filled[here.worker] = array

    def own(context: Any) -> Any:
        # Only one device of a process counts, whatever it has.
        worker, replica = divmod(context.replica_id_in_sync_group, here.local)
        return tf.constant(filled if replica == 0 else np.zeros_like(filled))

    values = strategy.experimental_distribute_values_from_function(own)
    # A scalar a process would be averaged; rows are summed place by place.
    summed = strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)
    return summed.numpy().astype(np.uint8)


def lost(error: Exception) -> str | None:
    """Returns what an error says about a process that is gone, else None."""
    import tensorflow as tf

    kinds = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.DeadlineExceededError,
        tf.errors.CancelledError,
    )
    if not isinstance(error, kinds):
        return None
    named = re.findall(r"/job:worker/(?:replica:\d+/)?task:(\d+)", str(error))
    return f"no sign of process {named[-1]}" if named else str(error)[:200]


@functools.cache
def _join(found: Cluster) -> Any:
    import tensorflow as tf
    from tensorflow.compiler.xla.tsl.protobuf import (
        coordination_config_pb2 as protocol,
    )
    from tensorflow.python.eager import context

    os.environ["TF_CONFIG"] = json.dumps(
        {
            "cluster": {"worker": list(found.workers)},
            "task": {"type": "worker", "index": found.index},
        }
    )
    job = protocol.CoordinatedJob(name="worker", num_tasks=len(found.workers))
    # TensorFlow has no public way to say how long a silent worker is waited for.
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=START_SECONDS * 1000,
        heartbeat_timeout_in_ms=HEARTBEAT_SECONDS * 1000,
        coordinated_jobs=[job],
    )

    class Workers(tf.distribute.MultiWorkerMirroredStrategy):
        """The strategy, with `reduce` as Keras means it."""

        def reduce(self, reduce_op: Any, value: Any, axis: Any) -> Any:
            if isinstance(value, (tuple, list, dict)):
                # A batch of which Keras wants the shapes. Workers may hold different
                # numbers of rows, and texts and integers have no mean.
                return tf.nest.map_structure(
                    lambda x: self.experimental_local_results(x)[0], value
                )
            scalar = self.experimental_local_results(value)[0].shape.rank == 0
            return super().reduce(reduce_op, value, axis=None if scalar else axis)

    return Workers()


def _parse(text: str) -> Cluster:
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        if set(jobs) != {"worker"} or task["type"] != "worker":
            raise KeyError("worker")
        return Cluster(tuple(jobs["worker"]), int(task["index"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "TF_CONFIG cannot be used",
            received=text,
            expected='{"cluster": {"worker": ["a:5000", "b:5000"]}, '
            '"task": {"type": "worker", "index": 0}}',
        ) from error


def _declared(distribution: Distribution, count: int) -> Cluster:
    host, _, port = (distribution.coordinator or "").rpartition(":")
    if not host or not port.isdigit() or distribution.process_id is None:
        raise ConfigError(
            "several processes need to know each other",
            received=f"coordinator = {distribution.coordinator!r}, "
            f"process_id = {distribution.process_id}",
            expected="coordinator = 'localhost:5000' and process_id, or TF_CONFIG",
        )
    if host not in _LOCAL:
        raise ConfigError(
            "TensorFlow needs the addresses of all processes on several machines",
            received=f"coordinator = '{distribution.coordinator}' alone",
            expected='TF_CONFIG=\'{"cluster": {"worker": ["a:5000", "b:5000"]}, '
            '"task": {"type": "worker", "index": 0}}\'',
        )
    workers = tuple(f"{host}:{int(port) + i}" for i in range(count))
    return Cluster(workers, distribution.process_id)
