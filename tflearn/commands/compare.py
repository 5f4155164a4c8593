"""`--mode=compare`: several regimes for the last stage of one experiment.

The stages before the last run once a seed and are shared by the arms; each arm is an
ordinary run directory under `arms/<name>/seed<seed>`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import keras

from tflearn import config, experiment, regimes
from tflearn.commands.arguments import Arguments
from tflearn.reports import Report, compare, resamples
from tflearn.reports.tables import comparison_table
from tflearn.support import storage
from tflearn.support.console import console, say
from tflearn.support.errors import ConfigError
from tflearn.training import run_directory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to run the last stage.

    Args:
        name: Name of the arm and of its folder.
        regime: The rules.
        optimizer: Replaces the stage's optimizer, since regimes differ in the
            learning rate that suits them.
        budget: Replaces the stage's budget.
    """

    name: str
    regime: Sequence[regimes.Rule]
    optimizer: Callable[..., keras.optimizers.Optimizer] | None = None
    budget: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared.

    Args:
        arms: The arms.
        seeds: Every arm runs once a seed.
    """

    arms: Sequence[Arm] = (
        Arm(name="scratch", regime=regimes.scratch()),
        Arm(name="frozen", regime=regimes.frozen()),
        Arm(name="full", regime=regimes.full()),
    )
    seeds: Sequence[int] = (0,)


def main(arguments: Arguments) -> int:
    """Runs all arms, prints the table, writes `compare.json` and `compare.html`.

    Args:
        arguments: The flags.

    Returns:
        The exit code.
    """
    declaration = config.load_arguments(arguments)
    base = declaration.experiment()
    comparison = declaration.comparison()
    _check(comparison)
    folder = storage.fetched(arguments.output_dir or f"runs/{base.name}_compare")
    reports = {
        arm.name: [
            _run_arm(base, arm, seed=seed, folder=folder) for seed in comparison.seeds
        ]
        for arm in comparison.arms
    }
    results = [_result(name, found, folder) for name, found in reports.items()]
    found = compare.write_comparison(base.name, results, folder)
    storage.push(folder)
    console.print(comparison_table(results))
    say(found["verdict"])
    say(f"report: {storage.shown(folder)}/compare.html")
    return 0


def _run_arm(
    base: experiment.Experiment, arm: Arm, *, seed: int, folder: pathlib.Path
) -> Report:
    say(f"arm '{arm.name}', seed {seed}")
    *leading, last = base.stages
    run = folder / "arms" / arm.name / f"seed{seed}"
    declared = base.declaration
    # Claimed before stages are copied in, so that a stranger's folder is refused.
    run_directory.is_finished(run, declared)
    if leading and not (run / "stages").exists():
        shared = folder / "shared" / f"seed{seed}"
        experiment.run(
            dataclasses.replace(base, stages=leading, seed=seed), output_dir=str(shared)
        )
        run_directory.write_start(run, declared)
        storage.copy_tree(shared / "stages", run / "stages")
    stage = dataclasses.replace(
        last,
        regime=arm.regime,
        optimizer=arm.optimizer or last.optimizer,
        budget=arm.budget or last.budget,
    )
    return experiment.run(
        dataclasses.replace(base, stages=(*leading, stage), seed=seed),
        output_dir=str(run),
    )


def _result(
    name: str, reports: Sequence[Report], folder: pathlib.Path
) -> compare.ArmResult:
    stages = [report.stages[-1] for report in reports]
    split = "test" if "test" in stages[0].evaluations else "validation"
    evaluations = [stage.evaluations[split] for stage in stages]
    headline = evaluations[0]["headline"]
    rows = stages[0].census
    kept = [
        resamples.read(
            folder / "arms" / name / f"seed{x.seed}" / "stages" / stage.name, split
        )
        for x, stage in zip(reports, stages, strict=True)
    ]
    return compare.ArmResult(
        name=name,
        seeds=tuple(report.seed for report in reports),
        metric=headline,
        lower_is_better=evaluations[0].get("lower_is_better", False),
        split=split,
        folders=tuple(
            storage.shown(folder / "arms" / name / f"seed{x.seed}") for x in reports
        ),
        resampled=tuple(x[1] for x in kept if x is not None),
        drawn_from=tuple(sorted({x[0] for x in kept if x is not None})),
        estimates=tuple(found["metrics"][headline] for found in evaluations),
        trainable_parameters=sum(row["trainable"] for row in rows),
        total_parameters=sum(row["parameters"] for row in rows),
        seconds=tuple(sum(stage.seconds.values()) for stage in stages),
        curves=tuple(
            tuple(
                (row["step"], row[f"val_{headline}"])
                for row in stage.history
                if f"val_{headline}" in row
            )
            for stage in stages
        ),
    )


def _check(comparison: Comparison) -> None:
    names = [arm.name for arm in comparison.arms]
    if not names or len(set(names)) < len(names) or not comparison.seeds:
        raise ConfigError(
            "a comparison needs arms with different names, and a seed",
            received=f"arms {names}, seeds {list(comparison.seeds)}",
        )
