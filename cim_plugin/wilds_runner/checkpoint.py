"""Files that appear whole or not at all, and the state from which a run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import Any, BinaryIO, Callable, Sequence

import torch

from .. import files, retired
from ..errors import InputError
from ..models import seal
from ..models.encoders import read_checkpoint
from ..runs.configuration import Configuration, completed
from ..runs.layout import STATE

FIX = "what was saved before is whole. Make room or choose another --log_dir, and --resume"  #: where the disk refuses


def write_whole(path: str, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file of the run's own folder beside ``path``, bring it to the disk, and move it into place.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    files.write_whole(path, content, lasting=True, fix=FIX)


def save(path: str, state: dict[str, Any]) -> None:
    """A dictionary of tensors and plain values, as :func:`torch.load` reads it with ``weights_only=True``, sealed."""
    write_whole(path, lambda file: seal.save(state, file))


def link(source: str, path: str) -> None:
    """Give a file that is complete a second name, or a copy where the file system has no links."""
    part = f"{path}.part"
    with contextlib.suppress(FileNotFoundError):
        os.remove(part)
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        os.link(source, part)
        os.replace(part, path)
    except OSError:
        with open(source, "rb") as file:
            write_whole(path, lambda copy: shutil.copyfileobj(file, copy))
    with contextlib.suppress(FileNotFoundError):
        os.remove(part)  # a rename between two names of one file does nothing


def save_json(path: str, value: Any) -> None:
    write_whole(path, json.dumps(value, indent=2).encode())


def save_predictions(path: str, labels: torch.Tensor) -> None:
    """One predicted label per line, in dataset order, as the leaderboard of WILDS reads it."""
    write_whole(path, "".join(f"{label}\n" for label in labels.tolist()).encode())


def load_state(log_dir: str, config: Configuration, may_differ: set[str]) -> dict[str, Any] | None:
    """The state that a run of the same configuration left in ``log_dir``, or None.

    Raises:
        InputError: the state is of another configuration, or not a state.
    """
    path = os.path.join(log_dir, STATE)
    if not os.path.exists(path):
        return None
    state = read_checkpoint(path, "--resume")
    try:
        differs = difference(state["config"], config, [name for name in config.as_record() if name not in may_differ])
    except InputError:
        raise
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"--resume: {path} is not the state of a run") from error
    if differs:
        raise InputError(f"--resume: the run in {log_dir} had {differs}; repeat its flags or choose another --log_dir")
    return state


def difference(
    before: dict[str, Any], config: Configuration, names: Sequence[str], may_differ: Sequence[str] = ()
) -> str | None:
    """The first of these values that a run had otherwise, in words; compared as JSON keeps them. What is younger than
    the run was then as :func:`completed` says.

    Args:
        names: of the configuration; of "hyperparameters" all are compared.
        may_differ: hyperparameters that are not.

    Raises:
        InputError: the run had a hyperparameter that is no more.
    """
    before, now = json.loads(json.dumps(completed(before))), json.loads(json.dumps(config.as_record()))
    if "hyperparameters" in names and isinstance(
        before.get("hyperparameters"), dict
    ):  # one by one, of which a reader sees what differs
        if gone := retired.words(before["hyperparameters"]):
            raise InputError(f"the run that is there cannot be taken up, its {gone}; choose another folder")
        names = [
            *(name for name in names if name != "hyperparameters"),
            *(name for name in now["hyperparameters"] if name not in may_differ),
        ]
        before, now = {**before, **before["hyperparameters"]}, {**now, **now["hyperparameters"]}
    return next(
        (f"{name} {before.get(name)!r}, now it is {now[name]!r}" for name in names if before.get(name) != now[name]),
        None,
    )
