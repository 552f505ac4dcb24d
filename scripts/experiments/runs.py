"""The runs of the study and their files."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

from cim_plugin.wilds_runner.checkpoint import save_json

from . import search
from .rows import ROWS, References
from .tables import Results
from .tasks import Folders

N_PICTURES = 8  #: of masks


class Run(NamedTuple):
    """One training."""

    task: str
    row: str
    seed: int
    steps: int
    draw: int = 0  #: of the hyperparameters, see :mod:`search`; 0 is the default

    def file(self, folder: Path) -> Path:
        """Where its result is kept."""
        name = "".join(
            letter if letter.isalnum() or letter in "=." else "_" for letter in self.row.replace("λ", "lambda")
        )
        kind = f"steps_{self.steps}" if self.draw == 0 else f"steps_{self.steps}_draw_{self.draw}"
        return folder / kind / self.task / name / str(self.seed) / "results.json"


def needed(runs: list[Run]) -> list[Run]:
    """Those from which others take the mean of m, with default hyperparameters; to be done before the others."""
    return [
        run._replace(row=ROWS[run.row].changes["random_mask"], draw=0)
        for run in runs
        if "random_mask" in ROWS[run.row].changes
    ]


def train_one(run: Run, folders: Folders, output_dir: Path) -> None:
    """Train a row and keep its result."""
    from . import training

    row, mean = search.draw(ROWS[run.row], run.draw), None
    if "random_mask" in row.changes:
        (model,) = needed([run])
        mean = json.loads(model.file(output_dir).read_text())["mask_mean"]
    task = task_of(run.task, run.seed, folders)
    pseudo = pseudo_environments(run.task, run.seed, folders, row.references)
    save_json(str(run.file(output_dir)), {"row": run.row, **training.run(task, row, run.seed, run.steps, pseudo, mean)})


def masks_of(run: Run, folders: Folders) -> tuple[Any, Any]:
    """Train a row with a transformation network once more: the first test images (N, C, H, W) in [0, 1] and their m (N,
    1 or C, H, W).
    """
    import torch

    from . import training

    row = search.draw(ROWS[run.row], run.draw)
    task = task_of(run.task, run.seed, folders)
    pseudo = pseudo_environments(run.task, run.seed, folders, row.references)
    classifier, _, _ = training.fit(task, row, run.seed, training.number_of_steps(task, row, run.steps), pseudo)
    images = task.splits["test"].images[:N_PICTURES].float() / 255
    with torch.no_grad():
        return images, classifier.eval().morphing(images).mask


@functools.lru_cache(maxsize=2)
def task_of(name: str, seed: int, folders: Folders) -> Any:
    """The task; a process trains several rows on it."""
    import torch

    from .tasks import make_task

    torch.set_num_threads(1)
    return make_task(name, seed, folders)


@functools.lru_cache(maxsize=4)
def pseudo_environments(task: str, seed: int, folders: Folders, references: References) -> Any:
    """Those of the training and validation images, as :func:`training.pseudo_environments` finds them."""
    from . import training

    return training.pseudo_environments(task_of(task, seed, folders), seed, references)


def read(folder: Path, runs: list[Run]) -> Results:
    """The results of those runs that are done."""
    done = [(run, run.file(folder)) for run in runs]
    return {(run.task, run.row, run.seed): json.loads(file.read_text()) for run, file in done if file.exists()}


def chosen(folder: Path, searched: list[Run], rule: str) -> list[Run]:
    """Of every task, row and seed the draw with the best validation score at the evaluation that the rule chooses, the
    first of equals; none
    where a draw is missing."""
    cells: dict[Run, list[Run]] = {}
    for run in searched:
        cells.setdefault(run._replace(draw=0), []).append(run)

    def score(run: Run) -> float:
        return json.loads(run.file(folder).read_text())["selection"][rule]["score"]

    return [max(draws, key=score) for draws in cells.values() if all(run.file(folder).exists() for run in draws)]
