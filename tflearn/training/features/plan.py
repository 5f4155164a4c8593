"""Whether a stage trains from features of its frozen layers, and from which."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence

import keras
import numpy as np

from tflearn import objectives
from tflearn.backbones.cut import cut
from tflearn.backbones.part import Call, Part
from tflearn.data import pipeline
from tflearn.distribution import processes, tf_strategy
from tflearn.regimes.trainability import layer_paths
from tflearn.support.errors import BackboneError, ConfigError
from tflearn.support.units import bytes_text
from tflearn.training.features import files, views
from tflearn.training.features.examples import Field
from tflearn.training.features.fields import stored
from tflearn.training.stage import Prepared

#: Splits that are trained on or measured.
SPLITS = ("train", "validation", "test")
#: What all features that are kept may take on disk, and those of a run in memory.
DISK_BYTES = 64 * 2**30
MEMORY_BYTES = 4 * 2**30
#: Share of the model's work below which a cache does not pay.
_WORTH = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What would be cached.

    Args:
        prefix: What is computed once.
        suffix: What trains.
        fields: The features, as far as they are known before the prefix has run.
        num_bytes: What they take, of all splits.
        place: `memory` or `disk`.
        layers: Paths of the layers with weights in the prefix.
        share: About how much of the model's work the prefix does.
        head_only: Whether nothing but the head trains.
        views: Augmented views of every training example; 1 where nothing is.
    """

    prefix: Part
    suffix: Part
    fields: tuple[Field, ...]
    num_bytes: int
    place: str
    layers: tuple[str, ...]
    share: float
    head_only: bool
    views: int

    @property
    def by_token(self) -> bool:
        """Whether an example's features differ in length."""
        return any(field.by_token for field in self.fields)

    def __str__(self) -> str:
        shapes = ", ".join(shape_text(field) for field in self.fields)
        views = f" of {self.views} views" if self.views > 1 else ""
        return (
            f"{len(self.layers)} frozen layers up to {self.layers[-1]}, "
            f"{self.share:.0%} of the work; {shapes} an example{views}, "
            f"{bytes_text(self.num_bytes)}"
        )


def plan(prepared: Prepared, *, total_steps: int | None = None) -> Plan | str:
    """Decides whether a stage trains from features.

    Args:
        prepared: The stage, its regime applied.
        total_steps: Its length; None: as prepared.

    Returns:
        What is cached, or why nothing is; an empty text where nothing is frozen, or
        nothing is to be cached.

    Raises:
        ConfigError: A cache is demanded that is not possible.
    """
    mode = prepared.stage.cache
    views.check(prepared)
    if mode == "off":
        return ""
    found = _plan(prepared, total_steps or prepared.total_steps)
    if isinstance(found, str) and mode != "auto":
        raise ConfigError(
            "the features of frozen layers cannot be cached",
            received=f"Stage.cache = '{mode}'; {found or 'nothing is frozen'}",
            fix="declare 'auto', which computes them live then, or 'off'",
        )
    return found


def _plan(prepared: Prepared, total_steps: int | None) -> Plan | str:
    reason = _reason(prepared)
    if reason:
        return reason
    model = prepared.network.model
    if all(x.trainable for x in layer_paths(model).values() if x.weights):
        return ""
    try:
        prefix, suffix = cut(model)
    except BackboneError as error:
        return str(error).splitlines()[0].rstrip(".")
    order = list(map(id, model.trainable_variables))
    if order != list(map(id, suffix.trainable_variables)):
        return "what trains is not all found behind the frozen layers"
    fields = _fields(prepared, prefix)
    if isinstance(fields, str):
        return fields
    share = prefix.products / max(1.0, prefix.products + suffix.products)
    num_bytes = sum(
        field.num_bytes(prepared.examples[x])
        * (views.count(prepared) if x == "train" else 1)
        for field in fields
        for x in SPLITS
        if x in prepared.examples
    )
    place = _place(prepared.stage.cache, num_bytes)
    # All candidates of a grid go through the examples.
    if prepared.stage.cache == "auto" and prepared.stage.grid is None:
        reason = _not_worth(prepared, share, total_steps)
        if reason:
            return reason
    if place is None:
        return (
            f"the features would take {bytes_text(num_bytes)}, more than there is room"
        )
    return Plan(
        prefix=prefix,
        suffix=suffix,
        fields=fields,
        num_bytes=num_bytes,
        place=place,
        layers=_weighted(model, prefix.calls),
        share=share,
        head_only=not any(
            x.trainable_variables
            for path, x in layer_paths(model).items()
            if path.startswith("backbone/")
        ),
        views=views.count(prepared),
    )


