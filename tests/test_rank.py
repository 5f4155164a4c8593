"""Ranking backbones for a data set without training them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.optimize

from tflearn.evaluation import transferability
from tflearn.run import main
from tflearn.support.errors import DataError
from tflearn.support.storage import buckets

DECLARATION = """
from __gin__ import dynamic_registration
from tflearn import data
from tflearn import experiment
from tflearn import objectives
from tflearn import regimes
from tflearn.commands import rank
from tflearn.training import optimizers
import rank_models

experiment.Experiment.name = 'wine'
experiment.Experiment.backbone = @rank_models.identity
experiment.Experiment.stages = (@experiment.Stage(),)
experiment.Stage.name = 'tune'
experiment.Stage.data = @data.Data
experiment.Stage.objective = @objectives.classification
experiment.Stage.regime = @regimes.full()
experiment.Stage.optimizer = @optimizers.adamw
experiment.Stage.budget = '1 epochs'
experiment.Stage.batch_size = 8
optimizers.adamw.learning_rate = 0.01
data.Data.source = @data.sources.sklearn
data.sources.sklearn.name = 'wine'
data.Data.input = 'vector'
data.Data.splits = {'train': 0.8, 'validation': 0.2}
rank.Ranking.candidates = (@none/rank.Candidate(), @all/rank.Candidate())
none/rank.Candidate.name = 'nothing'
none/rank.Candidate.backbone = @rank_models.first_column
all/rank.Candidate.name = 'everything'
all/rank.Candidate.backbone = @rank_models.identity
"""
MODELS = """
import keras
from tflearn import backbones


def identity():
    def build():
        x = keras.Input((13,))
        return keras.Model(x, keras.layers.UnitNormalization(name="unit")(x))
    return backbones.function(build)


def first_column():
    def build():
        x = keras.Input((13,))
        weights = keras.layers.Dense(
            1, kernel_initializer="zeros", name="one", bias_initializer="ones")
        return keras.Model(x, weights(x))
    return backbones.function(build)
"""


def evidence(features: np.ndarray, column: np.ndarray, alpha: float, beta: float):
    """Log density of a column under N(0, F F' / alpha + 1 / beta), written out."""
    covariance = features @ features.T / alpha + np.eye(len(column)) / beta
    _, volume = np.linalg.slogdet(2 * np.pi * covariance)
    return -0.5 * (volume + column @ np.linalg.solve(covariance, column))


@pytest.mark.parametrize("dim", [3, 40])
def test_logme_is_the_largest_evidence_of_a_linear_model(dim: int) -> None:
    rng = np.random.default_rng(dim)
    labels = np.arange(30) % 2
    features = rng.normal(size=(30, dim))
    features[:, 0] += labels
    columns = np.eye(2)[labels].T

    def best(column: np.ndarray) -> float:
        found = scipy.optimize.minimize(
            lambda x: -evidence(features, column, *np.exp(x)),
            np.zeros(2),
            method="Nelder-Mead",
            options={"maxiter": 2000, "fatol": 1e-10},
        )
        return -found.fun / len(column)

    expected = np.mean([best(column) for column in columns])
    np.testing.assert_allclose(
        transferability.logme(features, labels), expected, atol=2e-3
    )


def test_leep_is_the_likelihood_of_labels_told_by_source_classes() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    labels = np.array([7, 7, 9])
    joint = np.array([[1.5, 0.5], [0.2, 0.8]])
    given = joint / joint.sum(axis=0)
    likelihoods = (probabilities @ given.T)[[0, 1, 2], [0, 0, 1]]
    expected = np.log(likelihoods).mean()
    found = transferability.leep(probabilities, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_h_score_is_the_share_between_classes_where_rows_abound() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60_000) % 3
    features = rng.normal(size=(60_000, 4))
    features[:, 0] += np.array([-1.0, 0.0, 1.0])[labels]
    # Variance 1 + 2/3 along one axis, 2/3 of it between the classes.
    found = transferability.h_score(features, labels)
    np.testing.assert_allclose(found, (2 / 3) / (1 + 2 / 3), atol=0.02)


def test_useful_features_score_higher_in_every_score() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(90) % 3
    noise = rng.normal(size=(90, 5))
    useful = transferability.scores(noise + 3 * np.eye(3, 5)[labels], labels)
    useless = transferability.scores(noise, labels)
    for name in ("ridge", "knn", "logme", "h_score"):
        assert useful[name] > useless[name], name


def test_numbers_are_scored_by_explained_variance_and_evidence() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(80, 3))
    targets = (features @ [1.0, -2.0, 0.5]).astype("float32")
    found = transferability.scores(features, targets)
    assert found["ridge"] > 0.99 and set(found) == {"ridge", "ridge_error", "logme"}


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones((4, 2)), np.zeros(4, int), "several classes"),
        (np.full((4, 2), np.nan), np.arange(4) % 2, "finite"),
        (np.ones((4, 2)), np.array([0, 0, 0, 1]), "folds"),
    ],
)
def test_what_cannot_be_scored_says_why(features, labels, message: str) -> None:
    with pytest.raises(DataError, match=message):
        transferability.scores(features, labels)


def test_the_command_orders_candidates_and_writes_their_scores(
    tmp_path, monkeypatch, capsys
) -> None:
    (tmp_path / "rank_models.py").write_text(MODELS)
    (tmp_path / "wine.gin").write_text(DECLARATION)
    monkeypatch.syspath_prepend(tmp_path)
    flags = [f"--gin_file={tmp_path}/wine.gin", f"--output_dir={tmp_path}/out"]
    assert main(["--mode=rank", *flags]) == 0
    found = json.loads((tmp_path / "out" / "rank.json").read_text())
    assert [row["name"] for row in found["candidates"]] == ["everything", "nothing"]
    assert (tmp_path / "out" / "rank.csv").read_text().count("\n") == 3
    assert "everything" in capsys.readouterr().out
    url = "memory://ranked/wine"
    assert main(["--mode=rank", flags[0], f"--output_dir={url}"]) == 0
    stored = json.loads(buckets.connect(url).read("rank.json") or b"")
    assert [row["name"] for row in stored["candidates"]] == ["everything", "nothing"]
    assert main(["--mode=rank", *flags, "--gin_bindings=rank.Ranking.by = 'h'"]) == 2
    assert "h_score" in capsys.readouterr().err
