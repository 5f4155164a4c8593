"""The figures of a report: learning curves, confusion, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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
from tflearn.reports.report import StageReport, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
            label_axes(ax, x="step", y=label)
            step_axis(ax)
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
    labels = [shortened(str(classes[i])) for i in shown]
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
        label_axes(ax, y="share that came true")
        label_axes(below, x="confidence", y="examples")
        for part in (ax, below):
            part.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.tick_params(labelbottom=False)
        return finish(figure, name, "Reliability")


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
        points = [(row["step"], row[key]) for row in history if is_known(row.get(key))]
        if points:
            found[kind] = points
    return found


def _curve(
    ax: Axes, points: Sequence[tuple[float, float]], kind: str, color: str
) -> None:
    steps, values = zip(*points, strict=True)
    marker = "o" if len(points) <= 30 else ""
    ax.plot(steps, values, marker=marker, ms=3.5, lw=1.6, color=color, label=kind)


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
