"""``python -m cim_plugin.runs.cluster.submission``: submits what standard input holds, and prints the ids as JSON.

A process of its own, in a session of its own: what it starts on this machine gets no Ctrl-C of the terminal and no
hang-up.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
from typing import Any, Sequence

from ...errors import InputError, exit_status, first_line
from .. import processes
from .schedulers import SCHEDULERS
from .settings import LOCAL, Settings


def submit(works: Sequence[Any], folder: str, settings: Settings, resumes: bool) -> list[dict[str, Any]]:
    """Submit.

    Args:
        works: of :class:`.work.Work`.
        folder: for submitit's files.
        resumes: whether the jobs go on after their time is over.

    Returns:
        What is to be known of every job: ``id``, on this machine also which process that is.

    Raises:
        InputError: the cluster refuses.
    """
    import cloudpickle

    request = cloudpickle.dumps((list(works), folder, settings, resumes))
    words = [sys.executable, "-m", __name__]
    with tempfile.TemporaryFile("w+") as said:  # a pipe would be held by what is started
        done = subprocess.run(words, input=request, stdout=said, stderr=said, start_new_session=True)
        said.seek(0)
        lines = said.read().splitlines() or [f"exit status {done.returncode}"]
    if done.returncode != 0:
        raise InputError(f"not submitted: {lines[-1]}")
    return json.loads(lines[-1])


def main() -> int:
    works, folder, settings, resumes = pickle.loads(sys.stdin.buffer.read())
    submitted = [{"id": name, **_process(name, settings)} for name in _submit(works, folder, settings, resumes)]
    print(json.dumps(submitted))
    return 0


def _submit(works: Sequence[Any], folder: str, settings: Settings, resumes: bool) -> list[str]:
    from submitit.core.utils import FailedJobError

    try:
        executor = SCHEDULERS[settings.cluster].executor(folder, settings, resumes)
        with executor.batch():
            submitted = [executor.submit(work) for work in works]
    except (FailedJobError, ValueError, TypeError, NameError, RuntimeError, OSError) as error:
        raise InputError(first_line(error)) from error
    return [job.job_id for job in submitted]


def _process(name: str, settings: Settings) -> dict[str, Any]:
    return processes.identity(int(name)) if settings.cluster == LOCAL else {}


if __name__ == "__main__":
    sys.exit(exit_status("submitit", main))
