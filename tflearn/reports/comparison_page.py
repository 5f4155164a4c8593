"""`compare.html`: one page of a comparison that needs nothing else."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tflearn.reports import comparison_plots, html, label_claims
from tflearn.reports.advice import PRIOR, Advice
from tflearn.reports.arms import ArmResult
from tflearn.reports.claims import Claim
from tflearn.reports.report import estimate_text
from tflearn.reports.verdict import Verdict
from tflearn.support.units import count_text, duration_text, flops_text

_INTERVAL_NOTE = (
    "An interval of 95 % is that of the mean over the seeds: it knows how the metric "
    "varies with the test examples and with the seed. Whether two arms differ is told "
    "by the pairs below, which share the test examples."
)


def draw(
    title: str,
    arms: Sequence[ArmResult],
    judged: Verdict,
    *,
    folder: pathlib.Path,
    notes: Sequence[str] = (),
    advice: Advice | None = None,
) -> str:
    """Draws the page, and its figures as files in `plots/`.

    Args:
        title: What is compared.
        arms: The arms in the order they are shown.
        judged: The verdict.
        folder: Where the page will lie.
        notes: What the reader must know beside the verdict.
        advice: What was said before anything was trained.

    Returns:
        The page. Columns and figures that no arm has anything for are left out.
    """
    plots = {
        "arms": comparison_plots.arms_and_curves(arms),
        "pareto": comparison_plots.quality_and_cost(arms),
        "labels": comparison_plots.label_curves(arms),
    }
    for plot in plots.values():
        if plot is not None:
            plot.write(folder / "plots")
    return html.render(
        "compare.html.j2",
        title=title,
        arms=list(arms),
        claims=judged.claims,
        footnotes=[_footnote(claim) for claim in judged.claims],
        pairs=judged.pairs,
        plots=plots,
        notes=notes,
        advice=advice,
        prior=PRIOR,
        interval_note=_INTERVAL_NOTE,
        known=_known(arms),
        labels=_label_rows(arms),
        lost=[(arm.name, row) for arm in arms for row in arm.forgetting],
        settings=[_settings(arm) for arm in arms],
    )


def _known(arms: Sequence[ArmResult]) -> dict[str, bool]:
    """Returns which columns hold anything."""
    return {
        "memory": any(arm.peak_memory_bytes for arm in arms),
        "flops": any(arm.mean_flops is not None for arm in arms),
        "storage": any(arm.storage_bytes is not None for arm in arms),
        "calibration": any(arm.mean_calibration is not None for arm in arms),
        "slice": any(arm.worst_slice for arm in arms),
        "labels": any(arm.labels is not None for arm in arms),
        "folders": any(arm.folders for arm in arms),
        "settings": any(arm.tuned or arm.spent for arm in arms),
    }


def _settings(arm: ArmResult) -> dict[str, Any]:
    """Returns what was chosen for an arm, and what its budget went into."""
    spent = [f"{name} {amount:,.4g}" for name, amount in arm.spent.items()]
    # What was spent is the sum over them.
    at = f" at each of {len(arm.points)} numbers of labels" * (len(arm.points) > 1)
    return {
        "name": arm.name,
        "tuned": ", ".join(f"{name} {value:.4g}" for name, value in arm.tuned.items()),
        "spent": ", ".join(spent),
        "budget": f"{arm.budget}{at}" if arm.budget else "",
    }


def _label_rows(arms: Sequence[ArmResult]) -> dict[str, Any]:
    """Returns the table of labels: a row a count, a column an arm."""
    curves = {arm.name: label_claims.by_labels(arm) for arm in arms}
    curves = {name: curve for name, curve in curves.items() if curve}
    counts = sorted({count for curve in curves.values() for count in curve})
    rows = [
        (
            count,
            [
                curve[count].estimate if count in curve else None
                for curve in curves.values()
            ],
        )
        for count in counts
    ]
    return {"names": list(curves), "rows": rows}


def _footnote(claim: Claim) -> str:
    told = [f"{name}: {_figure_text(x)}" for name, x in claim.figures.items()]
    return f"{claim.rests_on}. {'; '.join(told)}" if told else claim.rests_on


def _figure_text(figure: Mapping[str, Any]) -> str:
    """Formats a figure of a claim: whatever it has, in one order."""
    told = []
    if figure.get("value") is not None:
        told.append(estimate_text(figure))
    if figure.get("seconds") is not None:
        told.append(duration_text(figure["seconds"]))
    if figure.get("flops") is not None:
        told.append(f"{flops_text(figure['flops'])} FLOPs")
    for name in ("count", "most"):
        if figure.get(name) is not None:
            told.append(count_text(figure[name]))
    for name in ("p", "p_value"):
        if figure.get(name) is not None:
            told.append(f"p = {figure[name]:.2g}")
    return ", ".join(told)
