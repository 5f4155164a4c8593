"""The advice of a comparison: said before its arms run, and kept."""

from __future__ import annotations

import pathlib

import keras

from tflearn import backbones, experiment
from tflearn.comparison import Comparison, running
from tflearn.comparison.settling import Settled
from tflearn.experiment import Experiment
from tflearn.planning import survey
from tflearn.planning.advice import advise
from tflearn.reports import advice as advices
from tflearn.reports.advice import Advice
from tflearn.support.tensorflow import hidden_tensorflow
from tflearn.training import run_directory


@hidden_tensorflow()
def advised(
    base: Experiment, comparison: Comparison, settled: Settled, folder: pathlib.Path
) -> Advice:
    """Advises on a comparison before its arms run, or says again what was said.

    Args:
        base: The experiment.
        comparison: The comparison.
        settled: What it consists of; what the arms share has run.
        folder: Its folder.

    Returns:
        The advice, as kept in `advice.json`.
    """
    kept = advices.read(folder)
    if kept is not None:
        return kept
    keras.utils.clear_session()
    built = experiment.build(base)
    shared = folder / running.SHARED / f"seed{comparison.seeds[0]}"
    has_run = (shared / run_directory.REPORT).is_file()
    with built.devices.scope():
        situation = survey.read(
            built,
            [arm.name for arm in settled.arms],
            seeds=len(comparison.seeds),
            labels=min(settled.labels, default=None),
            allowed=comparison.allowance(settled.arms[0], base.stages[-1]),
            backbone=backbones.from_run(shared) if has_run else None,
        )
    made = advise(situation)
    advices.write(made, situation.to_json(), folder)
    return made
