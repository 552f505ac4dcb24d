"""What DomainBed's output folders and those of hosts made after it have in common: a line of JSON per evaluation."""

from __future__ import annotations

import os
from typing import Any, Callable, Iterable

from ..files import parse_json, read_text
from .record import Run, check

DONE = "done"  #: a file of a run that has ended


def whole_lines(path: str) -> tuple[list[str], bool, bool]:
    """The lines of a run's results, whether the run has ended, and whether the last line was left out: a killed run may
    leave half a line; a whole one ends in a newline.
    """
    done = os.path.exists(os.path.join(os.path.dirname(path), DONE))
    lines = read_text(path).split("\n")
    cut = not done and bool(lines[-1])
    return lines[:-1] if cut else lines, done, cut


def overrides(arguments: dict[str, Any], where: str) -> dict[str, Any]:
    """What ``--hparams`` gave."""
    given = arguments.get("hparams")
    if not given:
        return {}
    return parse_json(check(given, str, f"{where}: field 'args.hparams'"), f"{where}: args.hparams")


def host_flags(given: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """What ``--hparams`` gave to the host's own hyperparameters, by their names among a run's flags."""
    return {f"hparams.{name}": value for name, value in given.items() if name not in settings}


def duplicates(runs: Iterable[Run], key: Callable[[Run], Any], what: Callable[[Run], str]) -> list[str]:
    """A remark on every run whose ``key`` one before it has, too: collect_results pools them, and so do we."""
    first: dict[Any, Run] = {}
    return [
        f"{what(run)} is there twice, pooled as in collect_results: {before.folder} and {run.folder}"
        for run in runs
        if (before := first.setdefault(key(run), run)) is not run
    ]


def restarts(folder: str, steps: list[int]) -> Iterable[str]:
    """A remark where a run was started more than once."""
    count = sum(later <= earlier for earlier, later in zip(steps, steps[1:]))
    if count:
        yield f"{folder} was started {count + 1} times; all its evaluations count, as in collect_results"
