"""`report.html`: one file that needs nothing else, drawn from the report's data.

No scripts, no requests: style, figures and images are inside. Every string is escaped
by the template engine; the only markup passed through is that of our own figures.
"""

from __future__ import annotations

import base64
import functools
import io
import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tflearn.distribution import processes
from tflearn.reports import report as reports
from tflearn.reports.report import Report, StageReport
from tflearn.support import files
from tflearn.support.units import bytes_text, count_text, duration_text, flops_text

if TYPE_CHECKING:
    import jinja2
    import markupsafe

    from tflearn.reports.figures import Plot

_IMAGE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")
_MOST_SLICE_METRICS = 5


def write_report(report: Report, folder: str | os.PathLike[str]) -> None:
    """Writes `report.html`, `plots/` and, last, `report.json`.

    The JSON file is what tells that a run is finished, so nothing follows it. Of
    several processes the first one writes.

    Args:
        report: The report.
        folder: The run directory.
    """
    if not processes.is_chief():
        return
    target = pathlib.Path(folder)
    write_html(report, target / "report.html")
    files.write_json(target / "report.json", report.to_json())


def write_html(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes the page, and its figures as files in `plots/` beside it.

    Args:
        report: The report.
        path: Where to write the page.
    """
    # Through JSON, so that the page of a fresh report and of one read back are equal.
    report = Report.from_json(report.to_json())
    stages = [_stage(stage) for stage in report.stages]
    for stage in stages:
        for plot in stage["plots"].values():
            plot.write(pathlib.Path(path).parent / "plots")
    page = render(
        "report.html.j2",
        title=report.name,
        report=report,
        stages=stages,
        phases=_phases(report),
    )
    files.write_text(path, page)


def png_uri(image: np.ndarray) -> str:
    """Turns an image into a data URI that a page can show by itself.

    Args:
        image: `(height, width)` or `(height, width, channels)` with 1, 3 or 4
            channels, uint8.

    Returns:
        The PNG as a `data:` URI.

    Example:

    >>> png_uri(np.zeros((2, 2, 3), "uint8"))[:22]
    'data:image/png;base64,'
    """
    from PIL import Image

    array = np.asarray(image, np.uint8)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def render(template: str, **values: Any) -> str:
    """Fills in one of the templates of this folder.

    Args:
        template: Name of the template.
        **values: What it shows.

    Returns:
        The page.
    """
    return _templates().get_template(template).render(**values)


@functools.cache
def _templates() -> jinja2.Environment:
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.PackageLoader("tflearn.reports", "templates"),
        # Not by file name: everything is escaped, whatever a template is called.
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "count": lambda value: "–" if value is None else count_text(value),
        "duration": lambda value: duration_text(value or 0.0),
        "bytes": lambda value: bytes_text(value or 0),
        "flops": lambda value: "–" if value is None else flops_text(value),
        "estimate": reports.estimate_text,
        "number": _number,
        "title": _title,
        "figure": _figure,
    }
    found.tests["image"] = lambda value: bool(_IMAGE.fullmatch(str(value)))
    return found


def _number(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return count_text(value)
    return reports.estimate_text({"value": value if math.isfinite(value) else None})


def _title(name: str) -> str:
    return str(name).replace("_", " ")


def _figure(plot: Plot) -> markupsafe.Markup:
    """Passes the markup of a figure through; its text was escaped when drawn."""
    import markupsafe

    return markupsafe.Markup(plot.inline)


def _stage(stage: StageReport) -> dict[str, Any]:
    """Gathers what the page shows of a stage."""
    from tflearn.reports.tables import merge_census

    split = reports.leading_split(stage)
    evaluation = stage.evaluations[split] if split else {}
    return {
        "report": stage,
        "split": split,
        "evaluation": evaluation,
        "metrics": _metric_names(stage),
        "census": merge_census(stage.census),
        "slices": _slices(evaluation),
        "plots": _plots(stage, evaluation),
    }


def _plots(stage: StageReport, evaluation: Mapping[str, Any]) -> dict[str, Plot]:
    from tflearn.reports import plots

    # A name of a stage is the name of a folder, so it is fit for a file.
    drawn = {
        "curves": plots.learning_curves(stage, name=f"{stage.name}_learning_curves"),
        "confusion": plots.confusion(evaluation, name=f"{stage.name}_confusion"),
        "reliability": plots.reliability(evaluation, name=f"{stage.name}_reliability"),
    }
    return {kind: plot for kind, plot in drawn.items() if plot is not None}


def _metric_names(stage: StageReport) -> list[str]:
    """Names of all metrics of all splits, the leading one first."""
    names: dict[str, None] = {}
    for evaluation in stage.evaluations.values():
        found = reports.headline(evaluation)
        if found is not None:
            names[found[0]] = None
    for evaluation in stage.evaluations.values():
        names |= dict.fromkeys(evaluation.get("metrics") or {})
    return list(names)


def _slices(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turns each column of slices into a table, the largest slices first."""
    tables = []
    for column, values in (evaluation.get("slices") or {}).items():
        rows = [(value, _count(metrics), metrics) for value, metrics in values.items()]
        names: dict[str, None] = {}
        for *_, metrics in rows:
            names |= dict.fromkeys(metrics)
        # The headline first; more columns than a page is wide are in report.json.
        first = [name for name in names if name == evaluation.get("headline")]
        others = [name for name in names if name not in first]
        shown = [*first, *others][:_MOST_SLICE_METRICS]
        rows.sort(key=lambda row: -row[1])
        tables.append({"column": column, "metrics": shown, "rows": rows})
    return tables


def _count(metrics: Mapping[str, Mapping[str, Any]]) -> int:
    return max((row.get("count") or 0 for row in metrics.values()), default=0)


def _phases(report: Report) -> list[tuple[str, float]]:
    """Lists the seconds of every phase, those of stages under the stage's name."""
    of_stages = [
        (f"{stage.name}: {phase}", seconds)
        for stage in report.stages
        for phase, seconds in stage.seconds.items()
    ]
    return [*report.seconds.items(), *of_stages]
