"""Runs of 'cim-plugin train': their configurations, and training what is not finished, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any, Callable, Iterable

from cim_plugin import catalog
from cim_plugin.errors import InputError, NotFinite
from cim_plugin.files import read_json
from cim_plugin.flags import Parser
from cim_plugin.runs import jobs
from cim_plugin.runs.configuration import MAY_DIFFER, Configuration
from cim_plugin.runs.folder_lock import FolderLock, Locked
from cim_plugin.runs.jobs import LEFT, Job
from cim_plugin.runs.layout import RESULTS
from cim_plugin.wilds_runner.checkpoint import difference
from cim_plugin.wilds_runner.config import add_arguments, make_config

OURS = {
    "-d",
    "--dataset",
    "--algorithm",
    "--seed",
    "--root_dir",
    "--log_dir",
    "--resume",
    "--eval_only",
    "--device",
    "--devices",
    "--num_nodes",
}

#: by the process that runs are forked from
IMPORTED_ONCE = [
    "cim_plugin.wilds_runner.preparing",
    "lightning_fabric",
    "tqdm",
    "wilds.common.data_loaders",
    "wilds.common.metrics.all_metrics",
]

Run = Callable[..., dict[str, int]]  #: as jobs.run
Prepare = Callable[
    [Configuration, Any], Any
]  #: (configuration, Fabric) -> Loop, at the beginning or where the run stood; a function of a module


def configurations(
    name: str, root: Path, folder: Path, algorithms: Iterable[str], seeds: Iterable[int], words: list[str]
) -> list[Configuration]:
    """One per algorithm and seed, seed by seed.

    Args:
        words: flags of 'cim-plugin train', of one that stands twice the later counts. A hyperparameter goes to the
            algorithms that have it.

    Raises:
        InputError: a value cannot be used.
    """
    taken = [word for word in words if word.partition("=")[0] in OURS]
    if taken:
        raise InputError(
            f"{taken[0]} cannot be given: this command chooses its runs and trains one at a time; start it once per "
            f"GPU, with CUDA_VISIBLE_DEVICES, to use several"
        )
    parser = Parser(prog="cim-plugin train")
    add_arguments(parser)
    algorithms = list(algorithms)
    known = {hyperparameter for algorithm in algorithms for hyperparameter in catalog.hyperparameters(algorithm)}

    def configuration(algorithm: str, seed: int) -> Configuration:
        own = ["--dataset", name, "--root_dir", str(root), "--algorithm", algorithm, "--seed", str(seed)]
        args = parser.parse_args([*words, *own, "--log_dir", str(folder / f"{algorithm}-{seed}"), "--resume"])
        for hyperparameter in known - catalog.hyperparameters(algorithm).keys():
            setattr(args, hyperparameter, None)
        return make_config(args)

    return [configuration(algorithm, seed) for seed in seeds for algorithm in algorithms]


def is_finished(config: Configuration) -> bool:
    """Whether the run is there and done.

    Raises:
        InputError: a run of another configuration is in its place.
    """
    path = Path(config.log_dir, RESULTS)
    if not path.exists():
        return False
    record = read_json(path)
    if differs := difference(record["config"], config, [name for name in config.as_record() if name not in MAY_DIFFER]):
        raise InputError(f"{path.parent} holds a run with {differs}; repeat its flags or choose another --output_dir")
    return record["status"] == "finished"


def train(configs: list[Configuration], prepare: Prepare, run: Run = jobs.run) -> int:
    """Train what is not finished, one run after the other. Exit status 1 where some failed, having said why, else 0.

    A process of its own per run, so that the peak memory in results.json is that of the run. A run that another command
    is training is left to it, so that several commands, each with a GPU, share the runs of a folder.

    Args:
        run: runs the jobs, here or on a cluster.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED_ONCE)
    left = {_name(config): config for config in configs if not is_finished(config)}
    numbers = {name: number for number, name in enumerate(left, 1)}

    def say(job: Job, slot: jobs.Environment) -> None:
        print(f"run {numbers[job.name]} of {len(left)}: {job.name}", file=sys.stderr)

    def say_how(job: Job, status: int) -> None:
        if status == LEFT:
            print(f"{job.name}: left to the command that is training it", file=sys.stderr)
        if status < 0:
            name = signal.Signals(-status).name
            print(
                f"{job.name}: error: ended by {name}, as where memory is short; the same command goes on",
                file=sys.stderr,
            )

    trainings = [Job(name, jobs.function(context, _train_one, prepare, config)) for name, config in left.items()]
    return int(bool(jobs.failed(run(trainings, started=say, ended=say_how))))


def _name(config: Configuration) -> str:
    return f"{config.algorithm}, seed {config.seed}"


def _train_one(prepare: Prepare, config: Configuration) -> None:
    try:
        with FolderLock(config.log_dir, "--output_dir"):
            if not is_finished(config):  # by another command, meanwhile
                _train_locked(prepare, config)
    except Locked:
        sys.exit(LEFT)


def _train_locked(prepare: Prepare, config: Configuration) -> None:
    import torch

    from cim_plugin.wilds_runner.command import in_words
    from cim_plugin.wilds_runner.fabric import make_fabric
    from cim_plugin.wilds_runner.loop import Stopped

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # log.txt has it all
    try:
        fabric = make_fabric(config)
        fabric.launch()
        loop = prepare(config, fabric)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: setattr(loop, "stop_asked", True))
        loop.run()
        loop.log.bar.close()
    except Stopped:
        sys.exit(128 + signal.SIGINT)
    except (InputError, NotFinite, torch.cuda.OutOfMemoryError) as error:
        print(f"{_name(config)}: error: {in_words(error)}", file=sys.stderr)
        sys.exit(1)
