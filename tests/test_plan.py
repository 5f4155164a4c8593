"""What a plan says of a run before it: counts, compiled memory, what would fit."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from tflearn import config, regimes
from tflearn.commands import plan as command
from tflearn.comparison import Arm
from tflearn.distribution import hardware
from tflearn.distribution.hardware import Hardware
from tflearn.distribution.hlo import Traffic
from tflearn.planning import arms, calibration, search, timing
from tflearn.planning.arms import Change
from tflearn.planning.search import Candidate
from tflearn.planning.stages import Target, plan_stage
from tflearn.reports import plan as reports
from tflearn.reports.plan import Figure, PlannedRun
from tflearn.run import main
from tflearn.support.errors import ConfigError, RegimeError

# Two blocks of 64 numbers between 4 inputs and 3 classes: all products by hand.
WIDTH, ROWS, BATCH, STEPS = 64, 90, 30, 12
DECLARATION = f"""
from __gin__ import dynamic_registration
from tflearn import backbones
from tflearn import data
from tflearn import distribution
from tflearn import experiment
from tflearn import objectives
from tflearn import regimes
from tflearn.commands import plan
from tflearn.distribution import hardware
from tflearn.training import optimizers
import plan_models

experiment.Experiment.name = 'iris'
experiment.Experiment.backbone = @backbones.function
experiment.Experiment.stages = (@experiment.Stage(),)
backbones.function.build = @plan_models.blocks
experiment.Stage.name = 'tune'
experiment.Stage.data = @data.Data
experiment.Stage.objective = @objectives.classification
experiment.Stage.regime = @regimes.full()
experiment.Stage.optimizer = @optimizers.adamw
experiment.Stage.budget = '{STEPS} steps'
experiment.Stage.batch_size = {BATCH}
data.Data.source = @data.sources.sklearn
data.sources.sklearn.name = 'iris'
data.Data.input = 'vector'
data.Data.splits = {{'train': 0.6, 'validation': 0.4}}
plan.Plan.table = (@tiny/hardware.Hardware(), @here/hardware.Hardware())
tiny/hardware.Hardware.name = 'tiny'
tiny/hardware.Hardware.memory_gb = 0.00008
tiny/hardware.Hardware.peak_tflops = {{'bfloat16': 1.0}}
tiny/hardware.Hardware.tdp_watts = 100.0
tiny/hardware.Hardware.price_per_hour = 3.6
here/hardware.Hardware.name = 'here'
here/hardware.Hardware.price_per_hour = 7.2
"""
MODELS = f"""
import keras


def blocks():
    x = inputs = keras.Input((4,))
    for index in range(2):
        x = keras.layers.Dense({WIDTH}, activation="relu", name=f"block_{{index}}")(x)
    return keras.Model(inputs, x)


def wide():
    x = inputs = keras.Input((64,))
    x = keras.layers.Dense({WIDTH}, activation="relu", name="block_0")(x)
    x = keras.layers.Dense({WIDTH}, activation="relu", name="block_1")(x)
    return keras.Model(inputs, x)
