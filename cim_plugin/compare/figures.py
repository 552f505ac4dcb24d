"""The figures of a table: worst against average accuracy, accuracy per group, cost against gain, training curves."""

from __future__ import annotations

import math
import re
import textwrap
from typing import NamedTuple

import numpy as np

from ..files import Unreadable
from ..runs.record import Curve, Run
from .averages import cost
from .families import Family
from .hosts import HOSTS
from .sheets import printable
from .tables import BASELINE, Row, Table, baselines

INK = "#222324"  #: of text and axes; the web page replaces it by its own
FAINT = "#c9cacb"  #: of grid lines
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8c8c8c",
    "#999933",
)  #: Okabe and Ito's first: told apart by colour-blind people
MARKERS = "osD^vPX<>p"
MOST_PARTS, MOST_CURVES = 12, 12
LEGEND_WIDTH, LEGEND_LINES = 52, 5  #: characters, and lines of a label
SIZE = (5.2, 3.9)  #: inches: at 72 dots an inch a phone's width


class Look(NamedTuple):
    """How a row looks in all plots of its table: a control is hollow, in the colour of what it controls."""

    label: str
    colour: str
    marker: str
    face: str
    hatch: str | None


def slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:40] or "unnamed"


def short(text: str, most: int = LEGEND_WIDTH * LEGEND_LINES) -> str:
    text = printable(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def wrapped(text: str) -> str:
    """For a legend: rows differ in their last settings, so that one line would not tell them apart."""
    return "\n".join(textwrap.wrap(short(text), LEGEND_WIDTH))


def _new(table: Table, what: str, how_to_read: str, height: float = SIZE[1]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE[0], height))
    axes = figure.subplots()
    lines = [line for text in (table.title, what, how_to_read) for line in textwrap.wrap(printable(text), 68)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left")
    return figure, axes


def _at_least(axes, points: float) -> None:
    """Leave room, and do not blow up what is nearly the same."""
    for low, high, limit in ((*axes.get_xlim(), axes.set_xlim), (*axes.get_ylim(), axes.set_ylim)):
        room = max(0.05 * (high - low), (points - (high - low)) / 2)
        limit(low - room, high + room)
    axes.locator_params(nbins=6)


def _legend(figure, handles, labels) -> None:
    n_columns = 1 if max(map(len, labels)) > 28 else 2
    n_lines = math.ceil(sum(label.count("\n") + 1 for label in labels) / n_columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, n_lines - 4))
    figure.legend(handles, labels, loc="outside lower center", ncols=min(n_columns, len(labels)), handletextpad=0.4)


def worst_against_average(table: Table, rule: str, rows: list[Row], looks: dict[Family, Look]):
    """Of every seed that has groups or environments."""
    points = {row: [one for one in row.selected if one.parts and "average" in one.values] for row in rows}
    if not any(points.values()):
        return
    how_to_read = f"Selected by {rule}. Small: {HOSTS[table.host].seeds_are}s. Large: their mean. Hollow: controls."
    figure, axes = _new(table, f"worst {table.parts_are} against average", how_to_read)
    handles, labels = [], []
    for row, selected in points.items():
        if not selected:
            continue
        look = looks[row.family]
        x = [100 * one.values["average"] for one in selected]
        y = [100 * one.values.get("worst group", min(one.parts.values())) for one in selected]
        style = {"color": look.colour, "markerfacecolor": look.face, "clip_on": False}
        axes.plot(x, y, look.marker, markersize=5, alpha=0.75, **style)
        (handle,) = axes.plot(
            np.mean(x), np.mean(y), look.marker, markersize=11, markeredgewidth=1.5, alpha=0.9, **style
        )
        handles.append(handle)
        labels.append(look.label)
    axes.set(
        xlabel="average accuracy, %",
        ylabel=f"worst-{'group' if table.parts_are == 'group' else 'environment'} accuracy, %",
    )
    _at_least(axes, 5)
    _legend(figure, handles, labels)
    yield f"worst-against-average-{rule}", figure


def per_part(table: Table, rule: str, rows: list[Row], looks: dict[Family, Look]):
    """Bars of accuracy per group or held-out environment, seeds as points."""
    names = list(dict.fromkeys(name for row in rows for one in row.selected for name in one.parts))
    rows = [row for row in rows if row.selected]
    if not names:
        return
    how_to_read = f"Selected by {rule}. Bars: means. Points: {HOSTS[table.host].seeds_are}s."
    if len(names) > MOST_PARTS:
        how_to_read += f" The {MOST_PARTS} of {len(names)} {table.parts_are}s with the lowest accuracy."
        names = sorted(
            names,
            key=lambda name: np.mean([one.parts[name] for row in rows for one in row.selected if name in one.parts]),
        )[:MOST_PARTS]
    thickness = 0.8 / len(rows)
    figure, axes = _new(
        table, f"accuracy per {table.parts_are}", how_to_read, max(SIZE[1], 1.5 + 0.13 * len(names) * (len(rows) + 1.5))
    )
    handles = []
    for number, row in enumerate(rows):
        look = looks[row.family]
        places, means, points = [], [], []
        for place, name in enumerate(names):
            values = [100 * one.parts[name] for one in row.selected if name in one.parts]
            if values:
                places.append(place + (number - (len(rows) - 1) / 2) * thickness)
                means.append(np.mean(values))
                points += [(value, places[-1]) for value in values]
        axes.plot(*zip(*points), "o", color=INK, markersize=2.5, markeredgewidth=0, zorder=3, clip_on=False)
        handles.append(
            axes.barh(
                places, means, 0.9 * thickness, color=look.face, edgecolor=look.colour, linewidth=1, hatch=look.hatch
            )
        )
    axes.set_yticks(range(len(names)), [_part_label(name) for name in names])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="accuracy, %", xlim=(0, 100))
    _legend(figure, handles, [looks[row.family].label for row in rows])
    yield f"parts-{rule}", figure


