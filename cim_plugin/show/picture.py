"""The grid of a run's images as PNG or SVG, without a display and without matplotlib's global state."""

from __future__ import annotations

import io
import textwrap
from itertools import groupby
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .examples import Example
from .opened_run import OpenedRun
from .pixels import Cell, Scale, cells, colours, scale_of, titles
from .summary import lines, notes

CANVASES = {"png": FigureCanvasAgg, "svg": FigureCanvasSVG}
INK, SOFT, RULE, WRONG_INK = "#1a1a1a", "#5a5a5a", "#c8c8c8", "#9a4400"
#: in inches
CELL, GAP, MARGIN, LINE, HEADING, BAR = 1.5, 0.16, 0.35, 0.16, 0.32, 0.13
WIDTH = 2 * MARGIN + 5 * CELL + 4 * GAP
CHARACTERS = 138  #: of the small type in a line of the picture's width


def picture(learnt: OpenedRun, shown: list[Example], summary: dict[str, Any], kind: str) -> bytes:
    """The grid with its colour bar, summary and notes.

    Args:
        kind: "png" or "svg".
    """
    scale = scale_of(shown)
    height, width = shown[0].x.shape[1:]
    tall = CELL * height / width
    head = [wrapped for line in lines(summary, learnt.unit, shown) for wrapped in textwrap.wrap(line, CHARACTERS)]
    foot = [wrapped for line in notes(learnt, shown) for wrapped in textwrap.wrap(line, CHARACTERS)]
    groups = [
        (name, list(of_group))
        for name, of_group in groupby(shown, key=lambda example: learnt.group_names[example.group])
    ]
    top = MARGIN + 0.3 + LINE * len(head) + 0.2 + BAR + 0.55
    total = top + len(groups) * HEADING + len(shown) * (tall + 2 * LINE + GAP) + 0.15 + LINE * len(foot) + MARGIN
    page = _Page(kind, total)
    _head(page, learnt, head, scale)
    y = top
    for name, of_group in groups:
        page.rule(y)
        page.text(MARGIN, y + 0.13, _shortened(name, 95), 9, weight="bold")
        y += HEADING
        for example in of_group:
            for column, cell in enumerate(cells(learnt, example, scale)):
                page.cell(MARGIN + column * (CELL + GAP), y, tall, cell)
            y += tall + 2 * LINE + GAP
    page.rule(y)
    for number, line in enumerate(foot):
        page.text(MARGIN, y + 0.15 + number * LINE, line, 7.5, color=SOFT)
    return page.bytes()


def _head(page: _Page, learnt: OpenedRun, head: list[str], scale: Scale) -> None:
    page.text(MARGIN, MARGIN, _shortened(learnt.title, 88), 12, weight="bold")
    for number, line in enumerate(head):
        page.text(MARGIN, MARGIN + 0.3 + number * LINE, line, 7.5)
    y = MARGIN + 0.3 + LINE * len(head) + 0.2
    left = MARGIN + CELL + GAP
    bar = colours(np.linspace(scale.low, scale.high, 256)[None], scale)
    page.image(left, y, 2 * CELL + GAP, BAR, bar, aspect="auto")
    page.text(left, y + BAR + 0.04, scale.words(scale.low), 7.5)
    page.text(left + 2 * CELL + GAP, y + BAR + 0.04, scale.words(scale.high), 7.5, ha="right")
    page.text(left + CELL + GAP / 2, y + BAR + 0.04, "m, one scale for all images", 7.5, ha="center")
    for column, name in enumerate(titles(learnt)):
        page.text(MARGIN + column * (CELL + GAP), y + BAR + 0.28, name, 10, weight="bold")


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


class _Page:
    """A figure that is written on in inches from the upper left corner."""

    def __init__(self, kind: str, height: float):
        self.kind, self.height = kind, height
        self.figure = Figure(figsize=(WIDTH, height), dpi=150, facecolor="white")
        self.canvas = CANVASES[kind](self.figure)

    def text(self, x: float, y: float, words: str, size: float, color: str = INK, **more: Any) -> None:
        self.figure.text(
            x / WIDTH, 1 - y / self.height, words, fontsize=size, color=color, va="top", parse_math=False, **more
        )

    def rule(self, y: float) -> None:
        at = 1 - y / self.height
        self.figure.add_artist(Line2D([MARGIN / WIDTH, 1 - MARGIN / WIDTH], [at, at], color=RULE, linewidth=0.8))

    def image(self, x: float, y: float, width: float, height: float, pixels: np.ndarray, aspect: str = "equal") -> None:
        axes = self.figure.add_axes((x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height))
        axes.imshow(pixels, interpolation="nearest", aspect=aspect)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(color=RULE, linewidth=0.6)

    def cell(self, x: float, y: float, tall: float, cell: Cell) -> None:
        if cell.pixels is not None:
            self.image(x, y, CELL, tall, cell.pixels)
        self.text(x, y + tall + 0.04, _shortened(cell.first, 27), 7, color=SOFT)
        self.text(x, y + tall + 0.04 + LINE * 0.85, _ending(cell.second, 27), 7, color=WRONG_INK if cell.wrong else INK)

    def bytes(self) -> bytes:
        content = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "m", "svg.fonttype": "path"}):
            self.canvas.print_figure(
                content, format=self.kind, metadata={"Date": None} if self.kind == "svg" else {"Software": None}
            )
        return content.getvalue()


def _ending(text: str, length: int) -> str:
    """Shortened in the middle: the end says the number and whether it is right."""
    return text if len(text) <= length else text[: length - 9] + "…" + text[-8:]
