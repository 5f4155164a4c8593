"""Joining the other processes of a run, before anything lists devices."""

from __future__ import annotations

import os

import keras

from tflearn.distribution.plan import Distribution
from tflearn.support.errors import ConfigError

#: Variables of an environment in which JAX finds the other processes by itself.
_FOUND_BY_JAX = ("TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS")

_started: list[tuple[str | None, int | None, int | None]] = []


def start(distribution: Distribution) -> None:
    """Joins the other processes of a run.

    Args:
        distribution: The declaration; nothing happens with one process.

    Raises:
        ConfigError: The processes are declared in part only.
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
            received="coordinator, processes, process_id = "
            + ", ".join(map(repr, declared)),
            fix="--coordinator=HOST:PORT --processes=N --process_id=I",
        )
    if not _started:
        _started.append(declared)
        keras.distribution.initialize(*declared)


def _in_a_pod() -> bool:
    hosts = os.environ.get(_FOUND_BY_JAX[0], "")
    return "," in hosts or bool(os.environ.get(_FOUND_BY_JAX[1]))
