"""What submits jobs, Slurm or submitit's executor of local processes: which jobs are alive, and how to stop them."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any, Iterable, Protocol

from .. import processes
from .settings import LOCAL, SLURM, Settings

FOR_EVER = 1_000_000  #: times that a job's time may be over


class Scheduler(Protocol):
    """A kind of cluster."""

    at_once: int  #: jobs that one submission can take
    grace: float  #: seconds within which the status of a job that has ended is to be seen

    def executor(self, folder: str, settings: Settings, resumes: bool) -> Any:
        """submitit's, with the parameters set. ``resumes``: whether a job goes on when its time is over."""

    def slots(self, n_jobs: int, settings: Settings) -> list[dict[str, str]]:
        """Variables of the jobs that are submitted at a time."""

    def alive(self, submitted: Iterable[dict[str, Any]]) -> set[str]:
        """The ids of those that wait or run."""

    def how_to_stop(self, ids: list[str]) -> str:
        """A command line."""


class Slurm:
    """The whole list as one array, of which Slurm starts so many at a time."""

    at_once = 1000  # MaxArraySize is 1001, if the site has not changed it
    grace = 60.0  # of a network file system

    def executor(self, folder: str, settings: Settings, resumes: bool) -> Any:
        import submitit

        executor = submitit.SlurmExecutor(folder, max_num_timeout=FOR_EVER if resumes else 0)
        partition = {} if settings.partition is None else {"partition": settings.partition}
        wanted = {"time": settings.time, "gpus_per_node": settings.gpus, "array_parallelism": settings.array}
        fixed = {"job_name": "cim_plugin", "stderr_to_stdout": True}
        executor.update_parameters(**{**fixed, **wanted, **partition, **settings.own})
        return executor

    def slots(self, n_jobs: int, settings: Settings) -> list[dict[str, str]]:
        return [{}] * n_jobs

    def alive(self, submitted: Iterable[dict[str, Any]]) -> set[str]:
        ids = {job["id"] for job in submitted}
        if not ids:
            return set()
        words = ["squeue", "--me", "--noheader", "--array", "--format=%i"]  # %i of an array's element is 123_4
        asked = subprocess.run(words, capture_output=True, text=True)
        return ids & set(asked.stdout.split()) if asked.returncode == 0 else ids  # a scheduler that is away for a while

    def how_to_stop(self, ids: list[str]) -> str:
        return shlex.join(["scancel", *dict.fromkeys(name.partition("_")[0] for name in ids)])


class Local:
    """Processes of this machine that outlive the command, as many at a time as the array is large."""

    at_once = 1
    grace = 1.0

    def executor(self, folder: str, settings: Settings, resumes: bool) -> Any:
        import submitit

        executor = submitit.LocalExecutor(folder, max_num_timeout=FOR_EVER if resumes else 0)
        executor.update_parameters(timeout_min=settings.time, stderr_to_stdout=True, **settings.own)
        return executor

    def slots(self, n_jobs: int, settings: Settings) -> list[dict[str, str]]:
        at_a_time = range(min(n_jobs, settings.array))
        if settings.gpus == 0:
            return [{} for _ in at_a_time]
        gpus = [range(slot * settings.gpus, (slot + 1) * settings.gpus) for slot in at_a_time]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(map(str, names))} for names in gpus]

    def alive(self, submitted: Iterable[dict[str, Any]]) -> set[str]:
        return {job["id"] for job in submitted if processes.is_here(job) and processes.is_alive(job)}

    def how_to_stop(self, ids: list[str]) -> str:
        return shlex.join(["kill", *ids])


SCHEDULERS: dict[str, Scheduler] = {SLURM: Slurm(), LOCAL: Local()}
