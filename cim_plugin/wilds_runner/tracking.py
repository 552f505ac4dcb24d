"""The numbers of a run's log in a tracker: TensorBoard, Weights & Biases or trackio. None is imported unless it is
asked for, and each is tried without a network.

A resumed run goes on in the tracked run that it began: its name, made once, is kept in the run's folder.
"""

from __future__ import annotations

import atexit
import importlib
import os
import re
import secrets
from types import ModuleType
from typing import Any, Callable, Mapping, Protocol

from ..errors import InputError
from ..files import read_text
from . import checkpoint

NAME = "tracked_run.txt"  #: holds the name of the run at its tracker
PROJECT = "cim_plugin"  #: at the tracker; WANDB_PROJECT names another one


class Tracker(Protocol):
    """What a log sends its numbers to."""

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name, at a step of the training."""

    def close(self) -> None:
        """Send what is left."""


class TensorBoard:
    """Events in the run's folder. A resumed run adds a file to them."""

    def __init__(self, tensorboard: ModuleType, folder: str, config: Mapping[str, Any]):
        self.writer = tensorboard.SummaryWriter(folder)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of wandb, by its id; its files lie in the run's folder, as they do with WANDB_MODE=offline."""

    def __init__(self, wandb: ModuleType, folder: str, config: Mapping[str, Any]):
        project = os.environ.get("WANDB_PROJECT") or PROJECT
        quiet = wandb.Settings(console="off")
        name = run_name(folder)
        self.run = wandb.init(project=project, id=name, resume="allow", dir=folder, config=config, settings=quiet)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """A run of trackio, by its name, on this machine's disk, unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL is set."""

    def __init__(self, trackio: ModuleType, folder: str, config: Mapping[str, Any]):
        name = run_name(folder)
        self.run = trackio.init(project=PROJECT, name=name, resume="allow", config=dict(config), embed=False)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


#: name -> (the module, the package that has it, what makes a tracker of it)
TRACKERS: dict[str, tuple[str, str, Callable[[ModuleType, str, Mapping[str, Any]], Tracker]]] = {
    "tensorboard": ("torch.utils.tensorboard", "tensorboard", TensorBoard),
    "wandb": ("wandb", "wandb", WeightsAndBiases),
    "trackio": ("trackio", "trackio", Trackio),
}


def start(name: str, folder: str, config: Mapping[str, Any]) -> Tracker:
    """A tracker for the run of a folder, which is closed when the process ends.

    Args:
        name: a key of :data:`TRACKERS`.
        config: the run's configuration, which the tracker shows.

    Raises:
        InputError: the package is missing, or does not start.
    """
    module, package, make = TRACKERS[name]
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"--track {name} needs the package {package!r}; pip install {package}, or leave it out"
        ) from error
    try:
        tracker = make(found, folder, config)
    except InputError:
        raise
    except Exception as error:  # each package has its own: no account, no network, no disk
        raise InputError(f"--track {name} does not start: {error}; leave it out to train without it") from error
    atexit.register(tracker.close)
    return tracker


def run_name(folder: str) -> str:
    """The name of a folder's run at its tracker: the folder's, and a random word.

    Raises:
        InputError: what the folder keeps is no such name.
    """
    path = os.path.join(folder, NAME)
    if os.path.lexists(path):
        name = read_text(path).strip()
        if not re.fullmatch(r"[\w-]{1,100}", name, re.ASCII):
            raise InputError(f"{path} holds no name of a run; delete it, and a new one is begun")
        return name
    words = re.sub(r"[^\w-]+", "-", os.path.basename(os.path.abspath(folder)), flags=re.ASCII)[:60]
    name = f"{words}-{secrets.token_hex(4)}"
    checkpoint.write_whole(path, f"{name}\n".encode())
    return name
