"""``scripts/study``: does CIM help, and what of it? Trains every row on every task and seed that is not done, and prints the tables.

Every finished run is a file under --output_dir; running the command again goes on, or extends the study.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from pathlib import Path

from rows import MAIN, ROWS
from runs import path, read, train_one
from tables import Results, table
from tasks import TASKS, mnist_folder
from tqdm import tqdm

from cim_plugin.errors import InputError

RULES = ("worst_pseudo_group", "average", "worst_class", "worst_group", "last", "oracle")
AGAINST = ("ERM", "ERM, balanced by cross-fit")
QUICK = {"steps": 2, "seeds": 1, "tasks": ["photos_95"]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/study", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="tasks to train on")
    parser.add_argument("--rows", nargs="+", default=list(MAIN), help="rows by name; 'main', 'ablations', or names")
    parser.add_argument("--seeds", type=int, default=5, help="runs per row, with seeds 0, 1, ...")
    parser.add_argument("--steps", type=int, default=1000, help="training steps of every run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, one thread each")
    parser.add_argument("--mnist", type=Path, default=mnist_folder(), help="folder of MNIST's four .gz files")
    parser.add_argument("--output_dir", type=Path, default=Path("docs/study"), help="a file per finished run")
    parser.add_argument("--rule", choices=RULES, default=RULES[0], help="selection rule of the tables; all are kept")
    parser.add_argument("--tables", action="store_true", help="only print the tables of what is done")
    parser.add_argument("--quick", action="store_true", help="a few steps of every main row on one task: shows that everything runs")
    args = parser.parse_args()
    if args.quick:
        vars(args).update(QUICK)
        args.output_dir = args.output_dir / "quick"
    try:
        rows = chosen_rows(args.rows)
        if not args.tables:
            train(args, rows)
    except InputError as error:
        print(f"study: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("study: stopped; finished runs are kept, the same command goes on", file=sys.stderr)
        return 130
    print_tables(read(args.output_dir, args.steps), args.tasks, rows, args.rule)
    return 0


def chosen_rows(words: list[str]) -> list[str]:
    groups = {"main": list(MAIN), "ablations": [name for name in ROWS if name not in MAIN]}
    rows = [name for word in words for name in groups.get(word, [word])]
    for name in rows:
        if name not in ROWS:
            raise InputError(f"row {name!r} is unknown; choose 'main', 'ablations', or from: {'; '.join(ROWS)}")
    return rows


def train(args: argparse.Namespace, rows: list[str]) -> None:
    """Train what is not done, on all cores."""
    runs = [(task, seed, row) for seed in range(args.seeds) for task in args.tasks for row in rows]
    left = [(*run, args.steps, args.mnist, args.output_dir) for run in runs if not path(args.output_dir, run[0], run[2], run[1], args.steps).exists()]
    if not left:
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(min(args.jobs, len(left))) as pool, tqdm(total=len(left), unit="run", dynamic_ncols=True) as bar:
        for name in pool.imap_unordered(train_one, left):
            bar.set_postfix_str(name)
            bar.update()


def print_tables(results: Results, tasks: list[str], rows: list[str], rule: str) -> None:
    for task in tasks:
        print(f"\n### {task}\n\nTest accuracy in %, mean ± std over seeds, selected by {rule}; differences are paired, with their 95% interval.\n")
        print(table(results, task, rows, AGAINST, rule))


if __name__ == "__main__":
    sys.exit(main())
