"""The machine that plans, and what it can compile for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tflearn.distribution import topology
from tflearn.distribution.hardware import GPU_SHARE, HERE, Hardware
from tflearn.support import environment
from tflearn.support.errors import ConfigError

#: Devices of the host that stand for several GPUs while a step is compiled.
_STAND_INS = 8


def prepare(
    wanted: Sequence[Hardware],
) -> tuple[list[Hardware], list[tuple[Hardware, str]]]:
    """Gets ready to compile for hardware that is not here.

    To be called before JAX has looked for devices.

    Args:
        wanted: The hardware.

    Returns:
        What can be compiled for, and the rest, each with what is missing.
    """
    missing: list[tuple[Hardware, str]] = []
    slices = [x for x in wanted if x.slice_name is not None]
    if slices:
        try:
            topology.prepare()
        except ConfigError as error:
            missing = [(x, str(error)) for x in slices]
    others = [x for x in wanted if x.slice_name is None]
    if others:
        _stand_in(max(_STAND_INS, *(x.devices for x in others)))
    lacking = [x for x, _ in missing]
    return [x for x in wanted if x not in lacking], missing


def _stand_in(count: int) -> None:
    import jax

    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        # JAX has its devices already; what needs more of them says so.
        return


def this(declared: Sequence[Hardware] = ()) -> Hardware:
    """Describes one device of this machine.

    Args:
        declared: Hardware of the user's own; one named `here` adds price and power.
    """
    import jax

    device: Any = jax.devices()[0]
    told: dict[str, Any] = environment.hardware()
    source, memory = f"{told['processor']}, {told['cores']} cores", told["memory_bytes"]
    if device.platform != "cpu":
        source = device.device_kind
        memory = (device.memory_stats() or {}).get("bytes_limit", 0)
        # What JAX may take is known here, so there is no share to be taken of it.
        memory /= GPU_SHARE if device.platform == "gpu" else 1
    found = Hardware(
        name=HERE,
        platform=device.platform,
        memory_gb=memory / 1e9 or None,
        source=source,
    )
    own = next((x for x in declared if x.name == HERE), None)
    if own is None:
        return found
    return dataclasses.replace(
        found, price_per_hour=own.price_per_hour, tdp_watts=own.tdp_watts
    )
