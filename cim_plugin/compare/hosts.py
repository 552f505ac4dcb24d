"""In what the tables of the hosts differ."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from ..runs import domainbed_selection, subpopbench, train
from ..runs.record import Run, Selected
from .averages import Cell, over_seeds, over_trials, with_errors


class Host(NamedTuple):
    """A host's tables: what they hold, and how they are read."""

    name: str
    module: Any  #: with RULES, DEFAULT_RULES, select and curve
    parts_are: str
    seeds_are: str
    columns: Callable[[list[Run]], list[str]]
    gains: tuple[str, ...]  #: quantities whose difference to ERM is shown
    cells: Callable[[list[Selected], list[str]], dict[str, Cell]]
    splits_by_flags: bool  #: runs with different flags are different rows
    draws: bool  #: a seed may have several draws of hyperparameters
    notes: tuple[str, ...]


HOSTS = {
    "wilds": Host(
        "cim-plugin train",
        train,
        "group",
        "seed",
        lambda runs: _quantities(runs),
        ("average", "worst group"),
        over_seeds,
        True,
        False,
        (
            "Accuracies in %, on the test split: mean ± standard deviation (ddof=1) over seeds.",
            "The average is that of all test images alike, 'accuracy' in results.json.",
        ),
    ),
    "domainbed": Host(
        "DomainBed",
        domainbed_selection,
        "held-out environment",
        "trial",
        lambda runs: [*domainbed_selection.environments(runs), "average"],
        ("average",),
        over_trials,
        False,
        True,
        (
            "Accuracies in % on each held-out environment: mean ± standard error over trials, as collect_results "
            "prints them.",
            "The average is that of the environments' means; its error is that over trials.",
        ),
    ),
    "subpopbench": Host(
        "SubpopBench",
        subpopbench,
        "group",
        "seed",
        lambda runs: list(subpopbench.COLUMNS),
        ("average", "worst group"),
        with_errors,
        True,
        True,
        (
            "Accuracies in %, on the test split: mean ± standard error over seeds, as collect_results prints them.",
            "The mean of groups is what collect_results calls Adjusted.",
        ),
    ),
}


def _quantities(runs: list[Run]) -> list[str]:
    names = dict.fromkeys(("average", "worst group"))
    for run in runs:
        for chosen in run.measured.values():
            names |= dict.fromkeys(chosen["values"])
    present = {name for run in runs for chosen in run.measured.values() for name in chosen["values"]}
    return [name for name in names if name in present]


def known_rules() -> list[str]:
    """The names of all selection rules, of all hosts."""
    return list(dict.fromkeys(rule for host in HOSTS.values() for rule in host.module.RULES))
