"""The figures of a report: learning curves, confusion, reliability, comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tflearn.reports.figures import INK, PALETTE, Plot, finish, new_figure
from tflearn.reports.report import StageReport, estimate_text, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tflearn.reports.compare import ArmResult

MOST_CLASSES = 20

_MAP = ("#f4f7fb", "#0b3c6f")

# The loss that was minimised may carry smoothing and penalties; cross-entropy never
# does, so it goes by its own name.
_LOSSES = {
    "training": "loss",
    "validation": "val_loss",
    "validation cross-entropy": "val_cross_entropy",
}


def learning_curves(
    stage: StageReport, *, name: str = "learning_curves"
) -> Plot | None:
    """Draws loss and headline metric over the steps, training and validation.

    Args:
        stage: The stage.
        name: Name of the file.

    Returns:
        The figure; None if nothing was recorded.
    """
    metric = _headline_name(stage)
    named = {"training": metric, "validation": f"val_{metric}"}
    panels = [
        ("loss", _series(stage.history, _LOSSES)),
        (metric.replace("_", " "), _series(stage.history, named)),
    ]
    lines = [(label, series) for label, series in panels if series]
    if not lines:
        return None
    with new_figure(3.9 * len(lines) + 0.4, 2.9, columns=len(lines)) as (figure, axes):
        for ax, (label, series) in zip(axes, lines, strict=True):
            for kind, points in series.items():
                _curve(ax, points, kind, PALETTE[kind != "training"])
            _label(ax, x="step", y=label)
            _step_axis(ax)
            if len(series) > 1:
                ax.legend(frameon=False)
        return finish(figure, name, "Learning curves")


def confusion(evaluation: Mapping[str, Any], *, name: str = "confusion") -> Plot | None:
    """Draws how often each class was taken for each other one.

    Rows are true classes; shade is the share of the row, the number is the count. Of
    more than `MOST_CLASSES` classes only the most confused are drawn.

    Args:
        evaluation: What `Evaluation.to_json` gives.
        name: Name of the file.

    Returns:
        The figure; None where classes are not exclusive or there are none.
    """
    classes = evaluation.get("classes") or ()
    matrix = np.asarray(evaluation.get("confusion") or [])
    if matrix.ndim != 2:
        return None
    shown = most_confused(matrix, MOST_CLASSES)
    title = "Confusion matrix"
    if len(shown) < len(classes):
        title += f": the {len(shown)} most confused of {len(classes)} classes"
    counts = matrix[np.ix_(shown, shown)]
    # Shares are of all rows of a class, those outside the drawn part included.
    shares = counts / np.maximum(matrix[shown].sum(axis=1, keepdims=True), 1)
    labels = [_short(str(classes[i])) for i in shown]
    size = max(2.6, min(0.45 * len(shown) + 1.4, 9.0))
    with new_figure(size + 0.6, size) as (figure, (ax,)):
        _heat(ax, counts, shares, labels)
        return finish(figure, name, title)


def most_confused(matrix: np.ndarray, most: int) -> list[int]:
    """Returns the classes that take part in most errors, in their own order.

    Args:
        matrix: Counts `(true classes, predicted classes)`, int.
        most: How many to return at most.

    Returns:
        Sorted indices.

    Example:

    >>> most_confused(np.array([[5, 0, 2], [0, 9, 0], [1, 0, 4]]), 2)
    [0, 2]
    """
    if len(matrix) <= most:
        return list(range(len(matrix)))
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    # A stable sort: among equals the first class wins, on every machine.
    order = np.argsort(-errors, kind="stable")
    return sorted(int(i) for i in order[:most])


def reliability(
    evaluation: Mapping[str, Any], *, name: str = "reliability"
) -> Plot | None:
    """Draws how often the model is right against how sure it is.

    Args:
        evaluation: What `Evaluation.to_json` gives.
        name: Name of the file.

    Returns:
        The figure; None without reliability bins.
    """
    bins = [row for row in evaluation.get("reliability") or () if row.get("count")]
    if not bins:
        return None
    edges = np.array([[row["low"], row["high"]] for row in bins], float)
    widths = edges[:, 1] - edges[:, 0]
    with new_figure(3.6, 3.9, rows=2, ratios=(3.2, 1)) as (figure, (ax, below)):
        ax.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=(0, (4, 3)))
        accuracy = [row["accuracy"] for row in bins]
        ax.bar(edges[:, 0], accuracy, widths, align="edge", color=PALETTE[0], alpha=0.3)
        confidence = [row["confidence"] for row in bins]
        ax.plot(confidence, accuracy, "o-", color=PALETTE[0], lw=1.6, ms=4)
        below.bar(
            edges[:, 0],
            [row["count"] for row in bins],
            widths * 0.92,
            align="edge",
            color=PALETTE[0],
        )
        _label(ax, y="share that came true")
        _label(below, x="confidence", y="examples")
        for part in (ax, below):
            part.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.tick_params(labelbottom=False)
        return finish(figure, name, "Reliability")


def comparison(arms: Sequence[ArmResult], *, name: str = "compare") -> Plot:
    """Draws the arms: the metric with its interval, and the curves.

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
            _label(axes[1], x="step", y=f"validation {arms[0].metric}")
            _step_axis(axes[1])
        return finish(figure, name, f"{arms[0].split} {arms[0].metric} by arm")


