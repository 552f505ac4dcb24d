"""The evidence on subgroups in one picture: every run, and the differences that were fixed beforehand."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from cim_plugin.errors import InputError

from ..experiments.figures import pyplot_without_screen, save
from .differences import family
from .rows import ROWS
from .tables import Found, says, worst

DARK, MARKED = "#1f4e79", "#c55a11"


def draw(results: Found, file: Path) -> None:
    """Worst group of the test, chosen without labels of groups: a point per run and a line at the mean of a row; beside
    it the paired differences with their corrected intervals.

    Raises:
        InputError: there is no run to draw.
    """
    found = {name: list(of_row.values()) for name, of_row in worst(results).items() if of_row}
    if not found:
        raise InputError(f"{file} would be empty: no run of these rows is finished")
    compared = family(worst(results))
    pyplot = pyplot_without_screen()
    figure, (rows, pairs) = pyplot.subplots(
        1, 2, figsize=(14, 0.32 * max(len(found), len(compared)) + 1.6), layout="constrained"
    )
    for place, (name, of_row) in enumerate(found.items()):
        colour = MARKED if ROWS[name].uses_groups or ROWS[name].figures_only else DARK
        rows.plot(of_row, [place] * len(of_row), "o", color=colour, alpha=0.6, markersize=4)
        rows.plot([mean(of_row)] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
    rows.set_yticks(range(len(found)), [says(name) for name in found], fontsize=8)
    rows.set_xlabel("worst group of the test, %; a point per seed", fontsize=8)
    for place, one in enumerate(compared):
        pairs.errorbar(
            [one.mean], [place], xerr=None if one.half is None else [one.half], fmt="o", color=DARK, capsize=3
        )
    pairs.axvline(0, color="black", linewidth=1)
    labels = [f"{ROWS[one.row].says} − {ROWS[one.other].says}" for one in compared]
    pairs.set_yticks(range(len(compared)), labels, fontsize=8)
    pairs.set_xlabel("difference in points, paired over seeds; Holm's intervals", fontsize=8)
    for axis in (rows, pairs):
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
        axis.tick_params(axis="x", labelsize=8)
    save(figure, file)
