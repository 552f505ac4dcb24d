"""Trainings that are killed at every write, or stopped at any moment, and taken up again.

SIGKILL leaves what the kernel has. So an undisturbed run is copied whenever it is about to write, in the middle of a
write, and after it: every copy is what a kill at that moment leaves, and every one that differs is taken up again. Real
signals at random moments stand beside.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import io
import json
import os
import random
import shutil
import signal
from pathlib import Path

from .damage import TIMELESS
from .judging import succeeded
from .material import DOMAINBED
from .running import Room, domainbed
from .sections import Case

KINDS = ("CIM_VIB", "groupDRO", "cross_fit", "pseudo", "JTT")  #: "auto" takes 5,120 steps before the first epoch
N_SIGNALS = 6  #: random moments per kind of run and signal
CALLS = ("replace", "rename", "truncate", "remove", "unlink", "link", "mkdir", "rmdir", "fsync", "ftruncate")


class _Recorder:
    """Copies of ``folders`` at every write of this process, into ``target/0000``, ``0001``, ..., equal ones once."""

    def __init__(self, folders: list[Path], target: Path):
        self.folders, self.target, self.seen, self.busy = folders, target, set(), False

    def __call__(self) -> None:
        if self.busy:  # copying writes, too
            return
        self.busy = True
        try:
            state = digest(self.folders)
            if state not in self.seen:
                self.seen.add(state)
                for folder in self.folders:
                    if folder.exists():
                        shutil.copytree(folder, self.target / f"{len(self.seen):04}" / folder.name, symlinks=True)
        finally:
            self.busy = False


def digest(folders: list[Path]) -> str:
    """Of names and contents. Two things are alike for whoever takes a run up, and are copied once: how far a file is
    written that has not got its name yet, and how much of log.txt there is before the first state.
    """
    total = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.rglob("*") if not path.is_dir()):
        alike = path.suffix == ".part" or (path.name == "log.txt" and not path.with_name("state.pth").exists())
        total.update(str(path).encode() + (b"" if alike else path.read_bytes()))
    return total.hexdigest()


def record(recorder: _Recorder) -> None:
    """Let this process call ``recorder`` before and after whatever changes files, and in the middle of writes."""
    for name in CALLS:
        setattr(os, name, _around(recorder, getattr(os, name)))
    original = builtins.open

    class Raw(io.FileIO):
        def write(self, data):
            data = memoryview(data).cast("B")
            written = super().write(data[: len(data) // 2]) if len(data) > 1 else 0
            recorder()
            written += super().write(data[written:])
            recorder()
            return written

    def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
        if not set(mode) & set("wax+") or isinstance(file, int):
            return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    builtins.open = io.open = opened


def _around(recorder: _Recorder, function):
    @functools.wraps(function)
    def call(*arguments, **keywords):
        recorder()
        value = function(*arguments, **keywords)
        recorder()
        return value

    return call


# --- trainings --------------------------------------------------------------------------------------------------------


def difference(run: Path, expected: Path) -> list[str]:
    """In what a run that was taken up again differs from the undisturbed one, but for times."""
    import torch

    ours, theirs = (
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} for folder in (run, expected)
    )
    if ours != theirs:
        return [f"other FILES than undisturbed: {', '.join(sorted(ours ^ theirs))}"]
    for name in sorted(ours - {"state.pth", "results.json", "log.txt"}):
        if name.endswith(".pth"):
            first, second = (torch.load(folder / name, weights_only=True) for folder in (run, expected))
            if not _equal(first, second):
                return [f"{name} holds OTHER NUMBERS than undisturbed"]
        elif (run / name).read_bytes() != (expected / name).read_bytes():
            return [f"{name} DIFFERS from undisturbed"]
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (run, expected))
    for key in TIMELESS:
        if first[key] != second[key]:
            return [f"results.json has another {key} than undisturbed"]
    first, second = (_epochs(folder / "log.txt") for folder in (run, expected))
    return [] if first == second else ["log.txt has other lines than undisturbed"]


def _epochs(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.startswith(("Epoch [", "Eval"))]


def _equal(first, second) -> bool:
    import torch

    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_equal(first[key], second[key]) for key in first)
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def _try_copy(material, kind: str, copy: Path, room: Room) -> list[str]:
    run = room.folder / "run"
    for name, place in (("run", run), ("cache", room.top / "home" / "cache")):
        if (copy / name).exists():
            shutil.copytree(copy / name, place, symlinks=True)
    outcome = room.run(*material.words(kind, run, "--resume"))
    return succeeded(outcome) or difference(run, material.finished(kind))


def _copies(material, kind: str) -> list[Case]:
    room = Room(material.top / f"recorded-{kind}")
    run, cache, target = room.folder / "run", room.top / "home" / "cache", material.top / f"copies-{kind}"
    recorder = _Recorder([run, cache], target)
    outcome = room.run(*material.words(kind, run), before=functools.partial(record, recorder), limit=600)
    if faults := succeeded(outcome) or difference(run, material.finished(kind)):
        raise RuntimeError(f"the recorded run of {kind}: {faults[0]}")
    return [
        Case(f"{kind} killed at write {copy.name}", functools.partial(_try_copy, material, kind, copy))
        for copy in sorted(target.iterdir())
    ]


# --- signals ----------------------------------------------------------------------------------------------------------


def raise_at(event: int, number: int) -> None:
    """Let this process get a signal at the n-th line that it executes in the package's own code."""
    import sys

    import cim_plugin

    left, home = [event], os.path.dirname(cim_plugin.__file__)

    def trace(frame, what, argument):
        if not frame.f_code.co_filename.startswith(home):
            return None
        left[0] -= 1
        if left[0] == 0:
            sys.settrace(None)
            os.kill(os.getpid(), number)
        return None

    sys.settrace(trace)


def _try_signal(material, kind: str, number: signal.Signals, event: int, room: Room) -> list[str]:
    run = room.folder / "run"
    first = room.run(*material.words(kind, run), before=functools.partial(raise_at, event, number))
    if first.status not in (0, -number, 128 + number):
        return [f"{number.name}: status {first.status}: {first.errors.strip()[-200:]}"]
    if "Traceback" in first.errors:
        return [f"{number.name}: TRACEBACK: {first.errors.strip().splitlines()[-1]}"]
    if first.status != 0:
        second = room.run(*material.words(kind, run, "--resume"))
        if faults := succeeded(second):
            return faults
    return difference(run, material.finished(kind))


def _signals(material, kind: str) -> list[Case]:
    draw = random.Random(kind)
    return [
        Case(f"{kind}, {number.name} at call {event}", functools.partial(_try_signal, material, kind, number, event))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
        for event in (draw.randrange(1, 4000) for _ in range(N_SIGNALS))
    ]


# --- DomainBed --------------------------------------------------------------------------------------------------------


def _try_domainbed(event: int, room: Room) -> list[str]:
    words = (*DOMAINBED, "--output_dir", "run")
    room.run(*words, program=domainbed, before=functools.partial(raise_at, event, signal.SIGKILL))
    faults = succeeded(room.run(*words, program=domainbed)) or succeeded(room.run("compare", "run"))
    return faults or ([] if (room.folder / "run" / "done").exists() else ["no file done"])


def cases(material) -> list[Case]:
    """Copies, signals, DomainBed."""
    found = [case for kind in KINDS for make in (_copies, _signals) for case in make(material, kind)]
    if material.domainbed() is not None:
        found += [
            Case(f"DomainBed killed at call {event}", functools.partial(_try_domainbed, event))
            for event in (50, 200, 500, 1000, 2000)
        ]
    return found
