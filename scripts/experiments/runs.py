"""The runs of the study, and where their results are kept."""

from __future__ import annotations

import functools
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, NamedTuple

from cim_plugin.errors import InputError
from cim_plugin.files import read_json, write_whole
from cim_plugin.runs import packed
from cim_plugin.runs.folder_lock import FolderLock, Locked
from cim_plugin.wilds_runner.checkpoint import save_json

from . import search
from .cross_fit import References
from .rows import ROWS
from .tables import Results
from .tasks import Folders


class Run(NamedTuple):
    """One training."""

    task: str
    row: str
    seed: int
    steps: int
    draw: int = 0  #: of the hyperparameters, see :mod:`search`; 0 is the default

    @property
    def name(self) -> str:
        """Of its folder."""
        row = "".join(
            letter if letter.isalnum() or letter in "=." else "_" for letter in self.row.replace("λ", "lambda")
        )
        kind = f"steps_{self.steps}" if self.draw == 0 else f"steps_{self.steps}_draw_{self.draw}"
        return f"{kind}/{self.task}/{row}/{self.seed}"

    def file(self, folder: Path) -> Path:
        """Where its result is until it is packed."""
        return folder / self.name / "results.json"


# --- results ----------------------------------------------------------------------------------------------------------


def result(folder: Path, run: Run) -> dict[str, Any] | None:
    """That of a run that is done: from a file of its own, or packed with others; None of one that is not done.

    Raises:
        InputError: the file of packed runs is damaged.
    """
    file = run.file(folder)
    return read_json(file) if file.exists() else _packed(folder).get(run.name)


def _packed(folder: Path) -> dict[str, Any]:
    file = folder / packed.NAME
    return _packed_at(file, file.stat().st_mtime_ns) if file.exists() else {}


@functools.lru_cache(maxsize=1)
def _packed_at(file: Path, changed: int) -> dict[str, Any]:
    return packed.read(str(file))


def pack(folder: Path) -> int:
    """Put the results that have files of their own into the one of all, and remove those files; their number.

    Raises:
        InputError: the file of packed runs is damaged, or cannot be written.
    """
    files = {str(file.parent.relative_to(folder)): file for file in folder.glob("steps_*/*/*/*/results.json")}
    if files:
        runs = {**_packed(folder), **{name: read_json(file) for name, file in files.items()}}
        write_whole(str(folder / packed.NAME), packed.pack(runs))
    for file in files.values():
        file.unlink()
        for empty in list(file.parents)[:4]:
            if not any(empty.iterdir()):
                empty.rmdir()
    return len(files)


def read(folder: Path, runs: list[Run]) -> Results:
    """The results of those runs that are done."""
    found = {(run.task, run.row, run.seed): result(folder, run) for run in runs}
    return {key: of_run for key, of_run in found.items() if of_run is not None}


def chosen(folder: Path, searched: list[Run], rule: str) -> list[Run]:
    """Of every task, row and seed the draw with the best validation score at the evaluation that the rule chooses, the
    first of equals; none where a draw is missing.
    """
    cells: dict[Run, list[Run]] = {}
    for run in searched:
        cells.setdefault(run._replace(draw=0), []).append(run)
    best = []
    for draws in cells.values():
        found = [result(folder, run) for run in draws]
        if None not in found:
            scores = [of_draw["selection"][rule]["score"] for of_draw in found]
            best.append(draws[scores.index(max(scores))])
    return best


# --- trainings --------------------------------------------------------------------------------------------------------

Work = Callable[[Run, Folders], dict[str, Any]]  #: (run, data) -> what is kept of it


class OnStandardError:
    """What is wrong with an input goes into the log of a process that has no queue to the one that asks."""

    def put(self, text: str) -> None:
        print(f"error: {text}", file=sys.stderr)

    def empty(self) -> bool:
        return True


def take(work: Work, runs: list[Run], folders: Folders, output_dir: Path, wrong: Any) -> None:
    """Do the runs that are not done and that no other process is at: several processes share them out so.

    Goes on after a run that failed, and then ends with exit status 1; 2 where an input is wrong.

    Args:
        wrong: a queue of multiprocessing, or what takes its place, for what is wrong with an input.
    """
    failed = 0
    for run in runs:
        try:
            with FolderLock(str(output_dir / run.name), "--output_dir"):
                if result(output_dir, run) is None:
                    save_json(str(run.file(output_dir)), work(run, folders))
        except Locked:
            continue
        except InputError as error:
            wrong.put(str(error))
            sys.exit(2)
        except Exception:
            print(f"{run} failed:\n{traceback.format_exc()}", file=sys.stderr)
            failed = 1
    sys.exit(failed)


def train(run: Run, folders: Folders) -> dict[str, Any]:
    """The result of a run."""
    from . import training

    row, pseudo = search.draw(ROWS[run.row], run.draw), None
    if row.references is not None:
        pseudo = pseudo_environments(run.task, run.seed, folders, row.references)
    task = task_of(run.task, run.seed, folders)
    return {"row": run.row, **training.run(task, row, run.seed, run.steps, pseudo)}


@functools.lru_cache(maxsize=2)
def task_of(name: str, seed: int, folders: Folders) -> Any:
    """The task; a process trains several rows on it."""
    import torch

    from .tasks import make_task

    torch.set_num_threads(1)
    return make_task(name, seed, folders)


@functools.lru_cache(maxsize=4)
def pseudo_environments(task: str, seed: int, folders: Folders, references: References) -> Any:
    """Those of the training images, as :func:`training.pseudo_environments` finds them."""
    from . import training

    return training.pseudo_environments(task_of(task, seed, folders), seed, references)
