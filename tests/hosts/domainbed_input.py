"""Command lines and data of DomainBed's train script, and what it says of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Callable, NamedTuple

import torch

TRAIN = ("-m", "domainbed.scripts.train")


class Case(NamedTuple):
    algorithm: str
    words: tuple[str, ...]  #: of the command line
    said: tuple[str, ...]  #: what the line must name: the value, and the fix
    data: Callable[[Path], None] | None = None  #: fills the data folder, which is then given


def hparams(**values) -> tuple[str, ...]:
    return ("--hparams", json.dumps(values))


def environments(folder: Path, sizes=(16, 16, 16), shape=(3, 28, 28), labels=(0, 1)) -> None:
    """Store environments of these sizes for the small host; the labels alternate."""
    stored = [(torch.rand(size, *shape), torch.tensor(labels).repeat(size)[:size]) for size in sizes]
    torch.save(stored, folder / "environments.pt")


STORED = ("--dataset", "Stored")


def words_of(case: Case, algorithm: str, folder: Path) -> tuple[str, ...]:
    if case.data is None:
        return (*TRAIN, "--algorithm", algorithm, *case.words)
    case.data(folder)
    return (*TRAIN, "--algorithm", algorithm, "--data_dir", str(folder), *case.words)


def errors_of(done: subprocess.CompletedProcess) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error:")]


def last_line(done: subprocess.CompletedProcess) -> str:
    """Where the host's Tee is at work, its errors are on the standard output."""
    return (done.stderr or done.stdout).splitlines()[-1]
