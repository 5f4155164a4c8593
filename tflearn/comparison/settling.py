"""What is settled before anything trains: which arms there are, how many labels."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from tflearn import experiment
from tflearn.comparison import arms, curves, defaults, tuning
from tflearn.comparison.declaration import Arm, Comparison
from tflearn.comparison.defaults import Default, LeftOut
from tflearn.comparison.points import Point
from tflearn.experiment import Built, Experiment
from tflearn.support import files, secrets, storage
from tflearn.support.console import say
from tflearn.support.errors import ConfigError, RunError, TflearnError
from tflearn.support.tensorflow import hidden_tensorflow
from tflearn.training.features.candidates import tuned

FILE = "settled.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settled:
    """What a comparison consists of.

    Args:
        arms: The arms, declared or by default.
        defaults: The default ones as they are written down.
        left_out: Default arms that the experiment does not allow.
        labels: Numbers of labels, ascending; empty: all, and no curve.
        rows: Training rows there are.
    """

    arms: tuple[Arm, ...]
    defaults: tuple[Default, ...]
    left_out: tuple[LeftOut, ...]
    labels: tuple[int, ...]
    rows: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines on what is left out, counted."""
        if not self.left_out:
            return ()
        count = len(self.left_out)
        first = f"{count} of {count + len(self.arms)} default arms cannot be built:"
        return (first, *(f"{one.name}: {one.reason}" for one in self.left_out))

    def say(self) -> None:
        """Tells what is left out."""
        for note in self.notes:
            say(note)


@hidden_tensorflow()
def settle(base: Experiment, comparison: Comparison, folder: pathlib.Path) -> Settled:
    """Builds every arm without training, or reads what was settled before.

    Args:
        base: The experiment.
        comparison: The comparison.
        folder: Its folder.

    Returns:
        Arms and numbers of labels.

    Raises:
        TflearnError: A declared arm cannot be built, a budget does not go round, or the
            folder holds another comparison.
    """
    path = folder / FILE
    declared = "" if base.declaration is None else secrets.redact(base.declaration.text)
    if path.is_file():
        return _read(files.read_json(path), base, comparison, declared)
    keras.utils.clear_session()
    built = experiment.build(base)
    with built.devices.scope():
        settled = _settle(base, comparison, built)
    for arm in settled.arms:
        _check_budget(base, comparison, arm, folder)
    found = {
        "declaration": declared,
        "defaults": [one.to_json() for one in settled.defaults],
        "left_out": [dataclasses.asdict(one) for one in settled.left_out],
        "labels": list(settled.labels),
        "rows": settled.rows,
    }
    files.write_json(path, secrets.redact_all(found))
    storage.push(folder)
    settled.say()
    return settled


def points(
    base: Experiment,
    comparison: Comparison,
    settled: Settled,
    folder: pathlib.Path,
    *,
    only: Sequence[str] = (),
) -> list[Point]:
    """Returns the points of a comparison, arm by arm.

    Args:
        base: The experiment.
        comparison: The comparison.
        settled: What it consists of.
        folder: Its folder.
        only: Names of arms; empty for all.
    """
    chosen = [arm for arm in settled.arms if not only or arm.name in only]
    made = []
    for arm in chosen:
        changed, own = arms.declared(base, arm)
        made += [
            Point(
                base=changed,
                arm=own,
                comparison=comparison,
                folder=folder,
                labels=labels,
            )
            for labels in curves.points(settled.labels)
        ]
    return made


def _settle(base: Experiment, comparison: Comparison, built: Built) -> Settled:
    made, left_out = (), ()
    for arm in comparison.arms:
        _check_arm(base, arm, built)
    if not comparison.arms:
        made, left_out = defaults.default(base, comparison, built)
        if not made:
            reasons = "; ".join(f"{x.name}: {x.reason}" for x in left_out)
            raise ConfigError("no default arm can be built", received=reasons)
    dataset = built.stages[-1].dataset
    rows = len(dataset.splits["train"])
    if comparison.tuning is not None and "validation" not in dataset.splits:
        raise ConfigError(
            "a comparison is tuned by the validation split, and there is none",
            received="splits " + ", ".join(dataset.splits),
            fix="declare one in data.Data.splits",
        )
    labels = curves.counts(comparison, rows=rows, classes=len(dataset.classes))
    return Settled(
        arms=_arms(base, comparison, made),
        defaults=made,
        left_out=left_out,
        labels=labels,
        rows=rows,
    )


def _arms(
    base: Experiment, comparison: Comparison, made: Sequence[Default]
) -> tuple[Arm, ...]:
    return tuple(comparison.arms) or tuple(x.arm(base, comparison) for x in made)


def _check_arm(base: Experiment, arm: Arm, built: Built) -> None:
    try:
        arms.check(base, arm, built)
    except TflearnError as error:
        raise ConfigError(
            f"arm '{arm.name}' cannot be built", received=str(error)
        ) from error


def _check_budget(
    base: Experiment, comparison: Comparison, arm: Arm, folder: pathlib.Path
) -> None:
    """Lets a budget or a search that cannot be fail before anything trains."""
    changed, own = arms.declared(base, arm)
    point = Point(
        base=changed, arm=own, comparison=comparison, folder=folder, labels=None
    )
    point.seed_budget()
    if comparison.tuning is not None:
        tried = comparison.tuning.candidates(own.rates)
        method = comparison.tuning.method
        tuning.rounds(point.allowance, count=len(tried), method=method)
        tuned(point.last, tried[0], what="Tuning")


def _read(
    found: dict[str, Any], base: Experiment, comparison: Comparison, declared: str
) -> Settled:
    if not secrets.same(found["declaration"], declared):
        raise RunError(
            "the output directory holds another comparison",
            fix="choose another --output_dir, or restore the declaration",
        )
    made = tuple(Default.from_json(one) for one in found["defaults"])
    settled = Settled(
        arms=_arms(base, comparison, made),
        defaults=made,
        left_out=tuple(LeftOut(**one) for one in found["left_out"]),
        labels=tuple(found["labels"]),
        rows=found["rows"],
    )
    settled.say()
    return settled
