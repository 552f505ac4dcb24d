"""The grid of a run's images as one self-contained HTML page: no script, nothing from elsewhere, dark and light, for a
phone and a screen.
"""

from __future__ import annotations

import base64
import io
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image

from .examples import Example
from .opened_run import OpenedRun
from .pixels import Cell, Scale, cells, colours, scale_of
from .summary import lines, notes, table

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1a1a1a; --soft: #595959; --rule: #d0d0d0; --wrong: #9a4400 }
@media (prefers-color-scheme: dark) { :root { --ground: #16181c; --ink: #ececec; --soft: #a9adb5; --rule: #3a3e46;
  --wrong: #ffb266 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 64rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.35rem; line-height: 1.25; margin: .2rem 0 .8rem }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--rule) }
p { margin: .3rem 0 } .soft, figcaption .first { color: var(--soft) } .wrong { color: var(--wrong) }
.scroll { overflow-x: auto; margin: .8rem 0 } table { border-collapse: collapse; font-size: .875rem;
  overflow-wrap: normal }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; border-bottom: 1px solid var(--rule);
  font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left; min-width: 9rem }
.example { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: .8rem; margin: 0 0 1.2rem }
figure { margin: 0 } figure b { display: block; margin-bottom: .2rem }
figure img, .none { display: block; width: 100%; aspect-ratio: var(--shape); border: 1px solid var(--rule);
  image-rendering: pixelated }
figcaption { font-size: .8rem; line-height: 1.35; margin-top: .3rem } figcaption span { display: block }
.bar { max-width: 22rem; margin: .9rem 0 } .bar img { display: block; width: 100%; height: .9rem;
  border: 1px solid var(--rule) }
.bar div { display: flex; justify-content: space-between; font-size: .8rem }
.notes { border-top: 1px solid var(--rule); margin-top: 1.4rem; padding-top: .8rem; font-size: .875rem }
@media (max-width: 40rem) { .example { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .6rem } }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(learnt: OpenedRun, shown: list[Example], summary: dict[str, Any], kind: str = "html") -> bytes:
    """The page in UTF-8."""
    scale = scale_of(shown)
    height, width = shown[0].x.shape[1:]
    heading, named = escape(learnt.title), groupby(shown, key=lambda example: learnt.group_names[example.group])
    body = [
        f"<h1>{heading}</h1>",
        *(f"<p>{escape(line)}</p>" for line in lines(summary, learnt.unit, shown)),
        _table(table(summary, learnt.unit)),
        _bar(scale),
    ]
    for name, of_group in named:
        body.append(f"<h2>{escape(name)}</h2>")
        body += [
            f'<div class="example">{"".join(_figure(cell) for cell in cells(learnt, example, scale))}</div>'
            for example in of_group
        ]
    body.append(
        '<div class="notes soft">' + "".join(f"<p>{escape(note)}</p>" for note in notes(learnt, shown)) + "</div>"
    )
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta '
        f'http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{heading}</title><style>{STYLE}:root {{ --shape: {width} / {height} }}</style>"
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{chr(10).join(body)}\n</body></html>\n'.encode()
    )


def _figure(cell: Cell) -> str:
    words = f"{cell.title}, {cell.first}, {cell.second}"
    image = (
        '<div class="none"></div>'
        if cell.pixels is None
        else f'<img alt="{escape(words)}" src="{_source(cell.pixels)}">'
    )
    wrong = ' class="wrong"' if cell.wrong else ""
    return (
        f"<figure><b>{escape(cell.title)}</b>{image}"
        f"<figcaption><span "
        f'class="first">{escape(cell.first)}</span><span{wrong}>{escape(cell.second)}</span></figcaption></figure>'
    )


def _table(rows: list[list[str]]) -> str:
    header, *others = rows
    lines_of = ["<tr>" + "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header) + "</tr>"]
    lines_of += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in others]
    return f'<div class="scroll"><table>{"".join(lines_of)}</table></div>'


def _bar(scale: Scale) -> str:
    source = _source(colours(np.linspace(scale.low, scale.high, 256)[None], scale))
    low, high = scale.words(scale.low), scale.words(scale.high)
    return (
        f'<div class="bar"><img alt="colours of m from {low} to {high}" src="{source}"><div><span>{low}</span><span>m, '
        f"one scale for all images</span><span>{high}</span></div></div>"
    )


def _source(pixels: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
