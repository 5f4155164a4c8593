"""Which candidate of a grid is the best, and how that is told."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tflearn.support.errors import RunError
from tflearn.training.features import together
from tflearn.training.features.grid import Candidate
from tflearn.training.stage import Prepared

#: A candidate, its scores by interval and the score that it ends with.
Row = Mapping[str, Any]


def describe(prepared: Prepared, rows: Sequence[Row]) -> list[str]:
    """Returns the candidates as lines for the report, the best first."""
    if not rows:
        return []
    order = sorted(rows, key=lambda row: _rank(prepared, row), reverse=True)
    lines = [f"  {row_text(prepared, row)}" for row in order]
    return [f"grid of {len(rows)} candidates, the best goes on:", *lines]


def size_text(prepared: Prepared) -> str:
    """Returns how large the grid of a stage is."""
    grid = prepared.stage.grid
    if grid is None:
        return ""
    parts = {
        "rates": grid.rates,
        "weight decays": grid.weight_decays,
        "seeds": grid.seeds,
    }
    sizes = " x ".join(f"{len(x)} {name}" for name, x in parts.items() if x)
    how = "at once" if together.is_possible() else "one after the other"
    return f"{len(grid.candidates)} candidates, {sizes}, trained {how}"


def judged(prepared: Prepared, scores: Sequence[float]) -> dict[str, Any]:
    """Returns the score that a candidate ends with: as the stage would judge it."""
    stage, sign = prepared.stage, prepared.sign
    highest, waited, last = math.nan, 0, math.nan
    for last in scores:
        waited += 1
        if math.isfinite(last) and not sign * last <= sign * highest:
            highest, waited = last, 0
        if stage.patience is not None and waited >= stage.patience:
            break
    value = highest if stage.restore_best else last
    return {"score": value if math.isfinite(value) else None}


def _rank(prepared: Prepared, row: Row) -> float:
    return -math.inf if row["score"] is None else prepared.sign * row["score"]


def best(prepared: Prepared, rows: Sequence[Row]) -> int:
    """Returns the place of the best candidate, the first of equally good ones."""
    ranks = [_rank(prepared, row) for row in rows]
    if max(ranks) == -math.inf:
        raise RunError(
            "no candidate of the grid has a score",
            received="outputs that are no numbers, for all of them",
            fix="declare lower rates",
        )
    return ranks.index(max(ranks))


def row_text(prepared: Prepared, row: Row) -> str:
    """Returns a candidate and its score."""
    names = [field.name for field in dataclasses.fields(Candidate)]
    candidate = Candidate(**{name: row[name] for name in names})
    score = "none" if row["score"] is None else f"{row['score']:.4g}"
    return f"val_{prepared.headline} {score}: {candidate}"
