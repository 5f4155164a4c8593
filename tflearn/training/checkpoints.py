"""Checkpoints: every variable by its path, with Orbax.

Keras's own files are exports, not checkpoints: they leave out the state of random
generators and are not written atomically. A checkpoint here holds all variables of
the model (seed generators included) and of the optimizer, and a small JSON record.
It appears whole or not at all, and carries a checksum of every array, so that a
damaged one is found before any of it is used.
"""

from __future__ import annotations

import logging
import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import keras
import numpy as np

from tflearn.backbones import graph
from tflearn.distribution import processes
from tflearn.distribution.arrays import holds, restored_form, saved_form
from tflearn.support.console import say
from tflearn.support.errors import RunError

_DIGESTS = "digests"


class Damaged(RunError):
    """A checkpoint that cannot be read, or does not hold what was written."""


class Checkpoints:
    """The checkpoints of one stage; the newest two are kept.

    Args:
        folder: Where they lie; made when the first one is saved.
        keep: How many of the newest are kept; None: all that are not deleted.
        keep_every: Those at multiples of so many steps stay, too.
        background: Whether training goes on while a checkpoint is written.
        read_only: Whether nothing in the folder may change.

    Example:

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder)
    ...     checkpoints.save(7, model, record={"best": 0.5})
    ...     checkpoints.restore(model)
    {'best': 0.5, 'step': 7}
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        *,
        keep: int | None = 2,
        keep_every: int | None = None,
        background: bool = False,
        read_only: bool = False,
    ) -> None:
        """Opens the folder."""
        # Orbax imports JAX: only a run that trains pays for it.
        import orbax.checkpoint as ocp

        # It logs with a traceback what it raises as well.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._ocp = ocp
        self._manager = ocp.CheckpointManager(
            pathlib.Path(folder).absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                keep_period=keep_every,
                enable_async_checkpointing=background,
                read_only=read_only,
            ),
            # Named, so that a new process can ask what a checkpoint holds.
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "unfinished": ocp.StandardCheckpointHandler(),
                "record": ocp.JsonCheckpointHandler(),
            },
        )

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        self._manager.wait_until_finished()
        return self._manager.latest_step()

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of all complete checkpoints, the oldest first."""
        self._refresh()
        return tuple(sorted(self._manager.all_steps()))

    def delete(self, step: int) -> None:
        """Deletes a checkpoint."""
        if _takes_part():
            self._manager.wait_until_finished()
            self._manager.delete(step)

    def read(self, step: int) -> dict[str, np.ndarray]:
        """Reads the variables of a checkpoint by path, without a model."""
        self._refresh()
        # Without a target, arrays would want the devices they were saved from.
        target = {
            path: np.empty(shape, dtype)
            for path, (shape, dtype) in self._held(step).items()
        }
        arguments = self._ocp.args
        saved = self._manager.restore(
            step, args=arguments.Composite(state=arguments.StandardRestore(target))
        )
        return dict(saved["state"])

    def _held(self, step: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns shape and type of every variable of a checkpoint by path."""
        metadata: Any = self._manager.item_metadata(step)
        return {
            path: (tuple(array.shape), np.dtype(array.dtype))
            for path, array in metadata["state"].items()
        }

    def save(
        self,
        step: int,
        model: keras.Model,
        *,
        optimizer: keras.optimizers.Optimizer | None = None,
        record: Mapping[str, Any] | None = None,
        metrics: Sequence[keras.Variable] = (),
    ) -> None:
        """Writes a checkpoint; it appears whole or not at all.

        Args:
            step: Steps trained so far.
            model: Its variables are saved by path.
            optimizer: Its variables are saved by position and name.
            record: Anything JSON takes.
            metrics: What the metrics of an unfinished interval have added up.
        """
        if not _takes_part() or step in self._manager.all_steps():
            # A process that was killed after this save trains the step again, to the
            # same bits.
            return
        arrays = {
            path: saved_form(variable)
            for path, variable in state_variables(model, optimizer).items()
        }
        arguments = self._ocp.args
        told = {**(record or {}), "step": step, _DIGESTS: _digests(arrays)}
        items: dict[str, Any] = {
            "state": arguments.StandardSave(arrays),
            "record": arguments.JsonSave(told),
        }
        if metrics:
            values = {f"{i:04d}": saved_form(x) for i, x in enumerate(metrics)}
            items["unfinished"] = arguments.StandardSave(values)
        self._manager.save(step, args=arguments.Composite(**items))

    def restore(
        self,
        model: keras.Model,
        *,
        optimizer: keras.optimizers.Optimizer | None = None,
        step: int | None = None,
    ) -> dict[str, Any]:
        """Reads a checkpoint back into a model and its optimizer.

        Args:
            model: A model with the same variables.
            optimizer: A built optimizer with the same variables.
            step: Which checkpoint; the newest by default.

        Returns:
            The record it was saved with, and its `step`.

        Raises:
            RunError: The variables are not those of the checkpoint.
        """
        self._refresh()
        if step is not None:
            return self._restore(step, model, optimizer)
        for step in reversed(self.steps):
            try:
                return self._restore(step, model, optimizer)
            except Damaged as error:
                say(f"warning: {error}. The one before it is taken")
                # Its step is trained again, and then saved again.
                self.delete(step)
        raise RunError(
            "there is no checkpoint that can be restored",
            received=str(self._manager.directory),
            fix="delete the folder of the stage to train it from its start",
        )

    def check(self, step: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Reads a checkpoint without a model and compares it with its checksums.

        Args:
            step: Which one.

        Returns:
            Shape and type of every variable by path.

        Raises:
            Damaged: It cannot be read, or is not what was written.
        """
        arguments = self._ocp.args
        try:
            held, found = self._held(step), _digests(self.read(step))
            saved = self._manager.restore(
                step, args=arguments.Composite(record=arguments.JsonRestore())
            )
            self.metrics(step)
        except Exception as error:
            raise self._damaged(step, error) from error
        self._check_digests(step, dict(saved["record"]).get(_DIGESTS, {}), found)
        return held

    def metrics(self, step: int) -> list[np.ndarray]:
        """Returns what the metrics had added up, if it was inside an interval."""
        self._manager.wait_until_finished()
        held: Any = self._manager.item_metadata(step).get("unfinished")
        if held is None:
            return []
        target = {x: np.empty(y.shape, np.dtype(y.dtype)) for x, y in held.items()}
        arguments = self._ocp.args
        saved = self._manager.restore(
            step, args=arguments.Composite(unfinished=arguments.StandardRestore(target))
        )
        return [np.asarray(saved["unfinished"][name]) for name in sorted(target)]

    def _restore(
        self,
        step: int,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer | None,
    ) -> dict[str, Any]:
        variables = state_variables(model, optimizer)
        try:
            held = self._held(step)
        except Exception as error:
            raise self._damaged(step, error) from error
        _check_same(variables, {path: shape for path, (shape, _) in held.items()})
        target = {
            path: restored_form(variables[path], dtype)
            for path, (_, dtype) in held.items()
        }
        arguments = self._ocp.args
        try:
            saved = self._manager.restore(
                step,
                args=arguments.Composite(
                    state=arguments.StandardRestore(target),
                    record=arguments.JsonRestore(),
                ),
            )
            self.metrics(step)
        # Every library below has errors of its own for a file that is damaged.
        except Exception as error:
            raise self._damaged(step, error) from error
        record = dict(saved["record"])
        written = record.pop(_DIGESTS, {})
        self._check_digests(step, written, _digests(saved["state"]))
        assign(variables, saved["state"])
        return record

    def _check_digests(
        self, step: int, written: Mapping[str, str], found: Mapping[str, str]
    ) -> None:
        changed = [x for x in found if written and found[x] != written.get(x)]
        if changed:
            raise self._damaged(step, f"{changed[0]} is not what was written")

    def _damaged(self, step: int, found: object) -> Damaged:
        return Damaged(
            f"the checkpoint of step {step} is damaged",
            received=f"{self._manager.directory / str(step)}: {_short(found)}",
        )

    def _refresh(self) -> None:
        """Lets processes see what another one has written."""
        self._manager.wait_until_finished()
        processes.meet()
        if not _takes_part():
            self._manager.reload()

    def close(self) -> None:
        """Lets go of the folder."""
        self._manager.close()


def _takes_part() -> bool:
    """Tells whether this process writes checkpoints.

    On JAX each one writes the parts that it holds, and Orbax waits for all of them; on
    TensorFlow everyone holds everything, and the first one writes.
    """
    return processes.is_chief() or keras.backend.backend() == "jax"


def _digests(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Returns a checksum of every array that this process holds whole."""
    whole = {
        path: np.asarray(array)
        for path, array in arrays.items()
        if getattr(array, "is_fully_addressable", True)
    }
    # Training waits for this: no copies, and a thread for every core.
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(whole, pool.map(_checksum, whole.values()), strict=True))


def _checksum(array: np.ndarray) -> str:
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return f"{zlib.crc32(values.data):08x}"


def _short(found: object) -> str:
    text = f"{type(found).__name__}: {found}" if isinstance(found, Exception) else found
    return " ".join(str(text).split())[:300]


def state_variables(
    model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None
) -> dict[str, keras.Variable]:
    """Returns everything that a run changes, by a name that survives a restart.

    Args:
        model: The model.
        optimizer: Its optimizer, once built.

    Returns:
        Variables by path; those of the optimizer as `optimizer/0003/momentum`.
    """
    variables = dict(graph.variables_by_path(model))
    if optimizer is not None:
        # Names of slots hold automatic layer names; their order is the stable part.
        for index, variable in enumerate(optimizer.variables):
            variables[f"optimizer/{index:04d}"] = variable
    return variables


def assign(
    variables: Mapping[str, keras.Variable], arrays: Mapping[str, np.ndarray]
) -> None:
    """Sets variables from arrays of the same paths and shapes, and checks it.

    Args:
        variables: What to set.
        arrays: The values.

    Raises:
        RunError: Paths or shapes differ, or a value did not arrive.
    """
    _check_same(variables, {path: tuple(x.shape) for path, x in arrays.items()})
    for path, variable in variables.items():
        variable.assign(arrays[path])
        if not holds(variable, arrays[path]):
            raise RunError("a restored value did not arrive", received=path)


def _check_same(
    variables: Mapping[str, keras.Variable], saved: Mapping[str, tuple[int, ...]]
) -> None:
    missing = sorted(set(variables) - set(saved))
    extra = sorted(set(saved) - set(variables))
    shapes = [
        f"{path}: {saved[path]} for {tuple(variables[path].shape)}"
        for path in variables
        if path in saved and saved[path] != tuple(variables[path].shape)
    ]
    if missing or extra or shapes:
        raise RunError(
            "the checkpoint is of another model",
            received=f"missing {missing[:3]}, extra {extra[:3]}, shapes {shapes[:3]}",
            expected=f"{len(variables)} variables with equal paths and shapes",
            fix="use a new output directory for a changed experiment",
        )
