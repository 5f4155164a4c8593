"""Which devices a run uses. It is settled before any Keras object exists."""

from __future__ import annotations

import dataclasses

import keras

from tflearn.support.errors import ConfigError, nearest

KINDS = ("auto", "single")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distribution:
    """The declaration.

    Args:
        kind: `single`: the first device. `auto`: the best that is there; today this
            is the first device too, and a line says which ones stay idle.
    """

    kind: str = "auto"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices:
    """What a declaration came to on this machine.

    Args:
        names: The devices that are used.
        platform: `cpu`, `gpu` or `tpu`.
        note: One line on what was chosen and why.
    """

    names: tuple[str, ...]
    platform: str
    note: str


def resolve(distribution: Distribution) -> Devices:
    """Chooses devices.

    Args:
        distribution: The declaration.

    Returns:
        The devices.

    Raises:
        ConfigError: The kind is unknown.
    """
    if distribution.kind not in KINDS:
        raise ConfigError(
            "unknown kind of distribution",
            received=distribution.kind,
            expected=KINDS,
            nearest=nearest(distribution.kind, KINDS),
        )
    found = keras.distribution.list_devices()
    used = found[:1]
    platform = used[0].split(":")[0].lower()
    note = f"{distribution.kind}: {used[0]} on the {keras.backend.backend()} backend"
    if len(found) > 1:
        note += f"; idle: {', '.join(found[1:])}"
    return Devices(names=tuple(used), platform=platform, note=note)
