"""``scripts/study``: does CIM help, and what of it? Trains every row on every task and seed that is not done, and
prints the tables.

Every finished run is a file under --output_dir; running the command again goes on, or extends the study; --pack puts
these files into one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from typing import Callable, Sequence

import torch

from cim_plugin.errors import InputError, exit_status
from cim_plugin.flags import Parser, whole
from cim_plugin.progress import progress
from cim_plugin.runs import jobs, packed
from cim_plugin.runs.cluster import settings as cluster
from cim_plugin.runs.cluster.launcher import runner
from cim_plugin.runs.jobs import Job

from .experiments.docs_page import refresh
from .experiments.figures import draw_curves, draw_differences, draw_masks
from .experiments.rows import GROUPS, ROWS, References
from .experiments.runs import OnStandardError, Run, Work, chosen, masks, needed, pack, read, result, take, train
from .experiments.search import LEARNING_RATES
from .experiments.tables import Results, draws_table, references, summary, table
from .experiments.tasks import MAIN_TASKS, TASKS, Folders, beside, mnist_folder
from .experiments.training import RULES

AGAINST = ("ERM", "ERM, balanced")
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
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=MAIN_TASKS, help="tasks to train on")
    parser.add_argument("--rows", nargs="+", default=["main"], help=f"rows: {', '.join(GROUPS)}, or names")
    parser.add_argument(
        "--against", nargs="+", default=list(AGAINST), help="rows by name, whose paired differences the tables show"
    )
    parser.add_argument(
        "--seeds", type=whole(1, 1000), default=5, help=f"runs per row, with seeds {FIRST_SEED}, {FIRST_SEED + 1}, ..."
    )
    parser.add_argument("--steps", type=whole(1), default=1000, help="training steps of every run")
    parser.add_argument(
        "--search",
        type=whole(1, 1000),
        default=1,
        help="draws of hyperparameters per row, task and seed, of which the best by --rule on validation data counts; "
        "1: the defaults",
    )
    parser.add_argument(
        "--draw",
        type=whole(0, 1000),
        help="this draw only, whose learning rate is the same for all rows, instead of a choice; counted from 0",
    )
    parser.add_argument("--jobs", type=whole(1, 1024), default=os.cpu_count(), help="processes, one thread each")
    cluster.add_arguments(parser)
    parser.add_argument("--mnist", type=Path, default=mnist_folder(), help="folder of MNIST's four .gz files")
    parser.add_argument(
        "--pacs", type=Path, default=beside("PACS"), help="folder of PACS's domains, with ../weights of a SqueezeNet"
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("docs/study"),
        help=f"holds {packed.NAME}, and a file per run since then",
    )
    parser.add_argument(
        "--pack", action="store_true", help=f"only put the files of finished runs into {packed.NAME}, and remove them"
    )
    parser.add_argument(
        "--rule", choices=RULES, default=next(iter(RULES)), help="selection rule of the tables; all are kept"
    )
    parser.add_argument("--tables", action="store_true", help="only print the tables of what is done")
    parser.add_argument(
        "--summary",
        action="store_true",
        help="one table for all tasks, with the difference to the first of --against that a task has",
    )
    parser.add_argument(
        "--page",
        nargs="+",
        type=Path,
        help="pages of the docs, whose tables are written anew: what every line `scripts/study --tables ...`: in them "
        "prints; trains nothing",
    )
    parser.add_argument("--curves", type=Path, help="a folder for a picture of each task's curves")
    parser.add_argument(
        "--differences",
        type=Path,
        help="a file for a picture of the tables' differences, to the first row of --against that a task has",
    )
    parser.add_argument(
        "--masks",
        type=Path,
        help=f"a folder for a picture of each task's masks: rows of CIM are trained once more with seed {FIRST_SEED}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few steps of every main row on one task: shows that everything runs"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    if args.pack:
        print(f"{pack(args.output_dir)} runs packed into {args.output_dir / packed.NAME}")
    elif args.page:
        for page in args.page:
            refresh(
                page,
                lambda words: study_and_tables(
                    make_parser().parse_args([*words, "--tables", "--output_dir", str(args.output_dir)])
                ),
            )
    else:
        print(study_and_tables(args))
    return 0


def study_and_tables(args: argparse.Namespace) -> str:
    """Train what is missing, draw the pictures that are asked for, and say the tables."""
    if args.search > 1 and args.rule in ("last", "oracle"):
        raise InputError(
            f"--rule {args.rule} cannot choose hyperparameters on validation data; leave it or --search out"
        )
    if args.draw is not None and args.search > 1:
        raise InputError(f"--draw {args.draw} is one draw, counted from 0, without a choice; leave --search out")
    rows, args.against = known_rows(args.rows), known_rows(args.against)
    searched = study(args, list(dict.fromkeys([*rows, *args.against] if args.tables else rows)))
    runs = chosen(args.output_dir, searched, args.rule) if args.search > 1 else searched
    results = read(args.output_dir, runs)
    for task in args.tasks if args.curves else ():
        draw_curves(results, task, rows, args.curves / f"{task}.png")
    if args.differences:
        draw_differences(results, args.tasks, rows, args.against, args.rule, args.differences)
    if args.masks:
        first = [
            run
            for run in runs
            if run.seed == FIRST_SEED
            and run.row in rows
            and ROWS[run.row].algorithm.startswith("CIM")
            and not ROWS[run.row].past
        ]
        draw_masks_of(args, first)
    return tables(
        args,
        rows,
        results,
        [read(args.output_dir, [run for run in searched if run.draw == number]) for number in draws(args)],
    )


def draw_masks_of(args: argparse.Namespace, runs: list[Run]) -> None:
    """A picture per task."""
    with tempfile.TemporaryDirectory() as folder:
        do_missing(args, masks, runs, Path(folder))
        found = read(Path(folder), runs)
    for task in args.tasks:
        of_task = {row: made for (of, row, _), made in found.items() if of == task}
        if of_task:
            images = next(iter(of_task.values()))["images"]
            draw_masks(
                torch.tensor(images),
                {row: torch.tensor(made["masks"]) for row, made in of_task.items()},
                f"{task}, seed {FIRST_SEED}: x, and m of every row",
                args.masks / f"{task}.png",
            )


def draws(args: argparse.Namespace) -> Sequence[int]:
    """Their numbers."""
    return range(args.search) if args.draw is None else [args.draw]


def known_rows(words: list[str]) -> list[str]:
    rows = [name for word in words for name in GROUPS.get(word, [word])]
    for name in rows:
        if name not in ROWS:
            raise InputError(f"row {name!r} is unknown; choose {', '.join(GROUPS)}, or from: {'; '.join(ROWS)}")
    return rows


def study(args: argparse.Namespace, rows: list[str]) -> list[Run]:
    """All runs that are asked for; those that are not done are trained on all cores, first what other runs need.
    Rows of the past are not trained.
    """
    seeds = range(FIRST_SEED, FIRST_SEED + args.seeds)
    runs = [
        Run(task, row, seed, args.steps, number)
        for seed in seeds
        for number in draws(args)
        for task in args.tasks
        for row in rows
    ]
    trainable = [run for run in runs if not ROWS[run.row].past]
    if not args.tables and (past := [row for row in rows if ROWS[row].past]):
        print(f"not trained, as this version has no such option: {'; '.join(past)}", file=sys.stderr)
    for part in (needed(trainable), trainable):
        if not args.tables:
            do_missing(args, train, list(dict.fromkeys(part)), args.output_dir, runner(args, args.output_dir))
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


def tables(args: argparse.Namespace, rows: list[str], results: Results, by_draw: list[Results]) -> str:
    """Markdown: of every task that has results."""
    parts = [
        f"Test accuracy in %, mean ± std over seeds, selected by {args.rule}; differences are paired, with their 95% "
        f"interval."
    ]
    if args.draw is not None:
        parts[0] += (
            f" All rows at the learning rate {LEARNING_RATES[args.draw % len(LEARNING_RATES)]:g}, draw {args.draw}."
        )
    if args.search > 1:
        parts[0] += (
            f" Of every seed the draw of hyperparameters with the best {args.rule} on its validation data counts"
        )
        parts[0] += (
            "."
            if args.summary
            else "; below, the test worst group of every draw, and in brackets how many seeds chose it."
        )
    if args.summary:
        parts[0] += (
            f" Worst group, in brackets its difference to {' or '.join(args.against)}; {args.seeds} seeds at most."
        )
        return "\n\n".join([*parts, summary(results, args.tasks, rows, args.against, args.rule)])
    for task in args.tasks:
        if any((task, row) == (t, r) for t, r, _ in results for row in rows):
            parts += [f"### {task}", table(results, task, rows, args.against, args.rule)]
            by_references: dict[References, str] = {}
            for row in rows:
                if ROWS[row].environments == "cross_fit":
                    by_references.setdefault(ROWS[row].references, row)
            if len(by_references) > 1 and (lines := references(results, task, by_references.values())):
                parts.append(lines)
            if args.search > 1:
                parts.append(draws_table(by_draw, results, task, rows, args.rule))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
