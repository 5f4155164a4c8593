"""`--mode=rank`: which backbones are worth training on these data?

Every candidate computes the features of the same training rows once; scores that train
nothing say how well they fit the labels, beside what a candidate costs.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from tflearn import backbones, config, experiment
from tflearn import distribution as distributions
from tflearn.commands.arguments import Arguments
from tflearn.data import Dataset
from tflearn.evaluation import calibration, transferability
from tflearn.planning import scoring
from tflearn.reports.tables import cell, plain_table
from tflearn.support import environment, files, storage
from tflearn.support.console import console, say
from tflearn.support.errors import ConfigError, nearest
from tflearn.support.tensorflow import hidden_tensorflow
from tflearn.support.units import count_text
from tflearn.training import finished

_KINDS = ("class", "number")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A backbone that may be worth training.

    Args:
        name: What it is called in the table.
        backbone: Makes it.
        source_run: A finished run whose classes its head still knows; its
            probabilities on the new rows give LEEP.
    """

    name: str
    backbone: Callable[[], backbones.Backbone]
    source_run: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """What is ranked, and by what.

    Args:
        candidates: The backbones; that of the experiment by default.
        rows: At most so many training rows are used, drawn by the seed.
        features: Features of the backbones, pooled as a head has them, or `auto`.
        by: The score that orders the table.
        folds: Parts of the cross-validation.
    """

    candidates: Sequence[Candidate] = ()
    rows: int = 2000
    features: str = "auto"
    by: str = "ridge"
    folds: int = 5

    def __post_init__(self) -> None:
        """Checks the choices."""
        if self.by not in transferability.SCORES:
            raise ConfigError(
                "unknown score",
                received=str(self.by),
                expected=", ".join(transferability.SCORES),
                nearest=nearest(str(self.by), transferability.SCORES),
            )
        names = [candidate.name for candidate in self.candidates]
        if len(set(names)) < len(names):
            raise ConfigError("two candidates have one name", received=", ".join(names))
        for field, least in (("rows", 10), ("folds", 2)):
            if getattr(self, field) < least:
                raise ConfigError(
                    f"Ranking.{field} is too small",
                    received=getattr(self, field),
                    expected=f"at least {least}",
                )


@hidden_tensorflow()
def main(arguments: Arguments) -> int:
    """Scores all candidates, prints the table, writes `rank.json` and `rank.csv`.

    Args:
        arguments: The flags.

    Returns:
        The exit code.
    """
    declaration = config.load_arguments(arguments)
    base = declaration.experiment()
    ranking = declaration.ranking()
    own = Candidate(name="the experiment's", backbone=base.backbone)
    folder = storage.local(arguments.output_dir or f"runs/{base.name}_rank")
    dataset = _load(base)
    devices = distributions.resolve(base.distribution)
    with devices.scope():
        distributions.set_precision(base.precision, platform=devices.platform)
        rows = [
            _score(candidate, ranking, base, dataset)
            for candidate in ranking.candidates or (own,)
        ]
    rows.sort(key=lambda row: -row[ranking.by])
    _print(rows, ranking)
    _write(rows, ranking, folder, base.name)
    return 0


def _load(base: experiment.Experiment) -> Dataset:
    last = base.stages[-1]
    kind = last.objective().target_kind
    if kind not in _KINDS:
        raise ConfigError(
            "candidates are ranked for a task with one class or number a row",
            received=f"stage '{last.name}' learns from targets of kind '{kind}'",
            expected=" or ".join(_KINDS),
        )
    return last.data().load(target_kind=kind)


def _score(
    candidate: Candidate,
    ranking: Ranking,
    base: experiment.Experiment,
    dataset: Dataset,
) -> dict[str, Any]:
    """Returns scores and costs of one candidate."""
    split = scoring.sample(dataset.splits["train"], ranking.rows, seed=base.seed)
    say(f"{candidate.name}: features of {len(split):,} training rows")
    backbone = candidate.backbone()
    batch_size = base.stages[-1].eval_batch_size
    features = scoring.frozen_features(
        backbone,
        split,
        dataset.data,
        features=ranking.features,
        batch_size=batch_size,
        measure=True,
    )
    targets = features.targets
    found = transferability.scores(features.values, targets, folds=ranking.folds)
    if candidate.source_run is not None:
        run = finished.open_run(candidate.source_run)
        logits = run.outputs(split, dataset.data, batch_size=batch_size)
        found["leep"] = transferability.leep(calibration.probabilities(logits), targets)
    return {
        "name": candidate.name,
        **found,
        "features": features.values.shape[1],
        "parameters": backbone.model.count_params(),
        "milliseconds_per_example": 1e3 * features.seconds / len(split),
        "origin": backbone.origin,
    }


def _print(rows: Sequence[dict[str, Any]], ranking: Ranking) -> None:
    table = plain_table(f"candidates by {ranking.by}: higher is better")
    scores = [x for x in transferability.SCORES if any(x in row for row in rows)]
    table.add_column("backbone", overflow="fold")
    for name in (*scores, "parameters", "ms an example"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        found = [f"{row[x]:.3f}" if x in row else "" for x in scores]
        cost = (count_text(row["parameters"]), f"{row['milliseconds_per_example']:.2f}")
        table.add_row(*map(cell, (row["name"], *found, *cost)))
    console.print(table)
    first, *others = rows
    margin = first.get(f"{ranking.by}_error", 0.0)
    close = [x["name"] for x in others if first[ranking.by] - x[ranking.by] <= margin]
    if close:
        say(f"within one standard error of {first['name']}: {', '.join(close)}")
    say("a prior: what fine-tuning gives, only training shows (--mode=compare)")


def _write(
    rows: Sequence[dict[str, Any]], ranking: Ranking, folder: pathlib.Path, title: str
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(folder / "rank.csv", text.getvalue())
    found = {
        "title": title,
        "by": ranking.by,
        "rows": ranking.rows,
        "candidates": list(rows),
        "versions": environment.versions(),
        "hardware": environment.hardware(),
    }
    files.write_json(folder / "rank.json", found)
    storage.push(folder)
    shown = storage.shown(folder)
    say(f"written: {shown}/rank.json, {shown}/rank.csv")
