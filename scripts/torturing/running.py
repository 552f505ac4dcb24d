"""A command in a process of its own, forked from one that has imported the packages and computed nothing."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, NamedTuple, Sequence

LIMIT = 60.0  #: seconds; what takes a second alone takes several beside another
PAYLOAD = "executed"  #: the file that the code in a hostile file would make
PACKAGES = (
    "cim_plugin.wilds_runner.preparing",
    "cim_plugin.wilds_runner.image_cache",
    "cim_plugin.leaderboard.check",
    "cim_plugin.compare.command",
    "cim_plugin.show.train",
    "cim_plugin.data.conversion",
    "lightning_fabric",
    "tqdm",
    "wilds",
    "wilds.datasets.waterbirds_dataset",
    "wilds.common.data_loaders",
    "wilds.common.metrics.all_metrics",
)


class Outcome(NamedTuple):
    """How a command ended."""

    status: int | None  #: None: not within its limit; negative: the number of the signal
    output: str
    errors: str


def plugin(argv: Sequence[str]) -> int:
    """``cim-plugin`` in this process."""
    from cim_plugin import cli

    sys.argv = ["cim-plugin", *argv]
    return cli.main(list(argv))


def domainbed(argv: Sequence[str]) -> int:
    """``python -m cim_plugin.domainbed`` in this process."""
    from cim_plugin.domainbed import main

    sys.argv = ["cim_plugin.domainbed", *argv]
    main()
    return 0


@dataclass
class Running:
    """A command that has been started."""

    pid: int
    logs: Path
    ends: float

    def wait(self) -> Outcome:
        """Its outcome; at its limit it is killed with all that it has started."""
        handle = os.pidfd_open(self.pid)
        ended, _, _ = select.select([handle], [], [], max(0.0, self.ends - time.monotonic()))
        os.close(handle)
        if not ended:
            os.killpg(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        output, errors = (self.logs.with_suffix(end).read_text(errors="replace") for end in (".out", ".err"))
        return Outcome(os.waitstatus_to_exitcode(status) if ended else None, output, errors)


@dataclass
class Room:
    """Where a case happens: ``folder`` is the commands' own, what lies beside it must stay as it is."""

    top: Path
    started: int = 0

    def __post_init__(self):
        self.folder.mkdir(parents=True)
        (self.top / "home").mkdir()
        self.canary.write_text("what nobody may change")
        self._before = self._beside()

    @property
    def folder(self) -> Path:
        return self.top / "work"

    @property
    def canary(self) -> Path:
        return self.top / "canary"

    @property
    def payload(self) -> str:
        """A shell command that nothing may execute."""
        return f"touch {self.top / PAYLOAD}"

    def start(
        self,
        *argv: object,
        program: Callable[[Sequence[str]], int] = plugin,
        before: Callable[[], None] | None = None,
        limit: float = LIMIT,
        **environment: str,
    ) -> Running:
        """Start a command in ``folder``, after ``before()``; HOME and the cache are the room's."""
        self.started += 1
        logs = self.top.parent / f"{self.top.name}-{self.started}"
        home = self.top / "home"
        environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "OMP_NUM_THREADS": "1", **environment}
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _child([str(word) for word in argv], program, before, logs, self.folder, environment)
        return Running(pid, logs, time.monotonic() + limit)

    def run(self, *argv: object, **options) -> Outcome:
        """As :meth:`start`, and wait for the end."""
        return self.start(*argv, **options).wait()

    def faults(self) -> list[str]:
        """What was changed or executed outside ``folder``."""
        if (self.top / PAYLOAD).exists():
            return ["code from a file was EXECUTED"]
        after = self._beside()
        names = sorted(name for name in {*self._before, *after} if self._before.get(name) != after.get(name))
        return [f"changed OUTSIDE its folder: {', '.join(names)}"] if names else []

    def _beside(self) -> dict[str, str | None]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
            for path in self.top.iterdir()
        }


def _child(argv, program, before, logs: Path, folder: Path, environment: dict[str, str]) -> None:
    """Never returns."""
    status: object = 1
    try:
        os.setsid()
        for stream, end in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(logs.with_suffix(end), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = open(1, "w", closefd=False)
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)
        os.chdir(folder)
        os.environ.update(environment)
        if before is not None:
            before()
        status = program(argv)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status if isinstance(status, int) else 0)
