"""How jobs are submitted: by flags of a command line, or by a file of JSON. Flags count more."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import InputError
from ...files import read_json, write_whole
from ...flags import is_whole, whole

HERE, SUBMITIT = "here", "submitit"  #: launchers
SLURM, LOCAL = "slurm", "local"  #: clusters of submitit
FILE_VARIABLE = "CIM_PLUGIN_CLUSTER"  #: names the file where a host's command line has no flag of ours
LONGEST = 365 * 24 * 60  #: minutes

#: setting -> (smallest, largest, what it is); None: a text
KNOWN: dict[str, tuple[int | None, int | None, str]] = {
    "cluster": (None, None, f"{SLURM}, or {LOCAL}: processes of this machine that outlive the command ({SLURM})"),
    "partition": (None, None, "of Slurm (its default)"),
    "gpus": (0, 64, f"of every job (1; on {LOCAL} 0)"),
    "time": (1, LONGEST, "minutes of every job; one that is resumable goes on after them (1440)"),
    "array": (1, 10_000, "jobs at a time, at most (16)"),
}


@dataclass(frozen=True)
class Settings:
    """Of a submission."""

    cluster: str = SLURM
    partition: str | None = None
    gpus: int = 1
    time: int = 1440
    array: int = 16
    own: dict[str, Any] = field(default_factory=dict)  #: submitit's parameters by its own names, as "account"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--launcher",
        choices=[HERE, SUBMITIT],
        default=HERE,
        help=f"{SUBMITIT}: submit the jobs that are missing to Slurm; Ctrl-C leaves them running, the same command "
        f"looks after them again ({HERE})",
    )
    for name, (low, high, what) in KNOWN.items():
        kind = (
            {"choices": [SLURM, LOCAL]}
            if name == "cluster"
            else {"type": str if low is None or high is None else whole(low, high)}
        )
        group.add_argument(f"--{name}", **kind, help=what)
    group.add_argument(
        "--cluster_file",
        metavar="JSON",
        help='a file of these settings, and of submitit\'s own: {"partition": "gpu", "account": "vision"}',
    )


def of_flags(args: argparse.Namespace) -> Settings | None:
    """The settings that a command line asks for; None where the jobs are to run here.

    Raises:
        InputError: flags of a cluster without one, or the file is wrong.
    """
    given = {name: value for name in KNOWN if (value := getattr(args, name, None)) is not None}
    if args.launcher == HERE:
        if given or args.cluster_file:
            name = next(iter(given), "cluster_file")
            raise InputError(f"--{name} is for --launcher {SUBMITIT}; give both or neither")
        return None
    return _settings({**(_of_file(args.cluster_file) if args.cluster_file else {}), **given})


def of_environment() -> Settings:
    """Those of the file that :data:`FILE_VARIABLE` names, or the defaults.

    Raises:
        InputError: the file is wrong.
    """
    path = os.environ.get(FILE_VARIABLE)
    return _settings(_of_file(path) if path else {})


def write(settings: Settings, path: str | os.PathLike) -> None:
    """The file that says the same."""
    known = {name: value for name in KNOWN if (value := getattr(settings, name)) is not None}
    write_whole(path, f"{json.dumps({**settings.own, **known})}\n".encode())


def _of_file(path: str) -> dict[str, Any]:
    values = read_json(path)
    for name, (low, high, _) in KNOWN.items():
        value = values.get(name)
        if value is None:
            continue
        if low is None or high is None:
            if not isinstance(value, str):
                raise InputError(f"{path}: {name} is {value!r}, which is not a text")
        elif not is_whole(value, low, high):
            raise InputError(f"{path}: {name} is {value!r}, which is not a whole number from {low} to {high}")
    if values.get("cluster", SLURM) not in (SLURM, LOCAL):
        raise InputError(f"{path}: cluster is {values['cluster']!r}; choose {SLURM} or {LOCAL}")
    return values


def _settings(values: dict[str, Any]) -> Settings:
    own = {name: value for name, value in values.items() if name not in KNOWN}
    known = {name: value for name, value in values.items() if name in KNOWN}
    settings = replace(Settings(gpus=0 if known.get("cluster") == LOCAL else 1), **known, own=own)
    if settings.cluster == SLURM and shutil.which("sbatch") is None:
        raise InputError(
            f"Slurm's sbatch is not on the path; start the command on a login node, or say that the cluster is {LOCAL}"
        )
    return settings
