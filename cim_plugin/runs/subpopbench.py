"""SubpopBench's output folders: our own reading of its results.json, and its three ways of model selection.

Numbers are those of its ``collect_results``. SubpopBench need not be installed. Its results.json holds a JSON object a
line, one for every evaluation, where that of ``cim-plugin train`` is one object.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any, NamedTuple

from ..files import Unreadable, parse_json
from . import evaluations
from .record import Curve, Run, Selected, fraction, get, get_fraction, own_settings

RESULTS = "results.json"
#: the host writes these as it starts, before any result; their names together are no other host's
STARTED = frozenset({"args.json", "out.txt", "err.txt"})

RULES = {
    "worst_group": "worst-group accuracy on validation data, whose attributes are known "
    "(ValWorstAccAttributeYes of SubpopBench)",
    "worst_class": "worst-class accuracy on validation data, whose attributes are not known (ValWorstAccAttributeNo)",
    "oracle": "worst-group accuracy on TEST data (OracleWorstAcc): not a selection that may be reported",
}
DEFAULT_RULES = ("worst_group", "worst_class")
COLUMNS = ("average", "worst group", "mean of groups")
TEST = {"ImagenetBG": "mixed_rand", "Living17": "zs"}  #: data set -> the split that counts, where that is not "te"

#: arguments of the host's training script that change what is computed
COMPARED = (
    "train_attr",
    "steps",
    "checkpoint_freq",
    "image_arch",
    "cmnist_label_prob",
    "cmnist_attr_prob",
    "cmnist_spur_prob",
    "cmnist_flip_prob",
)


class Record(NamedTuple):
    """One line of results.json. Accuracies are fractions in [0, 1]."""

    step: int
    scores: dict[str, float]  #: rule -> what it maximises
    values: dict[str, float]  #: on the test split, by the names of :data:`COLUMNS`
    parts: dict[str, float]  #: on the test split, per group
    step_seconds: float | None
    memory_gib: float


class Measured(NamedTuple):
    """What selection needs of a run."""

    draw: int  #: number of the hyperparameter draw
    records: list[Record]


def is_run(files: set[str]) -> bool:
    """Whether a folder with these files was written by the host's training script."""
    return STARTED <= files


def read(folder: str) -> list[Run]:
    """The run of a folder.

    Raises:
        Unreadable: results.json is missing or damaged, but for the last line of a run that was killed.
    """
    path = os.path.join(folder, RESULTS)
    if not os.path.lexists(path):
        raise Unreadable(f"{folder}: incomplete, stopped before its first evaluation (no {RESULTS})")
    lines, done, _ = evaluations.whole_lines(path)
    numbered = [(number, parse_json(line, path, number)) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise Unreadable(f"{path}: incomplete, no evaluation yet")
    return [_run(folder, path, numbered, done)]


def _run(folder: str, path: str, numbered: list[tuple[int, dict[str, Any]]], done: bool) -> Run:
    where = f"{path}, line {numbered[0][0]}"
    arguments = get(numbered[0][1], "args", dict, where)
    algorithm, dataset = get(arguments, "algorithm", str, where), get(arguments, "dataset", str, where)
    records = [_record(record, dataset, f"{path}, line {number}") for number, record in numbered]
    overrides = evaluations.overrides(arguments, where)
    settings = own_settings(algorithm, overrides)
    seconds = [record.step_seconds for record in records if record.step_seconds is not None]
    memory = max(record.memory_gib for record in records)
    return Run(
        folder=folder,
        host="subpopbench",
        dataset=dataset,
        algorithm=algorithm,
        seed=get(arguments, "seed", int, where),
        settings=settings,
        flags={name: arguments[name] for name in COMPARED if name in arguments}
        | evaluations.host_flags(overrides, settings),
        circumstances={},
        synthetic=False,
        measured=Measured(get(arguments, "hparams_seed", int, where), records),
        unfinished=None if done else f"step {records[-1].step}",
        remarks=tuple(evaluations.restarts(folder, [record.step for record in records])),
        step_seconds=sum(seconds) / len(seconds) if seconds else None,
        memory={"GPU": memory * 2**30} if memory else {},  # the host says 0 where there is no GPU
    )


def _record(record: dict[str, Any], dataset: str, where: str) -> Record:
    split = TEST.get(dataset, "te")
    test, validation = get(record, split, dict, where), get(record, "va", dict, where)
    test_where = f"{where}: {split}"
    groups = get(test, "per_group", dict, test_where)
    worst = fraction(get(test, "min_group.accuracy", float, test_where), f"{test_where}: worst group")
    recalls = get(validation, "per_class", dict, f"{where}: va")
    return Record(
        step=get(record, "step", int, where),
        scores={
            "worst_group": get(validation, "min_group.accuracy", float, f"{where}: va"),
            "worst_class": min((get(recalls, f"{name}.recall", float, where) for name in recalls), default=0.0),
            "oracle": worst,
        },
        values={
            "average": fraction(get(test, "overall.accuracy", float, test_where), f"{test_where}: accuracy"),
            "worst group": worst,
            "mean of groups": get_fraction(test, "adjusted_accuracy", test_where),
        },
        parts={name: get_fraction(get(groups, name, dict, where), "accuracy", where) for name in groups},
        step_seconds=get(record, "step_time", float, where) if "step_time" in record else None,
        memory_gib=get(record, "mem_gb", float, where) if "mem_gb" in record else 0.0,
    )


def select(runs: list[Run], rule: str) -> tuple[list[Selected], list[str]]:
    """What a rule makes of the runs of one row, by seed, and what is to be said of it: of a draw of hyperparameters
    the first evaluation with the highest score, of equal draws the last, as collect_results has it.
    """
    by_seed: dict[int, dict[int, list[tuple[Run, Record]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        by_seed[run.seed][run.measured.draw] += [(run, record) for record in run.measured.records]
    found = []
    for seed in sorted(by_seed):
        draws = by_seed[seed]
        best = [max(draws[draw], key=lambda pair: pair[1].scores[rule]) for draw in sorted(draws)]
        run, record = max(reversed(best), key=lambda pair: pair[1].scores[rule])
        found.append(Selected(seed, record.values, record.parts, ((run, record.step),)))
    return found, evaluations.duplicates(
        runs, lambda run: (run.seed, run.measured.draw), lambda run: f"seed {run.seed}"
    )


def curve(run: Run) -> Curve:
    """Worst-group accuracy on validation data per step."""
    records = run.measured.records
    return Curve([record.step for record in records], [record.scores["worst_group"] for record in records])
