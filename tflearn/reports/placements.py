"""The table of layouts: how every variable is split over the devices."""

from __future__ import annotations

import re
from collections.abc import Sequence

import rich.table

from tflearn.reports.tables import cell, plain_table
from tflearn.support.units import bytes_text
from tflearn.training.placement import Row


def layout_table(rows: Sequence[Row]) -> rich.table.Table:
    """Shows how variables are split and what a device holds.

    Args:
        rows: What `tflearn.training.placement.census` returned.

    Returns:
        The table; variables that differ in numbers of their paths only share a line.
    """
    table = plain_table("layouts")
    table.add_column("variables", overflow="fold")
    for name in ("number", "shape", "split", "bytes", "a device"):
        table.add_column(name, justify="right")
    for (name, *_), same in _merged(rows).items():
        shape = " x ".join(map(str, same[0].shape)) or "1"
        split = ", ".join(axis or "-" for axis in same[0].layout)
        table.add_row(
            cell(name),
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
