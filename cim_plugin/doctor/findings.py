"""What a check says, and what it may look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Callable, Iterable, NamedTuple

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"
STATUS = {OK: 0, NOTE: 0, WARNING: 1, ERROR: 2}  #: exit status by the worst level; a note is what only some need
PATIENCE = 300  #: seconds that a child may take


class Finding(NamedTuple):
    """One line: how bad, what, and what to do about it."""

    level: str
    what: str
    fix: str | None = None


@dataclass
class Surroundings:
    """What the user says of this machine."""

    root_dir: str | None  #: folder of all data sets; None is "data", which need not exist
    data_dir: str | None  #: DomainBed's, where it is another one
    words: list[str]  #: the command line that is to be looked at, or nothing

    @cached_property
    def torch(self) -> dict[str, Any]:
        """What :mod:`.probe` says from a process of its own, as far as it came; "fault" says why it came no further."""
        done = child([sys.executable, "-m", "cim_plugin.doctor.probe"])
        said: dict[str, Any] = {}
        for line in done.stdout.splitlines():
            if line.startswith("{"):
                said |= json.loads(line)
        if not said.get("done"):
            said["fault"] = last_words(done)
        return said


Check = Callable[[Surroundings], Iterable[Finding]]


def child(words: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """A process of its own, so that what it runs may crash; its output as text. One that hangs is ended."""
    variables = {**os.environ, **(environment or {})}
    try:
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            env=variables,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, -1, "", f"no answer after {PATIENCE} seconds")
    except OSError as error:
        return subprocess.CompletedProcess(words, -1, "", f"{words[0]} cannot be run: {error.strerror}")


def last_words(done: subprocess.CompletedProcess) -> str:
    """The last line of what a child says of its end, or the signal that ended it."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if lines:
        return lines[-1]
    return (
        f"ended by signal {-done.returncode}"
        if done.returncode < 0
        else f"ended with status {done.returncode} and no word"
    )
