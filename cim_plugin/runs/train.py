"""Folders of ``cim-plugin train``: what results.json says, and the curves of val_eval.csv."""

from __future__ import annotations

import os
from typing import Any

from ..files import Unreadable, csv_lines, read_json, read_text
from . import defaults, rules
from .configuration import MAY_DIFFER, completed
from .layout import RESULTS, STATE
from .record import Curve, Run, Selected, check, fraction, get, own_settings

RULES = {name: str(rule) for name, rule in rules.RULES.items()}
DEFAULT_RULES = ("worst_group", "average")
WORST_GROUP = ("acc_wg", "acc_worst_region")  #: what the evaluators of the wilds package call worst-group accuracy
AVERAGES = ("acc_avg", "adj_acc_avg")  #: and what they call average accuracy
ADJUSTED = "adjusted average"
SPLIT = "test"

PSEUDO = ("cross_fit", "pseudo_environments")  #: flags of which each brings pseudo-environments
#: flags that do not change what is computed
BOOKKEEPING = MAY_DIFFER | {
    "dataset",
    "algorithm",
    "seed",
    "hyperparameters",
    "log_every",
    "no_group_logging",
    "save_step",
    "save_best",
    "save_last",
    "save_pred",
    "evaluate_all_splits",
    "eval_splits",
}


def is_run(files: set[str]) -> bool:
    """Whether a folder with these files was written by ``cim-plugin train``."""
    return bool(files & {RESULTS, STATE})


def read(folder: str) -> list[Run]:
    """The run of a folder.

    Raises:
        Unreadable: results.json is missing, damaged, or of something else.
    """
    path = os.path.join(folder, RESULTS)
    if not os.path.lexists(path):
        raise Unreadable(f"{folder}: incomplete, stopped before the end of its first epoch (no {RESULTS})")
    return [run_of(read_json(path), folder)]


def run_of(record: dict[str, Any], folder: str, is_packed: bool = False) -> Run:
    """The run that a results.json tells of.

    Args:
        folder: where it is; only a name where it ``is_packed``.

    Raises:
        Unreadable: the record is of something else, or lacks something.
    """
    path = folder if is_packed else os.path.join(folder, RESULTS)
    config = get(record, "config", dict, path)
    algorithm = get(record, "algorithm", str, path)
    status = get(record, "status", str, path)
    epochs, wanted = get(record, "epochs", int, path), get(config, "n_epochs", int, path)
    chosen = get(record, "selection", dict, path)
    steps, seconds = get(record, "steps", int, path), get(record, "seconds", dict, path)
    return Run(
        folder=folder,
        host="wilds",
        dataset=get(record, "dataset", str, path),
        algorithm=algorithm,
        seed=get(record, "seed", int, path),
        settings=own_settings(algorithm, get(config, "hyperparameters", dict, path)),
        flags=_flags(algorithm, config),
        circumstances=_circumstances(record, path),
        synthetic=get(record, "synthetic", bool, path),
        measured={
            rule: _chosen(get(chosen, rule, dict, path), f"{path}: selection.{rule}", config)
            for rule in chosen
            if rule in RULES
        },
        unfinished=None if status == "finished" else f"epoch {epochs} of {wanted}",
        remarks=_remarks(record, config),
        step_seconds=get(record, "seconds.train", float, path) / steps if steps and "train" in seconds else None,
        memory=_memory(get(record, "peak_memory_bytes", dict, path), path),
        is_packed=is_packed,
    )


def _remarks(record: dict[str, Any], config: dict[str, Any]) -> tuple[str, ...]:
    parts = (f"--frac {config['frac']}: a part of every split only",) if config.get("frac", 1) != 1 else ()
    retrained = record.get("retrain")
    if not isinstance(retrained, dict):
        return parts
    return (*parts, f"the head was fitted to validation data, and needs {retrained.get('needs')}")


def _flags(algorithm: str, config: dict[str, Any]) -> dict[str, Any]:
    """Without what follows from the algorithm: group DRO samples its groups equally often, and is still compared with
    ERM.
    """
    implied = {"distinct_groups": None, **defaults.ALGORITHMS.get(algorithm, defaults.ALGORITHMS[None])}
    return {
        name: value
        for name, value in completed(config).items()
        if name not in BOOKKEEPING and not (name in implied and value == implied[name])
    }


def _circumstances(record: dict[str, Any], path: str) -> dict[str, str]:
    versions = get(record, "versions", dict, path)
    return {
        "device": str(record.get("device")),
        **{f"version of {name}": str(version) for name, version in versions.items()},
    }


