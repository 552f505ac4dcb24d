"""A report as one web page that needs nothing else: tables, plots, light and dark."""

from __future__ import annotations

import html
import re

from .. import __version__
from . import figures, plots
from .sheets import IN_FULL, LEFT_OUT, Report, Sheet, printable
from .tables import Table

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2024; --soft: #5b6470; --line: #d5d9de; --band: #f3f5f7;
  --warn: #8a4b00; --blue: #0072b2 }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e8ea; --soft: #a3abb5; --line: #3a4048;
  --band: #1f242a;
  --warn: #ffb960; --blue: #2f8fd6 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: .5rem 0 } h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; min-width: 100%;
  overflow-wrap: normal }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; font-weight: normal }
th[scope=row], th:first-child, td.word { text-align: left }
thead th { font-weight: 600; border-bottom: 1px solid var(--line); vertical-align: bottom; white-space: normal;
  min-width: 4.5rem; max-width: 9rem }
th:first-child { position: sticky; left: 0; background: var(--paper); white-space: normal; overflow-wrap: anywhere;
  min-width: 9rem; max-width: 16rem }
tr.group th { background: var(--band); color: var(--soft) } tr.group th span { position: sticky; left: .7rem }
tbody tr + tr > * { border-top: 1px solid var(--line) }
ul { margin: .75rem 0; padding-left: 1.2rem; color: var(--soft); font-size: .85rem }
details { margin: .75rem 0; font-size: .85rem } summary { cursor: pointer; color: var(--soft) }
.warn { color: var(--warn); font-weight: 600 }
section.published { border-left: 4px solid var(--warn); padding-left: .75rem }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  align-items: start }
figure { margin: 0 } svg { display: block; width: 100%; height: auto; max-width: 34rem }
footer { margin-top: 3rem; color: var(--soft); font-size: .85rem }
"""


def to_html(report: Report) -> str:
    """The page.

    Raises:
        InputError: matplotlib is not installed.
    """
    sheets = report.sheets()
    sections = [
        _section(sheet, _plots(table, number)) for number, (sheet, table) in enumerate(zip(sheets, report.tables), 1)
    ]
    sections += [_section(sheet, "") for sheet in sheets[len(report.tables) :]]
    if report.left_out:
        sections.append(f"<section><h2>{LEFT_OUT}</h2>{_list('warn', report.left_out)}</section>")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Runs side by side</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Runs side by side</h1>
{"".join(sections)}
<footer>Made by cim-plugin compare {html.escape(__version__)}.</footer>
</body>
</html>
"""


def _text(text: str) -> str:
    return html.escape(printable(text))


def _name(text: str) -> str:
    """Of a row, which may be broken before a value rather than in it."""
    return _text(text).replace("=", "=<wbr>")


def _list(kind: str, notes: list[str]) -> str:
    return "<ul>" + "".join(f'<li class="{kind}">{_text(note)}</li>' for note in notes) + "</ul>" if notes else ""


def _section(sheet: Sheet, figures: str) -> str:
    kind = "measured" if sheet.grouped else "published"
    return f"""
<section class="{kind}"><h2>{_text(sheet.title)}</h2>
<div class="scroll" tabindex="0" role="region" aria-label="{_text(sheet.title)}"><table>{_rows(sheet)}</table></div>
{_list("warn", [*sheet.numbered_marks(), *sheet.warnings])}{_list("note", sheet.notes)}{_in_full(sheet)}{figures}
</section>"""


def _in_full(sheet: Sheet) -> str:
    if not sheet.in_full:
        return ""
    return f"<details><summary>{IN_FULL}</summary>{_list('note', sheet.in_full)}</details>"


def _rows(sheet: Sheet) -> str:
    """A group's name, where there are groups, is a row of its own: on a phone the first column should be the
    algorithm.
    """
    skip = int(sheet.grouped)
    body = []
    for number, line in enumerate(sheet.lines):
        if sheet.grouped and (number == 0 or number in sheet.breaks):
            name = f"{sheet.header[0]} {line[0]}"
            body.append(
                f'<tr class="group"><th scope="rowgroup" '
                f'colspan="{len(line) - skip}"><span>{_text(name)}</span></th></tr>'
            )
        first, *others = line[skip:]
        words = sheet.n_words - skip - 1
        cells = "".join(
            f'<td class="word">{_text(cell)}</td>' if column < words else f"<td>{_text(cell)}</td>"
            for column, cell in enumerate(others)
        )
        body.append(f'<tr><th scope="row">{_name(first)}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in sheet.header[skip:])
    return f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"


def _plots(table: Table, number: int) -> str:
    drawn = plots.draw([table], "svg", svg_fonttype="none", savefig_transparent=True)
    return (
        '<div class="plots">'
        + "".join(_inline(plot, f"p{number}-{place}-") for place, plot in enumerate(drawn))
        + "</div>"
    )


def _inline(plot: plots.Plot, prefix: str) -> str:
    """An SVG inside the page: its ids do not meet those of others, and ink and grid take the page's colours."""
    svg = plot.content.decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    for colour, name in (
        (figures.INK, "currentColor"),
        (figures.FAINT, "var(--line)"),
        (figures.COLOURS[0], "var(--blue)"),
    ):
        svg = svg.replace(colour, name)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[^"]*"', "", svg, count=2)  # of the root: the page decides
    return f'<figure>{svg.replace("<svg ", f"""<svg role="img" aria-label="{_text(plot.title)}" """, 1)}</figure>'
