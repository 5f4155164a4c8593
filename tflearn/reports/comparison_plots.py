"""The figures of a comparison: arms and curves, quality against cost, labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tflearn.reports import label_claims, pareto
from tflearn.reports.arms import ArmResult
from tflearn.reports.figures import (
    INK,
    PALETTE,
    Plot,
    finish,
    is_known,
    label_axes,
    new_figure,
    shortened,
    step_axis,
)
from tflearn.reports.report import estimate_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def arms_and_curves(arms: Sequence[ArmResult], *, name: str = "compare") -> Plot:
    """Draws the metric of each arm with its interval, and the curves.

    Args:
        arms: The arms; a dot is a seed, the bar is the interval of the arm.
        name: Name of the file.

    Returns:
        The figure.
    """
    with_curves = any(any(curve) for arm in arms for curve in arm.curves)
    columns = 2 if with_curves else 1
    height = max(2.8, 0.5 * len(arms) + 1.3)
    with new_figure(4.2 * columns, height, columns=columns) as (figure, axes):
        _arms(axes[0], arms)
        if with_curves:
            for arm, color in zip(arms, _colors(len(arms)), strict=True):
                _band(axes[1], arm, color)
            label_axes(axes[1], x="step", y=f"validation {_metric(arms)}")
            step_axis(axes[1])
        return finish(figure, name, f"{arms[0].split} {_metric(arms)} by arm")


def label_curves(arms: Sequence[ArmResult], *, name: str = "labels") -> Plot | None:
    """Draws what each arm reaches by the number of labels, on a logarithmic axis.

    The band is the interval of the mean over the seeds. Where two arms change places
    beyond chance, the span between the two counts is shaded.

    Args:
        arms: The arms.
        name: Name of the file.

    Returns:
        The figure; None where no arm has a curve over labels.
    """
    curves = [label_claims.by_labels(arm) for arm in arms]
    if not any(curves):
        return None
    with new_figure(5.6, 3.4) as (figure, (ax,)):
        ax.set_xscale("log")
        for arm, curve, color in zip(arms, curves, _colors(len(arms)), strict=True):
            if curve:
                _label_curve(ax, arm.name, curve, color)
        _mark_orders(ax, label_claims.orders(arms))
        _count_axis(ax, sorted({count for curve in curves for count in curve}))
        label_axes(ax, x="labelled examples", y=f"{arms[0].split} {_metric(arms)}")
        ax.legend(frameon=False)
        return finish(figure, name, f"{arms[0].split} {_metric(arms)} by labels")


def quality_and_cost(arms: Sequence[ArmResult], *, name: str = "pareto") -> Plot | None:
    """Draws quality against time, and against FLOPs where they are known.

    The line joins the arms that no cheaper arm equals; the others are faded.

    Args:
        arms: The arms.
        name: Name of the file.

    Returns:
        The figure; None where fewer than two arms have a metric and a cost.
    """
    panels = pareto.panels(arms)
    if not panels:
        return None
    colors = dict(zip((arm.name for arm in arms), _colors(len(arms)), strict=True))
    width = 4.6 if len(panels) > 1 else 5.2
    with new_figure(width * len(panels), 3.4, columns=len(panels)) as (figure, axes):
        for ax, panel in zip(axes, panels, strict=True):
            pareto.draw(ax, panel, colors)
            label_axes(ax, x=panel.label, y=f"{arms[0].split} {_metric(arms)}")
        return finish(figure, name, "Quality against cost")


def _metric(arms: Sequence[ArmResult]) -> str:
    return arms[0].metric.replace("_", " ")


def _colors(count: int) -> list[str]:
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def _arms(ax: Axes, arms: Sequence[ArmResult]) -> None:
    for row, (arm, color) in enumerate(zip(arms, _colors(len(arms)), strict=True)):
        estimate = arm.estimate
        if estimate["value"] is None:
            continue
        if estimate["low"] is not None:
            ends = [estimate["low"], estimate["high"]]
            ax.plot(ends, [row, row], color=color, lw=7, alpha=0.28)
        seeds = [value for value in arm.values if value is not None]
        spread = row + 0.14 * np.linspace(-1, 1, len(seeds)) if len(seeds) > 1 else row
        ax.plot(seeds, np.broadcast_to(spread, len(seeds)), "o", color=color, ms=3.5)
        ax.plot([estimate["value"]], [row], "|", color=color, ms=18, mew=2.2)
        ax.annotate(
            estimate_text({"value": estimate["value"]}),
            (estimate["value"], row),
            xytext=(0, 12),
            textcoords="offset points",
            ha="center",
        )
    ax.set_yticks(range(len(arms)), [shortened(arm.name) for arm in arms])
    ax.set_ylim(len(arms) - 0.4, -0.7)
    ax.grid(axis="x")
    ax.set_xlabel(f"{arms[0].split} {_metric(arms)}")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _band(ax: Axes, arm: ArmResult, color: str) -> None:
    """Draws the mean over seeds, and the range of the seeds around it."""
    by_step: dict[float, list[float]] = {}
    for curve in arm.curves:
        for step, value in curve:
            if is_known(value):
                by_step.setdefault(step, []).append(value)
    # A mean over other seeds at every step would jump: only steps that all reached.
    most = max((len(values) for values in by_step.values()), default=0)
    steps = sorted(step for step, values in by_step.items() if len(values) == most)
    if not steps:
        return
    values = np.array([by_step[step] for step in steps])
    if values.shape[1] > 1:
        low, high = values.min(axis=1), values.max(axis=1)
        ax.fill_between(steps, low, high, color=color, alpha=0.18, lw=0)
    marker = "o" if len(steps) <= 30 else ""
    label = shortened(arm.name)
    ax.plot(steps, values.mean(axis=1), color=color, marker=marker, ms=3, label=label)
    ax.legend(frameon=False)


def _label_curve(ax: Axes, name: str, curve: label_claims.Curve, color: str) -> None:
    found = [(count, point.estimate) for count, point in curve.items()]
    counts = [count for count, _ in found]
    values = [estimate["value"] or 0.0 for _, estimate in found]
    ends = [
        (count, x["low"], x["high"])
        for count, x in found
        if x["low"] is not None and x["high"] is not None
    ]
    if ends:
        at, low, high = zip(*ends, strict=True)
        ax.fill_between(at, low, high, color=color, alpha=0.16, lw=0)
    ax.plot(counts, values, "o-", color=color, ms=3.5, lw=1.6, label=shortened(name))


def _mark_orders(ax: Axes, orders: Sequence[label_claims.Order]) -> None:
    shown = [order for order in orders if order.crossing.is_significant]
    for low, high in sorted({order.between for order in shown}):
        # Somewhat narrower than the span, so that neighbours stay apart.
        inset = (high / low) ** 0.05
        ax.axvspan(low * inset, high / inset, color=INK, alpha=0.08, lw=0)
        ax.annotate(
            "order changes",
            ((low * high) ** 0.5, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )


def _count_axis(ax: Axes, counts: Sequence[int]) -> None:
    """Marks the counts themselves, as far as their texts have room."""
    from matplotlib.ticker import NullFormatter, NullLocator

    shown = [counts[0]]
    reach = np.log(counts[-1] / counts[0]) or 1.0
    for count in counts[1:]:
        if np.log(count / shown[-1]) > 0.11 * reach:
            shown.append(count)
    ax.set_xticks(shown, [f"{count:,}" for count in shown])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
