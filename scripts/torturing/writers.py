"""Two commands that write to one place at one time: one wins, the other says so, and nothing is mixed."""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
import signal
import time
from pathlib import Path
from typing import Callable

from .judging import ended, refused, said, succeeded
from .kills import difference
from .material import DOMAINBED, signal_at_step
from .running import Outcome, Room, Running, domainbed
from .sections import Case

DELAYS = (0.0, 0.0, 0.0, 0.02, 0.1, 0.3, 0.6, 1.0)  #: seconds between the two starts


def _both(room: Room, first: tuple, second: tuple, delay: float, **options) -> list[Outcome]:
    """Two commands, the second a moment later; in turn, so that each is waited for."""
    running = [room.start(*first, **options)]
    time.sleep(delay)
    running.append(room.start(*second, **options))
    return [one.wait() for one in running]


def _one_wins(outcomes: list[Outcome], *names: str, in_turn: bool = False) -> list[str]:
    """Faults where not exactly one of two ended well, or the other did not say why in one line.

    Args:
        in_turn: both may end well, because the first may have ended before the second looked; whether what they wrote
            is mixed is seen elsewhere.
    """
    statuses = [outcome.status for outcome in outcomes]
    if statuses.count(0) == 2:
        return [] if in_turn else ["BOTH ended with status 0"]
    if statuses.count(0) == 0:
        words = " / ".join(line for outcome in outcomes for line in said(outcome))
        return [f"NEITHER ended well: statuses {statuses}: {words[:300]}"]
    (loser,) = (outcome for outcome in outcomes if outcome.status != 0)
    return ended(_as_said(loser), *names)


def _train(material, kind: str, delay: float, more: tuple[str, ...], room: Room) -> list[str]:
    run = room.folder / "run"
    words = tuple(material.words(kind, run, *more))
    faults = _one_wins(_both(room, words, words, delay), str(run), "log_dir", in_turn="--resume" in more)
    return faults + difference(run, material.finished(kind))


def _resume(material, delay: float, room: Room) -> list[str]:
    """Two that take up the same stopped run."""
    import shutil

    run = Path(shutil.copytree(material.stopped("CIM_VIB"), room.folder / "run"))
    words = tuple(material.words("CIM_VIB", run, "--resume"))
    outcomes = _both(room, words, words, delay)
    return _one_wins(outcomes, str(run), "log_dir", in_turn=True) + difference(run, material.finished("CIM_VIB"))


def _resume_and_new(material, delay: float, room: Room) -> list[str]:
    run = room.folder / "run"
    words = tuple(material.words("CIM_VIB", run))
    outcomes = _both(room, words, (*words, "--resume"), delay)
    return _one_wins(outcomes, str(run), "log_dir", in_turn=True) + difference(run, material.finished("CIM_VIB"))


def _after_a_kill(material, room: Room) -> list[str]:
    """The lock of a process that was killed does not stay."""
    run = room.folder / "run"
    words = material.words("CIM_VIB", run)
    running = room.start(*words)
    while not (run / "state.pth").exists() and time.monotonic() < running.ends:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    return succeeded(room.run(*words, "--resume")) or difference(run, material.finished("CIM_VIB"))


def _cache(material, delay: float, room: Room) -> list[str]:
    """Two runs with folders of their own that build one image cache: both end well."""
    words = [tuple(material.words("groupDRO", room.folder / name)) for name in ("a", "b")]
    outcomes = _both(room, *words, delay)
    faults = [fault for outcome in outcomes for fault in succeeded(outcome)]
    return faults or [
        fault for name in ("a", "b") for fault in difference(room.folder / name, material.finished("groupDRO"))
    ]


def _domainbed(delay: float, room: Room) -> list[str]:
    words = (*DOMAINBED, "--output_dir", "run")
    faults = _one_wins(_both(room, words, words, delay, program=domainbed), "run", "output_dir", in_turn=True)
    steps = _steps(room)
    return faults + ([] if steps in ([0, 1, 2], [0, 1, 2, 0, 1, 2]) else [f"results.jsonl has the steps {steps}"])


def _steps(room: Room) -> list[int]:
    text = (room.folder / "run" / "results.jsonl").read_text()
    return [json.loads(line)["step"] for line in text.splitlines(keepends=True) if line.endswith("\n")]


# --- while the first stands still -------------------------------------------------------------------------------------


def _beside_a_paused_one(room: Room, first: Running, second: tuple, **options) -> list[str]:
    """The second command must say that the first, which stands still, is at it; then the first goes on to its end."""
    outcome = room.run(*second, **options)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(first.pid, signal.SIGCONT)
    faults = refused(_as_said(outcome), "run", "log_dir", "output_dir")
    return [f"the second: {fault}" for fault in faults] + [f"the first: {fault}" for fault in succeeded(first.wait())]


def _paused_training(material, step: int, more: tuple[str, ...], room: Room) -> list[str]:
    run = room.folder / "run"
    words = tuple(material.words("CIM_VIB", run))
    first = room.start(*words, before=functools.partial(signal_at_step, step, signal.SIGSTOP))
    while os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.01)
    return _beside_a_paused_one(room, first, (*words, *more)) + difference(run, material.finished("CIM_VIB"))


