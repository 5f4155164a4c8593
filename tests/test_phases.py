"""Phases of a stage: what moves when, and an optimizer that goes on."""

from __future__ import annotations

import functools
import shutil

import keras
import numpy as np
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.backbones import graph
from tflearn.data import Data, sources
from tflearn.support.errors import ConfigError, RegimeError
from tflearn.training import (
    course,
    execution,
    finished,
    loop,
    optimizer_state,
    optimizers,
    phases,
    preparation,
    stage,
)

EPOCH = {"total_steps": 100, "num_examples": 80, "batch_size": 8}


def test_gradual_unfreezing_adds_blocks_from_the_top() -> None:
    made = phases.gradual(num_phases=3, blocks_per_phase=2, each="1 epoch")
    assert [phase.until for phase in made] == ["1 epochs", "2 epochs", "3 epochs"]
    assert [str(phase.regime[0]) for phase in made] == [
        "freeze('backbone/*')",
        "train_last(2)",
        "train_last(4)",
    ]


def test_the_head_first_then_everything() -> None:
    made = phases.spans(phases.head_first(until="25 steps"), regimes.full(), **EPOCH)
    assert [(span.start, span.end) for span in made] == [(0, 25), (25, 100)]
    assert [str(rule) for rule in made[1].regime] == ["train('*')"]


def test_phases_behind_the_budget_do_not_begin() -> None:
    made = phases.spans(phases.gradual(num_phases=12), regimes.full(), **EPOCH)
    assert [(span.start, span.end) for span in made][-1] == (90, 100)
    assert len(made) == 10
    assert len(phases.spans((), regimes.full(), **EPOCH)) == 1


@pytest.mark.parametrize(
    ("until", "message"),
    [
        (("1 epoch", "10 steps"), "must end behind the one before.*step 10"),
        (("5 minutes",), "same step on every machine"),
        (("soon",), "cannot be read"),
    ],
)
def test_phases_that_make_no_sense_are_refused(until, message) -> None:
    declared = [phases.Phase(until=text, regime=regimes.full()) for text in until]
    with pytest.raises(ConfigError, match=message):
        phases.spans(declared, regimes.full(), **EPOCH)
    with pytest.raises(ConfigError, match="at least 1"):
        phases.gradual(num_phases=0)


# --- The optimizer's state ---------------------------------------------------------


def layers_of(names: str) -> list[keras.Variable]:
    rng = np.random.default_rng(5)
    return [
        keras.Variable(rng.normal(size=(3, 2)).astype("float32"), name=name)
        for name in names
    ]


def apply(optimizer, variables, step: int) -> None:
    rng = np.random.default_rng(step)
    gradients = [rng.normal(size=(3, 2)).astype("float32") for _ in variables]
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)


