"""What a declaration of devices says, and what it comes to on this machine.

It is settled before any Keras object exists.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from tflearn.distribution import processes
from tflearn.support.errors import ConfigError, nearest

KINDS = ("auto", "single", "data", "fully_sharded", "tensor")
#: The kinds that split weights.
SHARDED = ("fully_sharded", "tensor")
#: Axes of a mesh. `data` and `fsdp` split the batch, `model` splits matrices.
AXES = ("data", "fsdp", "model")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distribution:
    """The declaration.

    Args:
        kind: `single`: the first device. `data`: every device holds all weights and
            computes a part of the batch. `fully_sharded`: weights, gradients,
            optimizer and averages are split too (ZeRO-3). `tensor`: the matrices of
            attention and MLP blocks are split over the axis `model`. `auto`: `single`
            on one device, else `data`.
        mesh: Sizes of the axes `data`, `fsdp` and `model`; -1 is the rest. All
            devices on `data` by default, under `tensor` on `model`.
        rules: Layouts of your own by pattern over paths of variables, such as
            `{"backbone/*/query/kernel": (None, "model", None)}`: one axis or None for
            every dimension. The first pattern that matches decides; what no pattern
            matches is split as the kind says.
        replicate: Pattern of large variables that may stay whole where the kind
            splits weights.
        devices: How many devices are used; all by default.
        coordinator: Address `host:port` of process 0, for several processes.
        processes: How many there are. On TPU pods all three are found.
        process_id: Which one this is, from 0.
        rematerialize: Pattern of layers whose activations are computed again in the
            backward pass instead of being kept.
    """

    kind: str = "auto"
    mesh: Mapping[str, int] | None = None
    rules: Mapping[str, Sequence[str | None]] | None = None
    replicate: str | None = None
    devices: int | None = None
    coordinator: str | None = None
    processes: int | None = None
    process_id: int | None = None
    rematerialize: str | None = None

    def __post_init__(self) -> None:
        """Checks what can be checked without devices."""
        if self.kind not in KINDS:
            raise ConfigError(
                "unknown kind of distribution",
                received=self.kind,
                expected=KINDS,
                nearest=nearest(str(self.kind), KINDS),
            )
        if self.devices is not None and self.devices < 1:
            raise ConfigError(
                "a run needs a device", received=self.devices, expected="1 or more"
            )
        _check_mesh(self)
        if self.kind not in SHARDED and (self.rules or self.replicate):
            raise ConfigError(
                f"nothing is split under kind '{self.kind}'",
                received="rules or replicate",
                fix="declare distribution.Distribution.kind = 'fully_sharded'",
            )


def _check_mesh(distribution: Distribution) -> None:
    mesh = distribution.mesh
    if mesh is None:
        return
    if distribution.kind in ("auto", "single"):
        raise ConfigError(
            f"kind '{distribution.kind}' chooses the mesh itself",
            received=f"mesh = {dict(mesh)}",
            fix="name the kind: 'data', 'fully_sharded' or 'tensor'",
        )
    for name, size in mesh.items():
        if name not in AXES:
            raise ConfigError(
                "unknown axis of a mesh",
                received=name,
                expected=AXES,
                nearest=nearest(str(name), AXES),
            )
        if distribution.kind == "data" and name != "data" and size != 1:
            raise ConfigError(
                f"under kind 'data' nothing is split over the axis '{name}'",
                received=f"mesh = {dict(mesh)}",
                fix="declare kind = 'fully_sharded' or 'tensor'",
            )
        if size != -1 and size < 1:
            raise ConfigError(
                f"the size of the axis '{name}'",
                received=size,
                expected="1 or more, or -1 for the rest",
            )
    if list(mesh.values()).count(-1) > 1:
        raise ConfigError("only one axis can be the rest", received=dict(mesh))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices:
    """What a declaration came to on this machine.

    Args:
        names: The devices that are used, as Keras lists them.
        platform: `cpu`, `gpu` or `tpu`.
        note: One line on what was chosen and why.
        kind: The kind; never `auto`.
        axes: Sizes of the axes of the mesh; `{"data": 1}` on one device.
        declared: The declaration.
        strategy: On TensorFlow with several devices a `tf.distribute.Strategy`, on
            JAX a `keras.distribution.Distribution`, else None.
    """

    names: tuple[str, ...]
    platform: str
    note: str
    kind: str = "single"
    axes: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"data": 1})
    declared: Distribution = Distribution()
    strategy: Any = None

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Makes everything that Keras creates inside lie on these devices.

        Raises:
            ProcessLost: Another process of the run is gone.
        """
        if self.strategy is None:
            yield
            return
        if keras.backend.backend() == "tensorflow":
            from tflearn.distribution import tf_strategy as backend
        else:
            from tflearn.distribution import jax_scope as backend

        with processes.watched(), backend.scope(self.strategy):
            yield


def resolve(distribution: Distribution) -> Devices:
    """Chooses devices.

    Args:
        distribution: The declaration.

    Returns:
        The devices.

    Raises:
        ConfigError: There are fewer devices than declared, the mesh does not fit, or
            the backend cannot do what is declared.
    """
    from tflearn.distribution import layouts

    # Other processes are joined before anything looks for devices, or never.
    processes.start(distribution)
    found = keras.distribution.list_devices()
    if keras.backend.backend() == "jax":
        from tflearn.distribution import jax_workers

        jax_workers.check_all_joined(processes.count())
    wanted = distribution.devices or (1 if distribution.kind == "single" else None)
    if wanted is not None and wanted > len(found):
        raise ConfigError(
            "there are fewer devices than declared",
            received=f"devices = {wanted}",
            expected=f"at most {len(found)}: {', '.join(found)}",
        )
    used = tuple(found[:wanted])
    kind = distribution.kind
    if kind == "auto":
        kind = "single" if len(used) == processes.count() == 1 else "data"
    axes = layouts.axis_sizes(distribution, len(used))
    return Devices(
        names=used,
        platform=used[0].split(":")[0].lower(),
        note=_note(distribution, kind, used, found[len(used) :], axes),
        kind=kind,
        axes=axes,
        declared=distribution,
        strategy=_strategy(distribution, kind, used, axes),
    )


def _note(
    distribution: Distribution,
    kind: str,
    used: Sequence[str],
    idle: Sequence[str],
    axes: Mapping[str, int],
) -> str:
    where = f"{used[0]} on the {keras.backend.backend()} backend"
    if kind == "single":
        note = f"{distribution.kind}: {where}"
    else:
        shape = " x ".join(f"{name} {size}" for name, size in axes.items())
        why = "auto, several devices: " if distribution.kind == "auto" else ""
        several = f" of {total} processes" if (total := processes.count()) > 1 else ""
        note = f"{why}{kind} on {len(used)} devices{several} ({shape}), first {where}"
    return note + (f"; idle: {', '.join(idle)}" if idle else "")


def _strategy(
    distribution: Distribution,
    kind: str,
    names: Sequence[str],
    axes: Mapping[str, int],
) -> Any:
    if kind == "single":
        return None
    if keras.backend.backend() == "tensorflow":
        from tflearn.distribution import tf_strategy

        return tf_strategy.make_strategy(distribution, names)
    from tflearn.distribution import jax_mesh

    return jax_mesh.Mesh(distribution, kind=kind, names=names, axes=axes)
