"""The harness of ``scripts/torture`` sees every kind of failure: programs that fail on purpose."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.torturing import judging, sections  # noqa: E402
from scripts.torturing.running import Room  # noqa: E402

main = importlib.import_module("scripts.torturing.__main__")


def traceback(argv) -> int:
    raise KeyError("a key")


def hang(argv) -> int:
    time.sleep(60)
    return 0


def two_lines(argv) -> int:
    print("cim-plugin: error: one\nanother", file=sys.stderr)
    return 2


def one_line(argv) -> int:
    print(f"cim-plugin: error: {argv[0]} is wrong", file=sys.stderr)
    return 2


def killed(argv) -> int:
    os.kill(os.getpid(), 9)
    return 0


def well(argv) -> int:
    Path("own").write_text("in the command's own folder")
    return 0


def overwrite(argv) -> int:
    Path("../canary").write_text("changed")
    return 0


def write_beside(argv) -> int:
    Path("../another").write_text("new")
    return 0


def execute(argv) -> int:
    os.system(argv[0])
    return 0


#: program, its words, the beginning of the fault of a command that was to refuse; None where it is right
REFUSALS = {
    "a traceback": (traceback, [], "TRACEBACK, status 1: KeyError: 'a key'"),
    "a hang": (hang, [], "HUNG"),
    "two lines": (two_lines, [], "2 lines on stderr"),
    "accepting it": (well, [], "accepted, status 0"),
    "a signal": (killed, [], "status -9"),
    "naming another file": (one_line, ["b.csv"], "the line names none of a.csv"),
    "one line": (one_line, ["a.csv"], None),
}


@pytest.mark.parametrize("program, words, expected", REFUSALS.values(), ids=REFUSALS)
def test_what_is_no_refusal_in_one_line_is_a_fault(tmp_path, program, words, expected):
    room = Room(tmp_path / "room")
    faults = judging.refused(room.run(*words, program=program, limit=1 if program is hang else 30), "a.csv")
    assert faults == [] if expected is None else len(faults) == 1 and faults[0].startswith(expected)
    assert room.faults() == []


@pytest.mark.parametrize(
    "program, expected",
    [
        (well, []),
        (overwrite, ["changed OUTSIDE its folder: canary"]),
        (write_beside, ["changed OUTSIDE its folder: another"]),
        (execute, ["code from a file was EXECUTED"]),
    ],
)
def test_what_happens_outside_a_commands_folder_is_a_fault(tmp_path, program, expected):
    room = Room(tmp_path / "room")
    assert judging.succeeded(room.run(room.payload, program=program)) == []
    assert room.faults() == expected


def test_the_time_limit_ends_what_a_command_has_started(tmp_path):
    def start_another(argv) -> int:
        if os.fork() == 0:
            hang(argv)
        return hang(argv)

    begin = time.monotonic()
    assert Room(tmp_path / "room").run(program=start_another, limit=0.5).status is None
    assert time.monotonic() - begin < 30


def cases(material) -> list[sections.Case]:
    def broken(room: Room) -> list[str]:
        raise ValueError("in the case")

    return [
        sections.Case("good", lambda room: judging.ended(room.run("x", program=one_line))),
        sections.Case("bad", lambda room: judging.ended(room.run(program=traceback))),
        sections.Case("broken", broken),
    ]


def torture(monkeypatch, **options) -> int:
    monkeypatch.setattr(main, "cases_of", lambda section, material: cases(material))
    monkeypatch.setattr(main, "Material", lambda top: None)
    monkeypatch.setattr(main, "_prepare", lambda: None)
    return main.torture(argparse.Namespace(**{"only": ["words"], "case": None, "jobs": 2, "list": False, **options}))


def test_failures_are_printed_with_the_command_that_repeats_them(monkeypatch, capsys):
    assert torture(monkeypatch) == 1
    printed = capsys.readouterr().out.splitlines()
    bad = "FAILED bad: TRACEBACK, status 1: KeyError: 'a key'  [scripts/torture --only words --case 2]"
    assert bad in printed and any(line.startswith("FAILED broken: the case itself failed") for line in printed)
    assert printed[-2].split()[:7] == ["words", "3", "cases", "1", "passed", "2", "failed"]
    assert printed[-1].split() == ["all", "3", "cases", "1", "passed", "2", "failed"]


def test_one_case_alone(monkeypatch, capsys):
    assert torture(monkeypatch, case=1, jobs=1) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].split() == ["all", "1", "cases", "1", "passed", "0", "failed"]
