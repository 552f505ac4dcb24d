"""``scripts/study``: does CIM help on small images? Trains every row on every task and seed that is not done, and
prints the table.

Every finished run is a file under --output_dir; running the command again goes on, or extends the study; --pack puts
these files into one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Callable

from cim_plugin.errors import InputError, exit_status
from cim_plugin.flags import Parser, whole
from cim_plugin.progress import progress
from cim_plugin.runs import jobs, packed
from cim_plugin.runs.cluster import settings as cluster
from cim_plugin.runs.cluster.launcher import runner
from cim_plugin.runs.jobs import Job

from .experiments.docs_page import refresh
from .experiments.figures import draw_differences
from .experiments.rows import GROUPS, ROWS
from .experiments.runs import OnStandardError, Run, Work, chosen, pack, read, result, take, train
from .experiments.tables import Results, differences, table
from .experiments.tasks import TABLE_TASKS, TASKS, Folders, beside, mnist_folder
from .experiments.training import RULES

FIRST_SEED = 10  #: of the tables; variants are tried out on seeds below
QUICK = {"steps": 2, "seeds": 1, "tasks": ["photos_95"]}


def main() -> int:
    return exit_status("scripts/study", command, "stopped; finished runs are kept, the same command goes on")


def command() -> int:
    """What the command line asks for."""
    args = make_parser().parse_args()
    if args.quick:
        vars(args).update(QUICK)
        args.output_dir = args.output_dir / "quick"
    return run(args)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="scripts/study", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TABLE_TASKS, help="tasks to train on")
    parser.add_argument("--rows", nargs="+", default=["table"], help=f"rows: {', '.join(GROUPS)}, or names")
    parser.add_argument(
        "--seeds", type=whole(1, 1000), default=5, help=f"runs per row, with seeds {FIRST_SEED}, {FIRST_SEED + 1}, ..."
    )
    parser.add_argument("--steps", type=whole(1), default=1000, help="training steps of every run")
    parser.add_argument(
        "--search",
        type=whole(1, 1000),
        default=2,
        help="draws of hyperparameters per row, task and seed, of which the best by --rule on validation data counts; "
        "1: the defaults",
    )
    parser.add_argument(
        "--rule", choices=RULES, default=next(iter(RULES)), help="selection rule of the tables; all are kept"
    )
    parser.add_argument("--jobs", type=whole(1, 1024), default=os.cpu_count(), help="processes, one thread each")
    cluster.add_arguments(parser)
    parser.add_argument("--mnist", type=Path, default=mnist_folder(), help="folder of MNIST's four .gz files")
    parser.add_argument(
        "--pacs", type=Path, default=beside("PACS"), help="folder of PACS's domains, for photos_98_many"
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("docs/study"),
        help=f"holds {packed.NAME}, and a file per run since then",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few steps of every row of the table on one task: shows that all runs"
    )
    done = parser.add_argument_group("of what is done; these train nothing")
    done.add_argument("--tables", action="store_true", help="print the table")
    done.add_argument(
        "--against", nargs="+", default=[], help="print every row's paired differences to these rows instead"
    )
    done.add_argument("--differences", type=Path, help="a file for a picture of the differences")
    done.add_argument(
        "--page", type=Path, help="a page of the docs, whose tables after a line `scripts/study --tables ...`: follow"
    )
    done.add_argument(
        "--pack", action="store_true", help=f"put the files of finished runs into {packed.NAME}, and remove them"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    if args.pack:
        print(f"{pack(args.output_dir)} runs packed into {args.output_dir / packed.NAME}")
    elif args.page:
        own = ["--tables", "--output_dir", str(args.output_dir)]
        refresh(args.page, lambda words: study_and_tables(make_parser().parse_args([*words, *own])))
    else:
        print(study_and_tables(args))
    return 0


def study_and_tables(args: argparse.Namespace) -> str:
    """Train what is missing, draw the picture that is asked for, and say the table or the differences."""
    if args.search > 1 and args.rule == "last":
        raise InputError("--rule last cannot choose hyperparameters on validation data; add --search 1")
    rows, against = known_rows(args.rows), known_rows(args.against)
    runs = study(args, list(dict.fromkeys([*rows, *against])))
    results = read(args.output_dir, chosen(args.output_dir, runs, args.rule) if args.search > 1 else runs)
    if args.differences:
        draw_differences(results, args.tasks, rows, against, args.rule, args.differences)
    return said(args, rows, against, results)


def known_rows(words: list[str]) -> list[str]:
    rows = [name for word in words for name in GROUPS.get(word, [word])]
    for name in rows:
        if name not in ROWS:
            raise InputError(f"row {name!r} is unknown; choose {', '.join(GROUPS)}, or from: {'; '.join(ROWS)}")
    return rows


def study(args: argparse.Namespace, rows: list[str]) -> list[Run]:
    """All runs that are asked for; those that are not done are trained on all cores."""
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    runs = [
        Run(task, row, seed, args.steps, number)
        for seed in seeds
        for number in range(args.search)
        for task in args.tasks
        for row in rows
    ]
    if not (args.tables or args.against or args.differences):
        do_missing(args, train, runs, args.output_dir, runner(args, args.output_dir))
    return runs


def do_missing(
    args: argparse.Namespace, work: Work, runs: list[Run], output_dir: Path, run: Callable[..., dict] = jobs.run
) -> None:
    """Do the runs that are not done, in --jobs processes that share them out, with a progress bar.

    Args:
        run: runs these processes, here or on a cluster.

    Raises:
        InputError: an input is wrong, or a run failed; the others are done.
    """
    runs = [run for run in runs if result(output_dir, run) is None]
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    wrong = context.SimpleQueue() if run is jobs.run else OnStandardError()
    job = jobs.function(context, take, work, runs, Folders(args.mnist, args.pacs), output_dir, wrong)
    with progress(total=len(runs), unit="run") as bar:

        def watch() -> None:
            bar.update(sum(run.file(output_dir).exists() for run in runs) - bar.n)

        n_jobs = min(args.jobs, len(runs))
        statuses = run([Job(f"process {n}", job) for n in range(n_jobs)], [{}] * n_jobs, watch=watch)
    if not wrong.empty():
        raise InputError(wrong.get())
    left = sum(result(output_dir, run) is None for run in runs)
    if failed := jobs.failed(statuses):
        why = next(iter(failed.values()))
        raise InputError(f"{left} of {len(runs)} runs are not done, some failed ({why}); the same command does them")
    if left:
        print(f"{left} of {len(runs)} runs are left to the command that is at them", file=sys.stderr)


def said(args: argparse.Namespace, rows: list[str], against: list[str], results: Results) -> str:
    """Markdown: the table, or the differences."""
    by = f"Of every seed the evaluation with the best {args.rule} on validation data counts"
    draws = f", of {args.search} draws of hyperparameters" if args.search > 1 else ""
    if against:
        head = "Worst group of the test in points, paired over seeds, with the 95% interval of the mean, not corrected."
        return f"{head} {by}{draws}.\n\n{differences(results, args.tasks, rows, against, args.rule)}"
    head = f"Worst group of the test in %, mean ± std over {args.seeds} seeds."
    return f"{head} {by}{draws}.\n\n{table(results, args.tasks, rows, args.rule)}"


if __name__ == "__main__":
    sys.exit(main())