def _memory(record: dict[str, Any], path: str) -> dict[str, float]:
    names = {"gpu": "GPU", "resident": "host"}
    found = {
        names[key]: check(value, float, f"{path}: field 'peak_memory_bytes.{key}'")
        for key, value in record.items()
        if key in names
    }
    return dict([next(iter(sorted(found.items())))]) if found else {}  # the GPU's where there is one


def _chosen(record: dict[str, Any], where: str, config: dict[str, Any]) -> dict[str, Any]:
    """The epoch, and of the test split the columns' values and the groups' accuracies; empty where the split was not
    evaluated.
    """
    epoch, splits = get(record, "epoch", int, where), get(record, "splits", dict, where)
    if SPLIT not in splits:
        return {"epoch": epoch, "values": {}, "parts": {}}
    where = f"{where}.splits.{SPLIT}"
    metrics, groups = get(splits, f"{SPLIT}.metrics", dict, where), get(splits, f"{SPLIT}.groups", dict, where)
    values = {"average": fraction(get(splits, f"{SPLIT}.accuracy", float, where), f"{where}: field 'accuracy'")}
    for name in WORST_GROUP:
        if name in metrics:
            values["worst group"] = fraction(metrics[name], f"{where}: metric {name!r}")
    if "adj_acc_avg" in metrics:
        values[ADJUSTED] = fraction(metrics["adj_acc_avg"], f"{where}: metric 'adj_acc_avg'")
    special = config.get("val_metric")
    if isinstance(special, str) and special in metrics and special not in (*WORST_GROUP, *AVERAGES):
        values[special] = check(metrics[special], float, f"{where}: metric {special!r}")
    parts = {
        name: fraction(get(groups, name, dict, where).get("accuracy"), f"{where}: group {name!r}") for name in groups
    }
    return {"epoch": epoch, "values": values, "parts": parts}


def select(runs: list[Run], rule: str) -> tuple[list[Selected], list[str]]:
    """What a rule makes of the runs of one row, by seed, and what is to be said of it. Of runs with one seed the first
    counts.
    """
    found: dict[int, Selected] = {}
    used: dict[int, Run] = {}
    marks = []
    for run in runs:
        chosen = run.measured.get(rule)
        if run.seed in used:
            same = "the same" if chosen == used[run.seed].measured.get(rule) else "other"
            marks.append(
                f"seed {run.seed} is there twice: {used[run.seed].folder} counts, {run.folder} does not ({same} "
                f"numbers)"
            )
            continue
        used[run.seed] = run
        if chosen is None and rule == "worst_pseudo_group" and not any(map(run.flags.get, PSEUDO)):
            marks.append(f"seed {run.seed} has no pseudo-groups, it was trained without --cross_fit: {run.folder}")
        elif chosen is None:
            marks.append(
                f"seed {run.seed} failed: {rule} chose no epoch (its score was never a number) in {run.folder}"
            )
        elif not chosen["values"]:
            marks.append(f"seed {run.seed} has no evaluation of the {SPLIT} split in {run.folder}")
        else:
            found[run.seed] = Selected(run.seed, chosen["values"], chosen["parts"], ((run, chosen["epoch"]),))
    return [found[seed] for seed in sorted(found)], marks


def curve(run: Run) -> Curve:
    """Worst-group accuracy on validation data per epoch, average accuracy where the evaluator has no groups.

    Raises:
        Unreadable: val_eval.csv is missing or damaged.
    """
    if run.is_packed:
        raise Unreadable(f"{run.folder}: packed, without val_eval.csv")
    path = os.path.join(run.folder, "val_eval.csv")
    (_, header), *rows = [*csv_lines(read_text(path), path)] or [(1, [])]
    name = next((name for name in (*WORST_GROUP, *AVERAGES) if name in header), None)
    if name is None or "epoch" not in header:
        raise Unreadable(f"{path}, line 1: no column epoch, or none of {', '.join((*WORST_GROUP, *AVERAGES))}")
    line = Curve([], [])
    for number, row in rows:
        try:
            epoch, value = int(row[header.index("epoch")]), float(row[header.index(name)])
        except (IndexError, ValueError) as error:
            raise Unreadable(f"{path}, line {number}: cut or damaged") from error
        line.x.append(check(epoch, int, f"{path}, line {number}: epoch"))
        line.y.append(fraction(value, f"{path}, line {number}: {name}"))
    return line