def _headline_name(stage: StageReport) -> str:
    for evaluation in stage.evaluations.values():
        found = headline(evaluation)
        if found is not None:
            return found[0]
    names = [key for row in stage.history for key in row if key.startswith("val_")]
    return names[0].removeprefix("val_") if names else ""


def _series(
    history: Sequence[Mapping[str, Any]], columns: Mapping[str, str]
) -> dict[str, list[tuple[float, float]]]:
    """Returns the points of each curve that has any, by its label."""
    found = {}
    for kind, key in columns.items():
        points = [(row["step"], row[key]) for row in history if _known(row.get(key))]
        if points:
            found[kind] = points
    return found


def _known(value: object) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))


def _curve(
    ax: Axes, points: Sequence[tuple[float, float]], kind: str, color: str
) -> None:
    steps, values = zip(*points, strict=True)
    marker = "o" if len(points) <= 30 else ""
    ax.plot(steps, values, marker=marker, ms=3.5, lw=1.6, color=color, label=kind)


def _label(ax: Axes, *, x: str = "", y: str = "") -> None:
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(axis="y")


def _step_axis(ax: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def _heat(
    ax: Axes, counts: np.ndarray, shares: np.ndarray, labels: Sequence[str]
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("shares", _MAP)
    # Cells as shapes, not as a picture: they stay sharp at any size.
    ax.pcolormesh(shares, cmap=colors, vmin=0, vmax=1, edgecolors="white", lw=0.6)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            dark = shares[row, column] > 0.5
            ink = "#ffffff" if dark else "#16202b"
            place = {"ha": "center", "va": "center", "fontsize": 8}
            ax.text(column + 0.5, row + 0.5, f"{count:,}", color=ink, **place)
    places = np.arange(len(labels)) + 0.5
    longest = max(map(len, labels))
    ax.set_xticks(places, labels, rotation=45 if longest > 4 else 0)
    if longest > 4:
        for tick in ax.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    ax.set_yticks(places, labels)
    ax.invert_yaxis()
    ax.set_aspect("equal")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")


def _short(label: str, most: int = 18) -> str:
    label = " ".join(label.split())
    return label if len(label) <= most else label[: most - 1] + "…"


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
    ax.set_yticks(range(len(arms)), [_short(arm.name) for arm in arms])
    ax.set_ylim(len(arms) - 0.4, -0.7)
    ax.grid(axis="x")
    ax.set_xlabel(f"{arms[0].split} {arms[0].metric}")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _band(ax: Axes, arm: ArmResult, color: str) -> None:
    """Draws the mean over seeds, and the range of the seeds around it."""
    by_step: dict[float, list[float]] = {}
    for curve in arm.curves:
        for step, value in curve:
            if _known(value):
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
    ax.plot(
        steps, values.mean(axis=1), color=color, marker=marker, ms=3, label=arm.name
    )
    ax.legend(frameon=False)
