"""The diagonal of the Fisher information: how much a task depends on a weight."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tflearn.data import Data, pipeline
from tflearn.support.errors import ConfigError, FileError, nearest
from tflearn.support.patterns import matches
from tflearn.support.safety import arrays as arrays_on_disk
from tflearn.training.layer_rates import weight_paths

if TYPE_CHECKING:
    from tflearn.training.stage import Prepared

LABELS = ("model", "data")

#: Called with outputs, targets and weights of one example; returns its scalar loss.
Loss = Callable[[Any, Any, Any], Any]


def check(*, samples: int, labels: str) -> None:
    """Checks the arguments of `diagonal`.

    Raises:
        ConfigError: One of them is not possible.
    """
    if samples < 1:
        raise ConfigError("the Fisher information needs samples", received=samples)
    if labels not in LABELS:
        raise ConfigError(
            "unknown labels for the Fisher information",
            received=labels,
            expected=LABELS,
            nearest=nearest(str(labels), LABELS),
        )


def diagonal(
    prepared: Prepared, *, pattern: str, samples: int, labels: str, seed: int = 0
) -> dict[str, np.ndarray]:
    r"""Computes the diagonal of the Fisher information on a stage's training data.

    For every weight :math:`F_i = \frac{1}{n} \sum_x (\partial_i \log p(y | x))^2`
    over `n` examples, `y` drawn from the model or taken from the data.

    Args:
        prepared: The stage: network and data.
        pattern: Of which weights.
        samples: How many examples are drawn, all at most.
        labels: `model` or `data`.
        seed: Draws examples and targets.

    Returns:
        Arrays of the weights' shapes by path.

    Raises:
        ConfigError: `labels` is `model` for an objective that makes its own targets.
    """
    model = prepared.network.model
    weights = {
        path: weight
        for path, weight in weight_paths(model).items()
        if matches(pattern, path)
    }
    rng = np.random.default_rng(seed)
    count = min(samples, len(prepared.examples["train"]))
    chosen = rng.permutation(len(prepared.examples["train"]))[:count]
    network = prepared.network
    outputs = network.model if prepared.pretext is not None else network.deployed
    gradients = gradients_of(outputs, list(weights.values()), _loss(prepared))
    totals = [np.zeros(tuple(weight.shape)) for weight in weights.values()]
    for index in chosen:
        batch = _example(prepared, int(index), labels, rng)
        for total, gradient in zip(totals, gradients(*batch), strict=True):
            total += np.square(np.asarray(gradient, "float64"))
    return {
        path: (total / count).astype("float32")
        for path, total in zip(weights, totals, strict=True)
    }


def with_data(prepared: Prepared, data: Data) -> Prepared:
    """Returns a stage with its own network and other data.

    Args:
        prepared: The stage.
        data: Data of the same task.

    Raises:
        ConfigError: The classes are others.
    """
    dataset = data.load(target_kind=prepared.objective.target_kind)
    if dataset.classes != prepared.dataset.classes:
        raise ConfigError(
            "the old data have other classes than the stage",
            received=", ".join(dataset.classes),
            expected=", ".join(prepared.dataset.classes),
            fix="name an earlier stage instead: anchors.ewc.stage = 'NAME'",
        )
    split = dataset.splits["train"]
    encoder = prepared.network.backbone.encoder
    examples = pipeline.encode(split, encoder, data=data)
    if prepared.pretext is not None:
        examples = prepared.pretext.arrange(examples, split.targets)
    return dataclasses.replace(
        prepared, data=data, dataset=dataset, examples={"train": examples}
    )


def write(path: pathlib.Path, importances: Mapping[str, np.ndarray]) -> None:
    """Writes importances by path of weight, in one atomic step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"unfinished.{path.name}")
    with temporary.open("wb") as file:
        # Any, because NumPy's signature takes names of its own besides.
        arrays: Any = dict(importances)
        np.savez(file, **arrays)
    temporary.replace(path)


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads what `write` wrote.

    Raises:
        ConfigError: There is no such file, or it is another kind of file.
    """
    expected = "RUN/stages/NAME/fisher.npz of a stage with anchors.ewc"
    if not pathlib.Path(path).is_file():
        raise ConfigError(
            "there is no file with the Fisher information",
            received=str(path),
            expected=expected,
        )
    try:
        return arrays_on_disk.load_npz(path)
    except (OSError, FileError) as error:
        raise ConfigError(
            "this file holds no Fisher information",
            received=f"{path}: {error}",
            expected=expected,
        ) from error


def gradients_of(
    model: keras.Model, weights: Sequence[keras.Variable], loss: Loss
) -> Callable[[Any, Any, Any], list[Any]]:
    """Returns a function that differentiates a loss by some weights of a model.

    Args:
        model: The model; it runs in inference mode.
        weights: By what; frozen ones too.
        loss: Called with outputs, targets and weights of the targets.

    Returns:
        A function of inputs, targets and weights of the targets (or None), all of
        one batch; it returns a gradient for every weight.
    """
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_gradients(model, weights, loss)
    import jax

    def value(values: list[Any], x: Any, y: Any, sample_weight: Any) -> Any:
        mapping = list(zip(weights, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return loss(model(x, training=False), y, sample_weight)

    compiled = jax.jit(jax.grad(value))
    return lambda x, y, sample_weight: compiled(
        [weight.value for weight in weights], x, y, sample_weight
    )


def _tensorflow_gradients(
    model: keras.Model, weights: Sequence[keras.Variable], loss: Loss
) -> Callable[[Any, Any, Any], list[Any]]:
    import tensorflow as tf

    variables = [weight.value for weight in weights]

    @tf.function(reduce_retracing=True)
    def compiled(x: Any, y: Any, sample_weight: Any) -> list[Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            value = loss(model(x, training=False), y, sample_weight)
        found = tape.gradient(
            value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return [tf.convert_to_tensor(gradient) for gradient in found]

    return compiled


def _loss(prepared: Prepared) -> Loss:
    """Returns the negative log likelihood of an example."""
    ops: Any = keras.ops
    if prepared.pretext is not None:
        made = prepared.loss()
        return lambda outputs, y, weight: made(y, outputs, sample_weight=weight)

    def of_class(outputs: Any, y: Any, weight: Any) -> Any:
        logits = ops.cast(outputs, "float32")
        return ops.mean(
            ops.sparse_categorical_crossentropy(y, logits, from_logits=True)
        )

    def of_labels(outputs: Any, y: Any, weight: Any) -> Any:
        logits = ops.cast(outputs, "float32")
        return ops.sum(ops.binary_crossentropy(y, logits, from_logits=True))

    def of_number(outputs: Any, y: Any, weight: Any) -> Any:
        # A normal distribution around the output with a variance of 1.
        return 0.5 * ops.sum(ops.square(ops.cast(outputs, "float32") - y))

    kinds = {"class": of_class, "multi_label": of_labels, "number": of_number}
    return kinds[prepared.objective.target_kind]


def _example(
    prepared: Prepared, index: int, labels: str, rng: np.random.Generator
) -> tuple[Any, Any, Any]:
    """Returns inputs, targets and weights of one example."""
    examples, indices = prepared.examples["train"], np.asarray([index])
    if prepared.pretext is not None:
        if labels != "data":
            raise ConfigError(
                "an objective that makes its own targets has none to draw",
                received="labels='model'",
                fix="anchors.ewc.labels = 'data'",
            )
        batch = prepared.pretext.make_batch(examples, indices, rng)
        return batch[0], batch[1], batch[2] if len(batch) > 2 else None
    x = examples.batch(indices)
    if labels == "model":
        outputs = np.asarray(prepared.network.deployed.predict_on_batch(x), "float64")
        return x, draw(prepared.objective.target_kind, outputs, rng), None
    targets = prepared.dataset.splits["train"].targets
    if targets is None:
        raise ConfigError("the old data have no targets", fix="labels = 'model'")
    target = np.asarray(targets)[indices]
    if prepared.objective.target_kind == "number":
        target = target.reshape(len(indices), -1)
    return x, target, None


def draw(kind: str, outputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws targets from a model's predictions.

    Args:
        kind: `class`, `multi_label` or `number`.
        outputs: Logits or values, `(batch, outputs)`.
        rng: Draws.

    Returns:
        Classes `(batch,)` int32, or labels or values `(batch, outputs)` float32.

    Example:

    >>> draw("class", np.array([[9.0, -9.0]]), np.random.default_rng(0))
    array([0], dtype=int32)
    """
    if kind == "class":
        # The largest of logits with Gumbel noise is a draw from their softmax.
        noisy = outputs + rng.gumbel(size=outputs.shape)
        return noisy.argmax(axis=-1).astype("int32")
    if kind == "multi_label":
        chances = 1.0 / (1.0 + np.exp(-outputs))
        return (rng.random(outputs.shape) < chances).astype("float32")
    return (outputs + rng.normal(size=outputs.shape)).astype("float32")