"""
#: Many rows a step: activations are most of what it takes.
LARGE = (
    "backbones.function.build = @plan_models.wide",
    "data.sources.sklearn.name = 'digits'",
    "data.Data.splits = {'train': 0.9, 'validation': 0.1}",
    "experiment.Stage.batch_size = 1024",
)
#: Multiplications and additions of a forward pass of a row, by layer.
BLOCKS = (2 * 4 * WIDTH, 2 * WIDTH * WIDTH)
HEAD = 2 * WIDTH * 3


@pytest.fixture
def declared(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "plan_models.py").write_text(MODELS)
    (tmp_path / "iris.gin").write_text(DECLARATION)
    monkeypatch.syspath_prepend(str(tmp_path))
    return config.load(str(tmp_path / "iris.gin"))


def planned(declared, arm: Arm, target: Target) -> PlannedRun:
    base = declared.experiment()
    changed = arms.changed(base, arm, Change())
    with arms.built(changed, precision="float32", is_here=target.is_here) as built:
        return plan_stage(built.stages[-1], target, arm=arm.name)


def on(found: Hardware, **more) -> Target:
    return (
        command._away(found, command.Distribution())
        if not more
        else Target(
            hardware=found, distribution=command.Distribution(kind="single"), **more
        )
    )


HERE = Hardware(
    name="here", platform="cpu", memory_gb=1000.0, price_per_hour=2.0, tdp_watts=100.0
)


def test_flops_of_a_dense_model_are_those_counted_by_hand(declared) -> None:
    run = planned(declared, Arm(name="full"), on(HERE, is_here=True, baseline=10**6))
    first, second = BLOCKS
    # Backward, each product twice: but nothing asks for the gradient of the inputs.
    step = BATCH * (2 * first + 3 * second + 3 * HEAD)
    assert run.figures["flops_per_step"] == Figure(step, "counted")
    assert run.figures["flops"] == Figure(STEPS * step, "counted")
    weights = 4 * WIDTH + WIDTH + WIDTH * WIDTH + WIDTH + WIDTH * 3 + 3
    assert run.figures["parameters"].value == weights
    assert run.figures["weight_bytes"].value == 4 * weights
    # Adam's two moments of each, its count of steps and the rate of the schedule.
    assert 8 * weights <= run.figures["optimizer_bytes"].value <= 8 * weights + 64
    expected = {
        "flops": "counted",
        "optimizer_bytes": "counted",
        "temporary_bytes": "compiler",
        "process_bytes": "measured here",
        "step_seconds": "measured here",
        "run_seconds": "measured here",
        "cost": "measured here",
        "kilowatt_hours": "measured here",
    }
    assert {name: run.origin(name) for name in expected} == expected
    run_seconds = run.figures["run_seconds"].value
    assert run.figures["cost"].value == pytest.approx(2.0 * run_seconds / 3600)
    assert run_seconds >= STEPS * run.figures["step_seconds"].value
    assert run.fits is True


def test_frozen_layers_that_are_computed_once_count_once(declared) -> None:
    frozen = Arm(name="frozen", regime=regimes.frozen())
    run = planned(declared, frozen, on(HERE, is_here=True))
    # The head's gradient of its weights, and no gradient of the features.
    step = BATCH * 2 * HEAD
    rows = 150
    # Batches of evaluation have one size: the last of a split is filled up.
    passes = -(-ROWS // 128) * min(ROWS, 128) + -(-(rows - ROWS) // 128) * ROWS
    assert run.figures["flops_per_step"].value == step
    assert run.figures["flops"].value == STEPS * step + passes * sum(BLOCKS)
    assert run.figures["cache_bytes"].value == rows * WIDTH * 4
    assert run.figures["trainable_parameters"].value == WIDTH * 3 + 3
    assert any("computed once" in note for note in run.notes)


def test_away_a_step_takes_what_the_peak_allows(declared) -> None:
    peaks = {"float32": 1e-6}
    run = planned(declared, Arm(name="full"), on(Hardware(name="x", peak_tflops=peaks)))
    flops = run.figures["flops_per_step"].value
    assert run.figures["step_seconds"].value == pytest.approx(flops / 1e6)
    assert run.origin("run_seconds") == "documented peak"
    assert run.fits is None and "process_bytes" not in run.figures
    assert any("at best" in note for note in run.notes)


def test_what_does_not_fit_here_is_not_run(declared) -> None:
    small = dataclasses.replace(HERE, memory_gb=1e-5)
    run = planned(declared, Arm(name="full"), on(small, is_here=True))
    assert run.fits is False and "flops" in run.figures
    assert not {"step_seconds", "run_seconds"} & set(run.figures)
    assert any("not timed" in note for note in run.notes)


def test_validations_of_a_budget_of_flops_are_those_of_a_run(
    declared, tmp_path: pathlib.Path
) -> None:
    budget = "experiment.Stage.budget = '4000 flops'"
    base = config.load(str(tmp_path / "iris.gin"), budget).experiment()
    with arms.built(base, precision="float32", is_here=False) as built:
        found = timing._validations(built.stages[-1], step_seconds=1.0, step_flops=10.0)
    # 400 steps, and an epoch of 90 rows is 3.
    assert found == 134


def test_what_fits_is_found_by_compiling_it(declared, tmp_path: pathlib.Path) -> None:
    large = config.load(str(tmp_path / "iris.gin"), LARGE)
    base, arm = large.experiment(), Arm(name="full")
    needs = search.needs_of(base, arm, "float32")
    roomy = on(Hardware(name="x", platform="cpu"))
    whole = Candidate(kind="declared", text="", change=Change(), target=roomy)
    most = needs(whole)
    least = needs(dataclasses.replace(whole, change=Change(parts=16)))
    assert most is not None and least is not None and least < most
    # Between the two: as declared it does not fit, and something must be found.
    between = (least + most) / 2
    target = on(Hardware(name="x", platform="cpu", memory_gb=between / 1e9))
    assert planned(large, arm, target).fits is False
    with arms.built(base, precision="float32", is_here=False) as built:
        backbone = built.backbone
    tried = list(search.candidates(base, arm, target, backbone))
    kinds = list(dict.fromkeys(x.kind for x in tried))
    assert kinds == ["rematerialize", "parts", "both", "lora", "qlora"]
    some = [x for x in tried if x.kind in ("parts", "lora")]
    parts, lora = search.what_fits(some, needs)
    assert parts.startswith("fits: batch_size ") and "eval_batch_size" in parts
    fitting = next(x for x in some if x.text in parts)
    taken = needs(fitting)
    assert taken is not None and taken <= between
    # There is no attention, so that all layers are adapted.
    assert "LoRA" in lora and "backbone/*" in lora and "not possible" not in lora


def test_of_each_kind_the_first_that_fits_is_told() -> None:
    target = on(Hardware(name="x", platform="cpu", memory_gb=1e-6))
    sizes = {"a": 2e3, "b": 1e3, "c": 0.0, "d": None, "e": RegimeError("no such layer")}

    def needs(candidate: Candidate) -> float | None:
        found = sizes[candidate.text]
        if isinstance(found, Exception):
            raise found
        return found

    tried = [
        Candidate(kind=kind, text=text, change=Change(), target=target)
        for kind, text in zip("ppprq", "abcde", strict=True)
    ]
    assert search.what_fits(tried, needs) == [
        "fits: b, 1000 B",
        "too large: d, no room",
        "not possible: e: no such layer",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a100-80g", "not known.*Did you mean 'a100-80gb'"),
        ("h100:8", "not known.*Did you mean 'h100-80gb'"),
        ("v5e:3x3", "no slices of this grid"),
        ("hear", "Did you mean 'here'"),
    ],
)
def test_unknown_hardware_is_refused_with_the_nearest(name, message) -> None:
    with pytest.raises(ConfigError, match=message):
        hardware.find(name)


def test_the_least_time_is_the_largest_of_its_parts() -> None:
    found = Hardware(
        name="x",
        peak_tflops={"bfloat16": 1.0},
        bandwidth_gb_per_second=1.0,
        link_gb_per_second=1.0,
        devices=4,
    )

    def least(flops: float, num_bytes: float, sent: int) -> float | None:
        traffic = {"all-reduce": Traffic(count=1, num_bytes=sent)}
        return found.least_seconds(
            flops=flops, num_bytes=num_bytes, traffic=traffic, dtype="bfloat16"
        )

    assert least(3e12, 1e9, 0) == 3.0
    assert least(1e12, 2e9, 0) == 2.0
    assert least(1e12, 1e9, 8 * 10**9) == 6.0
    assert (
        Hardware(name="y").least_seconds(
            flops=1.0, num_bytes=1.0, traffic={}, dtype="bfloat16"
        )
        is None
    )


def test_lengths_between_those_that_ran_lie_on_their_curve() -> None:
    square = calibration.between([8, 16, 32], [64, 256, 1024], [8, 24])
    assert square == pytest.approx([64, 576])
    assert calibration.between([5], [7], [5, 9]) == [7.0, 7.0]


def test_the_command_writes_json_and_a_page(declared, tmp_path, capsys) -> None:
    flags = [
        "--mode=plan",
        f"--gin_file={tmp_path}/iris.gin",
        f"--output_dir={tmp_path}/out",
    ]
    chosen = ["--regimes=frozen,full", "--hardware=here,tiny,v5e:2x4"]
    unsearched = ["--gin_bindings=plan.Plan.search = False"]
    assert main([*flags, *chosen, *unsearched]) == 0
    shown = capsys.readouterr().out
    assert "stage tune on tiny" in shown and "at best" in shown
    found = json.loads((tmp_path / "out/plan.json").read_text())
    names = [(x["hardware"], x["arm"]) for x in found["runs"]]
    assert names[:4] == [(x, y) for x in ("here", "tiny") for y in ("frozen", "full")]
    origins = {
        figure["origin"] for run in found["runs"] for figure in run["figures"].values()
    }
    assert origins <= set(reports.ORIGINS) and "measured here" in origins
    tiny = next(x for x in found["runs"] if x["hardware"] == "tiny")
    assert {"kilowatt_hours", "cost"} <= set(tiny["figures"])
    page = (tmp_path / "out/plan.html").read_text()
    assert "documented peak" in page and "<script" not in page
    assert main([*flags, "--regimes=frosen"]) == 2
    assert "Did you mean 'frozen'" in capsys.readouterr().err


def test_tensorflow_cannot_tell(declared, tmp_path, monkeypatch) -> None:
    arguments = command.Arguments(
        mode="plan", backend="tensorflow", gin_files=(f"{tmp_path}/iris.gin",)
    )
    with pytest.raises(ConfigError, match="no compiler says.*--backend=jax"):
        command.main(arguments)


def test_a_page_escapes_what_it_is_told(tmp_path: pathlib.Path) -> None:
    run = PlannedRun(stage="<b>", arm="<i>", hardware="x", error="<script>")
    reports.write_plan("<h1>", [run], tmp_path, hardware=[])
    page = (tmp_path / "plan.html").read_text()
    assert "<script>" not in page and "<b>" not in page and "&lt;script&gt;" in page
