"""Sections, cases, and two processes that work through them."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
import shutil
import time
import traceback
from multiprocessing import connection
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

from .running import Room

#: section -> (module here with cases(material), what it tries)
SECTIONS = {
    "kills": ("kills", "trainings killed at every write, or stopped, and taken up again"),
    "writers": ("writers", "two commands that write to one place at one time"),
    "damage": ("damage", "files of finished and stopped runs: missing, empty, cut, flipped, replaced"),
    "runs": ("hostile_runs", "run folders that were made to do harm"),
    "archives": ("archives", "archives that were made to do harm, for all converters and 'leaderboard check'"),
    "images": ("images", "images that are not what their names say, in releases and archives"),
    "words": ("command_lines", "bad values for every flag of every command"),
}


class Case(NamedTuple):
    """One thing that is tried."""

    name: str
    run: Callable[[Room], list[str]]  #: what went wrong, nothing where all is well


class Result(NamedTuple):
    """How a case ended."""

    section: str
    number: int  #: from 1 in the section, for --case
    name: str
    faults: list[str]
    seconds: float


def cases_of(section: str, material) -> list[Case]:
    """All cases of a section, in their order."""
    return importlib.import_module(f".{SECTIONS[section][0]}", __package__).cases(material)


def run_all(section: str, numbered: list[tuple[int, Case]], top: Path, jobs: int) -> Iterator[Result]:
    """The results as they come. Cases are forked from this process, so that imports and material are there.

    Raises:
        RuntimeError: a process that runs cases died.
    """
    context = multiprocessing.get_context("fork")
    place = context.Value("i", 0)
    pipes = [context.Pipe(duplex=False) for _ in range(jobs)]
    workers = [context.Process(target=_work, args=(section, numbered, top, place, writer)) for _, writer in pipes]
    for worker in workers:
        worker.start()
    left, readers = len(numbered), [reader for reader, _ in pipes]
    while left:
        ready = connection.wait([*readers, *(worker.sentinel for worker in workers if worker.is_alive())], timeout=1)
        told = [reader.recv() for reader in readers if reader in ready]
        yield from (Result(*values) for values in told)
        left -= len(told)
        if left and not told and not any(worker.is_alive() for worker in workers):
            raise RuntimeError(f"the processes that ran {section} died, with {left} cases left")
    for worker in workers:
        worker.join()


def _work(section: str, numbered: list[tuple[int, Case]], top: Path, place, writer) -> None:
    while True:
        with place.get_lock():
            at, place.value = place.value, place.value + 1
        if at >= len(numbered):
            return
        writer.send(tuple(run_case(section, *numbered[at], top)))


def run_case(section: str, number: int, case: Case, top: Path) -> Result:
    """A case in a room of its own, which is removed afterwards."""
    begin, folder = time.monotonic(), top / section / str(number)
    try:
        room = Room(folder / "room")
        faults = case.run(room)
        faults += room.faults()
    except Exception:
        faults = ["the case itself failed: " + traceback.format_exc().strip().replace("\n", " | ")]
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            os.chmod(path, 0o700)
    shutil.rmtree(folder)
    faults = [re.sub(re.escape(str(folder / "room")), "ROOM", fault) for fault in faults]
    return Result(section, number, case.name, faults, time.monotonic() - begin)
