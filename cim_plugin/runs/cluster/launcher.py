"""Jobs submitted and looked after: only what is missing is submitted, and whoever looks after them may come and go."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any, Callable, Sequence

from ...errors import InputError
from ...files import write_whole
from .. import jobs
from ..jobs import LEFT, Environment, Job, Process
from . import layout, settings
from .schedulers import SCHEDULERS
from .settings import Settings
from .submission import submit
from .work import Work

LOOK = 1.0  #: seconds between two looks at a job's status
ASK = 15.0  #: seconds between two questions to Slurm
VANISHED = 70  #: status of a job that has ended and said nothing: killed, cancelled, or its node died


def runner(args: argparse.Namespace, root: str | os.PathLike) -> Callable[..., dict[str, int]]:
    """:func:`..jobs.run`, or what does the same on the cluster that the flags ask for.

    Raises:
        InputError: the flags are wrong, or submitit is missing.
    """
    asked = settings.of_flags(args)
    return jobs.run if asked is None else Cluster(asked, root).run


def how_to_stop(root: str | os.PathLike, cluster: str) -> str:
    """What a person types to end those jobs of a folder that wait or run."""
    scheduler = SCHEDULERS[cluster]
    known = [layout.read(path) for path in layout.all_submitted(os.fspath(root))]
    alive = scheduler.alive(known)
    ids = [job["id"] for job in known if job["id"] in alive]
    return f"the jobs go on; stop them with: {scheduler.how_to_stop(ids)}" if ids else "no job is left on the cluster"


class Cluster:
    """Runs jobs as :func:`..jobs.run` does, but on a cluster: a signal to this process leaves them there.

    Args:
        root: the folder of the runs; :data:`layout.FOLDER` in it gets a folder per job.
        resumes: whether a job that is started again goes on; else it ends when its time is over.
        leftovers: of a job's name -> files to be removed before every start of it.

    Raises:
        InputError: submitit is not installed.
    """

    def __init__(
        self,
        wanted: Settings,
        root: str | os.PathLike,
        resumes: bool = True,
        leftovers: Callable[[str], Sequence[str]] = lambda name: (),
    ):
        try:
            import submitit  # noqa: F401
        except ModuleNotFoundError as error:
            raise InputError(
                f"submitting needs the package {error.name!r}; pip install 'cim_plugin[cluster]'"
            ) from error
        self.settings, self.root = wanted, os.path.abspath(root)
        self.resumes, self.leftovers = resumes, leftovers
        self.scheduler = SCHEDULERS[wanted.cluster]
        self._waiting: list[Job] = []
        self._submitted: dict[str, dict[str, Any]] = {}  #: by name
        self._alive: set[str] = set()
        self._asked = -ASK

    def run(self, wanted: Sequence[Job], slots: Sequence[Environment] = ({},), **others: Any) -> dict[str, int]:
        """As :func:`..jobs.run`; the slots are the cluster's. A job of an earlier command that is alive is not
        submitted again.

        Raises:
            Stopped: a signal came; the jobs go on, and it was said how to stop them.
            InputError: the cluster refuses.
        """
        known = {job.name: layout.read(layout.submitted(self._folder(job.name))) for job in wanted}
        alive = self.scheduler.alive([job for job in known.values() if job])
        self._submitted = {name: job for name, job in known.items() if job.get("id") in alive}
        self._waiting = [job for job in wanted if job.name not in self._submitted]
        handles = [Job(job.name, self._starting(job)) for job in [*self._attached(wanted), *self._waiting]]
        if wanted:
            print(self._words(len(wanted)), file=sys.stderr, flush=True)
        try:
            statuses = jobs.run(handles, self.scheduler.slots(len(handles), self.settings), **others)
        except jobs.Stopped:
            print(how_to_stop(self.root, self.settings.cluster), file=sys.stderr, flush=True)
            raise
        for name, status in statuses.items():
            if status == VANISHED:
                print(f"{name}: ended without a word, {self.log(name)} may say why", file=sys.stderr, flush=True)
        return statuses

    def _words(self, n_wanted: int) -> str:
        found = f", {len(self._submitted)} of them there already" if self._submitted else ""
        return (
            f"{n_wanted} jobs on {self.settings.cluster}{found}, {self.settings.array} at a time; logs: "
            f"{self.log('*')}; Ctrl-C leaves them running, the same command looks after them again"
        )

    def _attached(self, wanted: Sequence[Job]) -> list[Job]:
        return [job for job in wanted if job.name in self._submitted]

    def _starting(self, job: Job) -> jobs.Start:
        def start(environment: Environment) -> Process:
            if job.name not in self._submitted:
                self._submit_from(job, environment)
            return _Submitted(self, job.name)

        return start

    def _submit_from(self, job: Job, environment: Environment) -> None:
        """This one, and those after it that go into the same submission."""
        first = self._waiting.index(job)
        batch = self._waiting[first : first + self.scheduler.at_once]
        works = [self._work(job, environment) for job in batch]
        known = submit(works, os.path.join(self.root, layout.FOLDER, layout.SUBMITIT), self.settings, self.resumes)
        for job, submitted in zip(batch, known, strict=True):
            self._submitted[job.name] = submitted
            self._alive.add(submitted["id"])
            write_whole(layout.submitted(self._folder(job.name)), layout.said(submitted))
        self._asked = time.monotonic()

    def _work(self, job: Job, environment: Environment) -> Work:
        folder = self._folder(job.name)
        os.makedirs(folder, exist_ok=True)
        if os.path.exists(layout.status(folder)):
            os.remove(layout.status(folder))
        return Work(job, environment, folder, self.leftovers(job.name))

    def status(self, name: str) -> int | None:
        """The exit status of a job that was submitted; None while it waits or runs."""
        said = layout.read(layout.status(self._folder(name)))
        if said.get("id") == self._submitted[name]["id"]:
            return said["status"]
        return None if self._is_alive(name) else VANISHED

    def _is_alive(self, name: str) -> bool:
        if time.monotonic() >= self._asked + min(ASK, self.scheduler.grace):
            self._alive = self.scheduler.alive(self._submitted.values())
            self._asked = time.monotonic()
        return self._submitted[name]["id"] in self._alive

    def _folder(self, name: str) -> str:
        return layout.folder(self.root, name)

    def log(self, name: str) -> str:
        """The file of a job, * for all."""
        return layout.log(self._folder(name) if name != "*" else os.path.join(self.root, layout.FOLDER, name))


class _Submitted:
    """A job on the cluster, as the runner sees it: when it is told to stop, it is left to the cluster."""

    def __init__(self, cluster: Cluster, name: str):
        self.cluster, self.name = cluster, name
        self.is_left = False
        self.next_look = 0.0
        self.missed_since: float | None = None

    def poll(self) -> int | None:
        now = time.monotonic()
        if now < self.next_look and not self.is_left:
            return None
        self.next_look = now + LOOK
        status = self.cluster.status(self.name)
        if status == VANISHED and not self._is_missed_for_long(now):
            status = None
        return LEFT if self.is_left and status is None else status

    def send(self, number: int) -> None:
        self.is_left = True

    def _is_missed_for_long(self, now: float) -> bool:
        """Its status may be on its way through a network file system."""
        self.missed_since = now if self.missed_since is None else self.missed_since
        return now >= self.missed_since + self.cluster.scheduler.grace
