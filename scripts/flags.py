"""``python -m scripts.flags``: which images do the reference models of ``--cross_fit`` flag? Precision and recall by
group, before and after their draws became balanced and their steps chosen, on five tasks.

Every finished cell is kept in a file per task under --output_dir; running the command again goes on.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import torch

from cim_plugin.algorithms.pseudo_environments import MODELS
from cim_plugin.algorithms.reference_models import ReferenceModels, balanced_draws
from cim_plugin.errors import exit_status
from cim_plugin.files import read_json
from cim_plugin.flags import Parser, whole
from cim_plugin.progress import progress
from cim_plugin.wilds_runner.checkpoint import save_json

from .experiments.cross_fit import References, find_pseudo_environments
from .experiments.flag_tasks import FLAG_TASKS, FlagTask
from .experiments.flipping import FlippingModels
from .experiments.tasks import Folders, beside, mnist_folder


def uniform_draws(labels: torch.Tensor, rows: torch.Tensor, shape: tuple[int, ...], generator) -> torch.Tensor:
    """Every row equally often, as reference models drew up to version 0.2."""
    return rows[torch.randint(len(rows), shape, generator=generator)]


#: row -> steps, draws, models
ROWS: dict[str, tuple[int | None, Any, Any]] = {
    "uniform, 300 steps": (300, uniform_draws, ReferenceModels),
    "balanced, 300 steps": (300, balanced_draws, ReferenceModels),
    "balanced, auto": (None, balanced_draws, ReferenceModels),
    "balanced, flipping, 300 steps": (300, balanced_draws, FlippingModels),
}


def main() -> int:
    return exit_status("scripts.flags", command, "stopped; finished cells are kept, the same command goes on")


def command() -> int:
    """What the command line asks for."""
    args = make_parser().parse_args()
    torch.set_num_threads(1)
    if not args.tables:
        fill(args, FLAG_TASKS)
    print("\n\n".join(table(task, _read(args.output_dir, task), args.seeds) for task in args.tasks))
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="scripts.flags", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=FLAG_TASKS, default=list(FLAG_TASKS), help="tasks")
    parser.add_argument("--seeds", type=whole(1, 1000), default=5, help="seeds 0, 1, ...")
    parser.add_argument("--models", type=whole(1, 100), default=2, help=f"per half; cim-plugin train has {MODELS}")
    parser.add_argument("--batch_size", type=whole(1), default=32, help="images per step")
    parser.add_argument("--mnist", type=Path, default=mnist_folder(), help="folder of MNIST's four .gz files")
    parser.add_argument(
        "--pacs", type=Path, default=beside("PACS"), help="folder of PACS, beside waterbirds_rebuilt and weights"
    )
    parser.add_argument("--output_dir", type=Path, default=Path("docs/study/flags"), help="holds a file per task")
    parser.add_argument("--tables", action="store_true", help="only print the tables of what is done")
    return parser


def _read(folder: Path, task: str) -> dict[str, Any]:
    file = folder / f"{task}.json"
    return read_json(file) if file.exists() else {}


def fill(args: argparse.Namespace, tasks: dict[str, Callable]) -> None:
    """Do the cells that are missing, seed by seed."""
    folders = Folders(args.mnist, args.pacs)
    cells = [(seed, task, row) for seed in range(args.seeds) for task in args.tasks for row in ROWS]
    for seed, task, row in progress(cells, unit="cell"):
        name, done = f"{row}, seed {seed}", _read(args.output_dir, task)
        if name not in done:
            found = measure(tasks[task](folders, seed), row, args.models, args.batch_size, seed)
            save_json(str(args.output_dir / f"{task}.json"), {**done, name: found})


def measure(task: FlagTask, row: str, models: int, batch: int, seed: int) -> dict[str, Any]:
    """Of every group how many training images it has and how many of them are flagged."""
    steps, draws, make_references = ROWS[row]
    start = time.process_time()
    found = find_pseudo_environments(
        task.make_model,
        task.images["train"],
        task.labels["train"],
        task.images["val"],
        task.labels["val"],
        References(steps, models=models, tiles=task.tiles, batch=batch),
        seed,
        draws,
        make_references,
    )
    flagged = found.train != task.labels["train"]
    groups = 2 * task.labels["train"] + task.environments
    return {
        "steps": found.steps,
        "curve": [list(look) for look in found.curve],
        "count": torch.bincount(groups, minlength=4).tolist(),
        "flagged": torch.bincount(groups[flagged], minlength=4).tolist(),
        "groups": list(task.groups),
        "models": models,
        "batch_size": batch,
        "seconds": round(time.process_time() - start, 1),
    }


def table(task: str, cells: dict[str, Any], seeds: int) -> str:
    """Markdown: the flagged share of every group, and the share of the rare group among the flagged of its class."""
    by_row = {row: [cells[name] for seed in range(seeds) if (name := f"{row}, seed {seed}") in cells] for row in ROWS}
    by_row = {row: of_row for row, of_row in by_row.items() if of_row}
    if not by_row:
        return f"### {task}\n\nnothing is done yet"
    first = next(iter(by_row.values()))[0]
    rare = [min(pair, key=lambda group: first["count"][group]) for pair in ((0, 1), (2, 3))]
    titles = [f"{name} ({count:,})" for name, count in zip(first["groups"], first["count"])]
    titles += [f"flagged that are {first['groups'][group]}" for group in rare]
    lines = [f"| {task} | seeds | steps | {' | '.join(titles)} |", "|---" * (len(titles) + 3) + "|"]
    for row, of_row in by_row.items():
        steps = sorted({cell["steps"] for cell in of_row})
        shown = str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
        shares = [_mean_and_spread(list(values)) for values in zip(*(_shares(cell, rare) for cell in of_row))]
        lines.append(f"| {row} | {len(of_row)} | {shown} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _shares(cell: dict[str, Any], rare: list[int]) -> Iterator[float]:
    """In %; the recall of every group, and the precision of the rare ones."""
    for count, flagged in zip(cell["count"], cell["flagged"]):
        yield 100 * flagged / count
    for group in rare:
        of_class = cell["flagged"][group] + cell["flagged"][group ^ 1]
        yield 100 * cell["flagged"][group] / of_class if of_class else 0.0


def _mean_and_spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.0f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.0f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
