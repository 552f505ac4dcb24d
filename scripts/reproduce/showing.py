"""What was measured, as 'cim-plugin compare' shows it, and under it the table that the poster prints."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Callable, Iterable, NamedTuple

from cim_plugin.compare.formats import TEXT
from cim_plugin.compare.sheets import Sheet, make_report
from cim_plugin.compare.tables import build
from cim_plugin.errors import InputError
from cim_plugin.runs import find
from cim_plugin.runs.record import Run

Columns = Callable[
    [dict[str, float], dict[str, float]], dict[str, float]
]  #: usual columns of a table, accuracy per part of the test split -> columns


class Page(NamedTuple):
    """Sheets to be rendered."""

    shown: list[Sheet]
    left_out: list[str]

    def sheets(self) -> list[Sheet]:
        return self.shown


def show(
    folder: Path,
    rules: Iterable[str],
    published: str | None,
    columns: Columns | None = None,
    gains: tuple[str, ...] = (),
    failed: bool = False,
) -> None:
    """Print the tables of all runs below ``folder``.

    Args:
        rules: selection rules to show.
        published: how the title of the poster's table begins; None where it prints none.
        columns: those of runs of 'cim-plugin train', if they are others.
        gains: of which of them the difference to ERM is shown, if of others.
        failed: runs have failed, perhaps all; without any to show nothing is printed.

    Raises:
        InputError: there is no run.
    """
    try:
        found = find.find([str(folder)])
    except InputError:
        if failed:
            return
        raise
    runs = [_with_columns(run, columns) if columns is not None and run.host == "wilds" else run for run in found.runs]
    report = make_report(found, build(runs, list(rules), gains), published is not None)
    sheets = report.sheets()
    if published is not None:
        n_measured = len(report.tables)
        titles = [entry["title"] for entry in report.published["tables"]]
        sheets = sheets[:n_measured] + [
            sheet for sheet, title in zip(sheets[n_measured:], titles) if title.startswith(published)
        ]
    print(TEXT.render(Page(sheets, report.left_out)), end="")


def _with_columns(run: Run, columns: Columns) -> Run:
    measured = {
        rule: {**chosen, "values": columns(chosen["values"], chosen["parts"])} if chosen["parts"] else chosen
        for rule, chosen in run.measured.items()
    }
    return dataclasses.replace(run, measured=measured)
