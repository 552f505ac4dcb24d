"""Pseudo-environments of a run, whether ``--cross_fit`` or ``--pseudo_environments`` brings them, and the file in its
folder that keeps them.
"""

from __future__ import annotations

import itertools
import os
import re
from typing import Mapping, NamedTuple

import torch
from torch import Tensor

from ..algorithms.pseudo_environments import pseudo_groups
from ..errors import InputError
from ..files import Unreadable, read_text
from ..runs.configuration import Configuration
from ..runs.layout import RESULTS, STATE
from . import checkpoint
from .datasets import Dataset, Split, digest_of
from .environments_file import SPLITS, read_environments

HEADER = "split,row,label,pseudo_environment"
PREDICTED, GIVEN = "cross_fit.csv", "pseudo_environments.csv"  #: of --cross_fit, and of --pseudo_environments


class Pseudo(NamedTuple):
    """Of training and validation images: "train" and "val" -> (N,) int64 each."""

    environments: dict[str, Tensor]
    #: what batches are balanced by, and what the rule worst_pseudo_group and, with --groups pseudo, group DRO go by
    groups: dict[str, Tensor]
    n_groups: int  #: groups are below it


def predicted(data: Dataset, environments: Mapping[str, Tensor]) -> Pseudo:
    """Environments that are classes: a group is a class and whether the environment is that class."""
    groups = {key: pseudo_groups(data.splits[key].labels, values) for key, values in environments.items()}
    return Pseudo(dict(environments), groups, 2 * data.n_classes)


def given(data: Dataset, environments: Mapping[str, Tensor]) -> Pseudo:
    """Environments of any kind: a group is a class and an environment."""
    count = n_environments(environments)
    groups = {key: count * data.splits[key].labels + values for key, values in environments.items()}
    return Pseudo(dict(environments), groups, count * data.n_classes)


def n_environments(environments: Mapping[str, Tensor]) -> int:
    return 1 + max(int(values.max()) for values in environments.values())


def of_config(config: Configuration, data: Dataset) -> Pseudo | None:
    """Those of --pseudo_environments: of a run that has begun as its own file has them, else as the user's has. None
    without the flag.

    Raises:
        InputError: see :func:`read` and :func:`.environments_file.read_environments`.
    """
    if config.pseudo_environments is None:
        return None
    if any(os.path.isfile(os.path.join(config.log_dir, name)) for name in (STATE, RESULTS)):
        return read(config.log_dir, data)
    return given(data, read_environments(config.pseudo_environments, data))


def shares_that_agree(splits: Mapping[str, Split], pseudo: Pseudo) -> dict[str, float]:
    """Split -> the share of its images, in [0, 1], whose pseudo-environment is that of their label."""
    return {key: (values == splits[key].labels).double().mean().item() for key, values in pseudo.environments.items()}


# --- the file ---------------------------------------------------------------------------------------------------------

_FIX = "restore the file that the run wrote, or begin again with another --log_dir"


def name_of(config: Configuration) -> str | None:
    """The name of the file in the folder of a run; None where a run has no pseudo-environments."""
    return GIVEN if config.pseudo_environments is not None else PREDICTED if config.has_first_phase else None


def file_in(folder: str) -> str | None:
    """The file of a run's folder; None where there is none."""
    paths = [os.path.join(folder, name) for name in (GIVEN, PREDICTED)]
    return next((path for path in paths if os.path.isfile(path)), None)


def write(path: str, data: Dataset, pseudo: Pseudo) -> None:
    """A line per image of the training and the validation split, in order."""
    values = itertools.chain.from_iterable(pseudo.environments[key].tolist() for key in SPLITS)
    text = "\n".join([HEADER, *(f"{start}{value}" for start, value in zip(_starts(data), values)), ""])
    checkpoint.write_whole(path, text.encode())


def read(folder: str, data: Dataset) -> Pseudo:
    """What :func:`write` wrote into the folder of a run.

    Raises:
        InputError: the file is missing or damaged, or of other data.
    """
    path = file_in(folder) or os.path.join(folder, PREDICTED)
    is_given = os.path.basename(path) == GIVEN
    try:
        lines = read_text(path).splitlines()
    except Unreadable as error:
        raise InputError(f"{error}; {_FIX}") from error
    starts = _starts(data)
    if len(lines) != len(starts) + 1:
        raise InputError(f"{path} has {len(lines)} lines where {len(starts) + 1} belong; {_FIX}")
    if lines[0] != HEADER:
        raise InputError(f"{path}, line 1: {lines[0][:80]!r} where {HEADER!r} belongs; {_FIX}")
    most = len(starts) if is_given else data.n_classes
    wanted = "an environment" if is_given else "a class"
    values = []
    for number, (line, start) in enumerate(zip(lines[1:], starts), 2):
        value = line.removeprefix(start)
        is_number = re.fullmatch("[0-9]{1,9}", value) is not None
        if not (line.startswith(start) and is_number and int(value) < most):
            raise InputError(
                f"{path}, line {number}: {line[:80]!r} where {start!r} and {wanted} from 0 to {most - 1} belong; {_FIX}"
            )
        values.append(int(value))
    parts = torch.tensor(values).split([len(data.splits[key].labels) for key in SPLITS])
    return (given if is_given else predicted)(data, dict(zip(SPLITS, parts)))


def fingerprint(pseudo: Pseudo | None) -> dict[str, str]:
    """As :func:`.datasets.fingerprint`; {} where a run has none."""
    if pseudo is None:
        return {}
    return {"the pseudo-environments": digest_of(pseudo.environments[key] for key in SPLITS)}


def check_unchanged(config: Configuration, data: Dataset, before: Mapping[str, str]) -> None:
    """Read the run's file, and the user's where there is one, and hold them to the fingerprint of the run, which an
    older one lacks.

    Raises:
        InputError: see :func:`read`; or it says what the run did not write, or was not begun with.
    """
    folder = config.log_dir
    for what, digest in fingerprint(read(folder, data)).items():
        if before.get(what, digest) != digest:
            raise InputError(f"{file_in(folder)} is not as the run wrote it; {_FIX}")
        if config.pseudo_environments is None:
            continue
        users = given(data, read_environments(config.pseudo_environments, data))
        if fingerprint(users)[what] != digest:
            raise InputError(
                f"--pseudo_environments {config.pseudo_environments} has other environments than the run in {folder} "
                f"was begun with; restore it, or begin again with another --log_dir"
            )


def _starts(data: Dataset) -> list[str]:
    """All of every line but the pseudo-environment."""
    return [f"{key},{row},{label}," for key in SPLITS for row, label in enumerate(data.splits[key].labels.tolist())]
