"""Reading the situation of an experiment that is built: nothing of it is trained.

What costs more than a moment looks at a few hundred rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tflearn import objectives
from tflearn.backbones import Backbone, TextEncoder
from tflearn.comparison.spending import Allowance
from tflearn.data import Data, Dataset, Split, pipeline
from tflearn.distribution import processes
from tflearn.evaluation import Scorer, transferability
from tflearn.experiment import Built
from tflearn.objectives.language import tokens
from tflearn.planning import scoring
from tflearn.planning.situation import OwnLoss, Probe, Situation, Tokens
from tflearn.support import environment
from tflearn.support.errors import DataError, TflearnError
from tflearn.training import budgets
from tflearn.training.stage import Prepared

#: Rows that features and losses are computed for.
MOST_ROWS = 500
#: What features and losses may cost: about a minute on two cores.
MOST_FLOPS = 1e13
_LEAST_ROWS = 50
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
    allowed: Allowance | None = None,
    backbone: Backbone | None = None,
    has_values: bool = True,
) -> Situation:
    """Reads what is known of an experiment's last stage.

    Args:
        built: The experiment, built; to be called inside `built.devices.scope()`.
        arms: Names of the arms that can be run.
        seeds: Runs of an arm.
        labels: The fewest training rows of a learning curve; None: all.
        allowed: What an arm may spend; None: what the stage declares.
        backbone: What the last stage begins with, where earlier stages have run.
        has_values: Whether weights have values; without, nothing is computed.

    Returns:
        The situation; what could not be read is named in `unknown`.
    """
    last = built.stages[-1]
    used = backbone or built.backbone
    split = scoring.sample(
        last.dataset.splits["train"], MOST_ROWS, seed=built.experiment.seed
    )
    is_pretrained = _is_pretrained(built, used)
    found: dict[str, Any] = {}
    unknown: list[str] = []
    if isinstance(used.encoder, TextEncoder):
        found["tokens"] = count_tokens(used.encoder, _texts(split))
    rows = _affordable(used, found.get("tokens"))
    if why := _not_computed(built, used, has_values, rows):
        unknown.append(f"probe and own loss: {why}")
    elif is_pretrained is not False:
        few = scoring.sample(split, rows, seed=built.experiment.seed)
        found |= _computed(used, last.dataset.data, few, unknown=unknown)
    if has_values:
        found |= _here(built)
    parameters = last.network.model.count_params()
    return Situation(
        arms=tuple(arms),
        kind=used.kind,
        is_pretrained=is_pretrained,
        parameters=parameters,
        state_bytes=_BYTES_PER_WEIGHT * parameters,
        epochs=_epochs(last, labels, allowed),
        seeds=seeds,
        unknown=tuple(unknown),
        **_rows(last.dataset, labels),
        **found,
    )


def _affordable(backbone: Backbone, counted: Tokens | None) -> int:
    """Returns how many rows a backbone may compute, a product a weight and token."""
    if counted is None:
        return MOST_ROWS
    length = max(1.0, counted.pieces / max(1, counted.texts))
    flops = 2 * max(1, backbone.model.count_params()) * length
    return min(MOST_ROWS, int(MOST_FLOPS / flops))


def _not_computed(built: Built, used: Backbone, has_values: bool, rows: int) -> str:
    if not has_values:
        return "what is planned for hardware elsewhere has no weights"
    if len(built.stages) > 1 and used is built.backbone:
        return "the last stage begins with what earlier stages have yet to learn"
    if rows < _LEAST_ROWS:
        return f"the backbone is so large that {_LEAST_ROWS} rows would take minutes"
    if processes.count() > 1:
        return "they are computed by one process"
    return ""


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
    # Fewer labels keep the shares of the classes, and leave out none.
    least = int(counts.min())
    fewest = max(min(1, least), math.floor(least * rows / max(1, len(split))))
    return {"rows": rows, "classes": classes, "fewest": fewest}


def _is_pretrained(built: Built, backbone: Backbone) -> bool | None:
    """Tells whether weights were learnt; None for what a function built."""
    earlier = len(built.stages) > 1 or built.experiment.start_from is not None
    if earlier or backbone is not built.backbone:
        return True
    if _NEW in backbone.origin:
        return False
    known = backbone.log is not None or "pretrained" in backbone.origin
    return True if known else None


def _epochs(
    last: Prepared, labels: int | None, allowed: Allowance | None
) -> float | None:
    """Returns how often a run sees its rows; None where that is measured."""
    budget = budgets.parse(last.stage.budget)
    amount, unit = budget.amount, budget.unit
    if allowed is not None:
        amount, unit = allowed.each, allowed.unit
    rows = len(last.dataset.splits["train"])
    rows = max(1, min(rows, labels or rows))
    examples = {"examples": 1, "steps": last.stage.new_per_step, "epochs": rows}
    return amount * examples[unit] / rows if unit in examples else None


def _here(built: Built) -> dict[str, Any]:
    """Names the device and its memory, where that is the host's."""
    told: dict[str, Any] = environment.hardware()
    if built.devices.platform != "cpu":
        return {"device": built.devices.note}
    return {"device": told["processor"], "memory_bytes": told["memory_bytes"]}