def _paused_domainbed(steps: int, room: Room) -> list[str]:
    words = (*DOMAINBED, "--output_dir", "run", "--steps", "30")
    first, results = room.start(*words, program=domainbed), room.folder / "run" / "results.jsonl"
    while time.monotonic() < first.ends and (not results.exists() or len(_steps(room)) < steps):
        time.sleep(0.005)
    os.killpg(first.pid, signal.SIGSTOP)
    faults = _beside_a_paused_one(room, first, words, program=domainbed)
    return faults + ([] if _steps(room) == list(range(30)) else [f"results.jsonl has the steps {_steps(room)}"])


def _as_said(outcome: Outcome) -> Outcome:
    """DomainBed's script sends stderr to stdout as well: what it says last is what it says."""
    if outcome.errors.strip() or outcome.status == 0:
        return outcome
    return outcome._replace(errors=outcome.output.strip().rpartition("\n")[2])


# --- others -----------------------------------------------------------------------------------------------------------


def _demo(delay: float, room: Room) -> list[str]:
    """Both may end well: what is there is replaced whole, and by the same."""
    words = ("data", "demo", "--root", "data")
    outcomes = _both(room, words, words, delay, limit=200)
    faults = [] if any(outcome.status == 0 for outcome in outcomes) else ["NEITHER ended well"]
    faults += [fault for outcome in outcomes for fault in ended(outcome, "data")]
    return faults + succeeded(room.run("data", "check", "--root", "data", "--images", limit=200))


def _convert(material, delay: float, room: Room) -> list[str]:
    """Both may end well where the second finds what the first has made."""
    words = ("data", "waterbirds", "--from", _archive(material), "--root", "data")
    outcomes = _both(room, words, words, delay)
    faults = [] if any(outcome.status == 0 for outcome in outcomes) else ["NEITHER ended well"]
    faults += [fault for outcome in outcomes for fault in ended(outcome, "data", "waterbirds")]
    if all(outcome.status == 0 for outcome in outcomes) and "is complete" not in "".join(o.output for o in outcomes):
        faults.append("BOTH converted")
    return faults + succeeded(room.run("data", "waterbirds", "--from", "nowhere", "--root", "data"))


def _archive(material) -> Path:
    """The images of the release as a folder that is no release."""
    folder = material.top / "waterbird_complete95_forest2water2"
    if not folder.exists():
        import shutil

        shutil.copytree(material.root / "waterbirds_v1.0", folder, ignore=lambda *_: ["RELEASE_v1.0.txt"])
    return folder


def _compare(material, delay: float, room: Room) -> list[str]:
    """A report is written whole: whoever comes last."""
    words = [("compare", material.finished(kind), "-o", "out.csv") for kind in ("CIM_VIB", "groupDRO")]
    outcomes = _both(room, *words, delay)
    faults = [fault for outcome in outcomes for fault in succeeded(outcome)]
    text = (room.folder / "out.csv").read_text()
    left = [path.name for path in room.folder.iterdir() if path.name != "out.csv"]
    names = {line["algorithm"] for line in csv.DictReader(text.splitlines()) if line["kind"] == "measured"}
    return faults + [f"left behind: {left}"] * bool(left) + [f"MIXED: {names}"] * (len(names) != 1)


def cases(material) -> list[Case]:
    """Every pair at several distances in time."""
    _archive(material)
    material.finished("CIM_VIB"), material.finished("groupDRO"), material.stopped("CIM_VIB")
    pairs: dict[str, Callable[[float, Room], list[str]]] = {
        "two trainings": lambda delay, room: _train(material, "CIM_VIB", delay, (), room),
        "two trainings, both --resume": lambda delay, room: _train(material, "CIM_VIB", delay, ("--resume",), room),
        "two that take up one run": functools.partial(_resume, material),
        "a training and one that takes it up": functools.partial(_resume_and_new, material),
        "two image caches": functools.partial(_cache, material),
        "two conversions": functools.partial(_convert, material),
        "two reports": functools.partial(_compare, material),
    }
    if material.domainbed() is not None:
        pairs["two runs in DomainBed"] = _domainbed
    paused = {
        f"{' '.join(('a training', *more))} while another stands still before step {step}": functools.partial(
            _paused_training, material, step, more
        )
        for step in (1, 2, 4, 6)
        for more in ((), ("--resume",))
    }
    if material.domainbed() is not None:
        paused |= {
            f"a run in DomainBed while another stands still after evaluation {steps}": functools.partial(
                _paused_domainbed, steps
            )
            for steps in (1, 2, 5)
        }
    found = [
        Case(f"{name}, {delay:g} s apart", functools.partial(pair, delay))
        for name, pair in pairs.items()
        for delay in DELAYS
    ]
    found += [Case(f"two data demo, {delay:g} s apart", functools.partial(_demo, delay)) for delay in (0.0, 0.3)]
    found += [Case(name, run) for name, run in paused.items()]
    return [*found, Case("a training after one that was killed", functools.partial(_after_a_kill, material))]