def _part_label(name: str) -> str:
    """``y:landbird_background:land`` in short lines."""
    return "\n".join(textwrap.wrap(printable(name).replace("_", " ").replace(":", " "), 20)[:3])


def cost_against_gain(table: Table, rule: str, rows: list[Row], looks: dict[Family, Look]):
    quantity = table.gain_columns[-1] if table.gain_columns else None
    bases = baselines(rows)
    shown = []  # (row, times the step of the ERM that it is compared with)
    for row in rows:
        if quantity in row.gains:
            seconds, unit = (cost(of.finished, lambda run: run.step_seconds) for of in (row, bases[row.family.flags]))
            shown += [(row, seconds / unit)] if seconds and unit else []
    if not shown:
        return
    how_to_read = (
        f"Selected by {rule}. Bars: standard error over {HOSTS[table.host].seeds_are}s. Times of different machines do "
        f"not compare."
    )
    figure, axes = _new(table, f"cost against gain in {quantity} accuracy", how_to_read)
    axes.axhline(0, color=INK, linewidth=0.8)
    handles = [axes.plot(1, 0, "*", color=INK, markersize=9)[0]]
    for row, times in shown:
        look, gain = looks[row.family], row.gains[quantity]
        spread = None if gain.spread is None else 100 * gain.spread
        style = {"fmt": look.marker, "color": look.colour, "markerfacecolor": look.face, "markersize": 8, "capsize": 3}
        handles.append(axes.errorbar(times, 100 * gain.mean, spread, **style))
    axes.set(xlabel=f"time per step, times that of {BASELINE}", ylabel=f"difference to {BASELINE}, points")
    axes.margins(0.1)
    _legend(figure, handles, [BASELINE, *(looks[row.family].label for row, _ in shown)])
    yield f"cost-against-gain-{rule}", figure


def training(table: Table):
    """What selection looks at, per algorithm, and where each rule stopped."""
    families = list(dict.fromkeys(row.family for row in table.rows if row.selected))
    module = HOSTS[table.host].module
    kind = "worst-group " if "worst group" in table.columns else ""
    for number, family in enumerate(families[:MOST_CURVES], 1):
        rows = [row for row in table.rows if row.family is family]
        curves, damaged = _read_curves(rows, module)
        if not curves and not damaged:
            continue
        lines = (
            "the run that a rule chose, per trial and held-out environment" if table.host == "domainbed" else "one seed"
        )
        left = f" Left out: {'; '.join(damaged)}." if damaged else ""
        more = (
            f" {len(families) - MOST_CURVES} more algorithms are not drawn."
            if number == MOST_CURVES < len(families)
            else ""
        )
        figure, axes = _new(table, f"training of {short(family.name)}", f"A line: {lines}.{left}{more}")
        _lines_of(axes, list(curves.values()))
        handles, labels = [], []
        for rank, row in enumerate(rows):
            picked = [(run, x) for one in row.selected for run, x in one.picks if run in curves and x in curves[run].x]
            if picked:
                y = [100 * curves[run].y[curves[run].x.index(x)] for run, x in picked]
                style = {"color": COLOURS[rank % len(COLOURS)], "markersize": 6 + 2.5 * rank, "markeredgewidth": 1.5}
                (handle,) = axes.plot(
                    [x for _, x in picked],
                    y,
                    MARKERS[rank % len(MARKERS)],
                    markerfacecolor="none",
                    clip_on=False,
                    **style,
                )
                handles.append(handle)
                labels.append(f"chosen by {row.rule}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch" if table.host == "wilds" else "step", ylabel=f"validation {kind}accuracy, %")
        if handles:
            _legend(figure, handles, labels)
        yield f"training-{number:02}-{slug(family.name)}", figure


def _lines_of(axes, curves: list[Curve]) -> None:
    """As one collection: a line of its own for each of hundreds of seeds takes most of a page's time."""
    from matplotlib.collections import LineCollection

    points = [[(x, 100 * y) for x, y in zip(curve.x, curve.y)] for curve in curves]
    style = {"colors": INK, "alpha": 0.35, "linewidths": 1, "capstyle": "projecting", "joinstyle": "round"}
    axes.add_collection(LineCollection(points, **style))
    axes.autoscale_view()


def _read_curves(rows: list[Row], module) -> tuple[dict[Run, object], list[str]]:
    curves, damaged = {}, []
    for run in dict.fromkeys(run for row in rows for one in row.selected for run, _ in one.picks):
        try:
            curves[run] = module.curve(run)
        except Unreadable as error:
            damaged.append(str(error))
    return curves, damaged
