"""Averaging weights after training: with those of the start, or of several steps.

An average of models that lie in one valley of the loss is often better than each of
them, and costs nothing when the model is used. Frozen weights are not touched, not by
a rounding error either. Averaged weights make new activations: the moving statistics
of batch normalisation are measured again on training batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflearn.backbones import graph
from tflearn.data import pipeline
from tflearn.support.errors import ConfigError, RunError
from tflearn.support.patterns import matches
from tflearn.training.layer_rates import weight_paths

Weights = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """A stage whose training has ended.

    Args:
        model: Its model with the weights at the end.
        start: Weights at its start by path.
        batches: Its training batches.
        score: Measures the model as it is on the validation split; higher is better.
            None without a validation split.
        headline: What the score is called.
        sign: -1 where the headline is better when lower; the score is it times this.
        candidates: Steps whose weights were kept, with their scores.
        load: Reads the weights of a kept step by path.
    """

    model: keras.Model
    start: Weights
    batches: pipeline.TrainBatches
    score: Callable[[], float] | None
    headline: str
    sign: int
    candidates: Mapping[int, float]
    load: Callable[[int], Weights]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Average:
    """What to do with the weights after training.

    Args:
        name: Name of the method.
        finish: Sets the averaged weights; returns a line on what was chosen.
        candidates: How many of the best validated weights are kept for it.
        needs_validation: Whether it chooses by the validation split.
    """

    name: str
    finish: Callable[[Ended], str]
    candidates: int = 0
    needs_validation: bool = True


def wise_ft(
    *,
    alpha: float | None = None,
    grid: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    pattern: str = "backbone/*",
    statistics_batches: int = 32,
) -> Average:
    r"""Interpolates between the weights of the stage's start and its end.

    The result is :math:`(1 - \alpha) w_{start} + \alpha w_{end}`.

    Args:
        alpha: Share of the end; None: the best of `grid` on the validation split,
            the smallest of equally good ones, which forgets the least.
        grid: The shares that are tried.
        pattern: Which weights; the others stay as they ended. A head that was new at
            the start has nothing to interpolate with; `*` is for one that was trained
            before.
        statistics_batches: Training batches that the moving statistics of batch
            normalisation are measured on; 0: they are interpolated too.

    Returns:
        The average.

    Raises:
        ConfigError: A share is not between 0 and 1.

    References:
        Wortsman et al. 2022, https://arxiv.org/abs/2109.01903
    """
    shares = sorted(grid) if alpha is None else [alpha]
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise ConfigError(
            "alpha is a share of the end weights",
            received=shares,
            expected="0 <= alpha <= 1",
        )

    def finish(ended: Ended) -> str:
        end = _weights(ended.model)
        chosen = {path for path in end if matches(pattern, path)}
        if not chosen:
            raise ConfigError("WiSE-FT matches no weight", received=pattern)

        def set_share(share: float) -> None:
            mixed = {
                path: _mean([ended.start[path], end[path]], [1 - share, share])
                if path in chosen
                else end[path]
                for path in end
            }
            _set(ended, mixed, 0 if share == 1 else statistics_batches)

        scores: dict[float, float] = {}
        for share in shares if alpha is None else ():
            set_share(share)
            scores[share] = _score(ended)
        best = shares[0] if alpha is not None else max(shares, key=lambda x: scores[x])
        set_share(best)
        if alpha is not None:
            return f"WiSE-FT: alpha {alpha:.4g}, as declared"
        tried = ", ".join(
            f"{share:.4g}: {ended.sign * value:.4f}" for share, value in scores.items()
        )
        return f"WiSE-FT: alpha {best:.4g} by val_{ended.headline} ({tried})"

    return Average(name="WiSE-FT", finish=finish, needs_validation=alpha is None)


def greedy_soup(*, candidates: int = 5, statistics_batches: int = 32) -> Average:
    """Averages the best validated weights of the stage, as long as that helps.

    From the best on, the weights of an interval join the average if its score on the
    validation split does not fall.

    Args:
        candidates: How many of the best intervals are kept on disk, at least 2.
        statistics_batches: As in `wise_ft`.

    Returns:
        The average.

    Raises:
        ConfigError: Too few candidates.

    References:
        Wortsman et al. 2022, https://arxiv.org/abs/2203.05482
    """
    if candidates < 2:
        raise ConfigError("a soup needs two candidates", received=candidates)

    def finish(ended: Ended) -> str:
        if not ended.candidates:
            raise RunError(
                "there is nothing to make a soup of",
                received=f"no interval whose val_{ended.headline} is a number",
                fix="training has diverged: lower the learning rate",
            )
        order = sorted(
            ended.candidates, key=lambda step: (-ended.candidates[step], step)
        )
        taken, best = [order[0]], ended.candidates[order[0]]
        total = _as_float64(ended.load(order[0]))
        kept = ended.load(order[0])
        for step in order[1:]:
            wanted = _added(total, ended.load(step))
            mixed = _divided(wanted, len(taken) + 1, kept)
            _set(ended, mixed, statistics_batches)
            score = _score(ended)
            if score >= best:
                taken, best, total = [*taken, step], score, wanted
        _set(
            ended,
            _divided(total, len(taken), kept) if len(taken) > 1 else kept,
            statistics_batches if len(taken) > 1 else 0,
        )
        return (
            f"soup of {len(taken)} of {len(order)} kept steps "
            f"({', '.join(map(str, taken))}): val_{ended.headline} "
            f"{ended.sign * best:.4f}, "
            f"the best alone {ended.sign * ended.candidates[order[0]]:.4f}"
        )

    return Average(name="greedy soup", finish=finish, candidates=candidates)


def refresh_statistics(
    model: keras.Model, batches: pipeline.TrainBatches, *, count: int
) -> int:
    """Measures the moving statistics of batch normalisation on training batches.

    Args:
        model: The model; frozen layers keep theirs.
        batches: Its training batches; the first ones are used.
        count: How many; each counts the same.

    Returns:
        Number of layers whose statistics were measured.
    """
    layers: list[Any] = [
        layer
        for layer in graph.layers_by_path(model).values()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    if not layers or not count:
        return 0
    weights = {id(weight) for weight in model.weights}
    # Running the model draws random numbers; the next stage must not notice.
    states = [v for v in model.variables if id(v) not in weights]
    before = [graph.value_of(state) for state in states]
    momenta = [layer.momentum for layer in layers]
    for number in range(count):
        for layer in layers:
            # With these the moving average is the mean over all batches so far.
            layer.momentum = number / (number + 1)
        model(batches[number][0], training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    for state, value in zip(states, before, strict=True):
        state.assign(value)
    return len(layers)


def _weights(model: keras.Model) -> dict[str, np.ndarray]:
    return {path: graph.value_of(w) for path, w in weight_paths(model).items()}


def _set(ended: Ended, values: Weights, statistics_batches: int) -> None:
    for path, weight in weight_paths(ended.model).items():
        weight.assign(values[path])
    refresh_statistics(ended.model, ended.batches, count=statistics_batches)


def _score(ended: Ended) -> float:
    if ended.score is None:
        raise ConfigError(
            "choosing an average needs a validation split",
            fix="declare one in the data, or wise_ft.alpha",
        )
    return ended.score()


def _mean(arrays: Sequence[np.ndarray], shares: Sequence[float]) -> np.ndarray:
    first = arrays[0]
    # Equal weights stay as they are: a frozen one must not move by a rounding error.
    if all(np.array_equal(first, other) for other in arrays[1:]):
        return first
    total = sum(
        share * array.astype("float64")
        for share, array in zip(shares, arrays, strict=True)
    )
    return np.asarray(total).astype(first.dtype)


def _as_float64(values: Weights) -> dict[str, np.ndarray]:
    return {path: array.astype("float64") for path, array in values.items()}


def _added(total: Weights, values: Weights) -> dict[str, np.ndarray]:
    return {path: array + values[path] for path, array in total.items()}


def _divided(total: Weights, count: int, like: Weights) -> dict[str, np.ndarray]:
    return {
        # As in `_mean`: what all ingredients share stays as it is.
        path: like[path]
        if np.array_equal(array, like[path].astype("float64") * count)
        else (array / count).astype(like[path].dtype)
        for path, array in total.items()
    }
