"""A report as text, Markdown, LaTeX, CSV or JSON. The web page is in page.py."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from typing import Any, Callable

from .. import __version__
from . import text
from .hosts import HOSTS
from .sheets import IN_FULL, LEFT_OUT, Report, Sheet, printable, quantities, source


@dataclass(frozen=True)
class Markup:
    """How a format writes the parts of a report."""

    escape: Callable[[str], str]
    heading: Callable[[str], str]
    table: Callable[[Sheet, list[list[str]]], str]  #: the sheet, and its header and lines escaped
    items: Callable[[list[str]], str]  #: a list of escaped notes
    begin: str = ""

    def render(self, report: Report) -> str:
        parts = [self.begin] if self.begin else []
        for sheet in report.sheets():
            cells = [[self.escape(cell) for cell in line] for line in (sheet.header, *sheet.lines)]
            notes = [*sheet.numbered_marks(), *sheet.warnings, *sheet.notes]
            in_full = [f"{IN_FULL}:", *sheet.in_full] if sheet.in_full else []
            parts += [
                self.heading(self.escape(sheet.title)),
                self.table(sheet, cells),
                *(self.items([self.escape(line) for line in lines]) for lines in (notes, in_full) if lines),
            ]
        if report.left_out:
            parts += [
                self.heading(self.escape(LEFT_OUT)),
                self.items([self.escape(reason) for reason in report.left_out]),
            ]
        return "\n\n".join(parts) + "\n"


# --- text -------------------------------------------------------------------------------------------------------------


TEXT = Markup(printable, lambda title: f"{title}\n{'=' * len(title)}", text.table, "\n".join)

# --- Markdown ---------------------------------------------------------------------------------------------------------


def _markdown_escape(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~$!&])", r"\\\1", printable(text))


def _markdown_table(sheet: Sheet, cells: list[list[str]]) -> str:
    ruler = ["---" if column < sheet.n_words else "---:" for column in range(len(sheet.header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (cells[0], ruler, *cells[1:]))


MARKDOWN = Markup(
    _markdown_escape, "## {}".format, _markdown_table, lambda notes: "\n".join(f"- {note}" for note in notes)
)

# --- LaTeX ------------------------------------------------------------------------------------------------------------

_LATEX = {
    **{letter: "\\" + letter for letter in "{}$&#%_"},
    **{
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    },
    **{
        "[": "{[}",
        "]": "{]}",
        "'": r"\textquotesingle{}",
        '"': r"\textquotedbl{}",
        "`": r"\textasciigrave{}",
        "-": "{-}",
    },
    **{
        "±": r"$\pm$",
        "Δ": r"$\Delta$",
        "–": "--",
        "×": r"$\times$",
        "✓": r"$\surd$",
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
    },
}


def _latex_escape(text: str) -> str:
    return "".join(
        _LATEX.get(letter, letter if ord(letter) < 128 else f"U+{ord(letter):04X}") for letter in printable(text)
    )


def _latex_table(sheet: Sheet, cells: list[list[str]]) -> str:
    lines = [" & ".join(line) + r" \\" for line in cells]
    body = [(r"\midrule" + "\n" if number in sheet.breaks else "") + line for number, line in enumerate(lines[1:])]
    columns = "l" * sheet.n_words + "r" * (len(sheet.header) - sheet.n_words)
    no_wider_than_the_line = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    return "\n".join(
        [
            no_wider_than_the_line,
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
        ]
    )


def _latex_items(notes: list[str]) -> str:
    return (
        "\n".join([r"\begin{itemize}\footnotesize", *(rf"\item {note}" for note in notes), r"\end{itemize}"])
        if notes
        else ""
    )


_LATEX_BEGIN = (
    r"% Made by 'cim-plugin compare'. Needs \usepackage{booktabs,graphicx,textcomp} and \usepackage[T1]{fontenc}."
)
LATEX = Markup(_latex_escape, r"\subsection*{{{}}}".format, _latex_table, _latex_items, _LATEX_BEGIN)

# --- data -------------------------------------------------------------------------------------------------------------

FIELDS = (
    "kind",
    "dataset",
    "host",
    "synthetic",
    "selected_by",
    "algorithm",
    "control",
    "quantity",
    "unit",
    "mean",
    "spread",
    "spread_is",
    "n",
    "marks",
)


FORMULA = tuple("=+-@\t\r\n＝＋－＠")  #: how a formula begins in one program or another


def to_csv(report: Report) -> str:
    """One line per number: kind "measured" or "published"; notes are lines of kind "note" and "left out"."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for line in _csv_lines(report):
        writer.writerow({name: _csv_cell(value) for name, value in line.items()})
    return buffer.getvalue()


