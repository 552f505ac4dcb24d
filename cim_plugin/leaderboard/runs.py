"""Finished runs of ``cim-plugin train``, and whether they make a submission together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..files import read_json
from ..runs.layout import RESULTS, place, prediction_file
from .rules import Board, board_of, broken, differing, numbers

TEST_RULE = "oracle"  #: it chooses by test data


class Run(NamedTuple):
    """A finished run, as its results.json has it."""

    folder: Path
    results: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        return self.results["config"]

    @property
    def replicate(self) -> str:
        return f"seed:{self.results['seed']}"

    def prediction(self, rule: str, split: str) -> Path:
        """Where ``cim-plugin train`` puts the predictions of a rule."""
        folder, word = place(str(self.folder), rule)
        return Path(folder, prediction_file(self.results["dataset"], self.results["seed"], split, word))


def find_runs(given: str) -> list[Path]:
    """The run in a folder, or those in its subfolders.

    Raises:
        InputError: there is none.
    """
    folder = Path(given).expanduser()
    if folder.resolve().parts[-2:] == ("selection", TEST_RULE):
        raise InputError(
            f"{given} is of the rule {TEST_RULE!r}, which chooses the epoch by test data; pass the run's folder"
        )
    if (folder / RESULTS).is_file():
        return [folder]
    found = sorted(file.parent for file in folder.glob(f"*/{RESULTS}"))
    if not found:
        raise InputError(
            f"{given} holds no {RESULTS}, neither itself nor in its subfolders; it is no finished run of 'cim-plugin "
            f"train'"
        )
    return found


def read_run(folder: Path) -> Run:
    """A run's results.json.

    Raises:
        InputError: it is not one.
    """
    path = folder / RESULTS
    results = read_json(path)
    if not _is_results(results):
        raise InputError(f"{path} is not the results.json of 'cim-plugin train'")
    return Run(folder, results)


def _is_results(results: dict[str, Any]) -> bool:
    types = {"dataset": str, "algorithm": str, "seed": int, "config": dict, "selection": dict}
    if not all(isinstance(results.get(name), kind) for name, kind in types.items()):
        return False
    chosen = results["selection"].values()
    same = results["config"].get("dataset") == results["dataset"]
    return same and all(isinstance(choice, dict) and {"epoch", "rule", "splits"} <= choice.keys() for choice in chosen)


def check_runs(runs: list[Run], rule: str) -> tuple[str, Board]:
    """All that results.json can show; the data set and its board.

    Raises:
        InputError: the runs do not make a submission; the line names the runs and the reason.
    """
    first = runs[0]
    dataset = first.results["dataset"]
    board = board_of(dataset)
    for run in runs:
        _check_run(run, rule)
    for run in runs:
        differences = differing(first.config, run.config)
        if differences:
            raise InputError(f"{first.folder} and {run.folder} have different configurations: {'; '.join(differences)}")
    by_seed: dict[str, Path] = {}
    for run in runs:
        if run.replicate in by_seed:
            raise InputError(f"{by_seed[run.replicate]} and {run.folder} are both of {run.replicate}; pass one of them")
        if run.replicate not in board.replicates:
            raise InputError(
                f"{run.folder} is of {run.replicate}; {dataset} needs {numbers(board.replicates)} and no other"
            )
        by_seed[run.replicate] = run.folder
    missing = [replicate for replicate in board.replicates if replicate not in by_seed]
    if missing:
        raise InputError(f"there is no run of {', '.join(missing)}; {dataset} needs {numbers(board.replicates)}")
    return dataset, board


def _check_run(run: Run, rule: str) -> None:
    results = run.results
    if results.get("status") != "finished":
        raise InputError(
            f"{run.folder} is not finished (epoch {results.get('epochs')} of {run.config.get('n_epochs')}); go on with "
            f"--resume"
        )
    if results.get("synthetic") is not False:
        raise InputError(f"{run.folder} was trained on synthetic data of 'cim-plugin data demo'")
    if rule == TEST_RULE:
        raise InputError(f"--rule {rule} chooses the epoch by test data; the leaderboard allows validation data only")
    if rule not in results["selection"]:
        raise InputError(
            f"--rule {rule} is none of {run.folder}; it has "
            f"{', '.join(name for name in results['selection'] if name != TEST_RULE)}"
        )
    wrong = broken(run.config)
    if wrong:
        raise InputError(f"{run.folder} breaks the leaderboard's rules: {'; '.join(wrong)}")
