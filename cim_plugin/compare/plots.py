"""Plots of tables, as files: :mod:`.figures` drawn with one style."""

from __future__ import annotations

import io
import warnings
from typing import Iterator, NamedTuple

from ..errors import InputError
from . import figures
from .families import Family
from .figures import FAINT, INK
from .tables import Row, Table

HATCHES = ("////", "....", "xxxx")
STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "font.size": 9,
    "figure.titlesize": 9,
    "legend.frameon": False,
    "hatch.linewidth": 1.5,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "svg.hashsalt": "cim_plugin",
    "text.color": INK,
    "text.parse_math": False,  # names of runs are not formulas
    "xtick.color": INK,
    "ytick.color": INK,
}


class Plot(NamedTuple):
    """A drawn plot."""

    name: str  #: of its file, without a suffix
    title: str
    content: bytes


def draw(tables: list[Table], kind: str, **style) -> Iterator[Plot]:
    """All plots as "png" or "svg".

    Args:
        style: more of matplotlib's rcParams, with ``_`` for their dots.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InputError(
            "plots need the package 'matplotlib'; pip install 'cim_plugin[report]', or choose a format without plots"
        ) from error
    settings = {**STYLE, **{name.replace("_", ".", 1): value for name, value in style.items()}}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # names in scripts that the font lacks are drawn as boxes
        for number, table in enumerate(tables, 1):
            for name, figure in _figures(table):
                yield Plot(
                    f"{number:02}-{figures.slug(table.dataset)}-{name}",
                    figure.get_suptitle().replace("\n", ". "),
                    _saved(figure, kind),
                )


def _saved(figure, kind: str) -> bytes:
    """The layout is made once, by the renderer that draws; a figure that has an engine of its own is drawn twice."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    dpi = _set_canvas(figure, kind)
    ConstrainedLayoutEngine().execute(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else {})
    return buffer.getvalue()


def _set_canvas(figure, kind: str) -> int:
    """Give the figure the renderer of "png" or "svg"; its dots per inch."""
    if kind == "svg":
        from matplotlib.backends.backend_svg import FigureCanvasSVG as Canvas
    else:
        from matplotlib.backends.backend_agg import FigureCanvasAgg as Canvas
    Canvas(figure)
    figure.set_dpi(72 if kind == "svg" else 150)
    return int(figure.get_dpi())


def _figures(table: Table):
    looks = _looks(table)
    by_rule: dict[str, list[Row]] = {}
    for row in table.rows:
        by_rule.setdefault(row.rule, []).append(row)
    for rule, rows in by_rule.items():
        yield from figures.worst_against_average(table, rule, rows, looks)
        yield from figures.per_part(table, rule, rows, looks)
        yield from figures.cost_against_gain(table, rule, rows, looks)
    yield from figures.training(table)


def _looks(table: Table) -> dict[Family, figures.Look]:
    families = sorted(
        dict.fromkeys(row.family for row in table.rows), key=lambda family: family.control
    )  # stable: controls last
    colours: dict[str, str] = {}  # algorithm -> that of its first row
    looks, n_used = {}, 0
    for number, family in enumerate(families):
        shares = family.control and family.algorithm in colours
        colour = colours[family.algorithm] if shares else figures.COLOURS[n_used % len(figures.COLOURS)]
        n_used += not shares
        colours.setdefault(family.algorithm, colour)
        hatch = HATCHES[number % len(HATCHES)] if family.control else None
        looks[family] = figures.Look(
            figures.wrapped(family.name),
            colour,
            figures.MARKERS[number % len(figures.MARKERS)],
            "none" if family.control else colour,
            hatch,
        )
    return looks
