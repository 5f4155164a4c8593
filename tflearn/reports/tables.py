"""Tables for the terminal; they fit 80 columns and read well in a log file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import rich.box
import rich.table
import rich.text

from tflearn.reports import report
from tflearn.support.units import bytes_text, count_text, duration_text

if TYPE_CHECKING:
    from tflearn.data.spec import Spec
    from tflearn.reports.compare import ArmResult

_STYLES = {"trained": "green", "fresh": "cyan", "adapter": "magenta", "frozen": "dim"}
_MOST_CLASSES = 24


def census_table(census: Sequence[Mapping[str, Any]]) -> rich.table.Table:
    """Shows what a regime did to the layers.

    Args:
        census: Rows with `path`, `layers`, `parameters`, `trainable`, `frozen`,
            `role` and `rule`. Neighbours that differ in a number only share a line.

    Returns:
        The table; its last line is the sum.
    """
    table = plain_table("census")
    table.add_column("layers", overflow="fold")
    for name in ("parameters", "trained"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("role", no_wrap=True)
    table.add_column("rule", justify="right", no_wrap=True)
    # Rules are long and few: numbered here, spelled out below.
    rules = list(dict.fromkeys(str(row.get("rule", "")) for row in census))
    for row in merge_census(census):
        role = cell(row["role"], _STYLES.get(row["role"], "dim"))
        number = str(rules.index(str(row.get("rule", ""))) + 1)
        table.add_row(cell(row["path"]), *_counts(row), role, number)
    table.add_section()
    total = {
        key: sum(row.get(key, 0) for row in census)
        for key in ("parameters", "trainable")
    }
    share = total["trainable"] / total["parameters"] if total["parameters"] else 0.0
    table.add_row("total", *_counts(total), f"{share:.1%}", "", style="bold")
    _caption(table, [f"rule {i}: {rule}" for i, rule in enumerate(rules, 1)])
    return table


def merge_census(census: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Puts neighbouring rows together that differ in one number of their path.

    Args:
        census: Rows of a census.

    Returns:
        Rows in the same order; `layer_0`, `layer_1`, `layer_2` of one role, rule and
        size become `layer_{0…2}` with the sums.
    """
    merged = []
    groups = itertools.groupby(
        census,
        key=lambda row: (
            re.sub(r"\d+", "#", row["path"]),
            row["role"],
            row.get("rule", ""),
            row["parameters"],
            row["trainable"],
        ),
    )
    for _, found in groups:
        rows = list(found)
        names = _numbered([row["path"] for row in rows])
        if names is None:
            merged += [dict(row) for row in rows]
            continue
        sums = {
            key: sum(row.get(key, 0) for row in rows)
            for key in ("layers", "parameters", "trainable", "frozen")
        }
        merged.append({**rows[0], **sums, "path": names})
    return merged


def spec_table(spec: Spec) -> rich.table.Table:
    """Shows the inputs of a model and how many examples each class has in each split.

    Args:
        spec: The description of the data.

    Returns:
        The table; with many classes it shows the largest and the smallest ones.
    """
    splits = list(spec.num_examples)
    table = plain_table("data")
    table.add_column(spec.target, overflow="fold")
    for split in splits:
        table.add_column(split, justify="right", no_wrap=True)
    for name in _shown_classes(spec):
        counts = [spec.class_counts.get(s, {}).get(name) for s in splits]
        # A name of None is the line that stands for the classes not shown.
        cells = ["" if c is None else count_text(c) for c in counts]
        table.add_row(cell(name), *cells)
    table.add_section()
    totals = [count_text(spec.num_examples[split]) for split in splits]
    table.add_row("examples", *totals, style="bold")
    _caption(
        table,
        [
            f"input {name}: {_shape(tensor.shape)} {tensor.dtype}"
            for name, tensor in spec.inputs.items()
        ],
    )
    return table


def model_table(model: keras.Model) -> rich.table.Table:
    """Shows the layers of a model, those of nested models indented.

    Args:
        model: A built model.

    Returns:
        The table; numbered layers of one kind and size share a line.
    """
    table = plain_table("model")
    table.add_column("layer", overflow="fold", ratio=2)
    table.add_column("kind", overflow="fold", ratio=2)
    table.add_column("output", overflow="fold", ratio=2)
    table.add_column("parameters", justify="right", no_wrap=True)
    for layer in model.layers:
        _add_layer(table, layer, indent="")
        if isinstance(layer, keras.Model):
            for name, group in _nested(layer):
                _add_layer(table, group[0], indent="  ", name=name, times=len(group))
    table.add_section()
    total = count_text(model.count_params())
    table.add_row("total", "", _output(model), total, style="bold")
    return table


def metrics_table(evaluations: Mapping[str, Mapping[str, Any]]) -> rich.table.Table:
    """Shows the metrics of each split with their intervals.

    Args:
        evaluations: By split, what `Evaluation.to_json` gives.

    Returns:
        The table.
    """
    table = plain_table("metrics")
    table.add_column("metric", overflow="fold")
    names: dict[str, None] = {}
    for split, evaluation in evaluations.items():
        count = evaluation.get("count")
        shown = split if count is None else f"{split} ({count_text(count)})"
        table.add_column(shown, justify="right", no_wrap=True)
        names.update(dict.fromkeys(evaluation.get("metrics") or {}))
    leading = {evaluation.get("headline") for evaluation in evaluations.values()}
    for name in names:
        cells = [
            report.estimate_text((evaluation.get("metrics") or {}).get(name))
            for evaluation in evaluations.values()
        ]
        table.add_row(cell(name), *cells, style="bold" if name in leading else "")
    return table


