"""The table of layouts: how every variable is split over the devices."""

from __future__ import annotations

import re
from collections.abc import Sequence

import rich.box
import rich.table
import rich.text

from tflearn.support.units import bytes_text
from tflearn.training.placement import Row


def layout_table(rows: Sequence[Row]) -> rich.table.Table:
    """Shows how variables are split and what a device holds.

    Args:
        rows: What `tflearn.training.placement.census` returned.

    Returns:
        The table; variables that differ in numbers of their paths only share a line.
    """
    table = rich.table.Table(
        title="layouts",
        title_justify="left",
        title_style="bold",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
        header_style="dim",
    )
    table.add_column("variables", overflow="fold")
    for name in ("number", "shape", "split", "bytes", "a device"):
        table.add_column(name, justify="right")
    for (name, *_), same in _merged(rows).items():
        shape = " x ".join(map(str, same[0].shape)) or "1"
        split = ", ".join(axis or "-" for axis in same[0].layout)
        table.add_row(
            rich.text.Text(str(name)),
            str(len(same)),
            shape,
            split if any(same[0].layout) else "whole",
            bytes_text(sum(row.total_bytes for row in same)),
            bytes_text(sum(row.device_bytes for row in same)),
        )
    return table


def _merged(rows: Sequence[Row]) -> dict[tuple[object, ...], list[Row]]:
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        name = re.sub(r"\d+", "#", row.path)
        groups.setdefault((name, row.shape, row.layout), []).append(row)
    return groups
