"""Means over seeds or trials, their spreads, and differences paired by seed."""

from __future__ import annotations

import math
from typing import Callable, NamedTuple

import numpy as np

from ..runs.record import Run, Selected


class Cell(NamedTuple):
    """A number of a table."""

    mean: float
    spread: float | None  #: None where it cannot be estimated
    n: int


def over_seeds(selected: list[Selected], columns: list[str]) -> dict[str, Cell]:
    """Mean and standard deviation (ddof=1) over seeds."""
    return _cells(selected, columns, lambda values: float(np.std(values, ddof=1)) if len(values) > 1 else None)


def with_errors(selected: list[Selected], columns: list[str]) -> dict[str, Cell]:
    """Mean and standard error over seeds or trials, as collect_results has them: that of one is 0."""
    return _cells(selected, columns, lambda values: float(np.std(values / np.sqrt(len(values)))))


def _cells(
    selected: list[Selected], columns: list[str], spread: Callable[[list[float]], float | None]
) -> dict[str, Cell]:
    """Of those that have a column."""
    found = {name: [one.values[name] for one in selected if name in one.values] for name in columns}
    return {name: Cell(float(np.mean(of)), spread(of), len(of)) for name, of in found.items() if of}


def over_trials(selected: list[Selected], columns: list[str]) -> dict[str, Cell]:
    """The same; the average is that of the environments' means."""
    cells = with_errors(selected, columns)
    *environments, average = columns
    if all(name in cells for name in environments):
        spread, n = cells[average][1:] if average in cells else (None, 0)
        cells[average] = Cell(sum(cells[name].mean for name in environments) / len(environments), spread, n)
    else:
        cells.pop(average, None)
    return cells


def paired(ours: list[Selected], baseline: list[Selected], quantity: str) -> Cell | None:
    """Mean difference over the seeds that both have, and its standard error."""
    theirs = {one.seed: one.values for one in baseline}
    differences = [
        one.values[quantity] - theirs[one.seed][quantity]
        for one in ours
        if quantity in one.values and quantity in theirs.get(one.seed, {})
    ]
    if not differences:
        return None
    n = len(differences)
    return Cell(float(np.mean(differences)), float(np.std(differences, ddof=1) / math.sqrt(n)) if n > 1 else None, n)


def cost(runs: list[Run], of: Callable[[Run], float | None]) -> float | None:
    """The mean over runs, of those that have it."""
    values = [value for value in map(of, runs) if value is not None]
    return float(np.mean(values)) if values else None
