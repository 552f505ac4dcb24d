"""``python -m scripts.evidence subgroups``: trains every row on every seed that is not done.

Started again, it goes on with what is missing. Docs: docs/evidence_protocol.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from cim_plugin.errors import InputError, exit_status
from cim_plugin.flags import Parser, whole
from cim_plugin.progress import progress
from cim_plugin.runs import jobs

from . import figures_only, work
from .plan import REFERENCES, Plan, Run
from .rows import ROWS, with_bases
from .settings import RATES, Settings


def main() -> int:
    """What the command line asks for; exit status 1 where a run failed."""
    args = make_parser().parse_args()
    plan = make_plan(args)
    return train(plan, args.at_once)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m scripts.evidence", description=__doc__)
    tables = parser.add_subparsers(dest="table", required=True, metavar="TABLE")
    subgroups = tables.add_parser(
        "subgroups", help="Waterbirds' layout", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    subgroups.add_argument("--root_dir", required=True, help="holds waterbirds_v1.0, any release of that layout")
    subgroups.add_argument("--weights", required=True, metavar="FILE", help="of mobilenetv2_100, trained on ImageNet")
    subgroups.add_argument("--output_dir", required=True, help="where everything is kept")
    subgroups.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    subgroups.add_argument("--seeds", type=whole(1, 100), default=5, help="runs per row, with seeds 0, 1, ...")
    subgroups.add_argument(
        "--search",
        type=whole(0, len(RATES)),
        default=len(RATES),
        help=f"how many of the rates {', '.join(f'{rate:g}' for rate in RATES)} are tried for every row; 0: the first",
    )
    subgroups.add_argument("--at_once", type=whole(1, 1024), default=os.cpu_count(), help="runs at the same time")
    subgroups.add_argument("--n_epochs", type=whole(1), default=Settings.n_epochs, help="of every run")
    subgroups.add_argument("--side", type=whole(32, 1024), default=Settings.side, help="of images, in pixels")
    subgroups.add_argument("--cross_fit", default=Settings.cross_fit, help="of the reference models, auto or steps")
    return parser


def make_plan(args: argparse.Namespace) -> Plan:
    """What is wanted, without the rows that need masks where there are none.

    Raises:
        InputError: there are no data, or no weights.
    """
    if not os.path.isfile(args.weights):
        raise InputError(f"--weights {args.weights} does not exist; name a state dict of mobilenetv2_100")
    root, folder = os.path.abspath(args.root_dir), os.path.abspath(args.output_dir)
    settings = Settings(root, os.path.abspath(args.weights), args.n_epochs, args.side, args.cross_fit)
    rows = with_bases(args.rows)
    why = figures_only.missing(root)
    if why is not None and any(ROWS[name].figures_only for name in rows):
        print(f"left out, as {why}: {', '.join(name for name in rows if ROWS[name].figures_only)}", file=sys.stderr)
        rows = [name for name in rows if not ROWS[name].figures_only]
    return Plan(settings, folder, rows, args.seeds, RATES[: max(1, args.search)])


def train(plan: Plan, at_once: int) -> int:
    """Train what is not finished. Exit status 1 where a run failed."""
    if any(ROWS[name].figures_only for name in plan.rows):
        figures_only.make(plan.settings.root_dir, plan.figures)
    context, failed = work.context(), dict[str, str]()
    with progress(total=plan.size, unit="run", smoothing=0.1) as bar:
        for stage in plan.stages():
            failed |= _run(plan, stage, at_once, context, bar)
            lost = [run for run in stage if run.row == REFERENCES and plan.place(run) in failed]
            if lost:
                break  # nothing of that seed can be trained
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


if __name__ == "__main__":
    sys.exit(exit_status("scripts.evidence", main, "stopped; finished runs are kept, the same command goes on"))
