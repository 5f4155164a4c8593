"""Is the verdict right where the answer was planted?

Small classification tasks are built so that one arm is best, or none is:

* scratch: the backbone is saturated on directions that do not matter, so that it has no
  features for the task and passes on no gradient;
* frozen: 64 labels, one in ten wrong, and features that suffice;
* full: the features tell one half of what decides, a product that is hard to learn, and
  lack the other, a direction that 1,024 labels show;
* tie: labels are coin flips, so that no arm can know anything ("coin"), or all three
  arms are the same regime from other seeds ("same").

Each task is trained from scratch, frozen and full with three seeds, through the
regimes of tflearn and Keras's `fit`; bootstrap, significance and verdict are those of
`--mode=compare`. The accuracy on 20,000 further examples tells whether what was planted
is so.

    python -m benchmarks.planted_verdicts
    python -m benchmarks.planted_verdicts --tasks 3 --ties 6 --results /tmp/results
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from benchmarks import measuring
from tflearn import backbones, objectives, regimes
from tflearn.evaluation import bootstrap
from tflearn.objectives.objective import attach
from tflearn.reports.arms import ArmResult
from tflearn.reports.verdict import judge

INPUTS, HIDDEN, LATENT = 64, 32, 4
STEPS, BATCH, SEEDS = 200, 32, (0, 1, 2)
RATES = {"scratch": 3e-3, "frozen": 1e-2, "full": 3e-3}
LABELS = {"scratch": 512, "frozen": 64, "full": 1024, "coin": 32, "same": 32}
WRONG = 0.1
KINDS = ("scratch", "frozen", "full")
TIES = ("coin", "same")

Examples = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task with a planted answer.

    Args:
        kernel: Of the pretrained backbone, `(inputs, hidden)`.
        bias: Its bias, `(hidden,)`.
        train: Inputs and classes to train on.
        test: What the verdict is judged by.
        further: What tells whether it is right.
    """

    kernel: np.ndarray
    bias: np.ndarray
    train: Examples
    test: Examples
    further: Examples


def make_task(kind: str, seed: int) -> Task:
    """Draws a task of a kind."""
    rng = np.random.default_rng([seed, (*KINDS, *TIES).index(kind)])
    basis, _ = np.linalg.qr(rng.normal(size=(INPUTS, INPUTS)))
    known, other = basis[:, :LATENT], basis[:, LATENT:]
    kernel = 1.5 * known @ rng.normal(size=(LATENT, HIDDEN)) / LATENT**0.5
    if kind == "scratch":
        kernel = 100 * other @ rng.normal(size=(INPUTS - LATENT, HIDDEN))
    bias = rng.normal(size=HIDDEN)
    teacher = rng.normal(size=HIDDEN)

    def draw(count: int) -> Examples:
        x = rng.normal(size=(count, INPUTS)).astype("float32")
        z = x @ known
        if kind == "coin":
            return x, rng.integers(2, size=count)
        if kind == "scratch":
            score = z[:, 0] + 0.5 * z[:, 1]
        elif kind == "full":
            score = z[:, 0] * z[:, 1] + x @ other[:, 0]
        else:
            score = np.tanh(x @ kernel + bias) @ teacher
        return x, (score > 0).astype("int64")

    x, y = draw(LABELS[kind])
    if kind in ("frozen", "same"):
        wrong = rng.random(len(y)) < WRONG
        y = np.where(wrong, 1 - y, y)
    return Task(
        kernel=kernel, bias=bias, train=(x, y), test=draw(1000), further=draw(20000)
    )


