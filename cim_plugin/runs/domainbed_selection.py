"""DomainBed's three ways of model selection, on what :mod:`.domainbed_runs` has read.

Numbers are those of its ``collect_results``, to the last digit that it prints
(Gulrajani and Lopez-Paz, "In Search of Lost Domain Generalization", arXiv:2007.01434, section 3).
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from . import evaluations
from .domainbed import Record
from .record import Curve, Run, Selected

RULES = {
    "training_domain": "training-domain validation: highest mean accuracy on held-out parts of the training "
    "environments",
    "leave_one_out": "leave-one-domain-out cross-validation over the training environments",
    "oracle": "held-out part of the TEST environment, last step: not a selection that may be reported",
}
DEFAULT_RULES = tuple(RULES)

#: how the host's tables call its environments
ENVIRONMENTS = {
    "ColoredMNIST": ("+90%", "+80%", "-90%"),
    "DebugDigitsOnPhotos": ("+90%", "+80%", "-90%"),
    "RotatedMNIST": ("0", "15", "30", "45", "60", "75"),
    "VLCS": ("C", "L", "S", "V"),
    "PACS": ("A", "C", "P", "S"),
    "DomainNet": ("clip", "info", "paint", "quick", "real", "sketch"),
    "OfficeHome": ("A", "C", "P", "R"),
    "TerraIncognita": ("L100", "L38", "L43", "L46"),
    "SVIRO": ("aclass", "escape", "hilux", "i3", "lexus", "tesla", "tiguan", "tucson", "x5", "zoe"),
}


class Chosen(NamedTuple):
    """A step of a run, or of a family of runs."""

    validation: float  #: what the rule maximises
    accuracy: float  #: on the held-out environment
    run: Run
    step: int


def _training_domain(runs: list[Run], target: int) -> Chosen | None:
    """The first step with the highest mean held-out accuracy of the training environments."""
    steps = [
        Chosen(validation, record.inside[target], run, record.step)
        for run in runs
        if run.measured.held_out == (target,)
        for validation, record in zip(_validation(run), run.measured.records)
    ]
    return max(steps, key=lambda chosen: chosen.validation, default=None)


def _validation(run: Run) -> list[float]:
    """Per evaluation, the mean accuracy on the held-out parts of the training environments."""
    outside = np.array([record.outside for record in run.measured.records])
    return np.delete(outside, run.measured.held_out, axis=1).mean(axis=1).tolist()


def _leave_one_out(runs: list[Run], target: int) -> Chosen | None:
    """The first step with the highest mean accuracy on the environments that were held out beside the target, one in
    each run.
    """
    alone: dict[int, list[tuple[Run, Record]]] = defaultdict(list)  # step -> with no other environment held out
    beside: dict[int, dict[int, float]] = defaultdict(dict)  # step -> other environment -> accuracy on it
    for run in runs:
        others = set(run.measured.held_out) - {target}
        for record in run.measured.records:
            if not others:
                alone[record.step].append((run, record))
            elif len(others) == 1:
                (other,) = others
                beside[record.step][other] = record.inside[other]
    candidates = []
    for step in sorted(alone):
        inside = beside[step]
        n_environments = len(alone[step][0][1].outside)
        if len(alone[step]) == 1 and len(inside) == n_environments - 1:
            run, record = alone[step][0]
            validation = np.sum([inside[number] for number in sorted(inside)]) / (n_environments - 1)
            candidates.append(Chosen(validation, record.inside[target], run, step))
    return max(candidates, key=lambda chosen: chosen.validation, default=None)


def _oracle(runs: list[Run], target: int) -> Chosen | None:
    """The last step: no early stopping."""
    steps = [
        (record.step, run, record)
        for run in runs
        if run.measured.held_out == (target,)
        for record in run.measured.records
    ]
    if not steps:
        return None
    step, run, record = sorted(steps, key=lambda entry: entry[0])[-1]
    return Chosen(record.outside[target], record.inside[target], run, step)


METHODS = {"training_domain": _training_domain, "leave_one_out": _leave_one_out, "oracle": _oracle}


def choose(runs: list[Run], rule: str, target: int) -> Chosen | None:
    """The best hyperparameter draw and step for a held-out environment, of the runs of one algorithm and trial; of
    equal draws the last.
    """
    draws = defaultdict(list)
    for run in runs:
        draws[run.measured.draw].append(run)
    chosen = [METHODS[rule](draws[draw], target) for draw in sorted(draws)]
    return max(reversed([one for one in chosen if one is not None]), key=lambda one: one.validation, default=None)


def environments(runs: list[Run]) -> tuple[str, ...]:
    """The names of a data set's environments."""
    n_environments = max(len(run.measured.records[0].inside) for run in runs)
    names = ENVIRONMENTS.get(runs[0].dataset, ())
    return names if len(names) == n_environments else tuple(f"env {number}" for number in range(n_environments))


def select(runs: list[Run], rule: str) -> tuple[list[Selected], list[str]]:
    """What a rule makes of the runs of one row, by trial seed, and what is to be said of it."""
    names = environments(runs)
    marks, found = _duplicates(runs), []
    for trial in sorted({run.seed for run in runs}):
        chosen = {}
        for target, name in enumerate(names):
            concerned = [run for run in runs if run.seed == trial and target in run.measured.held_out]
            one = choose(concerned, rule, target)
            if one is not None:
                chosen[name] = one
        if not chosen:
            continue
        accuracies = {name: one.accuracy for name, one in chosen.items()}
        average = {"average": float(np.mean(list(accuracies.values())))} if len(chosen) == len(names) else {}
        found.append(
            Selected(
                trial, {**accuracies, **average}, accuracies, tuple((one.run, one.step) for one in chosen.values())
            )
        )
        if not average:
            marks.append(f"trial {trial} lacks {', '.join(name for name in names if name not in chosen)}")
    return found, marks


def _duplicates(runs: list[Run]) -> list[str]:
    """Runs that differ at most in the seed of everything but data and hyperparameters."""
    return evaluations.duplicates(
        runs,
        lambda run: (run.seed, run.measured.held_out, run.measured.draw),
        lambda run: f"trial {run.seed} with environments {list(run.measured.held_out)} held out",
    )


def curve(run: Run) -> Curve:
    """Mean accuracy per step on the held-out parts of the training environments."""
    return Curve([record.step for record in run.measured.records], _validation(run))