def _csv_cell(value: Any) -> Any:
    """Names with an apostrophe before what a spreadsheet would take for a formula; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9.]+", text) is not None or text in ("-", "+")


def _csv_lines(report: Report):
    for table in report.tables:
        of_table = {"dataset": table.dataset, "host": HOSTS[table.host].name, "synthetic": table.synthetic}
        for row in table.rows:
            of_row = {
                **of_table,
                "kind": "measured",
                "selected_by": row.rule,
                "algorithm": row.family.label,
                "control": row.family.control,
                "marks": "; ".join(row.marks),
            }
            found = list(quantities(row, table))
            for quantity in found:
                named = {"quantity": quantity.name, **quantity._asdict()}
                yield {
                    **of_row,
                    **{name: value for name, value in named.items() if name != "name" and value is not None},
                }
            if not found:
                yield {**of_row, "n": 0}
        yield from ({**of_table, "kind": "note", "marks": note} for note in (*table.warnings, *table.notes))
    for entry in report.published["tables"] if report.published else ():
        of_table = {"kind": "published", "dataset": entry["title"]}
        for row in entry["rows"]:
            for name, value in zip(entry["columns"][1:], row["cells"][1:]):
                yield {
                    **of_table,
                    "algorithm": row["cells"][0],
                    "quantity": name,
                    "mean": value,
                    "marks": row.get("doubt", ""),
                }
        yield from (
            {**of_table, "kind": "note", "marks": note}
            for note in (*entry["notes"], source(entry, report.published["source"]))
        )
    yield from ({"kind": "left out", "marks": reason} for reason in report.left_out)


def to_json(report: Report) -> str:
    """Every number at full precision, with the values of every seed."""
    value = {
        "made_by": f"cim_plugin {__version__}",
        "measured": [_table_record(table) for table in report.tables],
        "published": report.published,
        "left_out": [printable(reason) for reason in report.left_out],
    }
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _table_record(table) -> dict[str, Any]:
    rows = [
        {
            "selected_by": row.rule,
            "name": printable(row.family.name),
            "algorithm": row.family.algorithm,
            "settings": json.loads(json.dumps(row.family.settings), parse_constant=str),  # NaN is no JSON
            "control": row.family.control,
            "n": len(row.selected),
            "quantities": [quantity._asdict() for quantity in quantities(row, table)],
            "seeds": {
                str(one.seed): {name: 100 * value for name, value in {**one.parts, **one.values}.items()}
                for one in row.selected
            },
            "folders": [printable(run.folder) for run in row.finished],
            "marks": [printable(mark) for mark in row.marks],
        }
        for row in table.rows
    ]
    return {
        "dataset": table.dataset,
        "host": HOSTS[table.host].name,
        "synthetic": table.synthetic,
        "rows": rows,
        "notes": [printable(note) for note in (*table.warnings, *table.notes)],
    }


def _html(report: Report) -> str:
    from .page import to_html

    return to_html(report)


#: format -> (suffixes of files, report -> text)
FORMATS: dict[str, tuple[tuple[str, ...], Callable[[Report], str]]] = {
    "text": ((".txt",), TEXT.render),
    "markdown": ((".md", ".markdown"), MARKDOWN.render),
    "latex": ((".tex",), LATEX.render),
    "csv": ((".csv",), to_csv),
    "json": ((".json",), to_json),
    "html": ((".html", ".htm"), _html),
}
