"""Accelerators as their makers document them, and the least time a step can take there.

Nothing here is measured and no price is known: what an hour costs only the user knows.
Memory is in GB of 10^9 bytes, rates are dense (no sparsity) and in the type that JAX
multiplies in by default: on GPUs since Ampere `float32` is TF32, on TPUs bfloat16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tflearn.distribution import topology
from tflearn.distribution.hlo import Traffic
from tflearn.support.errors import ConfigError, nearest

#: Share of a GPU's memory that JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says
#: otherwise: https://docs.jax.dev/en/latest/gpu_memory_allocation.html
GPU_SHARE = 0.75
#: What a plan calls the machine that it runs on.
HERE = "here"
_PLATFORMS = ("cpu", "gpu", "tpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """A kind of device, and how many of them.

    Args:
        name: What it is called.
        platform: `gpu`, `tpu` or `cpu`.
        memory_gb: Memory of a device, in 10^9 bytes; None: not known.
        peak_tflops: Highest rate by type, in 10^12 operations a second.
        bandwidth_gb_per_second: Of its memory, in 10^9 bytes a second.
        link_gb_per_second: To other devices, both directions together.
        tdp_watts: Power it is designed for, where its maker documents it.
        price_per_hour: What an hour of one device costs you, in your currency.
        devices: How many.
        slice_name: The slice that the compiler of TPUs knows it by.
        source: Where the figures are from.

    Example:

    >>> Hardware(name="mine", platform="gpu", memory_gb=24.0).memory_bytes
    18000000000.0
    """

    name: str
    platform: str = "gpu"
    memory_gb: float | None = None
    peak_tflops: Mapping[str, float] = dataclasses.field(default_factory=dict)
    bandwidth_gb_per_second: float | None = None
    link_gb_per_second: float | None = None
    tdp_watts: float | None = None
    price_per_hour: float | None = None
    devices: int = 1
    slice_name: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        """Checks what is declared."""
        if self.platform not in _PLATFORMS:
            raise ConfigError(
                f"unknown platform of hardware '{self.name}'",
                received=self.platform,
                expected=_PLATFORMS,
                nearest=nearest(str(self.platform), _PLATFORMS),
            )
        if self.devices < 1:
            raise ConfigError(
                f"hardware '{self.name}' needs a device", received=self.devices
            )

    @property
    def memory_bytes(self) -> float | None:
        """What a program may take on a device: of a GPU, JAX takes three quarters."""
        if self.memory_gb is None:
            return None
        return self.memory_gb * 1e9 * (GPU_SHARE if self.platform == "gpu" else 1.0)

    def peak_flops(self, dtype: str) -> float | None:
        """Returns the highest rate for a type, or for any where that is not known.

        Args:
            dtype: Such as `bfloat16`.
        """
        if not self.peak_tflops:
            return None
        found = self.peak_tflops.get(dtype)
        return 1e12 * (max(self.peak_tflops.values()) if found is None else found)

    def least_seconds(
        self,
        *,
        flops: float,
        num_bytes: float,
        traffic: Mapping[str, Traffic],
        dtype: str,
    ) -> float | None:
        """Returns the time that a step takes at best.

        `max(flops / peak, bytes / bandwidth, sent / link)`: everything overlaps, and
        nothing waits.

        Args:
            flops: Operations of products on a device.
            num_bytes: What has to be read and written of a device's memory.
            traffic: What is sent between devices, by kind.
            dtype: The type of the products.

        Returns:
            Seconds; None where no rate is documented.

        Example:

        >>> known = Hardware(name="x", peak_tflops={"bfloat16": 100.0})
        >>> known.least_seconds(
        ...     flops=1e12, num_bytes=0.0, traffic={}, dtype="bfloat16")
        0.01
        """
        peak = self.peak_flops(dtype)
        if peak is None:
            return None
        bounds = [flops / peak]
        if self.bandwidth_gb_per_second:
            bounds.append(num_bytes / (1e9 * self.bandwidth_gb_per_second))
        if self.link_gb_per_second and self.devices > 1:
            # A device need not send to itself what is its own already.
            share = (self.devices - 1) / self.devices
            sent = share * sum(x.num_bytes for x in traffic.values())
            bounds.append(sent / (1e9 * self.link_gb_per_second))
        return max(bounds)


def _gpu(
    name: str,
    memory_gb: float,
    peaks: Mapping[str, float],
    speeds: tuple[float, float],
    tdp_watts: float,
    page: str,
) -> Hardware:
    bandwidth, link = speeds
    return Hardware(
        name=name,
        memory_gb=memory_gb,
        peak_tflops=dict(peaks),
        bandwidth_gb_per_second=bandwidth,
        link_gb_per_second=link,
        tdp_watts=tdp_watts,
        source=f"https://www.nvidia.com/en-us/{page}",
    )


def _tpu(name: str, peak: float, bandwidth: float, link: float) -> Hardware:
    return Hardware(
        name=name,
        platform="tpu",
        memory_gb=topology.CHIPS[name].memory_gib * 2**30 / 1e9,
        peak_tflops={"bfloat16": peak},
        bandwidth_gb_per_second=bandwidth,
        link_gb_per_second=link,
        source=f"https://docs.cloud.google.com/tpu/docs/{name}",
    )


def _half(rate: float, tf32: float) -> dict[str, float]:
    return {"float32": tf32, "bfloat16": rate, "float16": rate}


_CENTER = "data-center"
#: TDP of TPUs is not documented.
DOCUMENTED: Sequence[Hardware] = (
    _gpu(
        "t4",
        16.0,
        {"float32": 8.1, "float16": 65.0},
        (320.0, 32.0),
        70.0,
        f"{_CENTER}/tesla-t4/",
    ),
    _gpu(
        "v100-32gb",
        32.0,
        {"float32": 15.7, "float16": 125.0},
        (900.0, 300.0),
        300.0,
        f"{_CENTER}/v100/",
    ),
    _gpu("l4", 24.0, _half(121.0, 60.0), (300.0, 64.0), 72.0, f"{_CENTER}/l4/"),
    _gpu(
        "a10",
        24.0,
        _half(125.0, 62.5),
        (600.0, 64.0),
        150.0,
        f"{_CENTER}/products/a10-gpu/",
    ),
    _gpu(
        "a100-40gb",
        40.0,
        _half(312.0, 156.0),
        (1555.0, 600.0),
        400.0,
        f"{_CENTER}/a100/",
    ),
    _gpu(
        "a100-80gb",
        80.0,
        _half(312.0, 156.0),
        (2039.0, 600.0),
        400.0,
        f"{_CENTER}/a100/",
    ),
    _gpu(
        "h100-80gb",
        80.0,
        _half(989.5, 494.5),
        (3350.0, 900.0),
        700.0,
        f"{_CENTER}/h100/",
    ),
    _gpu(
        "h200-141gb",
        141.0,
        _half(989.5, 494.5),
        (4800.0, 900.0),
        700.0,
        f"{_CENTER}/h200/",
    ),
    _tpu("v5e", 197.0, 819.0, 400.0),
    _tpu("v5p", 459.0, 2765.0, 1200.0),
    _tpu("v6e", 918.0, 1638.0, 800.0),
)


def find(name: str, declared: Sequence[Hardware] = ()) -> Hardware:
    """Looks hardware up by its name.

    Args:
        name: `a100-80gb`, `h100-80gb:8` for eight of them, or a slice of TPUs such as
            `v5e:2x4`.
        declared: Hardware of the user's own; it hides documented one of its name.

    Returns:
        The hardware, with the number of devices.

    Raises:
        ConfigError: It is not known; the message names the nearest one that is.

    Example:

    >>> find("a100-80gb:4").devices, find("v5e:2x4").devices
    (4, 8)
    """
    known = {x.name: x for x in (*DOCUMENTED, *declared)}
    if name in known:
        return _alone(known[name])
    kind, _, count = name.partition(":")
    found = known.get(kind)
    if found is not None and found.platform == "tpu":
        chips = topology.parse(name).chips
        return dataclasses.replace(found, name=name, devices=chips, slice_name=name)
    if found is not None and count.isdecimal() and int(count):
        return dataclasses.replace(found, name=name, devices=int(count))
    listed = [HERE, *known]
    raise ConfigError(
        "this hardware is not known",
        received=name,
        expected=f"{', '.join(listed)}; of several devices 'a100-80gb:8' or 'v5e:2x4'",
        fix="declare it: distribution.hardware.Hardware, as in gin/hardware/table.gin",
        nearest=nearest(name, listed) or nearest(kind, listed),
    )


def _alone(found: Hardware) -> Hardware:
    """Gives one chip of a kind the name that its compiler knows it by."""
    alone = {"v5e": "v5e:1x1", "v6e": "v6e:1x1", "v5p": "v5p:2x2x1"}.get(found.name)
    if found.platform != "tpu" or found.slice_name or alone is None:
        return found
    chips = topology.parse(alone).chips
    return dataclasses.replace(found, slice_name=alone, devices=chips)