OPTIMIZERS = {
    "Adadelta": {},
    "Adafactor": {},
    "Adagrad": {},
    "Adam": {"amsgrad": True},
    "AdamW": {"use_ema": True},
    "Adamax": {},
    "Ftrl": {},
    "Lamb": {},
    "Lion": {},
    "Nadam": {},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "SGD": {"momentum": 0.9, "gradient_accumulation_steps": 2},
    "ScheduleFreeAdamW": {},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_that_moved_before_go_on_to_the_same_bits(name: str) -> None:
    make = functools.partial(getattr(keras.optimizers, name), **OPTIMIZERS[name])
    straight, switched = layers_of("ab"), layers_of("ab")
    rate = optimizers.rate_schedule(20, learning_rate=0.1, schedule="linear", warmup=0)
    reference, old = make(learning_rate=rate), make(learning_rate=rate)
    for optimizer, variables in ((reference, straight), (old, switched)):
        optimizer.build(variables)
        for step in range(3):
            apply(optimizer, variables, step)
    (new_variable,) = layers_of("c")
    # The new weight comes first: positions shift, the variables tell whose a slot is.
    wider = [new_variable, *switched]
    new = make(learning_rate=rate)
    new.build(wider)
    assert optimizer_state.carry(old, switched, new, wider) == 2
    for step in range(3, 7):
        apply(reference, straight, step)
        rng = np.random.default_rng(step)
        gradients = [rng.normal(size=(3, 2)).astype("float32") for _ in straight]
        new.apply([np.ones((3, 2), "float32"), *gradients], wider)
    for expected, found in zip(straight, switched, strict=True):
        np.testing.assert_array_equal(graph.value_of(found), graph.value_of(expected))
    assert np.any(graph.value_of(new_variable) != graph.value_of(layers_of("c")[0]))


def test_a_weight_that_begins_later_takes_the_steps_of_a_beginner() -> None:
    (late,), (beginner,) = layers_of("a"), layers_of("a")
    late_optimizer = keras.optimizers.Adam(0.1)
    late_optimizer.build([late])
    late_optimizer.iterations.assign(1000)
    optimizer_state.own_clocks(late_optimizer, {id(late): 1000})
    fresh_optimizer = keras.optimizers.Adam(0.1)
    fresh_optimizer.build([beginner])
    for step in range(3):
        apply(late_optimizer, [late], step)
        apply(fresh_optimizer, [beginner], step)
    np.testing.assert_array_equal(graph.value_of(late), graph.value_of(beginner))
    assert int(graph.value_of(late_optimizer.iterations)) == 1003


def test_the_average_of_a_beginner_starts_with_its_value() -> None:
    old_variables, (late,) = layers_of("a"), layers_of("c")
    make = functools.partial(keras.optimizers.SGD, 0.1, use_ema=True, ema_momentum=0.5)
    old, new = make(), make()
    old.build(old_variables)
    apply(old, old_variables, 0)
    new.build([*old_variables, late])
    optimizer_state.carry(old, old_variables, new, [*old_variables, late])
    before = graph.value_of(late)
    apply(new, [*old_variables, late], 1)
    after = graph.value_of(late)
    new.finalize_variable_values([*old_variables, late])
    np.testing.assert_allclose(graph.value_of(late), (before + after) / 2, rtol=1e-6)


# --- Whole stages ------------------------------------------------------------------


def make_backbone() -> keras.Model:
    x = inputs = keras.Input((4,), name="features")
    for index in range(2):
        x = keras.layers.Dense(8, activation="tanh", name=f"block_{index}")(x)
        x = keras.layers.Dropout(0.2, name=f"dropout_{index}")(x)
    return keras.Model(inputs, x)


def iris() -> Data:
    return Data(
        source=functools.partial(sources.sklearn, "iris"),
        input="vector",
        splits={"train": 0.6, "validation": 0.2, "test": 0.2},
    )


def make_stage(**changes) -> experiment.Stage:
    fields = {
        "name": "tune",
        "data": iris,
        "objective": objectives.classification,
        "regime": regimes.full(),
        "phases": phases.gradual(num_phases=2, each="5 steps"),
        "optimizer": functools.partial(optimizers.adamw, learning_rate=0.02),
        "budget": "16 steps",
        "interval": 3,
        "batch_size": 16,
        "bootstrap": 0,
    }
    return experiment.Stage(**(fields | changes))


def declare(*stages: experiment.Stage) -> experiment.Experiment:
    return experiment.Experiment(
        backbone=functools.partial(backbones.function, make_backbone), stages=stages
    )


def prepare(declared: experiment.Stage) -> stage.Prepared:
    keras.utils.set_random_seed(0)
    return preparation.prepare(declared, backbones.function(make_backbone), seed=0)


def test_what_moves_is_what_the_phase_says(tmp_path, capsys) -> None:
    prepared = prepare(make_stage())
    seen: dict[int, dict[str, np.ndarray]] = {}

    def look(state: execution.State) -> None:
        seen[state.step] = {
            path: graph.value_of(weight)
            for path, weight in graph.weights_by_path(prepared.network.model).items()
        }

    census = prepared.apply_regime()
    look(execution.State(step=0))
    outcome = execution.execute(prepared, tmp_path, census=census, observers=[look])

    def moved(first: int, last: int) -> set[str]:
        old, new = seen[first], seen[last]
        return {
            path.rsplit("/", 1)[0]
            for path in old
            if not np.array_equal(old[path], new[path])
        }

    assert sorted(seen) == [0, 3, 5, 8, 10, 13, 16]
    assert moved(0, 5) == {"head/logits"}
    assert moved(5, 10) == {"head/logits", "backbone/block_1"}
    assert moved(10, 16) == {"head/logits", "backbone/block_0", "backbone/block_1"}
    assert len(outcome.notes) == 3
    assert outcome.notes[1].startswith("steps 5 to 10: train_last(1)")
    text = capsys.readouterr().out
    assert "the optimizer goes on with 2 of 4 variables" in text
    assert "the optimizer goes on with 4 of 6 variables" in text


def test_one_phase_with_all_rules_equal_is_no_phase(tmp_path) -> None:
    """Ending `fit`, making a new optimizer and going on changes no bit."""
    whole = [phases.Phase(until="6 steps", regime=regimes.full())]
    results = []
    for name, declared in (("a", ()), ("b", whole)):
        prepared = prepare(make_stage(phases=declared))
        execution.execute(prepared, tmp_path / name, census=prepared.apply_regime())
        results.append(prepared.network.model.get_weights())
    for plain, phased in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, phased)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, nothing cleans up behind it."""


@pytest.mark.first_on("jax")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "optimizer": functools.partial(
                optimizers.layerwise,
                optimizer=lambda: keras.optimizers.AdamW(0.02, use_ema=True),
            )
        },
        {
            "phases": phases.head_first(until="10 steps"),
            "regime": regimes.low_rank(targets="backbone/block_*", rank=2),
        },
    ],
    ids=["adamw", "layerwise and averages", "head, then adapters"],
)
def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_bits(
    tmp_path, monkeypatch, changes
) -> None:
    declared = declare(make_stage(**changes))
    experiment.run(declared, output_dir=str(tmp_path / "straight"))
    saved = execution.Checkpoints.save

    def save_then_die(self, step, *arguments, **keywords):
        known = step in self.steps
        saved(self, step, *arguments, **keywords)
        if not known and "checkpoints" in str(self._manager.directory):
            raise Killed

    monkeypatch.setattr(execution.Checkpoints, "save", save_then_die)
    kills = 0
    while True:
        try:
            experiment.run(declared, output_dir=str(tmp_path / "killed"))
            break
        except Killed:
            kills += 1
    # The first one strikes the checkpoint of step 0.
    assert kills == 7
    first, second = (
        finished.open_run(tmp_path / name).model.get_weights()
        for name in ("straight", "killed")
    )
    for old, new in zip(first, second, strict=True):
        np.testing.assert_array_equal(old, new)


def test_frozen_weights_are_proven_in_every_phase(tmp_path, monkeypatch) -> None:
    prepared = prepare(make_stage())
    trained = loop.train

    def train_and_touch(model, batches, *, schedule, **rest) -> None:
        trained(model, batches, schedule=schedule, **rest)
        if schedule.start_step == 5:
            layer = model.get_layer("backbone").get_layer("block_0")
            layer.bias.assign(layer.bias + 1.0)

    monkeypatch.setattr(loop, "train", train_and_touch)
    with pytest.raises(RegimeError, match="changed.*backbone/block_0"):
        execution.execute(prepared, tmp_path, census=prepared.apply_regime())


def test_what_does_not_fit_shows_before_anything_trains() -> None:
    def check(**changes) -> tuple[str, ...]:
        return course.check(prepare(make_stage(**changes)))

    assert check() == ()
    assert check(budget="4 steps") == (
        "stage 'tune' ends before its last 2 regimes begin",
    )
    with pytest.raises(RegimeError, match="does not have so many blocks"):
        check(phases=phases.gradual(num_phases=4, each="1 step"))
    fresh = [phases.Phase(until="4 steps", regime=regimes.scratch())]
    with pytest.raises(ConfigError, match="start anew when the stage begins"):
        check(phases=fresh)
    assert check(phases=fresh, regime=regimes.scratch()) == ()
    with pytest.raises(ConfigError, match="single optimizer"):
        check(
            optimizer=lambda: keras.optimizers.MultiOptimizer(
                lambda variable: keras.optimizers.SGD(0.1)
            )
        )


def test_time_that_is_used_up_ends_a_resumed_stage() -> None:
    prepared = prepare(make_stage())
    model = prepared.network.model
    model.compile(optimizer="sgd", loss="mse")

    def never(step: int, logs: dict[str, float]) -> bool:
        raise AssertionError("nothing is left to train")

    schedule = loop.Schedule(total_steps=3, interval_steps=1, seconds=0.0)
    loop.train(model, prepared.batches, schedule=schedule, on_interval=never)


def test_a_stage_whose_phase_alone_has_adapters_is_read_back(tmp_path) -> None:
    adapted = phases.Phase(
        until="1 step", regime=regimes.low_rank(targets="backbone/block_*", rank=2)
    )
    first = make_stage(phases=(adapted,), regime=regimes.frozen(), budget="2 steps")
    second = make_stage(
        name="more", phases=(), regime=regimes.frozen(), budget="1 step"
    )
    declared = declare(first, second)
    experiment.run(declared, output_dir=str(tmp_path))
    shutil.rmtree(tmp_path / "stages" / "more")
    for part in tmp_path.glob("report.*"):
        part.unlink()
    report = experiment.run(declared, output_dir=str(tmp_path))
    assert [x.steps for x in report.stages] == [2, 1]
