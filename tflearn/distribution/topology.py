"""Slices of TPU chips that are not there: their names, and the compiler's view of them.

libtpu holds the compiler of TPUs and needs no TPU to run it. A slice is named by the
kind of chip and how many lie along each axis of its grid: `v5e:2x4` is eight chips.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tflearn.support.errors import ConfigError, nearest

MAX_CHIPS = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """A kind of TPU chip.

    Args:
        memory_gib: Its memory, as its maker states it. The compiler keeps a part.
        axes: Axes of the grid that a slice is cut from.
    """

    memory_gib: int
    axes: int


#: Chips with one device a chip, which is what JAX shows of them.
CHIPS: Mapping[str, Chip] = MappingProxyType(
    {
        "v5e": Chip(memory_gib=16, axes=2),
        "v5p": Chip(memory_gib=95, axes=3),
        "v6e": Chip(memory_gib=32, axes=2),
    }
)
_EXAMPLES = {
    "v5e": ("v5e:1x1", "v5e:2x2", "v5e:2x4", "v5e:4x4", "v5e:8x8", "v5e:16x16"),
    "v5p": ("v5p:2x2x1", "v5p:2x2x2", "v5p:2x2x4", "v5p:4x4x4"),
    "v6e": ("v6e:1x1", "v6e:2x2", "v6e:2x4", "v6e:4x4", "v6e:8x8", "v6e:16x16"),
}
# The compiler asks what machine it runs on; without a TPU nobody answers.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A slice by its name.

    Args:
        name: Such as `v5e:2x4`.
        kind: Kind of its chips.
        grid: Chips along each axis.
    """

    name: str
    kind: str
    grid: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.grid)

    @property
    def memory_bytes(self) -> int:
        """Memory of a chip."""
        return CHIPS[self.kind].memory_gib * 2**30


def parse(name: str) -> Slice:
    """Reads the name of a slice.

    Args:
        name: Such as `v5e:2x4`.

    Returns:
        The slice.

    Raises:
        ConfigError: There is no such kind of chip, or no such grid of it.

    Example:

    >>> parse("v5p:2x2x2").chips
    8
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    kind = match.group(1) if match else name.split(":")[0]
    if match is None or kind not in CHIPS:
        known = [example for kind in CHIPS for example in _EXAMPLES[kind]]
        raise ConfigError(
            "there is no such topology",
            received=name,
            expected="a kind of chip and its grid: " + ", ".join(known),
            nearest=nearest(name, known),
        )
    found = Slice(
        name=name, kind=kind, grid=tuple(int(x) for x in match.group(2).split("x"))
    )
    _check_grid(found)
    return found


def _check_grid(found: Slice) -> None:
    examples, axes = _EXAMPLES[found.kind], CHIPS[found.kind].axes
    fits = len(found.grid) == axes and all(x == 1 or x % 2 == 0 for x in found.grid)
    # Hosts hold 2x2 chips; one chip alone can be had where the grid is flat.
    whole = min(found.grid[:2]) > 1
    alone = axes == 2 and found.chips == 1
    if not (fits and (whole or alone) and found.chips <= MAX_CHIPS):
        raise ConfigError(
            f"{found.kind} has no slices of this grid",
            received=found.name,
            expected=f"{axes} even sizes, at most {MAX_CHIPS} chips, such as "
            + ", ".join(examples),
            nearest=nearest(found.name, examples),
        )


def examples(kind: str) -> tuple[str, ...]:
    """Returns names of slices of a kind of chip, the smallest first."""
    return _EXAMPLES[kind]


def prepare() -> None:
    """Keeps JAX on the host's CPU and lets the compiler of TPUs be loaded.

    To be called before JAX has looked for devices.

    Raises:
        ConfigError: The compiler is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "the compiler of TPUs is not installed here (the package libtpu)",
            fix="make tpu-check, which installs it beside this environment; then use "
            ".venv-tpu/bin/python",
        )
    import jax

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")


def mesh(found: Slice, axes: Mapping[str, int]) -> Any:
    """Returns a mesh over the chips of a slice.

    Args:
        found: The slice.
        axes: Sizes of the axes of the mesh by name; their product is the number of
            chips.

    Returns:
        A `jax.sharding.Mesh` of devices that programs can only be compiled for.

    Raises:
        ConfigError: The compiler does not know the slice.
    """
    import jax
    import numpy as np
    from jax.experimental import topologies

    # Alone on its host, a chip is not one of four.
    bounds = {"chips_per_host_bounds": (1, 1, 1)} if found.chips == 1 else {}
    try:
        devices = topologies.get_topology_desc(
            platform="tpu", topology_name=found.name, **bounds
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(
            "the compiler of TPUs does not know this topology",
            received=f"{found.name}: {error}",
            expected=", ".join(_EXAMPLES[found.kind]),
        ) from error
    # In the order of the list, as a run on the slice takes its devices.
    return jax.sharding.Mesh(
        np.array(devices).reshape(tuple(axes.values())), tuple(axes)
    )
