"""Does `--mode=rank` order backbones as fine-tuning does?

Every candidate is scored on the training rows of every task, then fine-tuned whole by
`tflearn.experiment.run`, all with one rate and one number of steps. Kendall's tau-b is
that of a score with the accuracy on the test rows, one for each task. Its interval of
95 % is the bootstrap over candidates (the same draw for all tasks) and over tasks: what
another set of candidates and of tasks might have given.

    python -m benchmarks.rank_correlation --data ../shared/data
    python -m benchmarks.rank_correlation --data ../shared/data --train 64 --test 64 \
        --steps 4 --pretrain_steps 4 --seeds 0 --results /tmp/results
"""

from __future__ import annotations

import argparse
import gc
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from scipy import stats

from benchmarks import measuring
from benchmarks.rank_candidates import (
    LENGTH,
    Task,
    candidates,
    declared,
    tasks,
    unlabelled_corpus,
)
from tflearn import experiment, objectives, regimes
from tflearn.backbones import Backbone
from tflearn.evaluation import transferability
from tflearn.planning import scoring
from tflearn.reports.report import headline
from tflearn.support import files
from tflearn.support.tensorflow import hidden_tensorflow
from tflearn.training import optimizers

#: LEEP needs the head of a source task, which no candidate has.
SCORES = ("ridge", "knn", "logme", "h_score")
RATE, BATCH = 2e-4, 16
RESAMPLES = 10_000

Tables = tuple[np.ndarray, np.ndarray]


@hidden_tensorflow()
def score(source: Callable[[], Backbone], task: Task) -> dict[str, float]:
    """Scores a backbone on the training rows of a task."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    loaded = declared(task).load(target_kind="class")
    features = scoring.frozen_features(
        source(), loaded.splits["train"], loaded.data, batch_size=128
    )
    return transferability.scores(features.values, features.targets)


def fine_tune(
    source: Callable[[], Backbone],
    task: Task,
    *,
    steps: int,
    seed: int,
    folder: pathlib.Path,
) -> float:
    """Trains all weights on a task; returns the accuracy on its test rows."""
    keras.utils.clear_session()
    gc.collect()

    def optimizer(total_steps: int) -> keras.optimizers.Optimizer:
        return optimizers.adamw(total_steps, learning_rate=RATE)

    stage = experiment.Stage(
        name="tune",
        data=lambda: declared(task),
        objective=objectives.classification,
        regime=regimes.full(),
        optimizer=optimizer,
        budget=f"{steps} steps",
        interval=steps,
        batch_size=BATCH,
        keep_last=1,
        bootstrap=0,
    )
    made = experiment.Experiment(
        name="rank", backbone=source, stages=(stage,), seed=seed, precision="float32"
    )
    report = experiment.run(made, output_dir=str(folder))
    found = headline(report.stages[-1].evaluations["test"])
    if found is None or found[0] != "accuracy":
        raise SystemExit(f"the test was measured by {found}, not by accuracy")
    return float(found[1]["value"])


def taus(scores: np.ndarray, results: np.ndarray) -> np.ndarray:
    """Returns Kendall's tau-b of every task.

    Args:
        scores: `(tasks, candidates)`.
        results: The same.
    """
    pairs = zip(scores, results, strict=True)
    return np.array([stats.kendalltau(a, b).statistic for a, b in pairs])


def interval(scores: np.ndarray, results: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % interval of the mean tau over candidates and tasks.

    A candidate that is drawn twice is a tie in both orders, which tau-b leaves out.

    Args:
        scores: `(tasks, candidates)`.
        results: The same.
    """
    rng = np.random.default_rng(0)
    rows, columns = scores.shape
    found = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(columns, size=columns)
        drawn = rng.integers(rows, size=rows)
        places = np.ix_(drawn, chosen)
        known = taus(scores[places], results[places])
        # Where all that was drawn is tied there is no order to agree with.
        if np.isfinite(known).any():
            found.append(float(np.nanmean(known)))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def lost(scores: np.ndarray, results: np.ndarray, *, trained: int = 2) -> np.ndarray:
    """Returns what is given up where only the best by the score are trained.

    Args:
        scores: `(tasks, candidates)`.
        results: The same.
        trained: How many are trained.

    Returns:
        Accuracy by task: that of the best of all less that of the best of them.
    """
    best = np.argsort(-scores, axis=1)[:, :trained]
    return results.max(axis=1) - np.take_along_axis(results, best, axis=1).max(axis=1)


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Puts the agreement of every score with fine-tuning into figures.

    Args:
        rows: One a task and candidate: `task`, `candidate`, `scores`, `accuracy`.

    Returns:
        By score: `tau` of every task, their `mean`, `low`, `high` and what is `lost`.
    """
    names = list(dict.fromkeys(row["task"] for row in rows))
    results = _table(rows, names, lambda row: float(np.mean(row["accuracy"])))
    summary = {}
    for name in SCORES:
        found = _table(rows, names, lambda row, name=name: row["scores"][name])
        own = taus(found, results)
        low, high = interval(found, results)
        summary[name] = {
            "tau": dict(zip(names, own.tolist(), strict=True)),
            "mean": float(np.nanmean(own)),
            "low": low,
            "high": high,
            "lost": dict(zip(names, lost(found, results).tolist(), strict=True)),
        }
    return summary


def tables(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """Writes results as tables of Markdown.

    Args:
        rows: What `summarize` takes.
        summary: What it returned.
    """
    names = list(dict.fromkeys(row["task"] for row in rows))
    head = ["candidate", *(f"{x}: {y}" for x in names for y in ("fine-tuned", *SCORES))]
    lines = [_line(head), _line(["---"] * len(head))]
    for candidate in dict.fromkeys(row["candidate"] for row in rows):
        cells = [candidate]
        for row in (x for x in rows if x["candidate"] == candidate):
            found = [float(np.mean(row["accuracy"])), *map(row["scores"].get, SCORES)]
            cells += [f"{value:.3f}" for value in found]
        lines.append(_line(cells))
    head = ["score", *names, "mean tau", "95 %", "lost by training two"]
    lines += ["", _line(head), _line(["---"] * len(head))]
    for name, found in summary.items():
        taken = ", ".join(f"{value:.3f}" for value in found["lost"].values())
        lines.append(
            _line(
                [
                    name,
                    *(f"{value:.2f}" for value in found["tau"].values()),
                    f"{found['mean']:.2f}",
                    f"{found['low']:.2f} to {found['high']:.2f}",
                    taken,
                ]
            )
        )
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Scores, fine-tunes, and writes tables and correlations."""
    flags = _flags()
    runs = pathlib.Path(flags.runs or tempfile.mkdtemp(prefix="rank_correlation_"))
    found = tasks(pathlib.Path(flags.data), train=flags.train, test=flags.test)
    if flags.tasks:
        found = {name: task for name, task in found.items() if name in flags.tasks}
    rows = list(_rows(found, flags, runs))
    summary = summarize(rows)
    print(tables(rows, summary))
    record = {
        "question": "Does the ranking order backbones as fine-tuning does?",
        "unit": "Kendall's tau-b",
        "summary": summary,
        "rows": rows,
        "settings": {
            "steps": flags.steps,
            "rate": RATE,
            "batch_size": BATCH,
            "length": LENGTH,
            "seeds": flags.seeds,
            "pretrain_steps": flags.pretrain_steps,
            "examples": {
                name: {split: len(part[0]) for split, part in task.items()}
                for name, task in found.items()
            },
        },
    }
    measuring.write("rank_correlation", record, results=flags.results)


