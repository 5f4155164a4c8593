"""Reading the situation of an experiment that is built: nothing of it is trained.

What costs more than a moment looks at a few hundred rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tflearn import objectives
from tflearn.backbones import Backbone, TextEncoder
from tflearn.data import Data, Dataset, Split, pipeline
from tflearn.evaluation import Scorer, transferability
from tflearn.experiment import Built
from tflearn.planning import scoring
from tflearn.planning.situation import OwnLoss, Probe, Situation, Tokens
from tflearn.support import environment
from tflearn.support.errors import DataError, TflearnError
from tflearn.training import budgets
from tflearn.training.stage import Prepared

#: Rows that features and losses are computed for.
MOST_ROWS = 500
_FOLDS = 5
_BATCH = 32
# Weights, gradients and the two moments of Adam, each of 4 bytes.
_BYTES_PER_WEIGHT = 16
_WORDS = re.compile(r"\w+|[^\w\s]")
_NEW = "newly initialised"


def read(
    built: Built,
    arms: Sequence[str],
    *,
    seeds: int = 1,
    labels: int | None = None,
    backbone: Backbone | None = None,
    has_values: bool = True,
) -> Situation:
    """Reads what is known of an experiment's last stage.

    Args:
        built: The experiment, built; to be called inside `built.devices.scope()`.
        arms: Names of the arms that can be run.
        seeds: Runs of an arm.
        labels: The fewest training rows of a learning curve; None: all.
        backbone: What the last stage begins with, where earlier stages have run.
        has_values: Whether weights have values; without, nothing is computed.

    Returns:
        The situation; what could not be read is named in `unknown`.
    """
    last = built.stages[-1]
    unknown: list[str] = []
    trains_first = len(built.stages) > 1 and backbone is None
    used = backbone or built.backbone
    split = scoring.sample(
        last.dataset.splits["train"], MOST_ROWS, seed=built.experiment.seed
    )
    found: dict[str, Any] = {}
    if isinstance(used.encoder, TextEncoder):
        found["tokens"] = count_tokens(used.encoder, _texts(split))
    computes = has_values and not trains_first
    if not has_values:
        unknown.append("features and losses: for hardware that is not here only")
    elif trains_first:
        unknown.append(
            "features and losses: the last stage begins with what earlier stages learn"
        )
    elif _is_pretrained(built, used) is not False:
        found["probe"] = _tried(_probe, used, last, split, unknown=unknown)
        if isinstance(used.encoder, TextEncoder):
            found["own_loss"] = _tried(_own_loss, used, last, split, unknown=unknown)
    parameters = last.network.model.count_params()
    return Situation(
        arms=tuple(arms),
        kind=used.kind,
        is_pretrained=True if trains_first else _is_pretrained(built, used),
        parameters=parameters,
        state_bytes=_BYTES_PER_WEIGHT * parameters,
        epochs=_epochs(last, labels),
        seeds=seeds,
        unknown=tuple(unknown),
        **_rows(last.dataset, labels),
        **(_here(built) if has_values else {}),
        **(found if computes else {"tokens": found.get("tokens")}),
    )


def count_tokens(encoder: TextEncoder, texts: Sequence[str]) -> Tokens:
    """Counts what a vocabulary makes of texts.

    Args:
        encoder: Holds the tokenizer.
        texts: The texts.

    Returns:
        Pieces without special tokens, words, and unknown pieces.
    """
    found = encoder.tokenize(texts)
    packing = encoder.packing
    special = {*packing.start, *packing.separator, *packing.end, packing.pad}
    # A vocabulary without padding pads with a token that is a piece, too.
    special -= {getattr(encoder.tokenizer, "unk_token_id", None)}
    ids = np.concatenate([np.asarray(row) for row in found.ids])
    return Tokens(
        texts=len(texts),
        pieces=int((~np.isin(ids, list(special))).sum()),
        words=sum(len(_WORDS.findall(text)) for text in texts),
        unknown=encoder.count_unknown(found),
        vocabulary=int(encoder.tokenizer.vocabulary_size()),
    )


def _texts(split: Split) -> list[str]:
    parts: Iterable[Any] = split.inputs
    return [" ".join(x) if isinstance(x, tuple) else str(x) for x in parts]


def _rows(dataset: Dataset, labels: int | None) -> dict[str, int]:
    """Counts rows, classes, and the rows of the rarest class."""
    split = dataset.splits["train"]
    rows = min(len(split), labels or len(split))
    if dataset.target_kind != "class" or split.targets is None:
        return {"rows": rows}
    classes = len(dataset.classes)
    counts = np.bincount(np.asarray(split.targets), minlength=classes)
    # Fewer labels keep the shares of the classes.
    fewest = math.floor(counts.min() * rows / max(1, len(split)))
    return {"rows": rows, "classes": classes, "fewest": fewest}


def _is_pretrained(built: Built, backbone: Backbone) -> bool | None:
    """Tells whether weights were learnt; None for what a function built."""
    if built.experiment.start_from is not None or backbone is not built.backbone:
        return True
    if _NEW in backbone.origin:
        return False
    known = backbone.log is not None or "pretrained" in backbone.origin
    return True if known else None


def _epochs(last: Prepared, labels: int | None) -> float | None:
    """Returns how often a run sees its rows; None where that is measured."""
    budget = budgets.parse(last.stage.budget)
    if budget.unit == "epochs":
        return budget.amount
    if last.total_steps is None:
        return None
    rows = len(last.dataset.splits["train"])
    return last.total_steps * last.stage.new_per_step / max(1, min(rows, labels or rows))


def _here(built: Built) -> dict[str, Any]:
    """Names the device and its memory, where that is the host's."""
    told: dict[str, Any] = environment.hardware()
    if built.devices.platform != "cpu":
        return {"device": built.devices.note}
    return {"device": told["processor"], "memory_bytes": told["memory_bytes"]}


