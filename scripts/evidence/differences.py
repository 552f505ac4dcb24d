"""Paired differences of a family that was fixed beforehand, corrected by Holm."""

from __future__ import annotations

import math
from typing import Mapping, NamedTuple, Sequence

from scipy import stats

from ..experiments.tables import interval
from .comparisons import COMPARISONS, FEWEST_SEEDS

ALPHA = 0.05

Values = Mapping[str, dict[int, float]]  #: row -> seed -> % in the worst group of the test


class Difference(NamedTuple):
    """Of a row and what it is to be above."""

    row: str
    other: str
    seeds: int  #: that both have
    mean: float  #: points
    half: float | None  #: of the corrected interval; None of too few seeds

    @property
    def verdict(self) -> str:
        """What the protocol says of it."""
        if self.half is None:
            return ""
        return "above" if self.mean > self.half else "below" if self.mean < -self.half else "open"


def family(values: Values, comparisons: Sequence[tuple[str, str]] = COMPARISONS) -> list[Difference]:
    """The differences of which there are values, in order. All comparisons are tests of the family, also those without
    values.
    """
    paired = {pair: _paired(values.get(pair[0], {}), values.get(pair[1], {})) for pair in comparisons}
    tested = [pair for pair, found in paired.items() if len(found) >= FEWEST_SEEDS]
    levels = dict(zip(tested, holm([_p_value(paired[pair]) for pair in tested], len(comparisons))))
    found = []
    for (row, other), differences in paired.items():
        level = levels.get((row, other))
        of_pair = interval(values.get(row, {}), values.get(other, {}), 1 - (level or ALPHA))
        if of_pair is not None:
            found.append(Difference(row, other, len(differences), of_pair[0], None if level is None else of_pair[1]))
    return found


def holm(p_values: Sequence[float], n_tests: int, alpha: float = ALPHA) -> list[float]:
    """Of each test the level at which Holm's step looks at it, so that an interval of one minus that level excludes 0
    where, and only where, Holm rejects: alpha / (n_tests - k) of the k-th smallest, from the first on that is not
    rejected the level of that one.

    Args:
        p_values: of the tests that were made, of ``n_tests``.
    """
    levels, stopped = [0.0] * len(p_values), None
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        levels[place] = stopped or alpha / (n_tests - rank)
        if stopped is None and p_values[place] >= levels[place]:
            stopped = levels[place]
    return levels


def _paired(values: dict[int, float], others: dict[int, float]) -> list[float]:
    return [values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())]


def _p_value(differences: list[float]) -> float:
    """Two-sided, that the mean is 0; 0 and 1 where all are the same."""
    if len(set(differences)) == 1:
        return float(differences[0] == 0)
    found = float(stats.ttest_1samp(differences, 0).pvalue)
    return found if not math.isnan(found) else 1.0
