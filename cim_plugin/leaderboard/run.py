"""The trainings of a submission: ``cim-plugin train`` once per seed, one after the other, each as a process of its
own.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, Callable

from ..data.releases import RELEASES, how_to_get, is_synthetic
from ..errors import InputError
from ..runs import jobs
from ..runs.cluster import settings as cluster
from ..runs.cluster.launcher import runner
from ..runs.configuration import FLAG_NAMES
from ..runs.folder_lock import FolderLock
from ..runs.jobs import Job
from ..wilds_runner import config as flags
from .rules import board_of, broken, differing, numbers
from .runs import RESULTS, read_run

Run = Callable[..., dict[str, int]]  #: as jobs.run

PROGRAM = [sys.executable, "-m", "cim_plugin.cli"]  #: 'cim-plugin' with this interpreter

#: flags of ``cim-plugin train`` that are ours to set -> why
OURS = {
    "seed": "the leaderboard fixes the seeds",
    "log_dir": "every seed has a folder in --output_dir",
    "resume": "it is always on",
    "eval_epoch": "the validation metric chooses the epoch",
    "eval_splits": "all splits are evaluated",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``cim-plugin train``, without defaults, so that only what was given is passed on."""
    flags.add_arguments(parser)
    for action in parser._actions:
        if not action.required:
            action.default = argparse.SUPPRESS
            action.help = action.help.removesuffix(flags.SAID)  # which asks for a default
        if action.dest in OURS:
            action.help = f"refused: {OURS[action.dest]}"
    group = parser.add_argument_group("leaderboard")
    group.add_argument("--output_dir", required=True, help="a folder seed_<n> of it becomes the log_dir of every seed")
    dry_run = "print one command per seed that is left, for a cluster, and train nothing"
    cluster.add_arguments(parser)
    group.add_argument("--dry-run", action="store_true", default=argparse.SUPPRESS, help=dry_run)


def run_seeds(args: argparse.Namespace) -> int:
    """Train what is left. Exit status 0 if all seeds are finished, 1 if some failed, 128 + the signal's number where
    stopped.

    Raises:
        InputError: the flags break a rule, the data set is not there, or --output_dir holds other runs.
    """
    board = board_of(args.dataset)
    words = train_words(args)
    config = _checked_config(words, args)
    seeds = [int(replicate.partition(":")[2]) for replicate in board.replicates]
    folders = {seed: os.path.join(args.output_dir, f"seed_{seed}") for seed in seeds}
    left = [seed for seed in seeds if not _is_finished(folders[seed], config)]
    commands = {seed: [*words, "--seed", str(seed), "--log_dir", folders[seed], "--resume"] for seed in left}
    if getattr(args, "dry_run", False):
        for command in commands.values():
            print(shlex.join(["cim-plugin", *command]))
        return 0
    if left and not getattr(args, "download", False):
        _check_data(args.dataset, args.root_dir)
    run = runner(args, args.output_dir)
    print(
        f"{args.dataset}, {args.algorithm}: {numbers(board.replicates)}, by {config['val_metric']} on validation data; "
        f"{_state(seeds, left)}",
        flush=True,
    )
    with FolderLock(args.output_dir, "--output_dir"):
        return _train(args, seeds, commands, run)


def _train(args: argparse.Namespace, seeds: list[int], commands: dict[int, list[str]], run: Run) -> int:
    trainings = {f"seed {seed}": command for seed, command in commands.items()}
    last = next(reversed(trainings), "")

    def say(job: Job, slot: jobs.Environment) -> None:
        print(f"{job.name}: {shlex.join(['cim-plugin', *trainings[job.name]])}", flush=True)

    def say_how(job: Job, status: int) -> None:
        for why in jobs.failed({job.name: status}).values():
            what_next = "; going on with the next" if job.name != last else ""
            print(f"{job.name} failed ({why}){what_next}", file=sys.stderr, flush=True)

    def left(statuses: dict[str, int]) -> list[int]:
        return [seed for seed in commands if statuses.get(f"seed {seed}") != 0]

    try:
        wanted = [
            Job(name, jobs.command([*PROGRAM, *command], preexec_fn=jobs.end_with_parent))
            for name, command in trainings.items()
        ]
        statuses = run(wanted, started=say, ended=say_how)
    except jobs.Stopped as stop:
        said = f"stopped; {_state(seeds, left(stop.statuses))}; go on with the same command: {_again()}"
        print(said, file=sys.stderr, flush=True)
        return 128 + stop.number
    print(_state(seeds, left(statuses)), flush=True)
    if failed := jobs.failed(statuses):
        seeds_and_reasons = ", ".join(f"{name} ({why})" for name, why in failed.items())
        print(f"failed: {seeds_and_reasons}; try again with the same command: {_again()}", file=sys.stderr)
        return 1
    archive = f"{args.dataset}_{args.algorithm}.tar.gz"
    print(
        "next: "
        + shlex.join(["cim-plugin", "leaderboard", "pack", args.output_dir, "--root_dir", args.root_dir, "-o", archive])
    )
    return 0


def _state(seeds: list[int], left: list[int]) -> str:
    done = [seed for seed in seeds if seed not in left]
    return f"finished: {', '.join(map(str, done)) or 'none'}; left: {', '.join(map(str, left)) or 'none'}"


def _again() -> str:
    return shlex.join(["cim-plugin", *sys.argv[1:]])


# --- the flags
# ----------------------------------------------------------------------------------------------------------


def train_words(args: argparse.Namespace) -> list[str]:
    """The command line of ``cim-plugin train`` with what was given for it.

    Raises:
        InputError: a flag is ours to set.
    """
    given = vars(args)
    for name, why in OURS.items():
        if name in given:
            raise InputError(f"--{name} is not accepted: {why}")
    names = [*FLAG_NAMES, *flags.catalog.all_hyperparameters()]
    words = ["train"]
    for name in names:
        if name in given:
            words += [f"--{name}", *_words(given[name])]
    return words


def _words(value: Any) -> list[str]:
    """A parsed value as the words that parse to it."""
    if isinstance(value, dict):
        return [f"{key}={item!r}" for key, item in value.items()]
    if isinstance(value, list):
        return [str(item) for item in value]
    return [str(value).lower() if isinstance(value, bool) else str(value)]


def _checked_config(words: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """The configuration that every seed will have, as results.json will have it."""
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    config = flags.make_config(parser.parse_args(words[1:])).as_record()
    wrong = broken(config)
    if wrong:
        raise InputError(f"not accepted, it breaks the leaderboard's rules: {'; '.join(wrong)}")
    return json.loads(json.dumps(config))


def _check_data(dataset: str, root_dir: str) -> None:
    release = RELEASES[dataset]
    folder = release.path(root_dir)
    if not (folder / release.release_file).is_file():
        raise InputError(f"{folder / release.release_file} does not exist; {how_to_get(dataset, root_dir)}")
    if is_synthetic(folder):
        raise InputError(f"{folder} is synthetic data of 'cim-plugin data demo'; a submission needs the real {dataset}")


def _is_finished(folder: str, config: dict[str, Any]) -> bool:
    if not os.path.exists(os.path.join(folder, RESULTS)):
        return False
    run = read_run(Path(folder))
    differences = differing(run.config, config)
    if differences:
        raise InputError(
            f"{folder} holds a run of another configuration ({'; '.join(differences)}); repeat its flags or choose "
            f"another --output_dir"
        )
    return run.results.get("status") == "finished"
