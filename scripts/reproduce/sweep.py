"""DomainBed's sweep with the plugin's launcher, behind a progress bar; what failed or was stopped is done again by the
next call.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from cim_plugin import autoload
from cim_plugin.errors import InputError
from cim_plugin.files import parse_json, read_text
from cim_plugin.progress import progress
from cim_plugin.runs import jobs
from cim_plugin.runs.cluster import settings as cluster
from cim_plugin.runs.cluster.launcher import how_to_stop
from cim_plugin.runs.jobs import Job
from cim_plugin.runs.record import get

ALGORITHMS = ("ERM", "GroupDRO", "VIB", "SCL_E2E", "CIM", "CIM_VIB")
RULES = ("training_domain", "leave_one_out", "oracle")
LOG = "sweep.txt"
CLUSTER = "cluster.json"  #: how its jobs are submitted
EVERY = 5  #: seconds; a sweep has thousands of folders, perhaps over a network
QUICK_STEPS = 2  #: of a job
QUICK_ALGORITHMS = (
    "ERM",
    "CIM_VIB",
)  #: a job starts an interpreter and dozens of loaders; CIM_VIB has every part of ours


def has_domainbed() -> bool:
    """Whether DomainBed can be imported."""
    autoload.install()
    spec = importlib.util.find_spec("domainbed")
    return spec is not None and spec.origin is not None


def sweep(
    dataset: str,
    n_environments: int,
    data_dir: Path,
    folder: Path,
    args: argparse.Namespace,
    show: Callable[..., None],
    hparams: dict[str, Any] | None = None,
    pairs: bool = True,
) -> None:
    """Launch the jobs that are not done: every environment held out, and every pair; with --quick two algorithms and no
    pairs.

    Args:
        args: algorithms, n_hparams, n_trials, steps, keep_models, quick, and the flags of clusters.
        show: prints the tables, also of the other jobs where some failed, which it is told by ``failed``.
        hparams: overrides of DomainBed's hyperparameters.
        pairs: whether pairs of environments are held out, too, which selection by leaving one out needs.

    Raises:
        InputError: the folder holds jobs of another setting, another sweep is at it, or a job failed.
    """
    asked, pairs = cluster.of_flags(args), pairs and not args.quick
    if args.quick:
        algorithms = [name for name in args.algorithms if name in QUICK_ALGORITHMS] or args.algorithms[:1]
        args = argparse.Namespace(
            algorithms=algorithms,
            n_hparams=1,
            n_trials=1,
            steps=QUICK_STEPS,
            keep_models=args.keep_models,
            quick=True,
            launcher=args.launcher,
        )
    n_held_out = n_environments * (n_environments + 1) // 2 if pairs else n_environments
    n_jobs = len(args.algorithms) * n_held_out * args.n_hparams * args.n_trials
    words = flags(dataset, data_dir, folder, args, hparams or {}, pairs)
    _check_same(
        folder, {"data_dir": str(data_dir), "steps": args.steps, "hparams": json.dumps(hparams) if hparams else None}
    )
    folder.mkdir(parents=True, exist_ok=True)
    slot: jobs.Environment = {}
    if asked is not None:
        slot = {cluster.FILE_VARIABLE: str(folder / CLUSTER)}
        cluster.write(asked, folder / CLUSTER)
    done = Done(folder, args.algorithms, args.keep_models)
    with contextlib.ExitStack() as stack:
        locks = [stack.enter_context(_lock(folder / f"{name}.lock")) for name in args.algorithms]
        log = stack.enter_context(open(folder / LOG, "a"))
        bar = stack.enter_context(progress(total=n_jobs, unit="job"))
        settings = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT, "pass_fds": locks}
        sweep_commands = [
            Job(word, jobs.command([sys.executable, "-m", "cim_plugin.domainbed", "sweep", word, *words], **settings))
            for word in (("delete_incomplete", "launch") if asked is None else ("launch",))
        ]

        def watch() -> None:
            bar.update(min(bar.total, done.count()) - bar.n)

        try:
            failed = jobs.failed(jobs.run(sweep_commands, [slot], watch=watch, every=EVERY, go_on=False))
        except jobs.Stopped:
            if asked is not None:
                print(how_to_stop(folder, asked.cluster), file=sys.stderr)
            raise
    show(failed=bool(failed))
    if failed:
        raise InputError(f"jobs of DomainBed's sweep failed, {folder / LOG} says why; the same command does them again")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int]:
    """For the sweep as well, which inherits it and goes on where only this process is killed."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{path} is locked: a sweep of that algorithm is running in this folder; wait until it ends, or end it"
            ) from error
        yield file.fileno()


def _check_same(folder: Path, setting: dict[str, Any]) -> None:
    """DomainBed names a job's folder by its arguments: another setting would start all of them anew, beside those of
    the first and in one table with them.
    """
    for path in folder.glob("*/done"):
        before = _arguments(path)
        for name, value in setting.items():
            if before.get(name) != value:
                raise InputError(
                    f"{folder} holds jobs with {name} {before.get(name)!r}, now it is {value!r}; repeat the flags or "
                    f"choose another --output_dir"
                )


def _arguments(done: Path) -> dict[str, Any]:
    """Those of a job that is done.

    Raises:
        InputError: its results are damaged.
    """
    path = done.with_name("results.jsonl")
    return get(parse_json(read_text(path).partition("\n")[0], path), "args", dict, str(path))


def flags(
    dataset: str, data_dir: Path, folder: Path, args: argparse.Namespace, hparams: dict[str, Any], pairs: bool = True
) -> list[str]:
    """What the host's sweep is given after its command."""
    words = ["--datasets", dataset, "--data_dir", str(data_dir), "--output_dir", str(folder)]
    words += ["--algorithms", *args.algorithms, "--n_hparams", str(args.n_hparams), "--n_trials", str(args.n_trials)]
    words += ["--command_launcher", "cim_local" if args.launcher == cluster.HERE else "cim_submitit"]
    words += ["--skip_confirmation"]
    words += ["--hparams", json.dumps(hparams)] if hparams else []
    words += ["--steps", str(args.steps)] if args.steps is not None else []
    return words + ([] if pairs else ["--single_test_envs"])


class Done:
    """Those jobs of some algorithms that are done; other sweeps may have theirs in the same folder.

    Models are deleted when their job is done, unless they are to be kept: of VLCS they are about 94 MB each, and a
    sweep whose
    disk is full fails job by job after hours of training.
    """

    def __init__(self, folder: Path, algorithms: Sequence[str], keep_models: bool):
        self.folder, self.algorithms, self.keep_models = folder, algorithms, keep_models
        self.ours: dict[Path, bool] = {}

    def count(self) -> int:
        """How many there are; deletes the models of those that it sees for the first time."""
        for path in self.folder.glob("*/done"):
            if path not in self.ours:
                self.ours[path] = _arguments(path).get("algorithm") in self.algorithms
                if self.ours[path] and not self.keep_models:
                    path.with_name("model.pkl").unlink(missing_ok=True)
        return sum(self.ours.values())
