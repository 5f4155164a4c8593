"""`--mode=check`: build the whole experiment, train nothing, print what would run."""

from __future__ import annotations

import keras

from tflearn import config, experiment
from tflearn.commands import topology
from tflearn.commands.arguments import Arguments
from tflearn.reports import placements, tables
from tflearn.support.console import console, say
from tflearn.training import course, optimizers, placement
from tflearn.training.features import plan as features
from tflearn.training.features import search
from tflearn.training.stage import Prepared


def main(arguments: Arguments) -> int:
    """Prints data, model, census, optimizer, budget and devices of an experiment.

    Args:
        arguments: The flags.

    Returns:
        The exit code.
    """
    if arguments.topology:
        return topology.main(arguments)
    declared = config.load_arguments(arguments).experiment()
    built = experiment.build(declared)
    say(f"experiment  {declared.name}, seed {declared.seed}")
    say(f"devices     {built.devices.note}, precision {built.precision}")
    say(f"backbone    {built.backbone.origin}")
    with built.devices.scope():
        for prepared in built.stages:
            _print_stage(prepared)
    say("nothing was trained and nothing was written")
    return 0


def _print_stage(prepared: Prepared) -> None:
    stage = prepared.stage
    console.rule(f"stage {stage.name}", align="left")
    console.print(tables.spec_table(prepared.spec))
    for note in prepared.notes:
        say(f"note        {note}")
    console.print(tables.model_table(prepared.network.model))
    console.print(tables.census_table(prepared.apply_regime().to_json()))
    steps = prepared.total_steps
    optimizer = prepared.make_optimizer(steps or 1)
    _print_layouts(prepared, optimizer)
    if stage.phases:
        for leg in course.plan(prepared, steps or 10**9):
            say(f"phase       {course.describe(leg)}")
    planned = features.plan(prepared, total_steps=steps)
    if planned:
        where = "" if isinstance(planned, str) else f" in {planned.place}"
        prefix = "not cached: " if isinstance(planned, str) else "computed once: "
        say(f"cache       {prefix}{planned}{where}")
    if stage.grid is not None:
        say(f"grid        {search.size_text(prepared)}")
    length = f"{steps} steps" if steps else "steps measured when it starts"
    say(f"objective   {prepared.objective.name}")
    say(f"optimizer   {optimizers.describe(optimizer)}")
    say(
        f"budget      {stage.budget} = {length} of {stage.batch_size} examples, "
        f"validated every {prepared.interval}"
    )


def _print_layouts(prepared: Prepared, optimizer: keras.optimizers.Optimizer) -> None:
    model = prepared.network.model
    if not placement.census(model):
        return
    optimizer.build(model.trainable_variables)
    rows = placement.census(model, optimizer)
    console.print(placements.layout_table(rows))
    say(f"layouts     {placement.describe(rows)}")
