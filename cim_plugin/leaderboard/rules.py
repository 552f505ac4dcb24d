"""What the WILDS leaderboard wants: which files, of which seeds, and what a run must not have changed.

Sources: the submission guidelines (https://wilds.stanford.edu/submit) and ``examples/evaluate.py`` of WILDS 2.0, which
reads submissions.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Any, Mapping, NamedTuple

from ..data.releases import RELEASES
from ..errors import InputError
from ..runs.configuration import MAY_DIFFER
from ..runs.defaults import DATASETS


@dataclass(frozen=True)
class Board:
    """The leaderboard of one data set."""

    splits: tuple[str, ...]  #: all but train, in the order of the wilds package
    replicates: tuple[str, ...]  #: "seed:0", ... or "fold:A", ...
    metrics: tuple[str, ...] = ()  #: what evaluate.py reports
    n_classes: int | None = (
        None  #: labels are 0 to n_classes - 1; None: predictions are no single labels and are not read
    )
    suffix: str = "csv"


def _seeds(count: int) -> tuple[str, ...]:
    return tuple(f"seed:{seed}" for seed in range(count))


_ID_AND_OOD = ("val", "test", "id_val", "id_test")

BOARDS = {
    "iwildcam": Board(("val", "test", "id_val", "id_test"), _seeds(3), ("F1-macro_all", "acc_avg"), 182),
    "camelyon17": Board(("id_val", "test", "val"), _seeds(10), ("acc_avg",), 2),
    "rxrx1": Board(("val", "test", "id_test"), _seeds(3), ("acc_avg",), 1139),
    "fmow": Board(("id_val", "id_test", "val", "test"), _seeds(3), ("acc_worst_region", "acc_avg"), 62),
    "amazon": Board(_ID_AND_OOD, _seeds(3)),
    "civilcomments": Board(("val", "test"), _seeds(5)),
    "globalwheat": Board(_ID_AND_OOD, _seeds(3), suffix="pth"),
    "ogb-molpcba": Board(("val", "test"), _seeds(3)),
    "poverty": Board(_ID_AND_OOD, tuple(f"fold:{fold}" for fold in "ABCDE")),
    "py150": Board(_ID_AND_OOD, _seeds(3)),
}
OURS = tuple(
    name for name, board in BOARDS.items() if board.n_classes is not None
)  #: what ``cim-plugin train`` can train


def board_of(dataset: str) -> Board:
    """The leaderboard of a data set on which we train.

    Raises:
        InputError: there is none.
    """
    if dataset not in BOARDS:
        raise InputError(f"{dataset!r} has no WILDS leaderboard; choose from {', '.join(OURS)}")
    if dataset not in OURS:
        raise InputError(
            f"{dataset!r} is not images of one label, cim-plugin does not train on it; choose from {', '.join(OURS)}"
        )
    return BOARDS[dataset]


def published_lengths(dataset: str) -> dict[str, int]:
    """Split -> number of images in the published release."""
    return RELEASES[dataset].counts


def numbers(replicates: tuple[str, ...]) -> str:
    """("seed:0", ..., "seed:9") in words."""
    kind = replicates[0].partition(":")[0]
    names = [replicate.partition(":")[2] for replicate in replicates]
    return f"{kind}s {names[0]} to {names[-1]}"


# --- names of files
# -----------------------------------------------------------------------------------------------------

NAMING = "<dataset>_split:<split>_seed:<n>_epoch:best_pred.csv"
_NAME = re.compile(
    r"(?P<dataset>[^_/]+)_split:(?P<split>.+?)_(?P<replicate>(?:seed|fold):(?:0|[1-9][0-9]*|[A-Z]))"
    r"_epoch:(?P<epoch>[^_]+)_pred\.(?P<suffix>csv|pth)"
)


class Named(NamedTuple):
    """What the name of a file of predictions says."""

    dataset: str
    split: str
    replicate: str
    epoch: str
    suffix: str


def parse_name(path: str) -> Named | None:
    """What the file's name says; None if it is not one of predictions."""
    found = _NAME.fullmatch(posixpath.basename(path))
    return Named(**found.groupdict()) if found else None


def file_name(dataset: str, split: str, replicate: str) -> str:
    """The name that the leaderboard wants."""
    return f"{dataset}_split:{split}_{replicate}_epoch:best_pred.{BOARDS[dataset].suffix}"


def wrong_in_name(name: Named) -> str | None:
    """Why this file has no place in a submission, in words; None if it has one."""
    board = BOARDS.get(name.dataset)
    if board is None:
        return f"data set {name.dataset!r} is not on the WILDS leaderboard; it has {', '.join(sorted(BOARDS))}"
    if name.split not in board.splits:
        return f"split {name.split!r} is not evaluated; {name.dataset} needs {', '.join(board.splits)}"
    if name.replicate not in board.replicates:
        taken = next(
            (
                f"; WILDS' evaluate.py may take it for {known}"
                for known in board.replicates
                if name.replicate.startswith(known)
            ),
            "",
        )
        return f"{name.replicate} is not among {numbers(board.replicates)} of {name.dataset}{taken}"
    if name.suffix != board.suffix:
        return f"the predictions of {name.dataset} are .{board.suffix} files, this is .{name.suffix}"
    return None


# --- configurations
# -----------------------------------------------------------------------------------------------------

#: flags that may differ between the seeds of one submission: where a run writes and what it logs, not what it computes
FREE = MAY_DIFFER | {"seed", "log_every", "save_step", "save_last", "no_group_logging"}


def fixed(dataset: str) -> dict[str, Any]:
    """Flag -> the only value that a submission may have."""
    defaults = DATASETS[dataset]
    return {
        "frac": 1.0,
        "split_scheme": "official",
        "dataset_kwargs": defaults.get("dataset_kwargs", {}),
        "val_metric": defaults["val_metric"],
        "val_metric_decreasing": defaults["val_metric_decreasing"],
        "evaluate_all_splits": True,
        "eval_only": False,
        "save_best": True,
        "save_pred": True,
    }


def broken(config: Mapping[str, Any]) -> list[str]:
    """The flags of a configuration that break a rule, in words."""
    wrong = [
        f"--{name} is {config.get(name)!r}, it must be {value!r}"
        for name, value in fixed(config["dataset"]).items()
        if config.get(name) != value
    ]
    newest = RELEASES[config["dataset"]].folder.partition("_v")[2]
    if config.get("version") not in (None, newest):
        wrong.append(f"--version is {config['version']!r}, it must be {newest!r}")
    return wrong


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The flags by which two configurations compute something else, in words."""
    names = [name for name in {**one, **other} if name not in FREE]
    return [f"--{name} {one.get(name)!r} and {other.get(name)!r}" for name in names if one.get(name) != other.get(name)]
