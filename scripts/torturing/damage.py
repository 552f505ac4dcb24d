"""Every file of a run folder that a command opens, damaged in every way."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Callable, NamedTuple

from .judging import ended
from .running import Outcome, Room
from .sections import Case


def _missing(path: Path) -> None:
    path.unlink()


def _cut(share: float, path: Path) -> None:
    os.truncate(path, int(share * path.stat().st_size))


def _flip(share: float, path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[min(int(share * len(content)), len(content) - 1)] ^= 0x04
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _unreadable(path: Path) -> None:
    path.chmod(0)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


TIMELESS = ("status", "epochs", "selection", "steps")  #: of results.json: the same whenever a run is repeated
CUTS = (0.01, 0.3, 0.7, 0.999)
FLIPS = (0.001, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
DAMAGE: dict[str, Callable[[Path], None]] = {
    "missing": _missing,
    "empty": lambda path: os.truncate(path, 0),
    **{f"cut at {share:g}": functools.partial(_cut, share) for share in CUTS},
    **{f"flipped at {share:g}": functools.partial(_flip, share) for share in FLIPS},
    "a folder": _folder,
    "a FIFO": _fifo,
    "a dangling link": _dangling,
    "foreign text": lambda path: path.write_text("Dear diary,\n"),
    "foreign JSON": lambda path: path.write_text('{"epochs": [1, {"2": null}]}\n'),
    "foreign zip": lambda path: (
        shutil.make_archive(str(path) + ".new", "zip", __file__.rpartition("/")[0], "damage.py")
        and os.replace(f"{path}.new.zip", path)
    ),
    "NUL bytes": lambda path: path.write_bytes(b"\0" * max(1, path.stat().st_size)),
    **({"unreadable": _unreadable} if os.geteuid() else {}),
}


class Command(NamedTuple):
    """What reads a run folder."""

    start: Callable[[Room, Path], Outcome]
    figures: Callable[[Room, Path, Outcome], object]  #: what must not become another in silence
    guarded: tuple[str, ...]  #: ends of the names of files on which the figures depend and whose flips must be seen


def _results(room: Room, run: Path, outcome: Outcome) -> object:
    """Those of the table, and the weights that the run ended with."""
    import torch

    record = json.loads((run / "results.json").read_text())
    model = torch.load(run / "waterbirds_seed:0_epoch:last_model.pth", weights_only=True)
    weights = {name: value.tolist() for name, value in model["algorithm"].items()}
    return {name: record[name] for name in TIMELESS}, weights


def _predictions(room: Room, run: Path, outcome: Outcome) -> object:
    return {path.name: path.read_text() for path in run.glob("*_pred.csv")}


def _said(room: Room, run: Path, outcome: Outcome) -> object:
    return outcome.output.replace(str(room.top), "")


def _packed(room: Room, run: Path, outcome: Outcome) -> object:
    return None


def _commands(material, kind: str) -> dict[str, Command]:
    def train(*more: str):
        return lambda room, run: room.run(*material.words(kind, run, *more))

    return {
        "resume": Command(train("--resume"), _results, (".pth", ".npy", "cross_fit.pth")),
        "eval_only": Command(train("--eval_only"), _predictions, (".pth",)),
        "compare": Command(lambda room, run: room.run("compare", run, "-o", "out.html"), _packed, ()),
        "show": Command(lambda room, run: room.run("show", run, "--json"), _said, (".pth",)),
        "retrain": Command(
            lambda room, run: room.run("retrain", run, "--method", "afr", "--log_dir", "retrained"), _said, (".pth",)
        ),
        "predict": Command(lambda room, run: room.run("predict", run, material.image), _said, (".pth",)),
        "export": Command(
            lambda room, run: room.run("export", run, "--format", "torch-export", "-o", "m.pt2"), _packed, ()
        ),
        "show DomainBed": Command(lambda room, run: room.run("show", run, "--json"), _said, ("model.pkl",)),
        "pack": Command(lambda room, run: room.run("leaderboard", "pack", run, "-o", "out.tar.gz"), _packed, ()),
        "check": Command(lambda room, run: room.run("leaderboard", "check", run), _said, ()),
    }


#: kind of run, finished or stopped, commands
TRIED = (
    ("CIM_VIB", "stopped", ("resume", "compare")),
    ("cross_fit", "stopped", ("resume",)),
    ("auto", "stopped", ("resume",)),
    ("pseudo", "stopped", ("resume",)),
    ("JTT", "stopped", ("resume",)),
    (
        "CIM_VIB",
        "finished",
        ("resume", "eval_only", "compare", "show", "retrain", "predict", "export", "pack", "check"),
    ),
    ("domainbed", "finished", ("compare", "show DomainBed")),
)


def _opened(room: Room, command: Command, run: Path) -> tuple[list[str], object]:
    """The files of a run that an undisturbed command opens, and its figures."""
    log = room.top / "opened"
    before = set(_files(run))
    outcome = command.start(_Watched(room, log), run)
    names = {os.path.realpath(room.folder / line) for line in log.read_text().splitlines()} if log.exists() else set()
    inside = {os.path.relpath(name, run) for name in names}
    return sorted(before & inside), (outcome, command.figures(room, run, outcome) if outcome.status == 0 else None)


class _Watched:
    """A room whose commands write down which files they open."""

    def __init__(self, room: Room, log: Path):
        self.room, self.log, self.folder = room, log, room.folder

    def run(self, *argv, **options):
        return self.room.run(*argv, before=functools.partial(_watch, self.log), **options)


def _watch(log: Path) -> None:
    def hook(event: str, arguments: tuple) -> None:
        if event in ("open", "os.truncate") and isinstance(arguments[0], str):
            os.write(file, (os.path.abspath(arguments[0]) + "\n").encode())

    file = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    sys.addaudithook(hook)


def _files(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


def _try(command: Command, origin: Path, name: str, damage, expected: object, room: Room) -> list[str]:
    run = _copy(origin, room)
    damage(run / name)
    outcome = command.start(room, run)
    faults = ended(outcome, os.path.basename(name), str(run), "run", "has no WILDS leaderboard")
    if not faults and outcome.status == 0 and name.endswith(command.guarded) and command.guarded:
        if command.figures(room, run, outcome) != expected:
            faults = ["went on with OTHER FIGURES, status 0"]
    return faults


def _copy(origin: Path, room: Room) -> Path:
    return Path(shutil.copytree(origin, room.folder / "run"))


def cases(material) -> list[Case]:
    """Files that nobody opens are left out: to damage them changes nothing."""
    found = []
    for kind, state, names in TRIED:
        origin = material.domainbed() if kind == "domainbed" else getattr(material, state)(kind)
        if origin is None:
            continue
        commands = _commands(material, kind)
        for name in names:
            room = Room(material.top / f"damage-{kind}-{state}-{name}")
            run = _copy(origin, room)
            opened, (outcome, expected) = _opened(room, commands[name], run)
            if outcome.status is None or "Traceback" in outcome.errors:
                raise RuntimeError(f"{name} of an undamaged run: {outcome.errors}")
            found += [
                Case(
                    f"{name} of a {state} {kind} run, {file} {word}",
                    functools.partial(_try, commands[name], origin, file, damage, expected),
                )
                for file in opened
                for word, damage in DAMAGE.items()
            ]
    return found