def _computed(
    backbone: Backbone, data: Data, split: Split, *, unknown: list[str]
) -> dict[str, Any]:
    """Computes features and losses; what does not apply is noted with the reason."""
    measures: dict[str, Callable[[Backbone, Data, Split], Any]] = {"probe": probe}
    if isinstance(backbone.encoder, TextEncoder):
        measures["own_loss"] = own_loss
    found = {}
    for name, measure in measures.items():
        try:
            found[name] = measure(backbone, data, split)
        except TflearnError as error:
            unknown.append(f"{name}: {error}")
    return found


def probe(backbone: Backbone, data: Data, split: Split) -> Probe:
    """Fits a linear model to features that are not trained.

    Args:
        backbone: The backbone.
        data: How rows are encoded.
        split: Rows with a class or a number each.

    Returns:
        Its cross-validated score.

    Raises:
        DataError: The targets are of another kind, or a class has one row only.
    """
    targets = np.asarray(split.targets)
    if targets.ndim != 1 or targets.dtype.kind not in "if":
        raise DataError("only one class or number a row can be probed")
    is_number = targets.dtype.kind == "f"
    counts = np.array([len(targets)]) if is_number else np.bincount(targets)
    folds = min(_FOLDS, int(counts[counts > 0].min()))
    if folds < 2:
        raise DataError("a class has a single row among those that were drawn")
    features = scoring.frozen_features(backbone, split, data, batch_size=_BATCH)
    found = transferability.scores(features.values, targets, folds=folds)
    return Probe(
        score=found["ridge"],
        error=found["ridge_error"],
        chance=0.0 if is_number else float(counts.max() / counts.sum()),
        rows=len(split),
        metric="R²" if is_number else "accuracy",
    )


def own_loss(backbone: Backbone, data: Data, split: Split) -> OwnLoss:
    """Computes what the next token costs a decoder.

    Its embedding gives the logits. An encoder comes without the head that it predicted
    masked words with, so that it has no loss of its own here.

    Args:
        backbone: A causal decoder.
        data: How rows are encoded.
        split: The rows.

    Returns:
        The loss, a token.

    Raises:
        BackboneError: It is an encoder, or has no embedding that gives logits.
    """
    pretext = objectives.causal_lm(packing="none", tie_embeddings=True).bind(backbone)
    examples = pipeline.encode(split, backbone.encoder, data=data)
    scorer = Scorer(pretext.model, pretext.statistics)
    rng = np.random.default_rng(0)
    found = scorer.score(
        pretext.make_batch(examples, rows, rng)
        for rows in pipeline.ordered_indices(examples, batch_size=_BATCH)
    )
    means = {name: np.asarray(np.mean(values)) for name, values in found.items()}
    vocabulary = tokens.vocabulary_size(backbone)
    return OwnLoss(
        nats=float(pretext.summarize(means)["loss"]), uniform=math.log(vocabulary)
    )