def sources_table(rows: Sequence[Mapping[str, Any]]) -> rich.table.Table:
    """Shows what must not be forgotten, at every point of a run.

    Args:
        rows: The `sources` of a report.

    Returns:
        The table: a line a source, a column a point.
    """
    points = list(dict.fromkeys(row["after"] for row in rows))
    table = plain_table("sources: before and after")
    table.add_column("source", overflow="fold")
    table.add_column("metric", no_wrap=True)
    for name in points:
        shown = name if name == "start" else f"after {name}"
        table.add_column(shown, justify="right", no_wrap=True)
    for source, metric in dict.fromkeys((r["source"], r["metric"]) for r in rows):
        found = {r["after"]: r for r in rows if r["source"] == source}
        cells = [
            report.estimate_text(found[name]) if name in found else "–"
            for name in points
        ]
        table.add_row(cell(source), metric, *cells)
    return table


def comparison_table(arms: Sequence[ArmResult]) -> rich.table.Table:
    """Shows arms side by side.

    Args:
        arms: The arms.

    Returns:
        The table: the metric's mean over seeds with its interval, what was trained,
        and how long it took a seed.
    """
    metric = arms[0].metric if arms else "metric"
    split = arms[0].split if arms else ""
    table = plain_table("comparison")
    table.add_column("arm", overflow="fold")
    table.add_column(f"{split} {metric}".strip(), justify="right", no_wrap=True)
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("trained", justify="right", no_wrap=True)
    table.add_column("time/seed", justify="right", no_wrap=True)
    with_memory = any(arm.peak_memory_bytes for arm in arms)
    if with_memory:
        table.add_column("memory", justify="right", no_wrap=True)
    choose = min if any(arm.lower_is_better for arm in arms) else max
    best = choose((arm.mean for arm in arms if arm.mean is not None), default=None)
    for arm in arms:
        cells = [
            report.estimate_text(arm.estimate),
            str(len(arm.seeds)),
            count_text(arm.trainable_parameters),
            duration_text(arm.mean_seconds),
        ]
        memory = bytes_text(arm.peak_memory_bytes) if arm.peak_memory_bytes else "–"
        style = "bold" if arm.mean is not None and arm.mean == best else ""
        table.add_row(
            cell(arm.name), *cells, *([memory] if with_memory else []), style=style
        )
    return table


def plain_table(title: str) -> rich.table.Table:
    """Returns an empty table in the style of all tables."""
    return rich.table.Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
        header_style="dim",
    )


def _caption(table: rich.table.Table, lines: Sequence[str]) -> None:
    table.caption = cell("\n".join(lines), "dim")
    table.caption_justify = "left"


def cell(value: object, style: str = "") -> rich.text.Text:
    """Returns a cell whose brackets are no markup."""
    return rich.text.Text(str(value), style=style)


def _counts(row: Mapping[str, Any]) -> list[str]:
    return [
        count_text(row[key]) if row.get(key) else "–"
        for key in ("parameters", "trainable")
    ]


def _shape(shape: Iterable[int | None]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


def _numbered(paths: Sequence[str]) -> str | None:
    """Returns `block_{0…3}` for paths that differ in one rising number, else None."""
    if len(paths) == 1:
        return paths[0]
    parts = [re.split(r"(\d+)", path) for path in paths]
    columns = list(zip(*parts, strict=True))
    varying = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    if len(varying) != 1:
        return None
    first, last = columns[varying[0]][0], columns[varying[0]][-1]
    shown = [column[0] for column in columns]
    shown[varying[0]] = f"{{{first}…{last}}}"
    return "".join(shown)


def _shown_classes(spec: Spec) -> list[str]:
    names = list(spec.classes)
    if len(names) <= _MOST_CLASSES:
        return names
    totals = {
        name: sum(counts.get(name, 0) for counts in spec.class_counts.values())
        for name in names
    }
    ordered = sorted(names, key=lambda name: -totals[name])
    half = _MOST_CLASSES // 2
    left_out = f"… {len(names) - 2 * half} more classes"
    return [*ordered[:half], left_out, *ordered[-half:]]


def _nested(model: keras.Model) -> list[tuple[str, list[keras.Layer]]]:
    """Groups the layers with weights of a nested model."""
    layers = [layer for layer in model.layers if layer.weights]
    groups = itertools.groupby(
        layers,
        key=lambda layer: (
            re.sub(r"\d+", "#", layer.name),
            type(layer).__name__,
            layer.count_params(),
        ),
    )
    named = []
    for _, found in groups:
        group = list(found)
        name = _numbered([layer.name for layer in group])
        if name is None:
            named += [(layer.name, [layer]) for layer in group]
        else:
            named.append((name, group))
    return named


def _add_layer(
    table: rich.table.Table,
    layer: keras.Layer,
    *,
    indent: str,
    name: str = "",
    times: int = 1,
) -> None:
    parameters = layer.count_params()
    count = count_text(parameters) if parameters else "–"
    table.add_row(
        cell(indent + (name or layer.name)),
        cell(type(layer).__name__),
        _output(layer),
        f"{times} × {count}" if times > 1 else count,
        style="dim" if indent else "",
    )


def _output(layer: keras.Layer) -> rich.text.Text:
    try:
        output = layer.output
    except (AttributeError, ValueError):
        # A layer that is called several times, or not in a graph, has no one output.
        return cell("")
    tensors = keras.tree.flatten(output)
    if len(tensors) > 1:
        return cell(f"{len(tensors)} tensors")
    return cell(", ".join(_shape(tensor.shape) for tensor in tensors))
