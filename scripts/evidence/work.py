"""One run in a process that has imported torch already."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Sequence

from cim_plugin.files import write_whole
from cim_plugin.runs.layout import STATE

from ..benchmarks.machine import describe
from .kept import MACHINE

ERRORS = "err.txt"  #: what a run has said of what went wrong
#: what processes find imported
HEAVY = ("cim_plugin.wilds_runner.preparing", "cim_plugin.retrain.methods", "lightning_fabric", "timm", "torchvision")


def context() -> Any:
    """Of multiprocessing: processes are forked from one that has imported :data:`HEAVY`, and only that."""
    import multiprocessing

    os.environ["OMP_NUM_THREADS"] = "1"
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(list(HEAVY))
    return made


def measure(folder: str, root: str) -> None:
    """The overlap of a run's mask with the birds, into its folder."""
    import torch

    from . import overlap

    torch.set_num_threads(1)
    _say_into(folder)
    overlap.write(folder, root)


def command(words: Sequence[str], folder: str) -> None:
    """``cim-plugin words``, whose errors go to a file in the folder; ends the process with its exit status."""
    import torch

    from cim_plugin import cli

    torch.set_num_threads(1)
    os.makedirs(folder, exist_ok=True)
    _say_into(folder)
    status = cli.main(list(words))
    if status == 0:
        write_whole(os.path.join(folder, MACHINE), json.dumps({"machine": describe()}).encode())
        Path(folder, STATE).unlink(missing_ok=True)  # of 30 MB, from which a run that is done does not go on
    sys.exit(status)


def _say_into(folder: str) -> None:
    for stream, path in ((1, os.devnull), (2, os.path.join(folder, ERRORS))):
        os.dup2(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), stream)
