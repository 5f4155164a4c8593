"""Checkpoints: every variable by its path, with Orbax.

Keras's own files are exports, not checkpoints: they leave out the state of random
generators and are not written atomically. A checkpoint here holds all variables of
the model (seed generators included) and of the optimizer, and a small JSON record.
It appears whole or not at all, and carries a checksum of every array, so that a
damaged one is found before any of it is used.
"""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import keras
import numpy as np

from tflearn.distribution import processes
from tflearn.support import files, storage
from tflearn.support.console import say
from tflearn.support.errors import RunError
from tflearn.training.checkpoint_items import Content, Damaged, Items
from tflearn.training.variables import assign, state_variables

__all__ = ["Checkpoints", "Content", "Damaged"]

_T = TypeVar("_T")


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
        self._shown, folder = storage.shown(folder), pathlib.Path(folder)
        # What is packed into a bucket has to be whole when the interval ends.
        background = background and not storage.is_packed(folder)
        # Folders are written at once, and processes that wait for each other tell two
        # of them apart by this alone.
        name = f"{folder.parent.name}/{folder.name}"
        self._place = storage.checkpoint_folder(folder)
        self._manager = ocp.CheckpointManager(
            self._place,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                keep_period=keep_every,
                enable_async_checkpointing=background,
                read_only=read_only,
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    barrier_sync_key_prefix=name
                ),
            ),
            item_handlers=Items.handlers(),
        )
        self._items = Items(self._manager, self._shown)

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
        return dict(self._items.read(step).arrays)

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
            optimizer: Its variables are saved by position.
            record: Anything JSON takes.
            metrics: What the metrics of an unfinished interval have added up.
        """
        if not _takes_part() or step in self._manager.all_steps():
            # A process that was killed after this save trains the step again, to the
            # same bits.
            return
        if isinstance(self._place, pathlib.Path):
            # The new files take the memory of the old ones: on a virtual machine fresh
            # memory costs many times as much, and training needs those cores.
            files.free_page_cache(self._place)
        state = state_variables(model, optimizer)
        self._items.write(step, state, record or {}, metrics)

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
            step: Which checkpoint; by default the newest that is whole.

        Returns:
            The record it was saved with, and its `step`.

        Raises:
            RunError: The variables are not those of the checkpoint.
        """

        def load(step: int) -> Content:
            return self.load(step, model, optimizer=optimizer)

        return (self.newest(load) if step is None else load(step)).record

    def newest(self, load: Callable[[int], _T]) -> _T:
        """Loads the newest checkpoint that is whole; others are named and deleted.

        Args:
            load: Called with its step, and with those before it while it raises
                `Damaged`.

        Returns:
            What it returned.

        Raises:
            RunError: None is whole.
        """
        for step in reversed(self.steps):
            try:
                return load(step)
            except Damaged as error:
                say(f"warning: {error}. The one before it is taken")
                # Its step is trained again, and then saved again.
                self.delete(step)
        raise RunError(
            "there is no checkpoint that can be restored",
            received=self._shown,
            fix="delete the folder of the stage to train it from its start",
        )

    def load(
        self,
        step: int,
        model: keras.Model,
        *,
        optimizer: keras.optimizers.Optimizer | None = None,
    ) -> Content:
        """Reads one checkpoint into a model and its optimizer.

        Args:
            step: Which one.
            model: A model with the same variables.
            optimizer: A built optimizer with the same variables.

        Returns:
            All that it holds.

        Raises:
            Damaged: It is not whole; nothing was set.
            RunError: The variables are not those of the checkpoint.
        """
        self._refresh()
        into = state_variables(model, optimizer)
        found = self._items.read(step, into)
        assign(into, found.arrays)
        return found

    def check(self, step: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Reads a checkpoint without a model and compares it with its checksums.

        Args:
            step: Which one.

        Returns:
            Shape and type of every variable by path.

        Raises:
            Damaged: It cannot be read, or is not what was written.
        """
        arrays = self._items.read(step).arrays
        return {x: (tuple(y.shape), np.dtype(y.dtype)) for x, y in arrays.items()}

    def close(self) -> None:
        """Lets go of the folder."""
        self._manager.close()

    def _refresh(self) -> None:
        """Lets processes see what another one has written."""
        self._manager.wait_until_finished()
        processes.meet()
        if not _takes_part():
            self._manager.reload()


def _takes_part() -> bool:
    """Tells whether this process writes checkpoints.

    On JAX each one writes the parts that it holds, and Orbax waits for all of them; on
    TensorFlow everyone holds everything, and the first one writes.
    """
    return processes.is_chief() or keras.backend.backend() == "jax"
