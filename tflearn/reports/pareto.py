"""Which arms are worth their cost: the front of quality against time and FLOPs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tflearn.reports.arms import ArmResult
from tflearn.reports.figures import INK, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# As a share of the height of the axes: what a line of text takes.
_LINE = 0.075


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """Arms with what one kind of cost is to them.

    Args:
        label: Name of the cost, with its unit.
        arms: Those whose cost is known.
        costs: One for each arm, positive.
        front: Names of the arms that no cheaper or equally cheap arm equals, from the
            cheapest.
    """

    label: str
    arms: Sequence[ArmResult]
    costs: Sequence[float]
    front: Sequence[str]


def panels(arms: Sequence[ArmResult]) -> list[Panel]:
    """Returns the kinds of cost that at least two arms know."""
    kinds = {
        "seconds a seed": lambda arm: arm.mean_seconds,
        "training FLOPs a seed": lambda arm: arm.mean_flops,
    }
    found = []
    for label, cost in kinds.items():
        known = [arm for arm in arms if arm.mean is not None and (cost(arm) or 0) > 0]
        if len(known) > 1:
            costs = [cost(arm) for arm in known]
            found.append(
                Panel(label=label, arms=known, costs=costs, front=front(known, costs))
            )
    return found


def front(arms: Sequence[ArmResult], costs: Sequence[float]) -> list[str]:
    """Finds the arms that nobody beats in both quality and cost.

    Only means decide; whether two arms differ is told by their pair.

    Args:
        arms: The arms, each with a mean.
        costs: What each costs.

    Returns:
        Names, from the cheapest; each is better than the one before.

    Example:

    >>> def arm(name, value):
    ...     return ArmResult(
    ...         name=name, seeds=(0,), metric="accuracy", estimates=({"value": value},),
    ...         trainable_parameters=1, total_parameters=1, seconds=(1.0,))
    >>> front([arm("full", 0.9), arm("lora", 0.91), arm("frozen", 0.7)], [9, 5, 1])
    ['frozen', 'lora']
    """
    sign = -1.0 if arms[0].lower_is_better else 1.0
    heights = [sign * (arm.mean or 0.0) for arm in arms]
    order = sorted(range(len(arms)), key=lambda i: (costs[i], -heights[i]))
    found, best = [], -np.inf
    for i in order:
        if heights[i] > best:
            found.append(arms[i].name)
            best = heights[i]
    return found


def draw(ax: Axes, panel: Panel, colors: Mapping[str, str]) -> None:
    """Draws a panel into axes: a point with its interval for each arm, and the front.

    Args:
        ax: The axes.
        panel: What to draw.
        colors: By arm.
    """
    ax.set_xscale("log")
    places = {
        arm.name: (cost, arm.mean or 0.0)
        for arm, cost in zip(panel.arms, panel.costs, strict=True)
    }
    line = [places[name] for name in panel.front]
    ax.plot(*zip(*line, strict=True), color=INK, lw=1.0, ls=(0, (4, 3)), zorder=1)
    for arm in panel.arms:
        cost, mean = places[arm.name]
        alpha = 1.0 if arm.name in panel.front else 0.4
        color, ends = colors[arm.name], arm.estimate
        if ends["low"] is not None and ends["high"] is not None:
            ax.plot([cost] * 2, [ends["low"], ends["high"]], color=color, alpha=alpha)
        ax.plot([cost], [mean], "o", color=color, ms=6, alpha=alpha)
    _room(ax, panel.costs)
    _names(ax, panel, places)


def _room(ax: Axes, costs: Sequence[float]) -> None:
    """Makes the horizontal axis wide enough for names at both ends."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    reach = max(np.log10(max(costs) / min(costs)), 0.3)
    ax.set_xlim(min(costs) * 10 ** (-0.15 * reach), max(costs) * 10 ** (0.45 * reach))
    ax.margins(y=0.12)
    few = reach < 1.2
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=6))
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x:,.4g}".replace("e+", "e"))
    )
    ax.xaxis.set_minor_formatter(NullFormatter())


def _names(ax: Axes, panel: Panel, places: Mapping[str, tuple[float, float]]) -> None:
    """Writes each arm's name beside its point, and moves apart what would overlap."""
    low, high = ax.get_ylim()
    order = sorted(places, key=lambda name: places[name][1])
    heights = np.array([(places[x][1] - low) / (high - low) for x in order])
    # The front rises to the right of its points: names lie below it.
    heights -= [0.5 * _LINE * (name in panel.front) for name in order]
    for name, height in zip(order, spread(heights, _LINE), strict=True):
        cost, mean = places[name]
        ax.annotate(
            shortened(name),
            (cost, mean),
            xytext=(8, height),
            textcoords=("offset points", "axes fraction"),
            va="center",
            alpha=1.0 if name in panel.front else 0.6,
        )


def spread(heights: np.ndarray, least: float) -> np.ndarray:
    """Moves sorted heights apart until neighbours differ by enough, their mean kept.

    Args:
        heights: Increasing, `(texts,)`.
        least: The least difference.

    Returns:
        Heights, increasing, `(texts,)`.

    Example:

    >>> spread(np.array([0.5, 0.5]), 0.1).round(2).tolist()
    [0.45, 0.55]
    """
    moved = heights.astype("float64").copy()
    for _ in range(200):
        gaps = least - np.diff(moved)
        if (gaps <= 1e-9).all():
            break
        push = np.maximum(gaps, 0) / 2
        moved[:-1] -= push
        moved[1:] += push
    return moved