def _rows(
    found: Mapping[str, Task], flags: argparse.Namespace, runs: pathlib.Path
) -> Iterator[dict[str, Any]]:
    """Scores and fine-tunes every candidate on every task."""
    corpus = unlabelled_corpus(pathlib.Path(flags.data), test=flags.test)
    sources = candidates(corpus, steps=flags.pretrain_steps, runs=runs)
    for task_name, task in found.items():
        for name, source in sources.items():
            place = runs / task_name.replace(" ", "_") / name.replace(" ", "_")
            kept = place / "row.json"
            if not kept.is_file():
                accuracy = [
                    fine_tune(
                        source,
                        task,
                        steps=flags.steps,
                        seed=seed,
                        folder=place / f"seed{seed}",
                    )
                    for seed in flags.seeds
                ]
                row = {"task": task_name, "candidate": name, "accuracy": accuracy}
                files.write_json(kept, row | {"scores": score(source, task)})
            row = files.read_json(kept)
            print(row, flush=True)
            yield row


def _table(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    value: Callable[[Mapping[str, Any]], float],
) -> np.ndarray:
    """Returns a value of all rows, `(tasks, candidates)`."""
    return np.array([[value(x) for x in rows if x["task"] == name] for name in names])


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of the shared data")
    parser.add_argument("--train", type=int, default=1000, help="training rows (1000)")
    parser.add_argument("--test", type=int, default=500, help="test rows (500)")
    parser.add_argument("--steps", type=int, default=90, help="of a run (90)")
    parser.add_argument("--pretrain_steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tasks", nargs="+", help="names of tasks (all)")
    parser.add_argument("--runs", help="run directories that stay; finished ones count")
    parser.add_argument("--results", help="folder of the JSON (benchmarks/results)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
