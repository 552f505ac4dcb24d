"""The study's table, mean ± std over seeds, and paired differences with their 95% interval."""

from __future__ import annotations

import math
import statistics
from typing import Any, Iterable

from scipy import stats

Results = dict[tuple[str, str, int], dict[str, Any]]  #: (task, row, seed) -> results.json
FEWEST_SEEDS = 3  #: of an interval


def test_value(result: dict[str, Any], rule: str, what: str) -> float:
    """Test accuracy in percent: ``what`` is "accuracy" or "worst_group", at the evaluation that the rule chooses."""
    split = result["selection"][rule]["splits"]["test"]
    return 100 * (split["metrics"]["acc_wg"] if what == "worst_group" else split["accuracy"])


def values_of(results: Results, task: str, row: str, rule: str, what: str = "worst_group") -> dict[int, float]:
    """Seed -> :func:`test_value`."""
    return {seed: test_value(result, rule, what) for (t, r, seed), result in results.items() if (t, r) == (task, row)}


def interval(
    values: dict[int, float], others: dict[int, float], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Paired over the seeds that both have: mean difference and half of its interval (t distribution), NaN for fewer
    than :data:`FEWEST_SEEDS`; None without any.
    """
    paired = [values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())]
    if not paired:
        return None
    if len(paired) < FEWEST_SEEDS:
        return statistics.mean(paired), math.nan
    return statistics.mean(paired), stats.t.ppf((1 + confidence) / 2, len(paired) - 1) * statistics.stdev(
        paired
    ) / math.sqrt(len(paired))


def difference(values: dict[int, float], others: dict[int, float]) -> str:
    """:func:`interval` in words; "" without any."""
    found = interval(values, others)
    if found is None:
        return ""
    mean, half = found
    return f"{mean:+.1f}" + ("" if math.isnan(half) else f" ± {half:.1f}")


def spread(values: Iterable[float]) -> str:
    values = list(values)
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def table(results: Results, tasks: Iterable[str], rows: Iterable[str], rule: str) -> str:
    """Markdown: rows against tasks, the worst group of the test; a line per row that has results."""
    tasks = list(tasks)
    lines = ["| row | " + " | ".join(tasks) + " |", "|---|" + "---|" * len(tasks)]
    for row in rows:
        of_tasks = [values_of(results, task, row, rule) for task in tasks]
        if any(of_tasks):
            cells = [spread(values.values()) if values else "" for values in of_tasks]
            lines.append("| " + " | ".join([row, *cells]) + " |")
    return "\n".join(lines)


def differences(results: Results, tasks: Iterable[str], rows: Iterable[str], against: Iterable[str], rule: str) -> str:
    """Markdown: a line per task and row, its :func:`difference` to every other row of ``against`` that the task has."""
    against, rows = list(against), list(rows)
    lines = []
    for task in tasks:
        others = {other: values_of(results, task, other, rule) for other in against}
        for row in rows:
            values = values_of(results, task, row, rule)
            said = {other: difference(values, others[other]) for other in against if other != row}
            if any(said.values()):
                words = "; ".join(f"{words} against {other}" for other, words in said.items() if words)
                lines.append(f"- {task}, {row}: {words}")
    return "\n".join(lines)
