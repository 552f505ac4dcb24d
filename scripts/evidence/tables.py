"""The tables of the evidence on subgroups, as Markdown."""

from __future__ import annotations

from statistics import mean
from typing import Any, Callable

from ..experiments.tables import interval, spread, test_value
from .comparisons import COMPARISONS, FEWEST_SEEDS, OF_HEADS, POSTER, Pairs
from .differences import Difference, Values, family
from .plan import Plan, Run
from .rows import ROWS
from .settings import RULE, SEARCH_SEED

Found = dict[str, dict[int, dict[str, Any]]]  #: row -> seed -> results.json
GROUPS_RULE = "worst_group"


def found(plan: Plan) -> Found:
    """What is done of the runs that tables report."""
    every = [run for seed in plan.all_seeds for kind in (False, True) for run in plan.of_seed(seed, kind)]
    results = {run: plan.results(run) for run in every}
    return {
        name: {run.seed: result for run, result in results.items() if run.row == name and result is not None}
        for name in plan.rows
    }


def values(of_seeds: dict[int, dict[str, Any]], rule: str, what: str = "worst_group") -> dict[int, float]:
    """Seed -> test accuracy in %, at the epoch that the rule chose."""
    return {seed: test_value(result, rule, what) for seed, result in of_seeds.items() if rule in result["selection"]}


def worst(results: Found, rule: str = RULE) -> dict[str, dict[int, float]]:
    """Row -> seed -> % in the worst group."""
    return {name: values(of_seeds, rule) for name, of_seeds in results.items()}


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def says(name: str) -> str:
    """A row in words, with what it looks at that others do not."""
    row = ROWS[name]
    mark = " (uses labels of groups)" if row.uses_groups else " (uses the release's masks)" if row.figures_only else ""
    return row.says + mark


# --- the tables -------------------------------------------------------------------------------------------------------


def accuracies(plan: Plan, results: Found, rule: str = RULE) -> str:
    """Worst group and average, mean ± std over seeds."""
    rows = []
    for name, of_seeds in results.items():
        of_row = values(of_seeds, rule)
        if of_row:
            average = values(of_seeds, rule, "accuracy")
            rows.append([says(name), str(len(of_row)), spread(of_row.values()), spread(average.values())])
    by = "labels of groups of validation data" if rule == GROUPS_RULE else "no label of a group"
    lead = f"Test accuracy in %, mean ± std over seeds; the epoch is chosen by `{rule}`, which looks at {by}."
    return f"{lead}\n\n{markdown(['row', 'seeds', 'worst group', 'average'], rows)}"


def by_groups(plan: Plan, results: Found) -> str:
    """The same, chosen by labels of groups of validation data."""
    return accuracies(plan, results, GROUPS_RULE)


def differences(plan: Plan, results: Found, comparisons: Pairs = COMPARISONS) -> str:
    """The comparisons that were fixed beforehand."""
    lead = (
        "Worst group in points, paired over seeds, with Student's t intervals; the family of "
        f"{len(comparisons)} is corrected by Holm at 5%. Fewer than {FEWEST_SEEDS} seeds have no interval."
    )
    return f"{lead}\n\n{compared(worst(results), comparisons, says)}"


def compared(values: Values, comparisons: Pairs, named: Callable[[str], str] = str, unit: str = "seeds") -> str:
    """A line per difference of a family."""
    rows = [
        [f"{named(one.row)} − {named(one.other)}", str(one.seeds), f"{one.mean:+.1f}", bounds(one), one.verdict]
        for one in family(values, comparisons)
    ]
    return markdown(["comparison", unit, "difference", "interval", "it is"], rows)


def heads(plan: Plan, results: Found) -> str:
    """Those of heads on larger images."""
    return differences(plan, results, OF_HEADS)


def bounds(one: Difference) -> str:
    return "" if one.half is None else f"{one.mean - one.half:+.1f} to {one.mean + one.half:+.1f}"


