"""The runs of the study and their files."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from rows import ROWS
from tables import Results

from cim_plugin.errors import InputError
from cim_plugin.wilds_runner.checkpoint import save_json


def path(folder: Path, task: str, row: str, seed: int, steps: int) -> Path:
    """The file of a run."""
    name = "".join(letter if letter.isalnum() or letter in "=." else "_" for letter in row.replace("λ", "lambda"))
    return folder / f"steps_{steps}" / task / name / str(seed) / "results.json"


def train_one(run: tuple[str, int, str, int, Path, Path]) -> str:
    """Train a row and keep its result."""
    import training

    task_name, seed, name, steps, mnist, folder = run
    row, mean = ROWS[name], None
    if "random_mask" in row.changes:
        model = path(folder, task_name, row.changes["random_mask"], seed, steps)
        if not model.exists():
            raise InputError(f"row {name!r} takes its mean from {row.changes['random_mask']!r} on {task_name} with seed {seed}; train that first")
        mean = json.loads(model.read_text())["mask_mean"]
    task, pseudo = prepared(task_name, seed, mnist)
    save_json(str(path(folder, task_name, name, seed, steps)), {"row": name, **training.run(task, row, seed, steps, pseudo, mean)})
    return f"{task_name}, seed {seed}: {name}"


@functools.lru_cache(maxsize=2)
def prepared(task_name: str, seed: int, mnist: Path) -> tuple[Any, Any]:
    """A task and the pseudo-environments of its training images; a process trains several rows on them."""
    import torch
    import training
    from tasks import make_task

    torch.set_num_threads(1)
    task = make_task(task_name, seed, mnist)
    return task, training.pseudo_environments(task, seed)


def read(folder: Path, steps: int) -> Results:
    """All finished runs of so many steps."""
    results = [json.loads(file.read_text()) for file in sorted((folder / f"steps_{steps}").glob("*/*/*/results.json"))]
    return {(result["dataset"], result["row"], result["seed"]): result for result in results}
