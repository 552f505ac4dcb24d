"""The study's tables: mean ± std over seeds and the paired difference with its 95% interval."""

from __future__ import annotations

import math
import statistics
from typing import Any, Iterable

from scipy import stats

Results = dict[tuple[str, str, int], dict[str, Any]]  #: (task, row, seed) -> results.json


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
    """Paired over the seeds that both have: mean difference and half of its interval (t distribution), NaN for one
    seed; None without any.
    """
    paired = [values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())]
    if not paired:
        return None
    if len(paired) == 1:
        return paired[0], math.nan
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


def table(results: Results, task: str, rows: Iterable[str], against: Iterable[str], rule: str) -> str:
    """Markdown: a line per row that has results, differences in worst-group accuracy to the rows of ``against``."""
    heads = [
        "row",
        "seeds",
        "average",
        "worst group",
        *(f"worst group - {other}" for other in against),
        "m on figure, ground",
        "s/run",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        worst = values_of(results, task, row, rule)
        if not worst:
            continue
        seconds = statistics.mean(
            result["seconds"]["run"] for (t, r, _), result in results.items() if (t, r) == (task, row)
        )
        short = sum(
            result["steps"] < result["config"]["steps"]
            for (t, r, _), result in results.items()
            if (t, r) == (task, row)
        )
        cells = [
            row,
            f"{len(worst)}{f', {short} diverged' if short else ''}",
            spread(values_of(results, task, row, rule, "accuracy").values()),
            spread(worst.values()),
        ]
        cells += [difference(worst, values_of(results, task, other, rule)) if other != row else "" for other in against]
        cells.append(masks([result for (t, r, _), result in results.items() if (t, r) == (task, row)]))
        lines.append("| " + " | ".join([*cells, f"{seconds:.0f}"]) + " |")
    return "\n".join(lines)


def summary(results: Results, tasks: Iterable[str], rows: Iterable[str], against: Iterable[str], rule: str) -> str:
    """Markdown: rows against tasks, the test worst group and in brackets its difference to the first row of ``against``
    that the task has; a line per row that has results.
    """
    tasks = list(tasks)
    others = [next((row for row in against if values_of(results, task, row, rule)), None) for task in tasks]
    lines = ["| row | " + " | ".join(tasks) + " |", "|---|" + "---|" * len(tasks)]
    for row in rows:
        of_tasks = [values_of(results, task, row, rule) for task in tasks]
        gains = [
            difference(values, values_of(results, task, other, rule)) if other not in (row, None) else ""
            for values, task, other in zip(of_tasks, tasks, others)
        ]
        if any(of_tasks):
            cells = [
                spread(values.values()) + (f" ({gain})" if gain else "") if values else ""
                for values, gain in zip(of_tasks, gains)
            ]
            lines.append("| " + " | ".join([row, *cells]) + " |")
    return "\n".join(lines)


def references(results: Results, task: str, rows: Iterable[str]) -> str:
    """Markdown: a line per row, how good its pseudo-environments of the training images are; "" where that is not
    known.
    """
    lines = []
    for row in rows:
        found = [
            result["pseudo_environments"]
            for (t, r, _), result in results.items()
            if (t, r) == (task, row) and result["config"]["environments"] == "cross_fit"
        ]
        if found and found[0]:
            of_rare, of_flagged = (
                statistics.mean(100 * of_seed[name] for of_seed in found) for name in ("rare_found", "found_are_rare")
            )
            lines.append(
                f"- {row}: {of_rare:.0f}% of the rare images are found, {of_flagged:.0f}% of what is flagged is rare"
            )
    return "\n".join(lines)


def masks(results: list[dict[str, Any]]) -> str:
    """The mean of m where the digit is and where it is not, or of all where that is not known, at the end of training;
    "" for a row without masks.
    """
    names = ("mask_on_figure", "mask_on_ground") if "mask_on_figure" in results[0] else ("mask_mean",)
    return ", ".join(
        f"{statistics.mean(result[name] for result in results):.2f}" for name in names if name in results[0]
    )


def draws_table(by_draw: list[Results], chosen: Results, task: str, rows: Iterable[str], rule: str) -> str:
    """Markdown: the test worst group of every row's draws of hyperparameters, how many seeds chose a draw, and what was
    drawn beside the learning rate.

    Args:
        by_draw: all results of draw 0, 1, ...
        chosen: those of the draws that were chosen.
    """
    found = {
        row: [
            {seed: result for (t, r, seed), result in results.items() if (t, r) == (task, row)} for results in by_draw
        ]
        for row in rows
    }
    found = {row: of_draws for row, of_draws in found.items() if all(of_draws)}
    configs = {
        row: [next(iter(of_seeds.values()))["config"] for of_seeds in of_draws] for row, of_draws in found.items()
    }
    rates = [sorted({of_row[number]["lr"] for of_row in configs.values()}) for number in range(len(by_draw))]
    lines = [
        "| row | "
        + " | ".join(f"draw {n}: lr {', '.join(f'{rate:g}' for rate in of_draw)}" for n, of_draw in enumerate(rates))
        + " |",
        "|" + "---|" * (len(by_draw) + 1),
    ]
    drawn = []
    for row, of_draws in found.items():
        cells = [row]
        for of_seeds in of_draws:
            n_chosen = sum(chosen.get((task, row, seed)) == result for seed, result in of_seeds.items())
            cells.append(
                spread(test_value(result, rule, "worst_group") for result in of_seeds.values()) + f" ({n_chosen})"
            )
        lines.append("| " + " | ".join(cells) + " |")
        values = [config["hyperparameters"] for config in configs[row]]
        changed = [
            f"{n}: "
            + ", ".join(f"{name} {value:.3g}" for name, value in of_draw.items() if values[0].get(name) != value)
            for n, of_draw in enumerate(values)
            if of_draw != values[0]
        ]
        drawn += [f"- {row}: {'; '.join(changed)}"] if changed else []
    return "\n".join([*lines, *(["", *drawn] if drawn else [])])
