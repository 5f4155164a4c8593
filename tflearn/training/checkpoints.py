"""Checkpoints: every variable by its path, with Orbax.

Keras's own files are exports, not checkpoints: they leave out the state of random
generators and are not written atomically. A checkpoint here holds all variables of
the model (seed generators included) and of the optimizer, and a small JSON record.
"""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tflearn.backbones import graph
from tflearn.distribution import processes
from tflearn.distribution.arrays import holds, restored_form, saved_form
from tflearn.support.errors import RunError


class Checkpoints:
    """The checkpoints of one stage; the newest two are kept.

    Args:
        folder: Where they lie; made when the first one is saved.
        keep: How many of the newest are kept; None: all that are not deleted.

    Example:

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder)
    ...     checkpoints.save(7, model, record={"best": 0.5})
    ...     checkpoints.restore(model)
    {'best': 0.5, 'step': 7}
    """

    def __init__(self, folder: str | pathlib.Path, *, keep: int | None = 2) -> None:
        """Opens the folder."""
        # Orbax imports JAX: only a run that trains pays for it.
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.ERROR)
        self._ocp = ocp
        self._manager = ocp.CheckpointManager(
            pathlib.Path(folder).absolute(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, enable_async_checkpointing=False
            ),
            # Named, so that a new process can ask what a checkpoint holds.
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "record": ocp.JsonCheckpointHandler(),
            },
        )

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of all complete checkpoints, the oldest first."""
        self._refresh()
        return tuple(sorted(self._manager.all_steps()))

    def delete(self, step: int) -> None:
        """Deletes a checkpoint."""
        if _takes_part():
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
    ) -> None:
        """Writes a checkpoint; it appears whole or not at all.

        Args:
            step: Steps trained so far.
            model: Its variables are saved by path.
            optimizer: Its variables are saved by position and name.
            record: Anything JSON takes.
        """
        if not _takes_part() or step in self._manager.all_steps():
            # A process that was killed after this save trains the step again, to the
            # same bits.
            return
        arrays = {
            path: saved_form(variable)
            for path, variable in state_variables(model, optimizer).items()
        }
        self._manager.save(
            step,
            args=self._ocp.args.Composite(
                state=self._ocp.args.StandardSave(arrays),
                record=self._ocp.args.JsonSave({**(record or {}), "step": step}),
            ),
        )

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
        step = self.latest if step is None else step
        if step is None:
            raise RunError("there is no checkpoint to restore")
        variables, held = state_variables(model, optimizer), self._held(step)
        _check_same(variables, {path: shape for path, (shape, _) in held.items()})
        target = {
            path: restored_form(variables[path], dtype)
            for path, (_, dtype) in held.items()
        }
        arguments = self._ocp.args
        saved = self._manager.restore(
            step,
            args=arguments.Composite(
                state=arguments.StandardRestore(target), record=arguments.JsonRestore()
            ),
        )
        assign(variables, saved["state"])
        return dict(saved["record"])

    def _refresh(self) -> None:
        """Lets processes see what another one has written."""
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
