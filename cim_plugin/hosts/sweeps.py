"""Command launchers for the sweeps of DomainBed and of hosts shaped like it, whose jobs are lines of a shell."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any, Callable, Mapping, Sequence

from ..runs import jobs
from ..runs.cluster import settings
from ..runs.cluster.launcher import Cluster
from ..runs.evaluations import DONE
from ..runs.jobs import Job

INCOMPLETE = "Incomplete"  #: how a host calls a job that was started and is not done
LEFTOVERS = ("results.json", "results.jsonl", "out.txt", "err.txt")  #: of one that is not; the host would append

Words = Callable[[list[str]], list[str]]  #: a job's words -> those that run it with the interpreter of the sweep


def submitit(commands: Sequence[str], with_this_interpreter: Words) -> None:
    """Submit a sweep's commands, and those of its jobs that were started and are not done, and look after them.

    Args:
        commands: as the host gives them to a launcher; of a job that its sweep does not list, with --output_dir.

    Raises:
        SystemExit: 1 where jobs failed; 128 + the signal's number where stopped, while the jobs go on.
        InputError: submitit is missing, or the cluster refuses.
    """
    listed = {
        job.command_str: job for job in getattr(sys.modules["__main__"], "jobs", ()) if hasattr(job, "command_str")
    }
    started = [line for line, job in listed.items() if job.state == INCOMPLETE]  # a host gives a launcher the new ones
    words = {_folder(line, listed): shlex.split(line) for line in dict.fromkeys([*commands, *started])}
    missing = {folder: line for folder, line in words.items() if not os.path.exists(os.path.join(folder, DONE))}
    if not missing:
        print("cim_submitit: no job is missing", flush=True)
        return
    root = os.path.dirname(next(iter(missing)))
    by_name = {os.path.basename(folder): folder for folder in missing}

    def leftovers(name: str) -> list[str]:
        return [os.path.join(by_name[name], file) for file in LEFTOVERS]

    cluster = Cluster(settings.of_environment(), root, resumes=False, leftovers=leftovers)
    wanted = [
        Job(name, jobs.command(with_this_interpreter(missing[folder]), preexec_fn=jobs.end_with_parent))
        for name, folder in by_name.items()
    ]
    try:
        failed = jobs.failed(cluster.run(wanted))
    except jobs.Stopped as stop:
        raise SystemExit(128 + stop.number) from None
    if failed:
        logs = "".join(f"\n  {cluster.log(name)}: {why}" for name, why in failed.items())
        print(f"cim_submitit: {len(failed)} jobs failed; 'launch' runs them again{logs}", file=sys.stderr)
        raise SystemExit(1)


def _folder(command: str, listed: Mapping[str, Any]) -> str:
    """Of a job: as its sweep lists it, or as the command says."""
    words = shlex.split(command)
    found = listed[command].output_dir if command in listed else words[words.index("--output_dir") + 1]
    return os.path.abspath(found)