def _tried(
    measure: Any, backbone: Backbone, last: Prepared, split: Split, *, unknown: list[str]
) -> Any:
    """Measures, or notes why not."""
    try:
        return measure(backbone, last.dataset.data, split)
    except TflearnError as error:
        unknown.append(f"{measure.__doc__}: {' '.join(str(error).split())}")
        return None


def _probe(backbone: Backbone, data: Data, split: Split) -> Probe:
    """probe of the features"""
    targets = split.targets
    if targets is None or np.ndim(targets) != 1 or np.asarray(targets).dtype.kind == "U":
        raise DataError("only one class or number a row can be probed")
    targets = np.asarray(targets)
    counts = np.bincount(targets) if targets.dtype.kind != "f" else np.array([len(targets)])
    folds = min(_FOLDS, int(counts[counts > 0].min()))
    if folds < 2:
        raise DataError("a class has one row only")
    features = scoring.frozen_features(backbone, split, data, batch_size=_BATCH)
    found = transferability.scores(features.values, targets, folds=folds)
    is_number = targets.dtype.kind == "f"
    return Probe(
        score=found["ridge"],
        error=found["ridge_error"],
        chance=0.0 if is_number else float(counts.max() / counts.sum()),
        rows=len(split),
        metric="R²" if is_number else "accuracy",
    )


def _own_loss(backbone: Backbone, data: Data, split: Split) -> OwnLoss:
    """loss of the backbone's own task"""
    # Masked words want a head that backbones come without; a decoder's is its embedding.
    pretext = objectives.causal_lm(packing="none", tie_embeddings=True).bind(backbone)
    examples = pipeline.encode(split, backbone.encoder, data=data)
    scorer = Scorer(pretext.model, pretext.statistics)
    rng = np.random.default_rng(0)
    found = scorer.score(
        pretext.make_batch(examples, rows, rng)
        for rows in np.array_split(
            np.arange(len(examples)), -(-len(examples) // _BATCH)
        )
    )
    means = {name: np.mean(values) for name, values in found.items()}
    vocabulary = int(backbone.encoder.tokenizer.vocabulary_size())
    return OwnLoss(
        nats=float(pretext.summarize(means)["loss"]), uniform=math.log(vocabulary)
    )
