"""`--mode=train`: train, evaluate, report."""

from __future__ import annotations

from tflearn import config, experiment
from tflearn.commands.arguments import Arguments
from tflearn.reports.tables import metrics_table
from tflearn.support.console import console, say


def main(arguments: Arguments) -> int:
    """Runs the declared experiment.

    Args:
        arguments: The flags.

    Returns:
        The exit code.
    """
    declared = config.load_arguments(arguments).experiment()
    folder = arguments.output_dir or f"runs/{declared.name}"
    report = experiment.run(declared, output_dir=folder)
    for stage in report.stages:
        if stage.evaluations:
            console.print(f"[bold]{stage.name}[/bold]")
            console.print(metrics_table(stage.evaluations))
    say(f"report: {folder}/report.html")
    return 0
