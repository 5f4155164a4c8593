"""The one style of all figures, and the forms they come in.

The same numbers give the same bytes: identifiers in the SVG are derived from a fixed
salt, dates and versions are left out. Inline, ink, grid and colours come from the
page, so that a dark page gets a dark figure. The palette is Okabe and Ito's, which
people with any colour vision tell apart.

References:
    Okabe and Ito, Color Universal Design, https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import io
import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
INK = "#1f2933"
GRID = "#d8dee4"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure in the forms it is used in.

    Args:
        name: Name of the file, without a suffix.
        title: What it shows.
        inline: An SVG element for a page; it takes ink and grid from the page.
        svg: A complete SVG file.
        png: A complete PNG file.
    """

    name: str
    title: str
    inline: str
    svg: str
    png: bytes

    def write(self, folder: pathlib.Path) -> None:
        """Writes `<name>.svg` and `<name>.png` into a folder; makes it if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.svg").write_text(self.svg, encoding="utf-8")
        (folder / f"{self.name}.png").write_bytes(self.png)


@contextlib.contextmanager
def new_figure(
    width: float,
    height: float,
    *,
    rows: int = 1,
    columns: int = 1,
    ratios: Sequence[float] | None = None,
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Makes a figure in the one style.

    Args:
        width: In inches.
        height: In inches.
        rows: Rows of axes.
        columns: Columns of axes.
        ratios: Relative heights of the rows; equal by default.

    Yields:
        The figure and its axes, row by row.
    """
    import matplotlib

    # Not pyplot: that would choose a backend for the whole process.
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.size": 9.0,
        "font.family": "sans-serif",
        "svg.hashsalt": "tflearn",
        "svg.fonttype": "none",
        # A dollar sign in a class name is no formula.
        "text.parse_math": False,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(
            rows, columns, squeeze=False, gridspec_kw={"height_ratios": ratios}
        )
        yield figure, list(axes.flat)


def finish(figure: Figure, name: str, title: str) -> Plot:
    """Renders a figure that is drawn.

    Args:
        figure: The figure, from `new_figure` and still in its context.
        name: Name of the file.
        title: What it shows.

    Returns:
        All its forms.
    """
    png, svg = io.BytesIO(), io.StringIO()
    options: dict[str, Any] = {"facecolor": "white"}
    figure.savefig(png, format="png", dpi=144, metadata={"Software": None}, **options)
    # What is drawn is laid out; doing that again would take most of the time.
    figure.set_layout_engine("none")
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(svg, format="svg", metadata=nothing, **options)
    return Plot(
        name=name,
        title=title,
        inline=_inline(svg.getvalue(), name=name, title=title),
        svg=svg.getvalue(),
        png=png.getvalue(),
    )


def is_known(value: object) -> bool:
    """Returns whether a value is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def label_axes(ax: Axes, *, x: str = "", y: str = "") -> None:
    """Names both axes and draws the horizontal grid."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(axis="y")


def step_axis(ax: Axes) -> None:
    """Marks whole steps along the horizontal axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def shortened(label: str, most: int = 18) -> str:
    """Shortens a label to what a figure has room for.

    Example:

    >>> shortened("a very long name of a class", 10)
    'a very lo…'
    """
    label = " ".join(label.split())
    return label if len(label) <= most else label[: most - 1] + "…"


def _inline(svg: str, *, name: str, title: str) -> str:
    """Turns an SVG file into an element of a page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # HTML knows these namespaces; a page without addresses is easy to trust.
    body = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", body)
    # The white sheet behind the figure: the page has its own.
    body = re.sub(r'<g id="patch_1">.*?</g>', "", body, count=1, flags=re.DOTALL)
    # Several figures share a page, and their parts must not share names.
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    body = body.replace(INK, "currentColor").replace(GRID, "var(--grid)")
    for place, color in enumerate(PALETTE):
        body = body.replace(color.lower(), f"var(--series-{place}, {color})")
    label = html.escape(title, quote=True)
    return body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
