"""Joining the other processes of a run, before anything lists devices."""

from __future__ import annotations

import os

import keras

from tflearn.distribution.plan import Distribution
from tflearn.support.errors import ConfigError

#: Variables of an environment in which JAX finds the other processes by itself.
_FOUND_BY_JAX = ("TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS")


def start(distribution: Distribution) -> None:
    """Joins the other processes of a run.

    Args:
        distribution: The declaration; nothing happens with one process.

    Raises:
        ConfigError: The processes are declared in part only, or the backend is JAX.
    """
    if keras.backend.backend() == "tensorflow":
        from tflearn.distribution import tf_strategy

        tf_strategy.start(distribution)
        return
    declared = (
        distribution.coordinator,
        distribution.processes,
        distribution.process_id,
    )
    if all(x is None for x in declared):
        if not _in_a_pod():
            return
    elif any(x is None for x in declared):
        raise ConfigError(
            "several processes need three values",
            received=", ".join(map(repr, declared)),
            expected="coordinator, processes and process_id",
            fix="--coordinator=HOST:PORT --processes=N --process_id=I",
        )
    # Joining is the easy half (`keras.distribution.initialize`). Without the other one,
    # each process would take the whole batch for its own rows, and the loss curve of a
    # run on repeated examples looks like any other.
    raise ConfigError(
        "several processes are not possible on JAX yet",
        received=_received(declared),
        fix="use the devices of one machine, or --backend=tensorflow with kind 'data'",
    )


def _received(declared: tuple[str | None, int | None, int | None]) -> str:
    if declared[0] is None:
        return "a slice of several hosts"
    return "coordinator, processes, process_id = " + ", ".join(map(repr, declared))


def _in_a_pod() -> bool:
    hosts = os.environ.get(_FOUND_BY_JAX[0], "")
    return "," in hosts or bool(os.environ.get(_FOUND_BY_JAX[1]))
