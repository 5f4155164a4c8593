"""The verdict of `--mode=compare` where the answer was planted, from file to page."""

from __future__ import annotations

import importlib
import json
import pathlib

import pytest

from benchmarks import planted_verdicts

line = importlib.import_module("tflearn.run")

DECLARED = """
from __gin__ import dynamic_registration
import planted_cases
from tflearn import backbones
from tflearn import comparison
from tflearn import data
from tflearn import experiment
from tflearn import objectives
from tflearn import regimes
from tflearn.training import optimizers

experiment.Experiment.name = 'planted'
experiment.Experiment.precision = 'float32'
experiment.Experiment.backbone = @backbones.function
experiment.Experiment.stages = (@experiment.Stage(),)
backbones.function.build = @planted_cases.backbone
planted_cases.backbone.kind = 'KIND'
planted_cases.source.kind = 'KIND'
experiment.Stage.name = 'tune'
experiment.Stage.data = @data.Data
experiment.Stage.objective = @objectives.classification
experiment.Stage.regime = @regimes.full()
experiment.Stage.optimizer = @optimizers.adamw
experiment.Stage.batch_size = 32
experiment.Stage.budget = '200 steps'
experiment.Stage.interval = 200
experiment.Stage.bootstrap = 300
optimizers.adamw.schedule = 'constant'
optimizers.adamw.warmup = 0.0
optimizers.adamw.weight_decay = 0.0
optimizers.adamw.clip_norm = None
data.Data.source = @planted_cases.source
data.Data.input = @planted_cases.columns()
comparison.Comparison.seeds = (0, 1, 2)
comparison.Comparison.arms = (
    @scratch/comparison.Arm(), @frozen/comparison.Arm(), @full/comparison.Arm())
"""
ARM = """
NAME/comparison.Arm.name = 'NAME'
NAME/comparison.Arm.regime = @regimes.NAME()
NAME/comparison.Arm.optimizer = @NAME/optimizers.adamw
NAME/optimizers.adamw.learning_rate = RATE
"""


def compared(kind: str, folder: pathlib.Path) -> dict[str, object]:
    """Runs `--mode=compare` on the first task of a kind and reads its verdict."""
    arms = (
        ARM.replace("NAME", name).replace("RATE", str(rate))
        for name, rate in planted_verdicts.RATES.items()
    )
    declared = folder / "planted.gin"
    declared.write_text(DECLARED.replace("KIND", kind) + "".join(arms))
    flags = [f"--gin_file={declared}", f"--output_dir={folder / 'out'}"]
    assert line.main(["--mode=compare", *flags]) == 0
    return json.loads((folder / "out" / "compare.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("kind", planted_verdicts.KINDS)
def test_the_arm_that_was_planted_wins(kind: str, tmp_path: pathlib.Path) -> None:
    assert compared(kind, tmp_path)["winner"] == kind


@pytest.mark.slow
def test_labels_that_nobody_can_know_are_too_close_to_call(
    tmp_path: pathlib.Path,
) -> None:
    found = compared("coin", tmp_path)
    assert found["winner"] is None
    assert str(found["verdict"]).startswith("Too close to call between")
