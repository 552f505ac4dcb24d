"""A job on its node: the one runner of jobs around one process, one log, and what a preemption makes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import Any, Iterator, Sequence

from ...files import write_whole
from .. import jobs
from ..folder_lock import BEAT, SILENT, FolderLock, Locked
from ..jobs import LEFT, Environment, Job, Process
from . import layout

PREEMPTED = signal.SIGUSR2  #: submitit's signal: the node is wanted, or the time is over
KILLED_WITHIN = 300.0  #: seconds after SIGTERM within which Slurm sends SIGUSR2 or SIGKILL
TIME_IS_OVER = 124  #: exit status, as of the command timeout


class Work:
    """A job as submitit keeps it: called on the node, and called again there or elsewhere after a preemption.

    Args:
        folder: the job's own, for its log and its status.
        leftovers: files of a run that cannot be resumed; removed before every start.
    """

    def __init__(self, job: Job, environment: Environment, folder: str, leftovers: Sequence[str] = ()):
        self.job, self.environment, self.folder, self.leftovers = job, environment, folder, leftovers

    def __call__(self) -> int:
        """Run the job, and write its exit status into the folder.

        Returns:
            The exit status; LEFT where another process is at it.
        """
        try:
            with _held(self.folder):
                _log_into(layout.log(self.folder))
                status = self._run()
        except Locked:
            status = LEFT
        write_whole(layout.status(self.folder), layout.said({"id": _job_id(), "status": status}))
        return status

    def checkpoint(self) -> Any:
        """Where the job is to go on: as it began, since a resumable one finds its own state on the disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _run(self) -> int:
        from submitit.core.utils import UncompletedJobError

        for path in self.leftovers:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
        try:
            statuses = jobs.run([Job(self.job.name, self._start)], [self.environment], heard=[PREEMPTED])
            return statuses[self.job.name]
        except jobs.Stopped as stop:
            try:
                _requeue(stop.number)
            except UncompletedJobError as error:  # its time is over, and it cannot be resumed
                print(error, file=sys.stderr, flush=True)
                return TIME_IS_OVER
            return 128 + stop.number

    def _start(self, environment: Environment) -> Process:
        """Slurm signals every process of a job; this one passes on to the others what they are to know."""
        with _blocked(PREEMPTED):
            return self.job.start(environment)


def _requeue(number: int) -> None:
    """After the job was stopped by a signal: back into the queue where that means that the node is wanted. Ends this
    process then.
    """
    if number == PREEMPTED:
        signal.raise_signal(PREEMPTED)  # submitit's own handler
    elif number == signal.SIGTERM and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        time.sleep(KILLED_WITHIN)  # what follows says whether it was preempted, and Slurm queues it again, or cancelled


def _job_id() -> str:
    from submitit import JobEnvironment

    return JobEnvironment().job_id


@contextlib.contextmanager
def _held(folder: str) -> Iterator[None]:
    """The folder, so that no job runs twice; of a node that died it counts as held for a while."""
    again = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0
    patient_until = time.monotonic() + (SILENT + 2 * BEAT if again else 0)
    while True:
        lock = FolderLock(folder, "the job's folder")
        try:
            lock.acquire()
            break
        except Locked:
            if time.monotonic() >= patient_until:
                raise
            time.sleep(BEAT)
    try:
        yield
    finally:
        lock.release()


def _log_into(path: str) -> None:
    sys.stdout.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)


@contextlib.contextmanager
def _blocked(number: int) -> Iterator[None]:
    """For processes that are started meanwhile: they never get this signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
