"""Tables as words: what is shown in every cell, in which order, and under which footnotes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from ..runs.find import Found
from .averages import Cell, cost
from .hosts import HOSTS
from .tables import BASELINE, Row, Table

PUBLISHED = Path(__file__).with_name("published.json")
NOTHING = "–"


IN_FULL = "Rows in full"
LEFT_OUT = "Left out, counted nowhere"


def printable(text: str) -> str:
    """Names of files and fields in one line of harmless characters: control characters and broken Unicode become
    escapes.
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class Quantity(NamedTuple):
    """A number of a row at full precision."""

    name: str
    unit: str
    mean: float
    spread: float | None
    spread_is: str | None
    n: int


@dataclass(frozen=True)
class Sheet:
    """A table as it is shown."""

    title: str
    header: list[str]
    lines: list[list[str]]
    breaks: frozenset[int]  #: numbers of lines before which a group of lines begins, the first excluded
    n_words: int  #: columns from the left that hold words; the others hold numbers
    marks: list[str]  #: footnotes [1], [2], ... that cells refer to
    in_full: list[str]  #: the settings of lines whose names leave something out
    warnings: list[str]
    notes: list[str]
    grouped: bool  #: measured: the first column is the same within a group
    n_costs: int = 0  #: columns from the right that no selection rule changes

    def numbered_marks(self) -> list[str]:
        """The footnotes with their numbers."""
        return [f"[{number}] {mark}" for number, mark in enumerate(self.marks, 1)]


class Report(NamedTuple):
    """What one call of ``cim-plugin compare`` shows."""

    tables: list[Table]
    published: dict[str, Any] | None  #: published.json where it is asked for
    left_out: list[str]

    def sheets(self) -> list[Sheet]:
        """All tables, the measured ones first."""
        measured = [_measured(table) for table in self.tables]
        return measured + (
            [_published(entry, self.published["source"]) for entry in self.published["tables"]]
            if self.published
            else []
        )


def make_report(found: Found, tables: list[Table], with_published: bool) -> Report:
    """A report of what was found."""
    left_out = [*found.left_out, *(f"{link}: a link, not followed; name its target to read it" for link in found.links)]
    return Report(tables, json.loads(PUBLISHED.read_text(encoding="utf-8")) if with_published else None, left_out)


def quantities(row: Row, table: Table) -> Iterator[Quantity]:
    """All numbers of a row: accuracies in %, differences in points, cost."""
    spread = "standard deviation over seeds" if HOSTS[table.host].splits_by_flags else "standard error over trials"
    for name, cell in row.cells.items():
        yield Quantity(name, "%", *_percent(cell), spread if cell.spread is not None else None, cell.n)
    for name, cell in row.gains.items():
        error = "standard error of the paired difference" if cell.spread is not None else None
        yield Quantity(f"Δ{BASELINE} {name}", "points", *_percent(cell), error, cell.n)
    seconds = cost(row.finished, lambda run: run.step_seconds)
    if seconds is not None:
        yield Quantity("time per step", "s", seconds, None, None, len(row.finished))
    for kind in table.memory_columns:
        held = cost(row.finished, lambda run, kind=kind: run.memory.get(kind))
        if held is not None:
            yield Quantity(f"peak memory ({kind})", "GiB", held / 2**30, None, None, len(row.finished))


def _percent(cell: Cell) -> tuple[float, float | None]:
    return 100 * cell.mean, None if cell.spread is None else 100 * cell.spread


def _measured(table: Table) -> Sheet:
    marks = list(dict.fromkeys(mark for row in table.rows for mark in row.marks))
    heads = {"time per step": "ms/step", **{f"peak memory ({kind})": f"GiB {kind}" for kind in table.memory_columns}}
    numbers = [*table.columns, *(f"Δ{BASELINE} {name}" for name in table.gain_columns), *heads]
    seeds = HOSTS[table.host].seeds_are + "s"
    lines, breaks = [], set()
    for number, row in enumerate(table.rows):
        if number and row.rule != table.rows[number - 1].rule:
            breaks.add(number)
        found = {quantity.name: _shown(quantity) for quantity in quantities(row, table)}
        references = "".join(f" [{marks.index(mark) + 1}]" for mark in row.marks)
        lines.append(
            [
                row.rule,
                row.family.name + references,
                str(len(row.selected)),
                *(found.get(name, NOTHING) for name in numbers),
            ]
        )
    header = ["selected by", "algorithm", seeds, *(heads.get(name, name) for name in numbers)]
    return Sheet(
        table.title,
        header,
        lines,
        frozenset(breaks),
        2,
        marks,
        table.in_full,
        table.warnings,
        table.notes,
        True,
        len(heads),
    )


def _shown(quantity: Quantity) -> str:
    if quantity.unit == "s":
        return f"{1000 * quantity.mean:.3g}" if quantity.mean < 1 else f"{1000 * quantity.mean:.0f}"
    if quantity.unit == "GiB":
        return f"{quantity.mean:.2f}"
    sign = "+" if quantity.unit == "points" else ""
    return f"{quantity.mean:{sign}.1f}" + ("" if quantity.spread is None else f" ± {quantity.spread:.1f}")


def source(entry: dict[str, Any], poster: str) -> str:
    """Where a published table is from, as its note says it."""
    return f"Source: {entry.get('source', poster)}"


def _published(entry: dict[str, Any], poster: str) -> Sheet:
    marks = list(dict.fromkeys(row["doubt"] for row in entry["rows"] if "doubt" in row))
    lines = []
    for row in entry["rows"]:
        reference = f" [{marks.index(row['doubt']) + 1}]" if "doubt" in row else ""
        lines.append([row["cells"][0] + reference, *row["cells"][1:]])
    n_words = sum(not row.replace(".", "").isdigit() for row in entry["rows"][0]["cells"])
    title, notes = f"PUBLISHED, not measured here: {entry['title']}", [*entry["notes"], source(entry, poster)]
    return Sheet(title, entry["columns"], lines, frozenset(), n_words, marks, [], [], notes, False)
