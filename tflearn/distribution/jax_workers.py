"""Several processes on JAX: finding each other, and what they say when one is gone."""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from tflearn.distribution.processes import (
    HEARTBEAT_SECONDS,
    START_SECONDS,
    Here,
    ProcessLost,
)
from tflearn.support.errors import ConfigError

if TYPE_CHECKING:
    from tflearn.distribution.plan import Distribution

#: Devices of a TPU, as Cloud TPU machines show them.
_TPU_CHIPS = ("/dev/accel*", "/dev/vfio/[0-9]*")
# What the network layer and the coordination service say when a process is gone.
_SIGNS = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "connection refused",
    "timed out waiting",
    "heartbeat",
    "coordination service",
    "coordinationservice",
    "gloo",
    "nccl",
)
_STATUSES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED")


def start(distribution: Distribution) -> Here | None:
    """Joins the other processes, as declared or as the environment says.

    Args:
        distribution: The declaration.

    Returns:
        This process among them; None if there is one.

    Raises:
        ConfigError: JAX does not know of any others.
        ProcessLost: They did not come, or JAX has looked for devices already.
    """
    if _is_alone(distribution):
        return None
    import jax

    if not jax.distributed.is_initialized():
        _refuse(distribution)
        _initialize(distribution)
    return Here(jax.process_index(), jax.process_count(), _gather)


def check_all_joined(joined: int) -> None:
    """Checks that JAX knows of no more processes than those that were joined.

    The chips of a slice know each other without JAX's service; every host would take
    the whole batch for its own.

    Args:
        joined: How many were joined.

    Raises:
        ConfigError: It knows of more.
    """
    import jax

    if jax.process_count() != joined:
        raise ConfigError(
            "this machine is one of several, and they were not joined",
            received=f"{jax.process_count()} hosts",
            fix="--coordinator=HOST:PORT --processes=N --process_id=I",
        )


def lost(error: Exception) -> str | None:
    """Returns what an error says about a process that is gone, else None."""
    import jax

    # That of JAX is one too.
    if not isinstance(error, (RuntimeError, OSError)):
        return None
    said = str(error).strip()
    of_jax = isinstance(error, jax.errors.JaxRuntimeError)
    if of_jax and said.startswith(_STATUSES) or _any_sign(said):
        return said.splitlines()[0][:200]
    return None


def _any_sign(said: str) -> bool:
    return any(sign in said.lower() for sign in _SIGNS)


def _is_alone(distribution: Distribution) -> bool:
    if distribution.processes is not None:
        return distribution.processes == 1
    return not _in_a_pod()


def _in_a_pod() -> bool:
    """Tells whether other hosts of a TPU slice may be there to be found."""
    if os.environ.get("MEGASCALE_COORDINATOR_ADDRESS"):
        return True
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES")
    if hosts is not None:
        return "," in hosts
    # Cloud TPU machines made without GKE say it by their metadata, which JAX reads.
    skipped = os.environ.get("TPU_SKIP_MDS_QUERY") or not any(
        map(glob.glob, _TPU_CHIPS)
    )
    return not skipped and "cpu" != os.environ.get("JAX_PLATFORMS")


def _refuse(distribution: Distribution) -> None:
    if distribution.kind == "single":
        raise ConfigError(
            "several processes are more than a single device",
            received="kind = 'single' with several processes",
            fix="kind = 'data'",
        )
    if distribution.devices is not None:
        raise ConfigError(
            "several processes use all their devices",
            received=f"devices = {distribution.devices}",
            fix="hide devices from the process, such as with CUDA_VISIBLE_DEVICES",
        )


def _initialize(distribution: Distribution) -> None:
    import jax

    found: dict[str, Any] = {}
    if distribution.coordinator is not None:
        # On Slurm JAX would give a process one GPU; here it uses all it can see.
        found = {
            "coordinator_address": distribution.coordinator,
            "num_processes": distribution.processes,
            "process_id": distribution.process_id,
            "cluster_detection_method": "deactivate",
        }
    try:
        # Not `keras.distribution.initialize`, which takes no limits of time.
        jax.distributed.initialize(
            **found,
            initialization_timeout=START_SECONDS,
            # One that is busy may come late to the end; one that is dead shows here.
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        raise ConfigError(
            "the other processes of this run are not known",
            received=str(error),
            fix="--coordinator=HOST:PORT --processes=N --process_id=I",
        ) from error
    except RuntimeError as error:
        # Not a mistake of the declaration: those that come late are waited for again.
        raise ProcessLost(
            "the processes of this run did not find each other",
            received=str(error).strip().splitlines()[0][:300],
            expected="process 0 at the coordinator's address, a free port there, every "
            "process started, and nothing computed before",
        ) from error


def _gather(array: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array))
