"""Command launchers of this plugin for DomainBed and SubpopBench: a sweep's jobs on every GPU that is visible, or on a
cluster.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys

import torch

from ..errors import InputError
from ..flags import whole
from ..runs import jobs
from ..runs.jobs import Job
from . import sweeps

AT_ONCE = "CIM_PLUGIN_AT_ONCE"  #: names how many jobs run at the same time on a GPU, or on the CPU; a host has no flag


def cim_local(commands):
    """Run a sweep's commands with the interpreter that runs the sweep, one at a time on every visible GPU, or on the
    CPU; or as many as :data:`AT_ONCE` says.

    A host writes ``python -m ...``, which is another interpreter where another ``python`` is
    first on the path. Goes on after a failed job.

    Raises:
        SystemExit: 1 where jobs failed, naming how many and how to run them again; 128 + the signal's number where
            stopped, when the jobs have ended; 2, with one line, where AT_ONCE is no such number.
    """
    try:
        at_once = whole(1, 1000)(os.environ.get(AT_ONCE, "1"))
    except argparse.ArgumentTypeError as error:
        print(f"cim_local: error: {AT_ONCE}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    slots = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in _gpus()] or [{}]
    numbers = {str(number): command for number, command in enumerate(commands, 1)}

    def say(job: Job, slot: jobs.Environment) -> None:
        gpu = "".join(f" on GPU {name}" for name in slot.values())
        print(f"cim_local: job {job.name} of {len(commands)}{gpu}", flush=True)

    trainings = [
        Job(number, jobs.command(_with_this_interpreter(shlex.split(command)))) for number, command in numbers.items()
    ]
    try:
        statuses = jobs.run(trainings, slots * at_once, started=say)
    except jobs.Stopped as stop:
        raise SystemExit(128 + stop.number) from None
    if failed := len(jobs.failed(statuses)):
        print(
            f"cim_local: {failed} of {len(commands)} jobs failed; their err.txt says why. 'sweep delete_incomplete', "
            f"then 'launch' runs them again",
            file=sys.stderr,
        )
        raise SystemExit(1)


def cim_submitit(commands):
    """Submit a sweep's commands by submitit, as the file says that ``CIM_PLUGIN_CLUSTER`` names; a second ``launch``
    submits what is missing.

    Raises:
        SystemExit: 1 where jobs failed; 2, with one line, where they cannot be submitted; 128 + the signal's number
            where stopped, while the jobs go on.
    """
    try:
        sweeps.submitit(commands, _with_this_interpreter)
    except InputError as error:
        print(f"cim_submitit: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _gpus() -> list[str]:
    """The names of those that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = range(torch.cuda.device_count())
    return (
        [str(number) for number in visible]
        if named is None
        else [name for name in named.split(",") if name.strip()][: len(visible)]
    )


def _with_this_interpreter(words: list[str]) -> list[str]:
    if words[:3] == ["python", "-m", "domainbed.scripts.train"]:
        return [sys.executable, "-m", "cim_plugin.domainbed", "train", *words[3:]]
    return [sys.executable, *words[1:]] if words[:1] == ["python"] else words
