"""Training from features: the same numbers as live, from fewer computations."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import feature_cases
import keras
import numpy as np
import pytest
from feature_cases import TOP, make, make_stage

from tflearn import experiment, heads, objectives, regimes
from tflearn.backbones import graph
from tflearn.backbones.cut import cut
from tflearn.data import Data
from tflearn.distribution import products
from tflearn.support.errors import ConfigError, RunError
from tflearn.training import assessment, execution, loop, phases
from tflearn.training.checkpoints import Checkpoints
from tflearn.training.features import (
    files,
    gather,
    keys,
    plan,
    precision,
    resident,
    views,
)
from tflearn.training.features import passes as feature_passes
from tflearn.training.features.examples import FeatureExamples
from tflearn.training.features.passes import passes
from tflearn.training.features.shortcut import shortcut, standin
from tflearn.training.stage import Prepared

NO_COST = {"cpu": 0, "accelerator": 0}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch) -> pathlib.Path:
    """Each test has features of its own, and texts of several lengths of batches."""
    monkeypatch.setattr(feature_passes, "_SHAPE_TOKENS", NO_COST)
    monkeypatch.setenv("TFLEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def prepare(kind: str = "vector", **changes) -> Prepared:
    stage = make_stage(kind, **changes)
    (prepared,) = experiment.build(make(stage, kind=kind)).stages
    prepared.apply_regime()
    return prepared


def train(prepared: Prepared, folder: pathlib.Path, **more) -> execution.Outcome:
    return execution.execute(prepared, folder, census=prepared.apply_regime(), **more)


def weights(prepared: Prepared) -> dict[str, np.ndarray]:
    variables = graph.variables_by_path(prepared.network.model)
    return {path: graph.value_of(x) for path, x in variables.items()}


def entries(folder: pathlib.Path) -> list[str]:
    return sorted(x.name for x in folder.iterdir()) if folder.exists() else []


# --- The same numbers ---------------------------------------------------------------

# kind, regime: dropout behind the cut, masks, and statistics that move behind it.
CASES = {
    "tokens": ("text", TOP),
    "feature maps": ("image", TOP),
    "vectors": ("vector", regimes.frozen()),
}


@pytest.fixture(scope="module", params=CASES, ids=str)
def both(request, tmp_path_factory):
    """A stage trained live and from features; the latter twice."""
    kind, rules = CASES[request.param]
    root = tmp_path_factory.mktemp("runs")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFLEARN_CACHE", str(root / "cache"))
        patch.setattr(feature_passes, "_SHAPE_TOKENS", NO_COST)
        for name, cache in (("live", "off"), ("cached", "auto"), ("again", "auto")):
            prepared = prepare(kind, regime=rules, cache=cache)
            if name == "cached":
                planned = plan.plan(prepared)
            found[name] = prepared, train(prepared, root / name)
    return root, planned, found


def test_losses_metrics_and_weights_are_those_of_live_training(both) -> None:
    _, _, found = both
    (live, expected), (cached, outcome) = found["live"], found["cached"]
    assert expected.cache == {} and outcome.cache["place"] == "memory"
    assert len(outcome.state.history) == 3
    for row, other in zip(outcome.state.history, expected.state.history, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            assert row[name] == pytest.approx(other[name], abs=1e-4), name
    for path, value in weights(live).items():
        # Dropout behind the cut drew the same masks: its generators stand alike.
        np.testing.assert_allclose(
            weights(cached)[path], value, rtol=0, atol=1e-4, err_msg=path
        )
    assert outcome.proof == expected.proof


DROPOUT = functools.partial(heads.ClassificationHead, dropout=0.3)


def test_an_interval_a_call_gives_the_bits_of_step_by_step(tmp_path, monkeypatch):
    declared = {
        "objective": functools.partial(objectives.classification, head=DROPOUT),
        # `fit` on TensorFlow draws one mask too many where data run out.
        "budget": "15 steps" if keras.backend.backend() == "jax" else "18 steps",
        "cache": "memory",
    }
    found = {}
    # Calls that end inside intervals, and an interval that is shorter than the others.
    for name, more in {"an interval": {}, "four": {"save_steps": 4}}.items():
        found[name] = prepare(**declared, **more), tmp_path / name
    found["one"] = prepare(**declared), tmp_path / "one"
    states = {}
    for name, (prepared, folder) in found.items():
        if name == "one":
            monkeypatch.setattr(resident, "of", lambda *_, **__: None)
        states[name] = train(prepared, folder).state
        assert states[name].history == states["an interval"].history
        for path, value in weights(prepared).items():
            np.testing.assert_array_equal(
                value, weights(found["an interval"][0])[path], err_msg=path
            )
    assert [row["step"] for row in states["four"].history][:2] == [6, 12]


def test_the_report_measures_all_splits_from_features(both) -> None:
    _, _, found = both
    prepared, outcome = found["cached"]
    for split in ("validation", "test"):
        np.testing.assert_allclose(
            assessment.measure(outcome.measured, split),
            assessment.measure(prepared, split),
            atol=1e-4,
        )
    assert outcome.measured is not prepared


def test_a_checkpoint_holds_the_whole_model(both) -> None:
    root, _, _ = both
    held = [Checkpoints(root / x / "checkpoints").read(18) for x in ("live", "cached")]
    assert list(held[0]) == list(held[1])
    assert any(path.startswith("backbone/block_0") for path in held[1])


def test_a_second_start_computes_nothing_and_gets_the_same_bits(both) -> None:
    _, _, found = both
    (_, first), (_, again) = found["cached"], found["again"]
    assert set(first.cache["found"].values()) == {"computed"}
    assert set(again.cache["found"].values()) == {"kept by an earlier start"}
    assert again.state.history == first.state.history


def test_the_size_is_predicted(both) -> None:
    root, planned, found = both
    held = sum(map(files.folder_bytes, (root / "cache/features").iterdir()))
    facts = found["cached"][1].cache
    # The predicted size lacks masks that Keras hands on beside a tensor.
    assert planned.num_bytes == facts["bytes"]
    assert facts["bytes"] <= held < facts["bytes"] + 2000


def test_the_facts_compare_features_with_live_layers(both) -> None:
    _, _, found = both
    sample = found["cached"][1].cache["sample"]
    assert sample["live"] == sample["cached"]
    assert sample["largest_difference"] < 1e-4


# --- Whether ------------------------------------------------------------------------


def test_a_run_says_what_is_cached_and_shows_it_in_its_report(tmp_path, capsys) -> None:
    report = experiment.run(make(make_stage()), output_dir=str(tmp_path / "run"))
    shown = capsys.readouterr().out
    assert "cached: 2 frozen layers up to backbone/block_1" in shown
    assert "float32 (8) an example, 4.7 KiB in memory" in shown
    (stage,) = report.stages
    assert stage.cache["sample"]["split"] == "validation"
    assert stage.seconds["cache"] > 0


REASONS = {
    "": {"regime": regimes.full()},
    "no frozen layer comes before": {
        "regime": (regimes.train("backbone/block_0"), *regimes.frozen())
    },
    "do 0.0% of the work": {"kind": "text", "regime": regimes.bitfit()},
    "less than twice": {"budget": "1 epoch"},
    "phase to phase": {"phases": phases.head_first(until="5 steps")},
    "counted in live steps": {"budget": "1 minute"},
    "augmented anew": {
        "kind": "image",
        "data": functools.partial(
            feature_cases.images, augment=(keras.layers.RandomFlip,)
        ),
    },
    "makes new inputs at every step": {
        "kind": "text",
        "objective": functools.partial(objectives.simcse),
    },
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_is_not_cached_says_why(reason: str) -> None:
    declared = dict(REASONS[reason])
    kind = declared.pop("kind", "vector")
    found = plan.plan(prepare(kind, **declared))
    assert isinstance(found, str)
    assert reason in found and bool(reason) == bool(found)
    with pytest.raises(ConfigError, match="cannot be cached"):
        # What is demanded and does not pay is done; what cannot be done is an error.
        found = plan.plan(prepare(kind, **declared, cache="memory"))
        assert reason in ("less than twice", "do 0.0% of the work")
        raise ConfigError("cannot be cached")


def test_a_demanded_cache_that_is_not_possible_fails_before_anything_trains() -> None:
    probe = make_stage("text", name="probe")
    second = make_stage("text", objective=objectives.simcse, cache="disk")
    with pytest.raises(ConfigError, match="cannot be cached.*makes new inputs"):
        experiment.build(make(probe, second, kind="text"))


def test_a_live_stage_says_so_once_and_trains(tmp_path, capsys) -> None:
    prepared = prepare(budget="3 steps", cache="auto")
    assert train(prepared, tmp_path).cache == {}
    assert "not cached: the stage goes through the examples" in capsys.readouterr().out


def test_off_is_off(tmp_path, capsys) -> None:
    assert plan.plan(prepare(cache="off")) == ""
    assert shortcut(prepare(cache="off"), tmp_path, total_steps=99) is None
    assert "cached" not in capsys.readouterr().out


@pytest.mark.parametrize(("field", "value"), [("cache", "on"), ("cache_dtype", "int8")])
def test_misspelt_choices_are_refused(field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"no such {field}"):
        prepare(**{field: value})


def test_features_that_fit_nowhere_are_computed_live(monkeypatch) -> None:
    monkeypatch.setattr(plan, "MEMORY_BYTES", 0)
    assert plan.plan(prepare()).place == "disk"
    monkeypatch.setattr(plan, "DISK_BYTES", 0)
    assert "4.7 KiB, more than there is room" in plan.plan(prepare())


def test_what_hangs_on_the_padding_is_found_out(tmp_path, capsys, monkeypatch) -> None:
    build = feature_cases.build_text

    def leaky() -> keras.Model:
        # The mean over all positions, padding too: the length of a batch matters.
        model = build()
        x = keras.ops.mean(model.output, axis=1, keepdims=True) + model.output
        return keras.Model(model.input, x)

    monkeypatch.setattr(feature_cases, "build_text", leaky)
    prepared = prepare("text", budget="12 steps", interval=12)
    assert train(prepared, tmp_path).cache == {}
    assert "hangs on the padding" in capsys.readouterr().out


# --- Views and precision --------------------------------------------------------------

FLIPPED = functools.partial(
    feature_cases.images,
    augment=(functools.partial(keras.layers.RandomTranslation, 0.3, 0.3),),
)


def test_views_are_cached_and_each_epoch_takes_another_one(tmp_path, capsys) -> None:
    declared = {"data": FLIPPED, "cache_views": 2, "interval": 3}
    prepared = prepare("image", **declared)
    planned = plan.plan(prepared)
    assert planned.views == 2 and "an example of 2 views" in str(planned)
    found = gather.gather(prepared, planned, declared=None)
    one, other = (dict(view.arrays)["features_0"] for view in found.views)
    assert found.planned.num_bytes == planned.num_bytes
    assert one.shape == other.shape and not np.allclose(one, other)
    # Made again they are the same: views hang on the seed alone.
    again = gather.gather(prepared, planned, declared=None)
    np.testing.assert_array_equal(again.views[1].arrays["features_0"], other)
    outcome = train(prepared, tmp_path / "one")
    assert outcome.cache["views"] == 2
    assert train(prepare("image", **declared), tmp_path / "two").state.history == (
        outcome.state.history
    )


def test_every_round_of_epochs_takes_each_view_once() -> None:
    prepared = prepare()
    batches = views.ViewedBatches([prepared.batches] * 3, seed=1, epoch_steps=5)
    seen = [batches.view(step) for step in range(45)]
    for epoch in range(9):
        assert len(set(seen[5 * epoch : 5 * epoch + 5])) == 1
    for turn in range(3):
        assert sorted(seen[15 * turn : 15 * turn + 15 : 5]) == [0, 1, 2]


def test_views_of_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to augment"):
        prepare(cache_views=2)
    with pytest.raises(ConfigError, match="nothing to cache"):
        prepare("image", data=FLIPPED, cache="off", cache_views=2)


def test_the_fastest_precision_within_the_tolerance_is_taken(monkeypatch, capsys):
    # As if each step down in precision were twice as fast.
    clock = {"bfloat16": 1.0, "float16": 2.0}
    run = precision._timed

    def timed(prefix, batch):
        given, _ = run(prefix, batch)
        policy = prefix.calls[-1].operation.dtype_policy.compute_dtype
        return given, clock.get(policy, 4.0)

    monkeypatch.setattr(precision, "_timed", timed)
    monkeypatch.setattr(precision, "_lower", lambda: ("bfloat16", "float16"))
    prepared = prepare()
    planned = plan.plan(prepared)
    examples = prepared.examples["train"]
    for tolerance, expected in (
        (1e-9, "float32"),
        (2e-3, "float16"),
        (0.1, "bfloat16"),
    ):
        found = precision.choose(
            planned.prefix, examples, batch_size=16, tolerance=tolerance
        )
        assert found == expected
    assert "bfloat16 1 s, off by 0.00" in capsys.readouterr().out
    assert {x.operation.dtype_policy.name for x in planned.prefix.calls} == {"float32"}


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="XLA's products alone")
@pytest.mark.parametrize(("rules", "changed"), [(TOP, True), (regimes.frozen(), False)])
def test_in_bfloat16_what_trains_has_the_products_of_a_whole_step(
    rules, changed, monkeypatch
) -> None:
    monkeypatch.setattr(products, "is_fast", lambda: True)
    declared = make(make_stage("text", regime=rules), kind="text")
    declared = dataclasses.replace(declared, precision="mixed_bfloat16")
    (prepared,) = experiment.build(declared).stages
    prepared.apply_regime()
    loop.compile_model(
        prepared.network.model,
        optimizer=prepared.make_optimizer(9),
        loss=prepared.loss(),
        metrics=prepared.metrics(),
    )
    planned = plan.plan(prepared)
    found = gather.gather(prepared, planned, declared=None)
    # A head alone trains in loops of its own.
    assert ("train_step" in vars(standin(prepared, found).network.model)) == changed


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="XLA's products alone")
def test_products_alone_can_be_rounded(monkeypatch) -> None:
    monkeypatch.setattr(products, "_SMALLEST", 2)
    prepared = prepare()
    prefix = plan.plan(prepared).prefix
    batch = prepared.examples["train"].batch(np.arange(16))
    exact = prefix.predict_on_batch(batch)["features_0"]
    with precision.computed_in(prefix, precision.PRODUCTS):
        near = prefix.predict_on_batch(batch)["features_0"]
    assert near.dtype == "float32"
    assert 0 < np.max(np.abs(near - exact)) < 0.02 * np.max(np.abs(exact))
    again = prefix.predict_on_batch(batch)["features_0"]
    np.testing.assert_array_equal(again, exact)


def test_what_was_measured_once_is_not_measured_again(monkeypatch) -> None:
    prepared, seen = prepare(cache_tolerance=0.5), []
    planned = plan.plan(prepared)

    def choose(*_, **__):
        seen.append("measured")
        return "bfloat16"

    monkeypatch.setattr(precision, "choose", choose)
    for _ in range(2):
        found = gather.gather(prepared, planned, declared=None)
        assert found.precision == "bfloat16"
    assert seen == ["measured"]
    less = dataclasses.replace(prepared.stage, cache_tolerance=0.4)
    other = dataclasses.replace(prepared, stage=less)
    gather.gather(other, planned, declared=None)
    assert len(seen) == 2


def test_where_nothing_is_faster_nothing_is_measured(monkeypatch, capsys) -> None:
    monkeypatch.setattr(precision, "_lower", tuple)
    prepared = prepare()
    examples = prepared.examples["train"]
    prefix = plan.plan(prepared).prefix
    assert precision.choose(prefix, examples, batch_size=16, tolerance=1.0) == "float32"
    assert "faster in no other" in capsys.readouterr().out


def test_a_lower_precision_stays_near_and_is_kept_apart(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(precision, "choose", lambda *_, **__: "bfloat16")
    exact, lower = prepare(), prepare(cache_tolerance=0.05)
    rows = [train(x, tmp_path / str(i)) for i, x in enumerate((exact, lower))]
    assert rows[1].cache["precision"] == "bfloat16"
    assert set(rows[1].cache["found"].values()) == {"computed"}
    last, other = (x.state.history[-1]["loss"] for x in rows)
    assert last == pytest.approx(other, abs=0.02) and last != other
    # A process that goes on computes as the one before it did, whatever is faster now.
    monkeypatch.setattr(
        precision, "choose", lambda *_, **__: pytest.fail("chosen anew")
    )
    assert train(prepare(cache_tolerance=0.05), tmp_path / "1").state.step == 18


# --- Never stale --------------------------------------------------------------------


def key(prepared: Prepared) -> str:
    prefix, _ = cut(prepared.network.model)
    examples = prepared.examples["train"]
    return keys.of_prefix(prefix) + keys.of_examples(
        examples, "train", prepared.dataset.fingerprint
    )


def other_rows() -> Data:
    return dataclasses.replace(feature_cases.vectors(), split_seed=1)


def activation(monkeypatch) -> Prepared:
    def build() -> keras.Model:
        model = feature_cases.build_vectors()
        model.get_layer("block_0").activation = keras.activations.relu
        return model

    monkeypatch.setattr(
        feature_cases,
        "vector_backbone",
        lambda: feature_cases.backbones.function(build),
    )
    monkeypatch.setitem(
        feature_cases.BACKBONES, "vector", feature_cases.vector_backbone
    )
    return prepare()


def test_the_key_hangs_on_weights_layers_and_data(monkeypatch) -> None:
    prepared = prepare()
    first = key(prepared)
    # Names that Keras counts through the process, and a new head, change nothing.
    assert key(prepare()) == first
    kernel = graph.variables_by_path(prepared.network.model)["backbone/block_0/kernel"]
    kernel.assign(kernel.value + 1e-6)
    assert key(prepared) != first
    assert key(prepare(data=other_rows)) != first
    assert key(activation(monkeypatch)) != first


def test_the_key_hangs_on_frozen_adapters(monkeypatch) -> None:
    rules = (regimes.lora("backbone/block_0"), *regimes.frozen())
    prepared = prepare(regime=rules)
    regimes.apply(prepared.network.model, regimes.frozen())
    with_adapter = key(prepared)
    assert with_adapter != key(prepare())
    layer = prepared.network.backbone.model.get_layer("block_0")
    regimes.adapters.activate(layer, None)
    assert key(prepared) != with_adapter


@pytest.fixture
def computed(own_folder):
    """Features on disk with what they were made of."""
    prepared = prepare("text", regime=TOP)
    planned = plan.plan(prepared)
    examples = prepared.examples["train"]
    make_ = functools.partial(
        files.kept,
        planned.prefix,
        examples,
        planned.fields,
        key="0",
        batch_size=16,
    )
    return prepared, planned, make_


def test_damaged_features_are_computed_anew(computed, own_folder, capsys) -> None:
    _, _, make_ = computed
    arrays, found = make_()
    first = {name: np.array(x) for name, x in arrays.items()}
    assert not found and entries(own_folder) == ["0"]
    path = own_folder / "0" / "features_0.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    arrays, found = make_()
    assert not found and "damaged features" in capsys.readouterr().out
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, first[name])
    assert make_()[1]


def test_kept_features_of_other_weights_are_not_used(tmp_path, monkeypatch, capsys):
    # As if two sets of weights had one fingerprint.
    monkeypatch.setattr(keys, "of_prefix", lambda prefix: "same")
    first, second = prepare(), prepare()
    for variable in second.network.backbone.model.variables:
        if variable.path.endswith("kernel"):
            variable.assign(variable.value + 0.1)
    train(first, tmp_path / "first")
    outcome = train(second, tmp_path / "second")
    assert "not what the layers give: made anew" in capsys.readouterr().out
    assert outcome.cache["sample"]["largest_difference"] < 1e-5


# --- Killed on the way --------------------------------------------------------------


class Killed(Exception):
    pass


def test_a_killed_computation_goes_on_where_it_was(
    computed, own_folder, monkeypatch, capsys
) -> None:
    _, planned, make_ = computed
    whole = {name: np.array(x) for name, x in make_()[0].items()}
    (own_folder / "0").rename(own_folder / "reference")
    monkeypatch.setattr(files, "_FLUSH_SECONDS", 0.0)
    run, calls = planned.prefix.predict_on_batch, []

    def dying(batch):
        calls.append(batch)
        if len(calls) == 3:
            raise Killed
        return run(batch)

    monkeypatch.setattr(planned.prefix, "predict_on_batch", dying)
    with pytest.raises(Killed):
        make_()
    assert entries(own_folder) == [".unfinished.0", "reference"]
    arrays, found = make_()
    # 45 texts are three batches of 16: two were there.
    assert not found and len(calls) == 3 + 1
    assert "goes on behind batch 2" in capsys.readouterr().out
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, whole[name])


def test_a_resumed_stage_ends_with_the_same_bits(tmp_path) -> None:
    declared = {"regime": regimes.frozen(), "cache": "memory"}
    straight = prepare(**declared)
    expected = train(straight, tmp_path / "straight")

    def die(state: execution.State) -> None:
        if state.step == 12:
            raise Killed

    with pytest.raises(Killed):
        train(prepare(**declared), tmp_path / "killed", observers=[die])
    resumed = prepare(**declared)
    outcome = train(resumed, tmp_path / "killed")
    assert outcome.state.history == expected.state.history
    for path, value in weights(straight).items():
        np.testing.assert_array_equal(weights(resumed)[path], value, err_msg=path)


def test_a_resumed_stage_computes_as_it_began(tmp_path, monkeypatch) -> None:
    def die(state: execution.State) -> None:
        raise Killed

    for name, limit in (("live", 0), ("cached", 2**30)):
        monkeypatch.setattr(plan, "MEMORY_BYTES", limit)
        monkeypatch.setattr(plan, "DISK_BYTES", limit)
        with pytest.raises(Killed):
            train(prepare(), tmp_path / name, observers=[die])
    # There is room now: what began live stays live.
    assert train(prepare(), tmp_path / "live").cache == {}
    monkeypatch.setattr(plan, "MEMORY_BYTES", 0)
    monkeypatch.setattr(plan, "DISK_BYTES", 0)
    with pytest.raises(RunError, match="began with cached features"):
        train(prepare(), tmp_path / "cached")


@pytest.mark.slow
def test_a_process_that_is_killed_ends_with_the_same_bits(tmp_path) -> None:
    program = [sys.executable, feature_cases.__file__]
    names = {"straight": None, "computing": "features", "training": "checkpoints/12"}
    for name, place in names.items():
        folder = tmp_path / name
        # Each has features of its own, so that they are computed.
        environment = {**os.environ, "TFLEARN_CACHE": str(folder) + "_c"}
        command = [*program, str(folder), "disk"]
        if place is not None:
            process = subprocess.Popen(command, env=environment)
            seen = folder / "stages/tune" / place
            if name == "computing":
                seen = pathlib.Path(f"{folder}_c") / place
            while not seen.exists() and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, env=environment, check=True)
    logs = [tmp_path / name / "stages/tune/metrics.jsonl" for name in names]
    assert len({log.read_text() for log in logs}) == 1
    ends = [Checkpoints(log.parent / "end").read(18) for log in logs]
    for other in ends[1:]:
        for path, value in ends[0].items():
            np.testing.assert_array_equal(other[path], value, err_msg=path)


# --- Files and batches --------------------------------------------------------------


def test_features_of_tokens_come_back_in_their_places(computed) -> None:
    prepared, planned, make_ = computed
    examples = prepared.examples["train"]
    held = FeatureExamples(
        examples,
        planned.fields,
        make_()[0],
        names=planned.prefix.takes,
        takes=planned.suffix.takes,
        mapped=True,
    )
    indices = np.array([4, 0, 7])
    batch, raw = held.batch(indices), examples.batch(indices)
    live = planned.prefix.predict_on_batch(raw)["features_0"]
    mask = raw["padding_mask"].astype(bool)
    np.testing.assert_allclose(batch["features_0"][mask], live[mask], atol=1e-6)
    assert not batch["features_0"][~mask].any()
    # What the suffix takes of the inputs themselves is not kept but made as ever.
    np.testing.assert_array_equal(batch["padding_mask"], raw["padding_mask"])
    assert held.inputs["features_0"].shape == (None, 8)


def test_half_precision_takes_half_the_room(tmp_path) -> None:
    whole, half = prepare(), prepare(cache_dtype="float16")
    assert plan.plan(half).num_bytes * 2 == plan.plan(whole).num_bytes
    rows = [train(x, tmp_path / str(i)) for i, x in enumerate((whole, half))]
    last, other = (x.state.history[-1]["loss"] for x in rows)
    assert last == pytest.approx(other, abs=5e-3) and last != other


def test_what_half_precision_cannot_hold_is_an_error(computed) -> None:
    prepared, planned, _ = computed
    examples = prepared.examples["train"]
    fields = [dataclasses.replace(x, stored="float16") for x in planned.fields]
    arrays = feature_passes.empty(fields, examples)
    norm = prepared.network.backbone.model.get_layer("block_0_norm")
    norm.beta.assign(norm.beta + 1e6)
    with pytest.raises(RunError, match="too large.*1e\\+06 in float16"):
        feature_passes.compute(planned.prefix, examples, fields, arrays, batch_size=16)


def test_the_pass_hardly_pads_and_takes_everything_once(computed) -> None:
    examples = computed[0].examples["train"]
    found = list(passes(examples, 4))
    assert sorted(np.concatenate([x for x, _ in found])) == list(range(45))
    lengths = [length for _, length in found]
    assert lengths == sorted(lengths) and max(lengths) <= examples.padded_lengths[-1]
    for indices, length in found:
        assert 0 <= length - max(examples.lengths[indices]) < 8


def test_old_features_make_room_for_new_ones(own_folder) -> None:
    for number in range(3):
        folder = own_folder / str(number)
        folder.mkdir(parents=True)
        (folder / "features_0.bin").write_bytes(bytes(100))
        os.utime(folder, (number, number))
    files.make_room(100, limit=300, keep=("0",))
    assert entries(own_folder) == ["0", "2"]
    files.make_room(0, limit=300)
    assert entries(own_folder) == ["0", "2"]


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="several devices of TensorFlow are live"
)
def test_every_layout_trains_a_cached_probe_as_one_device_does(tmp_path) -> None:
    root = pathlib.Path(__file__).parents[1]
    result = tmp_path / "losses.json"
    subprocess.run(
        [sys.executable, str(root / "tests/cached_cases.py"), str(result)],
        check=True,
        env=os.environ | {"PYTHONPATH": str(root), "TFLEARN_CACHE": str(tmp_path)},
    )
    found = json.loads(result.read_text())
    assert len(found) == 6
    for layout, losses in found.items():
        assert losses == pytest.approx(found["single"], rel=1e-5), layout
