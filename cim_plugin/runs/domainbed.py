"""DomainBed's output folders: our own reading of results.jsonl. DomainBed need not be installed."""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections import defaultdict
from typing import Any, Iterable, NamedTuple

import numpy as np

from ..files import Unreadable
from . import evaluations, json_lines
from .record import Run, check, get, get_fraction, own_settings

RESULTS = "results.jsonl"

#: arguments of the host's training script that change what is computed
COMPARED = ("task", "steps", "checkpoint_freq", "holdout_fraction", "uda_holdout_fraction")


class Record(NamedTuple):
    """One line of results.jsonl. Accuracies are fractions in [0, 1], one per environment."""

    step: int
    inside: list[float]  #: on the part that is trained on where the environment is
    outside: list[float]  #: on the held-out part
    step_seconds: float | None
    memory_gib: float


class Measured(NamedTuple):
    """What selection needs of a run."""

    held_out: tuple[int, ...]  #: the environments that were not trained on
    draw: int  #: number of the hyperparameter draw
    records: list[Record]


def is_run(files: set[str]) -> bool:
    """Whether a folder with these files was written by the host's training script."""
    return RESULTS in files


def read(folder: str) -> list[Run]:
    """The runs whose records are in a folder: one, unless runs with different arguments shared it.

    Raises:
        Unreadable: results.jsonl is damaged, but for the last line of a run that was killed.
    """
    path = os.path.join(folder, RESULTS)
    lines, done, cut = evaluations.whole_lines(path)
    families: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for line in json_lines.lines(lines, path):
        families[line.arguments].append((line.number, line.record))
    if not families:
        raise Unreadable(
            f"{path}: incomplete, killed while the first evaluation was written"
            if cut
            else f"{path}: incomplete, no evaluation yet"
        )
    return [_run(folder, path, numbered, done, len(families)) for numbered in families.values()]


def _run(folder: str, path: str, numbered: list[tuple[int, dict[str, Any]]], done: bool, sharing: int) -> Run:
    where = f"{path}, line {numbered[0][0]}"
    arguments = numbered[0][1]["args"]
    algorithm = get(arguments, "algorithm", str, where)
    dataset = get(arguments, "dataset", str, where)
    records = [_record(record, f"{path}, line {number}") for number, record in numbered]
    held_out = tuple(
        check(number, int, f"{where}: field 'args.test_envs'") for number in get(arguments, "test_envs", list, where)
    )
    n_environments = len(records[0].inside)
    if any(len(record.inside) != n_environments for record in records):
        raise Unreadable(f"{path}: its lines have different numbers of environments")
    if not 0 < len(set(held_out)) == len(held_out) < n_environments or not set(held_out) < set(range(n_environments)):
        expected = f"some, not all, of the environments 0 to {n_environments - 1} are expected, once each"
        raise Unreadable(f"{where}: field 'args.test_envs' is {list(held_out)}; {expected}")
    overrides = evaluations.overrides(arguments, where)
    settings = own_settings(algorithm, overrides)
    steps = [record.step for record in records]
    bad = _not_finite(numbered)
    timed = [record for record in records if record.step_seconds is not None]
    memory = max(record.memory_gib for record in records)
    return Run(
        folder=folder,
        host="domainbed",
        dataset=dataset,
        algorithm=algorithm,
        seed=get(arguments, "trial_seed", int, where),
        settings=settings,
        flags={name: arguments.get(name) for name in COMPARED} | evaluations.host_flags(overrides, settings),
        circumstances={},
        synthetic=dataset.startswith("Debug"),
        measured=Measured(held_out, get(arguments, "hparams_seed", int, where), records),
        unfinished=_unfinished(arguments, steps[-1], bad, done),
        remarks=tuple(_remarks(folder, bad, steps, sharing)),
        step_seconds=_step_seconds(timed) if timed else None,
        memory={"GPU": memory * 2**30} if memory else {},  # the host says 0 where there is no GPU
    )


def _unfinished(arguments: dict[str, Any], step: int, bad: tuple[int, dict[str, Any]] | None, done: bool) -> str | None:
    """Why the figures of a run are not those of a whole training, if they are not."""
    if bad is not None:
        return f"the loss is not finite at step {bad[1]['step']}"
    if done:
        return None
    of = f" of {arguments['steps'] - 1}" if isinstance(arguments.get("steps"), int) else ""
    return f"step {step}{of}"


def _not_finite(numbered: list[tuple[int, dict[str, Any]]]) -> tuple[int, dict[str, Any]] | None:
    """The first record that holds a loss, or a part of one, that is NaN or infinite."""
    for number, record in numbered:
        if not all(map(math.isfinite, [value for value in record.values() if type(value) is float])):
            return number, record
    return None


def _remarks(folder: str, bad: tuple[int, dict[str, Any]] | None, steps: list[int], sharing: int) -> Iterable[str]:
    if sharing > 1:
        yield (
            f"{folder} holds {sharing} runs with different arguments; its file 'done' does not tell which of them "
            f"finished"
        )
    yield from evaluations.restarts(folder, steps)
    if bad is not None:
        yield f"the loss of {folder} is not a number at line {bad[0]} of {RESULTS}"


@functools.cache
def _accuracies(environment: int) -> tuple[str, str]:
    """The names of its two accuracies: on the part that may be trained on, and on the held-out one."""
    return f"env{environment}_in_acc", f"env{environment}_out_acc"


def _record(record: dict[str, Any], where: str) -> Record:
    inside, outside = [], []
    for first, second in map(_accuracies, itertools.count()):
        if first not in record:
            break
        inside.append(get_fraction(record, first, where))
        outside.append(get_fraction(record, second, where))
    if not inside:
        raise Unreadable(f"{where}: field 'env0_in_acc' is missing")
    seconds = get(record, "step_time", float, where) if "step_time" in record else None
    memory = get(record, "mem_gb", float, where) if "mem_gb" in record else 0.0
    step = get(record, "step", int, where)
    if step < 0:
        raise Unreadable(f"{where}: field 'step' is {step}, not a step from 0 on")
    return Record(step, inside, outside, seconds, memory)


def _step_seconds(records: list[Record]) -> float:
    """The mean over all steps: a record holds the mean since the one before."""
    steps = [record.step for record in records]
    counts = [later - earlier if later > earlier else later + 1 for earlier, later in zip([-1, *steps], steps)]
    seconds, weights = np.array([record.step_seconds for record in records]), np.array(counts, float)
    return float((seconds * weights).sum() / weights.sum())