def poster(plan: Plan, results: Found) -> str:
    """The poster's claims of Waterbirds beside what is seen here."""
    rows = []
    for one in family(worst(results)):
        theirs = _of_poster(one.row, one.other)
        if theirs is not None or one.other.endswith("-0"):
            cells = ["not given", ""] if theirs is None else [f"{theirs:+.1f}", f"{one.mean - theirs:+.1f}"]
            rows.append([f"{says(one.row)} above {says(one.other)}", cells[0], f"{one.mean:+.1f}", cells[1]])
    lead = (
        "Worst group of the test, differences in points. The poster's are of Waterbirds and of a network of its own; "
        "here it is another data set and another network."
    )
    return f"{lead}\n\n{markdown(['claim', 'poster', 'here', 'difference'], rows)}"


def _of_poster(row: str, other: str) -> float | None:
    return POSTER[row] - POSTER[other] if row in POSTER and other in POSTER else None


def overlap(plan: Plan, results: Found) -> str:
    """Overlap of m with the birds, and whether m finds them."""
    rows = []
    for name, of_seeds in results.items():
        of_row = {seed: result["overlap"] for seed, result in of_seeds.items() if "overlap" in result}
        if of_row:
            area = {seed: one["auc"] for seed, one in of_row.items()}
            rows.append(
                [says(name), str(len(of_row)), *(_three(of_row, key) for key in ("on_bird", "off_bird", "auc"))]
            )
            rows[-1].append(_above_chance(area))
    lead = (
        f"m on validation images, of the epoch that `{RULE}` chose: its mean on the bird and off it by the release's "
        "masks, and the AUC of m for pixels of the bird, over images; mean ± std over seeds. The last column is the "
        "95% interval of the AUC's mean over seeds."
    )
    if not rows:
        return "Overlap of m is left out: no run has it, or the release has no masks."
    return f"{lead}\n\n{markdown(['row', 'seeds', 'm on the bird', 'off it', 'AUC', 'AUC, interval'], rows)}"


def _three(of_row: dict[int, dict[str, float]], key: str) -> str:
    """Mean ± std with three digits."""
    middle, _, std = spread(1000 * one[key] for one in of_row.values()).partition(" ± ")
    return f"{float(middle) / 1000:.3f}" + (f" ± {float(std) / 1000:.3f}" if std else "")


def _above_chance(area: dict[int, float]) -> str:
    if len(area) < FEWEST_SEEDS:
        return ""
    middle, half = interval(area, dict.fromkeys(area, 0.0)) or (0.0, 0.0)
    return f"{middle - half:.3f} to {middle + half:.3f}"


def search(plan: Plan, results: Found) -> str:
    """What the search has seen on validation data, and what it chose."""
    rows = []
    for name in plan.rows:
        if ROWS[name].retrain is None:
            scores = [plan.score(Run(name, SEARCH_SEED, rate)) for rate in plan.rates]
            chosen = plan.rate(name)
            cells = ["" if score is None else f"{100 * score:.1f}" for score in scores]
            rows.append([says(name), *cells, "" if chosen is None else f"{chosen:g}"])
    lead = (
        f"`{RULE}` on validation data in %, seed {SEARCH_SEED}, by learning rate; the best counts, of equals the first."
    )
    return f"{lead}\n\n{markdown(['row', *(f'{rate:g}' for rate in plan.rates), 'taken'], rows)}"


def cost(plan: Plan, results: Found) -> str:
    """Seconds of a run, and of all of them, by the machine that made them."""
    runs = [result for of_seeds in results.values() for result in of_seeds.values()]
    rows = [
        [says(name), str(len(of_seeds)), f"{mean(map(_seconds, of_seeds.values())):.0f}"]
        for name, of_seeds in results.items()
        if of_seeds
    ]
    hours = sum(map(_seconds, runs)) / 3600
    machines = sorted({result["machine"] for result in runs if "machine" in result})
    lead = (
        f"Seconds of a run by the clock, mean over seeds, beside other runs; {hours:.1f} hours "
        f"of these runs in all, without the search and the reference models. {'; '.join(machines)}"
    )
    return f"{lead.strip()}\n\n{markdown(['row', 'seeds', 'seconds'], rows)}"


def _seconds(result: dict[str, Any]) -> float:
    return sum(result["seconds"].values())


#: what ``--tables`` can print
TABLES: dict[str, Callable[[Plan, Found], str]] = {
    "accuracies": accuracies,
    "by_groups": by_groups,
    "differences": differences,
    "heads": heads,
    "poster": poster,
    "overlap": overlap,
    "search": search,
    "cost": cost,
}