class Trainer:
    """A network under one regime; it is compiled once and trained many times."""

    def __init__(self, name: str) -> None:
        self._name = name
        network = attach(
            objectives.classification(),
            backbones.function(_perceptron),
            num_outputs=2,
        )
        self._model, self._backbone = network.model, network.backbone.model
        self._all = regimes.apply(self._model, regimes.scratch())
        census = regimes.apply(self._model, getattr(regimes, name)())
        self.parameters = sum(row.trainable for row in census.rows)
        self._model.compile(
            keras.optimizers.Adam(RATES[name]),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        self._model.optimizer.build(self._model.trainable_variables)
        state = self._model.optimizer.variables
        self._start = [keras.ops.convert_to_numpy(x) for x in state]

    def train(self, task: Task, seed: int) -> tuple[np.ndarray, float, float]:
        """Trains on a task.

        Returns:
            Which test examples are right, the accuracy on further ones, and seconds.
        """
        began = time.perf_counter()
        keras.utils.set_random_seed(seed)
        regimes.reinitialize(self._model, self._all)
        if self._name != "scratch":
            self._backbone.set_weights([task.kernel, task.bias])
        variables = self._model.optimizer.variables
        for variable, value in zip(variables, self._start, strict=True):
            variable.assign(value)
        rng = np.random.default_rng(seed)
        rows = np.concatenate(list(_epochs(rng, len(task.train[0]))))
        x, y = (part[rows] for part in task.train)
        self._model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        right = self._right(*task.test)
        seconds = time.perf_counter() - began
        return right, float(self._right(*task.further).mean()), seconds

    def _right(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        logits = keras.ops.convert_to_numpy(self._model(x, training=False))
        return (logits.argmax(axis=1) == y).astype("float64")


def compare(
    task: Task, trainers: Mapping[str, Trainer], offsets: Mapping[str, int]
) -> dict[str, Any]:
    """Trains all arms on a task and judges them.

    Args:
        task: The task.
        trainers: By the name of the arm.
        offsets: What is added to the seeds of an arm.

    Returns:
        `winner` as judged, `text`, and `further` by arm.
    """
    arms, further = [], {}
    for name, trainer in trainers.items():
        runs = [trainer.train(task, seed + offsets.get(name, 0)) for seed in SEEDS]
        right = [run[0] for run in runs]
        found = [
            bootstrap.estimate(
                bootstrap.means({"accuracy": x}), count=x.size, resamples=1000, seed=0
            )[0]["accuracy"]
            for x in right
        ]
        arms.append(
            ArmResult(
                name=name,
                seeds=SEEDS,
                metric="accuracy",
                estimates=[{"value": x.value} for x in found],
                resampled=[x.samples for x in found if x.samples is not None],
                trainable_parameters=trainer.parameters,
                total_parameters=trainers[name].parameters,
                seconds=[run[2] for run in runs],
                labels=len(task.train[0]),
            )
        )
        further[name] = float(np.mean([run[1] for run in runs]))
    judged = judge(arms)
    return {"winner": judged.winner, "text": judged.text, "further": further}


def main() -> None:
    """Builds the tasks, judges them, and counts right and wrong verdicts."""
    flags = _flags()
    trainers = {name: Trainer(name) for name in KINDS}
    same = {f"full, seeds {i}": trainers["full"] for i in (0, 100, 200)}
    offsets = {name: 100 * place for place, name in enumerate(same)}
    verdicts, cases = {}, {}
    for kind in (*KINDS, *TIES):
        count = flags.tasks if kind in KINDS else flags.ties
        arms = same if kind == "same" else trainers
        found = [compare(make_task(kind, i), arms, offsets) for i in range(count)]
        verdicts[kind], cases[kind] = _count(kind, found), found
        print(kind, verdicts[kind], flush=True)
    record = {
        "question": "Is the verdict right where the answer was planted?",
        "verdicts": verdicts,
        "cases": cases,
    }
    measuring.write("planted_verdicts", record, results=flags.results)


def _perceptron() -> keras.Model:
    inputs = keras.Input((INPUTS,))
    hidden = keras.layers.Dense(HIDDEN, activation="tanh", name="hidden")(inputs)
    return keras.Model(inputs, hidden)


def _epochs(rng: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    """Yields a shuffled order an epoch until there are enough for all steps."""
    left = STEPS * BATCH
    while left > 0:
        yield rng.permutation(count)[:left]
        left -= count


def _count(kind: str, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts verdicts; a winner of a tie is a wrong one."""
    winners = [row["winner"] for row in found]
    right = sum(winner == kind for winner in winners)
    none = sum(winner is None for winner in winners)
    means = {
        arm: round(float(np.mean([row["further"][arm] for row in found])), 3)
        for arm in (found[0]["further"] if found else ())
    }
    planted = sum(max(x["further"], key=x["further"].get) == kind for x in found)
    return {
        "tasks": len(found),
        "right": right if kind in KINDS else none,
        "too close to call": none,
        "wrong": len(found) - right - none,
        "best as planted": planted if kind in KINDS else None,
        "mean accuracy": means,
    }


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=20, help="of each kind (20)")
    parser.add_argument("--ties", type=int, default=60, help="of each kind of tie (60)")
    parser.add_argument("--results", help="folder of the JSON (benchmarks/results)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
