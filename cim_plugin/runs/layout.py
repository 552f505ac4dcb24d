"""The names of the files that a run of ``cim-plugin train`` leaves: those of WILDS' ``run_expt.py``, and our own."""

from __future__ import annotations

import os
from typing import Any

RESULTS = "results.json"
STATE = "state.pth"
SELECTION = "selection"  #: the folder of the rules' files
MODELS = "_model.pth"  #: how the names of models end


def place(folder: str, rule: str) -> tuple[str, str]:
    """The folder of a rule's files, and the word for the epoch in their names: those of run_expt for "best" and
    "last".
    """
    if rule in ("best", "last"):
        return folder, rule
    return os.path.join(folder, SELECTION, rule), "best"


def prediction_file(dataset: str, seed: int, split: str, epoch: Any) -> str:
    """The name that WILDS gives to a file of predictions."""
    return f"{dataset}_split:{split}_seed:{seed}_epoch:{epoch}_pred.csv"


def model_file(dataset: str, seed: int, epoch: Any) -> str:
    """The name that WILDS gives to a model's file."""
    return f"{dataset}_seed:{seed}_epoch:{epoch}{MODELS}"
