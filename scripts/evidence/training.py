"""The runs of a plan that are not done, so many at a time."""

from __future__ import annotations

import os
import sys
from typing import Any

from cim_plugin.progress import progress
from cim_plugin.runs import jobs

from . import figures_only, work
from .kept import OVERLAP
from .plan import REFERENCES, Plan, Run
from .rows import ROWS
from .settings import SEARCH_SEED


def train(plan: Plan, at_once: int, masks: bool) -> int:
    """Train what is not finished. Exit status 1 where a run failed.

    Args:
        masks: whether the release has masks of the birds, which overlap and the birds on black need.
    """
    if any(ROWS[name].figures_only for name in plan.rows):
        figures_only.make(plan.settings.root_dir, plan.figures)
    context, failed = work.context(), dict[str, str]()
    with progress(total=plan.size, unit="run", smoothing=0.1) as bar:
        for stage in plan.stages():
            failed |= _run(plan, stage, at_once, context, bar)
            if any(run.row == REFERENCES and plan.place(run) in failed for run in stage):
                break  # nothing of that seed can be trained
            if masks:
                failed |= _measure(plan, stage, at_once, context)
    for folder, how in failed.items():
        print(f"scripts.evidence: error: a run failed ({how}); {folder}/{work.ERRORS} says why", file=sys.stderr)
    return int(bool(failed))


def _run(plan: Plan, stage: list[Run], at_once: int, context: Any, bar: Any) -> dict[str, str]:
    """The runs of a stage that are not finished; those that failed, and how."""
    todo = [run for run in stage if plan.results(run) is None]
    bar.update(len(stage) - len(todo))
    waiting = [
        jobs.Job(plan.place(run), jobs.function(context, work.command, plan.words(run), plan.place(run)))
        for run in todo
    ]

    def say(job: jobs.Job, slot: jobs.Environment) -> None:
        bar.set_description(os.path.relpath(job.name, plan.folder))

    statuses = jobs.run(waiting, [{}] * at_once, started=say, ended=lambda job, status: bar.update())
    return jobs.failed(statuses)


def _measure(plan: Plan, stage: list[Run], at_once: int, context: Any) -> dict[str, str]:
    """The overlap of masks that is not known yet."""
    places = [
        plan.place(run)
        for run in stage
        if run.row in ROWS and ROWS[run.row].morphs and run.seed != SEARCH_SEED and plan.is_there(run)
    ]
    waiting = [
        jobs.Job(place, jobs.function(context, work.measure, place, plan.settings.root_dir))
        for place in places
        if not os.path.exists(os.path.join(place, OVERLAP))
    ]
    return jobs.failed(jobs.run(waiting, [{}] * at_once))
