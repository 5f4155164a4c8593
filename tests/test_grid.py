"""A grid for a head: each candidate is the stage with its values; the best goes on."""

from __future__ import annotations

import functools
import json
import math
import pathlib

import keras
import numpy as np
import pytest
from feature_cases import TOP, make, make_stage

from tflearn import experiment, heads, objectives
from tflearn.backbones import graph
from tflearn.support.errors import ConfigError
from tflearn.training import execution, optimizers
from tflearn.training.features import Grid, search, together
from tflearn.training.stage import Prepared

GRID = Grid(rates=(0.3, 1e-6, 0.02), weight_decays=(0.0, 0.5), seeds=(0, 3))
DROPOUT = functools.partial(heads.ClassificationHead, dropout=0.3)
DECLARED = {
    "objective": functools.partial(objectives.classification, head=DROPOUT),
    "budget": "15 steps",
    "cache": "memory",
    "restore_best": True,
}


def prepare(seed: int = 0, **changes) -> Prepared:
    stage = make_stage(**DECLARED | changes)
    (prepared,) = experiment.build(make(stage, seed=seed)).stages
    return prepared


def train(prepared: Prepared, folder: pathlib.Path) -> execution.Outcome:
    return execution.execute(prepared, folder, census=prepared.apply_regime())


def head(prepared: Prepared) -> dict[str, np.ndarray]:
    variables = graph.variables_by_path(prepared.network.model)
    return {k: graph.value_of(x) for k, x in variables.items() if "backbone" not in k}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    prepared = prepare(grid=GRID)
    return prepared, train(prepared, folder), folder


def rows(folder: pathlib.Path) -> list[dict]:
    return json.loads((folder / "grid.json").read_text())["candidates"]


def test_every_candidate_is_the_stage_with_its_values(searched, tmp_path) -> None:
    _, _, folder = searched
    found = rows(folder)
    assert len(found) == 12
    # The data are split by a seed of their own, the backbone has fixed weights here.
    for row in (found[0], found[3], found[10]):
        optimizer = functools.partial(
            optimizers.adamw,
            learning_rate=row["rate"],
            weight_decay=row["weight_decay"],
        )
        alone = prepare(seed=0, optimizer=optimizer)
        alone = search.seeded(alone, row["seed"])
        outcome = train(alone, tmp_path / str(found.index(row)))
        name = f"val_{alone.headline}"
        values = [x[name] for x in outcome.state.history]
        assert row["scores"] == pytest.approx(values, abs=1e-6)
        assert row["score"] == pytest.approx(outcome.state.best, abs=1e-6)


def test_the_best_goes_on_as_the_stages_result(searched) -> None:
    _, outcome, folder = searched
    best = max(row["score"] for row in rows(folder))
    assert outcome.state.best == pytest.approx(best, abs=1e-6)
    assert outcome.cache["grid"] == rows(folder)
    assert "grid of 12 candidates" in "\n".join(outcome.notes)


def test_a_process_that_goes_on_searches_no_more(searched, monkeypatch) -> None:
    _, outcome, folder = searched
    monkeypatch.setattr(search, "_search", lambda *_: pytest.fail("searched again"))
    again = prepare(grid=GRID)
    resumed = train(again, folder)
    assert resumed.state.history == outcome.state.history
    for path, value in head(searched[0]).items():
        np.testing.assert_array_equal(head(again)[path], value, err_msg=path)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow goes in turn")
def test_at_once_and_in_turn_give_the_same(searched, tmp_path, monkeypatch) -> None:
    _, _, folder = searched
    monkeypatch.setattr(together, "is_possible", lambda: False)
    train(prepare(grid=GRID), tmp_path)
    for one, other in zip(rows(tmp_path), rows(folder), strict=True):
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-6)


def test_a_candidate_whose_numbers_go_wrong_is_not_taken(tmp_path) -> None:
    def explosive(total_steps: int, *, learning_rate: float = 0.01):
        del total_steps
        return keras.optimizers.SGD(learning_rate)

    prepared = prepare(grid=Grid(rates=(1e38, 0.1)), optimizer=explosive)
    outcome = train(prepared, tmp_path)
    assert [row["score"] is None for row in rows(tmp_path)] == [True, False]
    assert math.isfinite(outcome.state.history[-1]["loss"])


def test_a_grid_that_cannot_be_searched_fails_before_anything_trains() -> None:
    with pytest.raises(ConfigError, match="features of one size"):
        prepare(grid=GRID, cache="off")
    with pytest.raises(ConfigError, match="more than a head"):
        stage = make_stage("text", regime=TOP, grid=GRID)
        experiment.build(make(stage, kind="text"))
    with pytest.raises(ConfigError, match="does not take what the grid varies"):
        prepare(grid=GRID, optimizer=optimizers.layerwise)
    with pytest.raises(ConfigError, match="one candidate"):
        Grid(rates=(0.1,))
    with pytest.raises(ConfigError, match="rates are above 0"):
        Grid(rates=(0.0, 0.1))


def test_its_size_is_told_before_it_is_searched() -> None:
    assert search.size_text(prepare(grid=GRID)).startswith(
        "12 candidates, 3 rates x 2 weight decays x 2 seeds, trained "
    )
