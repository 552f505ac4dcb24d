"""From folders to runs: a search that never leaves the folders it was given and never stops at a damaged run."""

from __future__ import annotations

import contextlib
import gc
import os
from dataclasses import dataclass, field
from typing import Iterator

from ..errors import InputError
from ..files import Unreadable
from ..progress import progress
from . import domainbed, packed, subpopbench, train
from .record import Run

READERS = (subpopbench, train, domainbed)
MARKERS = {train.RESULTS, domainbed.RESULTS, packed.NAME}  #: a link by one of these names may lead anywhere


@dataclass
class Found:
    """What a search gives."""

    runs: list[Run] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  #: folders that count for nothing, and why
    links: list[str] = field(default_factory=list)  #: links to folders and results, not followed


def find(folders: list[str]) -> Found:
    """All runs in and below the folders, and of files of packed runs, each once, in the order of their paths.

    Raises:
        InputError: a folder or file is not there, or there is no run at all.
    """
    found = Found()
    seen: set[str] = set()
    with _no_collection():
        for top in folders:
            if top.endswith(packed.SUFFIX) and os.path.isfile(top):
                _read_packed(top, found, seen)
                continue
            _check_folder(top)
            for folder, files in progress(_walk(top, found), desc="reading", unit=" folders", leave=False):
                place = os.path.realpath(folder)
                if place not in seen:
                    seen.add(place)
                    _read(folder, files, found)
                    if packed.NAME in files:
                        _read_packed(os.path.join(folder, packed.NAME), found, seen)
    if not found.runs:
        where = ", ".join(folders)
        if found.left_out:
            raise InputError(
                f"no run in {where} can be read: {found.left_out[0]}"
                + (f" (and {len(found.left_out) - 1} more)" if found.left_out[1:] else "")
            )
        raise InputError(
            f"no run in {where}: no results.json of 'cim-plugin train' or SubpopBench and no results.jsonl of DomainBed"
            + _unfollowed(found)
        )
    return found


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Records of runs hold no cycles; to look for some again and again is a tenth of the time of thousands of runs."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _unfollowed(found: Found) -> str:
    return f"; links are not followed, name their targets: {found.links[0]}" if found.links else ""


def _check_folder(folder: str) -> None:
    if not os.path.lexists(folder):
        raise InputError(f"{folder} does not exist; name a folder that holds runs")
    if not os.path.isdir(folder):
        raise InputError(
            f"{folder} is not a folder; name the folder that holds the run, or a file of packed runs (*{packed.SUFFIX})"
        )


def _walk(top: str, found: Found) -> Iterator[tuple[str, set[str]]]:
    def report(error: OSError) -> None:
        found.left_out.append(f"{error.filename}: cannot be read ({error.strerror})")

    for folder, subfolders, files in os.walk(top, onerror=report):
        subfolders.sort()
        links = {
            name for name in (*subfolders, *MARKERS.intersection(files)) if os.path.islink(os.path.join(folder, name))
        }
        found.links += [os.path.join(folder, name) for name in sorted(links)]
        yield folder, {*files, *subfolders} - links


def _read(folder: str, files: set[str], found: Found) -> None:
    for reader in READERS:
        if reader.is_run(files):
            try:
                found.runs += reader.read(folder)
            except Unreadable as error:
                found.left_out.append(str(error))
            if reader is subpopbench:  # its results.json has the name of that of 'cim-plugin train'
                return


def _read_packed(path: str, found: Found, seen: set[str]) -> None:
    if os.path.realpath(path) in seen:
        return
    seen.add(os.path.realpath(path))
    try:
        runs = packed.read(path)
    except InputError as error:
        found.left_out.append(str(error))
        return
    for folder, results in runs.items():
        try:
            found.runs.append(train.run_of(results, f"{path}/{folder}", is_packed=True))
        except Unreadable as error:
            found.left_out.append(str(error))