def _not_worth(prepared: Prepared, share: float, total_steps: int | None) -> str:
    """Returns why features would cost more than they save, or nothing."""
    if share < _WORTH:
        return (
            f"the frozen layers before the first that trains do {share:.1%} of the work"
        )
    rows = len(prepared.examples["train"])
    if (total_steps or 0) * prepared.stage.batch_size < 2 * rows:
        return "the stage goes through the examples less than twice"
    return ""


def _reason(prepared: Prepared) -> str:
    """Returns what about a stage speaks against features from the start."""
    stage, network = prepared.stage, prepared.network
    reasons = {
        f"'{prepared.task}' makes new inputs at every step": prepared.pretext
        is not None
        or isinstance(prepared.objective, objectives.SelfSupervised),
        "the images are augmented anew every epoch (Stage.cache_views computes some "
        "views once)": bool(prepared.data.augment) and not stage.cache_views,
        "the augmentation mixes images": prepared.data.mixes_labels,
        "the frozen layers differ from phase to phase": bool(stage.phases),
        "old examples are rehearsed": prepared.rehearsed is not None,
        "the network has outputs that only training has": network.model
        is not network.deployed,
        "a budget of time or FLOPs is counted in live steps": prepared.total_steps
        is None,
        "the run has several processes": processes.count() > 1,
        "the run has several devices of TensorFlow": tf_strategy.replicas() > 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _fields(prepared: Prepared, prefix: Part) -> tuple[Field, ...] | str:
    """Returns the features as far as the model's graph tells."""
    examples = prepared.examples["train"]
    texts = examples.lengths is not None
    packing = getattr(prepared.network.backbone.encoder, "packing", None)
    found = []
    for crossing in prefix.crossing:
        shape = crossing.shape
        by_token = texts and shape[:1] == (None,)
        if by_token and getattr(packing, "pad_left", False):
            return "texts are padded on the left, so features hang on the padding"
        shape = shape[1:] if by_token else shape
        if texts and None in shape:
            return f"a feature has two open lengths: {crossing.shape}"
        if None in shape:
            shape = _inferred(prefix, examples, crossing.name)
        found.append(
            Field(
                name=crossing.name,
                shape=tuple(int(x or 0) for x in shape),
                dtype=crossing.dtype,
                stored=stored(prepared, crossing.dtype),
                by_token=by_token,
            )
        )
    return tuple(found)


def _inferred(
    prefix: Part, examples: pipeline.Examples, name: str
) -> tuple[int | None, ...]:
    """Returns the shape of a feature where the model leaves the size of images open."""
    one = examples.batch(np.zeros(1, np.int64))
    symbols = keras.tree.map_structure(
        lambda x: keras.KerasTensor(x.shape, dtype=str(x.dtype)), one
    )
    return tuple(prefix.compute_output_spec(symbols)[name].shape[1:])


def _place(mode: str, num_bytes: int) -> str | None:
    """Returns where features of some size go; None if they fit nowhere."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if mode != "disk" and num_bytes <= min(MEMORY_BYTES, memory // 4):
        return "memory"
    if mode == "memory":
        return "memory" if num_bytes <= memory // 2 else None
    folder = files.root()
    while not folder.exists():
        folder = folder.parent
    room = min(DISK_BYTES, shutil.disk_usage(folder).free // 2)
    return "disk" if num_bytes <= room else None


def _weighted(model: keras.Model, calls: Sequence[Call]) -> tuple[str, ...]:
    paths = {id(layer): path for path, layer in layer_paths(model).items()}
    found = (x.operation for x in calls if getattr(x.operation, "weights", ()))
    return tuple(dict.fromkeys(paths.get(id(x)) or x.name for x in found))


def shape_text(field: Field) -> str:
    """Returns type and shape of features as a person reads them."""
    parts = [*(["tokens"] if field.by_token else []), *map(str, field.shape)]
    return f"{field.stored} ({' x '.join(parts)})"
