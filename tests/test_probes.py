"""Probes: closed-form classifiers on features, and measuring a backbone by them."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from tflearn import backbones, objectives
from tflearn.data import Data, sources
from tflearn.evaluation import probes
from tflearn.support.errors import ConfigError, DataError
from tflearn.training import probe
from tflearn.training.probe import Probe


def clouds(count: int, spread: float, seed: int = 0):
    """Points around the corners of a triangle in 5 dimensions, one class a corner."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    corners = np.eye(3, 5) * 4 + 7
    return corners[labels] + spread * rng.normal(size=(count, 5)), labels


def reference_ridge(train, labels, test, alpha):
    """Least squares on targets of -1 and 1, written out."""
    mean, deviation = train.mean(0), train.std(0)
    x, y = (train - mean) / deviation, (test - mean) / deviation
    targets = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
    centred = targets - targets.mean(0)
    weights = np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ centred)
    return (y @ weights + targets.mean(0)).argmax(axis=1)


@pytest.mark.parametrize("alpha", [0.1, 30.0])
def test_ridge_is_least_squares_with_a_penalty(alpha: float) -> None:
    x, labels = clouds(60, 2.5)
    test, truth = clouds(300, 2.5, seed=1)
    expected = np.mean(reference_ridge(x, labels, test, alpha) == truth)
    assert probes.ridge(x, labels, test, truth, alphas=(alpha,)) == expected
    assert 0.5 < expected < 0.95


def test_ridge_chooses_the_penalty_without_the_test_rows() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 2
    x = rng.normal(size=(30, 200)) + 0.4 * labels[:, None] * (np.arange(200) < 20)
    wrong = 1 - labels
    # The choice is made by the training rows: labels of the test change nothing.
    right = probes.ridge(x, labels, x, labels)
    assert probes.ridge(x, labels, x, wrong) == pytest.approx(1 - right)


def test_a_constant_feature_does_no_harm() -> None:
    x, labels = clouds(60, 0.5)
    x[:, 4] = 3.0
    assert probes.ridge(x, labels, x, labels) == 1.0


def test_knn_lets_the_nearest_vote() -> None:
    x = np.array([[1.0, 0.1], [2, 0.1], [0.1, 3], [0.1, 5], [30, 30]])
    labels = np.array([0, 0, 1, 1, 1])
    test, truth = np.array([[9.0, 1], [0.2, 9], [1, 1]]), np.array([0, 1, 1])
    assert probes.knn(x, labels, test, truth, k=1) == 1.0
    # By distance the far point on the diagonal is no neighbour of the last row.
    assert probes.knn(x, labels, test, truth, k=1, cosine=False) == pytest.approx(2 / 3)
    # With all of them voting, the larger class wins everywhere.
    assert probes.knn(x, labels, test, truth, k=99) == pytest.approx(2 / 3)


@pytest.mark.parametrize("measure", [probes.ridge, probes.knn])
def test_what_cannot_be_measured_is_an_error(measure) -> None:
    x, labels = clouds(9, 1.0)
    with pytest.raises(DataError, match="not finite"):
        measure(x * np.nan, labels, x, labels)
    with pytest.raises(DataError, match="several classes"):
        measure(x, labels * 0, x, labels)


def test_penalty_and_neighbours_are_positive() -> None:
    x, labels = clouds(9, 1.0)
    with pytest.raises(ConfigError, match="penalties"):
        probes.ridge(x, labels, x, labels, alphas=(0.0,))
    with pytest.raises(ConfigError, match="neighbours"):
        probes.knn(x, labels, x, labels, k=0)


# --- The probe of a backbone ---


def images(count: int, seed: int) -> dict[str, object]:
    """Images that are brighter on the left (0) or on the right (1)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = rng.integers(60, 120, (count, 8, 8, 3), "uint8")
    pixels[labels == 0, :, :4] += 60
    pixels[labels == 1, :, 4:] += 60
    return {"image": list(pixels), "label": [str(label) for label in labels]}


def labelled(**changes) -> Data:
    tables = {"train": images(40, 0), "test": images(20, 1)}
    fields = {"source": lambda: sources.arrays(tables), "input": "image"}
    return Data(**(fields | changes))


def network() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 4, strides=4, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.5),
            keras.layers.Conv2D(6, 2, activation="tanh", name="deep"),
        ]
    )


@pytest.mark.parametrize("kind", probe.KINDS)
def test_a_probe_measures_pooled_features_in_inference_mode(kind: str) -> None:
    backbone = backbones.hub(network)
    ready = probe.prepare(Probe(data=labelled, kind=kind), backbone, batch_size=16)
    assert set(ready.examples) == {"train", "test"}
    found = ready.measure()
    assert found == ready.measure()

    def features(split: str) -> np.ndarray:
        batch = ready.examples[split].batch(np.arange(len(ready.examples[split])))
        return np.asarray(backbone.model(batch, training=False)).mean(axis=(1, 2))

    expected = {"ridge": probes.ridge, "knn": probes.knn}[kind](
        features("train"), ready.labels["train"], features("test"), ready.labels["test"]
    )
    assert found == {"probe_accuracy": pytest.approx(expected)}


def test_a_probe_follows_the_weights_while_fit_trains_them() -> None:
    """It has the values of the present, and does not disturb the training."""

    def losses(watched: bool):
        keras.utils.set_random_seed(0)
        backbone = backbones.hub(network)
        ready = probe.prepare(Probe(data=labelled), backbone, batch_size=16)
        pretext = objectives.simclr(projection=(4,)).bind(backbone)
        examples = ready.examples["train"]
        x, y = pretext.make_batch(examples, np.arange(40), np.random.default_rng(0))
        pretext.model.compile("adam", pretext.loss())
        seen = []

        def on_epoch_end(epoch, logs):
            weights = [np.array(w) for w in backbone.model.get_weights()]
            ready.measure()
            seen.append(weights[0])

        callback = keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)
        history = pretext.model.fit(
            x, y, batch_size=20, epochs=3, verbose=0, callbacks=[callback] * watched
        )
        return history.history["loss"], seen

    plain, _ = losses(False)
    watched, seen = losses(True)
    np.testing.assert_allclose(plain, watched, rtol=1e-6)
    assert not np.array_equal(seen[0], seen[1])


def test_the_value_changes_with_the_weights() -> None:
    backbone = backbones.hub(network)
    ready = probe.prepare(Probe(data=labelled), backbone, batch_size=16)
    before = ready.measure()["probe_accuracy"]
    # A network that gives the same features for every image.
    backbone.model.get_layer("deep").set_weights([np.zeros((2, 2, 4, 6)), np.ones(6)])
    assert ready.measure()["probe_accuracy"] == 0.5 < before


def test_a_declaration_out_of_its_range_is_refused() -> None:
    for field, value in (("every", 0), ("neighbours", 0), ("split", "train")):
        with pytest.raises(ConfigError, match=field):
            Probe(data=labelled, **{field: value})
    with pytest.raises(ConfigError, match="Did you mean 'ridge'"):
        Probe(data=labelled, kind="rigde")


def test_a_split_that_is_missing_is_named() -> None:
    declared = Probe(data=labelled, split="validation")
    with pytest.raises(DataError, match="no split 'validation'"):
        probe.prepare(declared, backbones.hub(network), batch_size=8)
    drawn = functools.partial(labelled, splits={"train": 0.5, "validation": 0.5})
    declared = Probe(data=drawn, split="validation")
    assert probe.prepare(declared, backbones.hub(network), batch_size=8).measure()
