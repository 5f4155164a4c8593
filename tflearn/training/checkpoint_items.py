"""What one checkpoint is made of: variables, what metrics added up, a record of both.

Orbax writes and reads the items; a checksum of every array is part of the record, so
that a damaged file is found before anything of it is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.distribution.arrays import restored_form, saved_form
from tflearn.support.errors import RunError
from tflearn.training import variables

_DIGESTS = "digests"


class Damaged(RunError):
    """A checkpoint that cannot be read, or does not hold what was written."""


@dataclasses.dataclass(frozen=True)
class Content:
    """What a checkpoint holds.

    Args:
        arrays: The variables by path.
        record: What it was saved with, and its `step`.
        metrics: What the metrics had added up, if it was inside an interval.
    """

    arrays: Mapping[str, Any]
    record: dict[str, Any]
    metrics: Sequence[np.ndarray]


class Items:
    """Writes and reads the items of checkpoints in a folder.

    Args:
        manager: Orbax's, made with `handlers`.
        shown: The folder as the user knows it.
    """

    def __init__(self, manager: Any, shown: str) -> None:
        """Reads and writes nothing."""
        import orbax.checkpoint as ocp

        self._manager, self._shown, self._args = manager, shown, ocp.args

    @staticmethod
    def handlers() -> dict[str, Any]:
        """Names the items, so that a new process can ask what a checkpoint holds."""
        import orbax.checkpoint as ocp

        # Trained weights hardly get smaller, and training would wait for the cores.
        return {
            "state": ocp.PyTreeCheckpointHandler(use_compression=False),
            "unfinished": ocp.PyTreeCheckpointHandler(use_compression=False),
            "record": ocp.JsonCheckpointHandler(),
        }

    def write(
        self,
        step: int,
        state: Mapping[str, keras.Variable],
        record: Mapping[str, Any],
        metrics: Sequence[keras.Variable],
    ) -> None:
        """Writes a checkpoint, perhaps in the background."""
        arrays = saved_form(state)
        sums = saved_form({f"{i:04d}": x for i, x in enumerate(metrics)})
        digests = variables.digests(arrays) | variables.digests(_named(sums))
        items: dict[str, Any] = {
            "state": self._args.PyTreeSave(arrays),
            "record": self._args.JsonSave({**record, "step": step, _DIGESTS: digests}),
        }
        if sums:
            items["unfinished"] = self._args.PyTreeSave(sums)
        self._manager.save(step, args=self._args.Composite(**items))

    def held(self, step: int) -> dict[str, Any]:
        """Returns shapes and types of what a checkpoint holds.

        Raises:
            Damaged: It does not say.
        """
        try:
            metadata: Any = self._manager.item_metadata(step)
            unfinished = metadata.get("unfinished") or {}
            return {"state": dict(metadata["state"]), "unfinished": dict(unfinished)}
        except Exception as error:
            raise self._damaged(step, error) from error

    def read(
        self, step: int, into: Mapping[str, keras.Variable] | None = None
    ) -> Content:
        """Reads all of a checkpoint and compares it with its checksums.

        Args:
            step: Which one.
            into: The variables that it is read for; None: it is read as it is.

        Raises:
            Damaged: It is not whole.
            RunError: The variables are others.
        """
        held = self.held(step)
        state, unfinished = held["state"], held["unfinished"]
        if into is not None:
            shapes = {path: tuple(array.shape) for path, array in state.items()}
            variables.check_same(into, shapes)
        # Without a target, arrays would want the devices they were saved from.
        target = {
            path: _empty(x) if into is None else restored_form(into[path], _dtype(x))
            for path, x in state.items()
        }
        items: dict[str, Any] = {
            "state": self._restored_as(target),
            "record": self._args.JsonRestore(),
        }
        if unfinished:
            sums = {name: _empty(x) for name, x in unfinished.items()}
            items["unfinished"] = self._restored_as(sums)
        try:
            saved = self._manager.restore(step, args=self._args.Composite(**items))
            record, arrays = dict(saved["record"]), saved["state"]
            sums = saved["unfinished"] if unfinished else {}
        # Every library below has errors of its own for a file that is damaged.
        except Exception as error:
            raise self._damaged(step, error) from error
        written = record.pop(_DIGESTS, {})
        found = variables.digests(arrays) | variables.digests(_named(sums))
        changed = [x for x in found if x in written and found[x] != written[x]]
        if changed:
            raise self._damaged(step, f"{changed[0]} is not what was written")
        metrics = [np.asarray(sums[name]) for name in sorted(sums)]
        return Content(arrays=arrays, record=record, metrics=metrics)

    def _restored_as(self, target: dict[str, Any]) -> Any:
        """Asks for arrays of the kind, type and place of a target."""
        from orbax.checkpoint import checkpoint_utils

        kinds = checkpoint_utils.construct_restore_args(target)
        return self._args.PyTreeRestore(item=target, restore_args=kinds)

    def _damaged(self, step: int, found: object) -> Damaged:
        if isinstance(found, Exception):
            found = f"{type(found).__name__}: {found}"
        return Damaged(
            f"the checkpoint of step {step} is damaged",
            received=f"{self._shown}/{step}: {' '.join(str(found).split())[:300]}",
        )


def _named(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Names what metrics have added up so that no variable has that name."""
    return {f"unfinished/{name}": value for name, value in sums.items()}


def _empty(held: Any) -> np.ndarray:
    return np.empty(tuple(held.shape), _dtype(held))


def _dtype(held: Any) -> np.dtype:
    return np.dtype(held.dtype)
