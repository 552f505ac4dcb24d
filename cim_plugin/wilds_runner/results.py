"""What a run leaves behind: models and predictions per selection rule, and results.json."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import subprocess
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import __version__
from ..runs.layout import RESULTS, model_file, place, prediction_file
from . import checkpoint
from .cross_fit import shares_that_agree
from .evaluation import as_record

if TYPE_CHECKING:
    from .trainer import Trainer

PACKAGES = ("torch", "torchvision", "timm", "wilds", "lightning-fabric", "numpy", "pytorch-msssim")


class Clock:
    """Seconds spent per activity, over all the sessions of a run."""

    def __init__(self):
        self._ended: dict[str, float] = {}
        self._running: dict[str, float] = {}  #: activity -> its start

    @property
    def seconds(self) -> dict[str, float]:
        """Up to now: a state is saved amid an epoch, too."""
        now = time.perf_counter()
        running = {name: self._ended.get(name, 0.0) + now - start for name, start in self._running.items()}
        return {**self._ended, **running}

    def go_on_from(self, seconds: dict[str, float]) -> None:
        """Count on from :attr:`seconds` of an earlier session."""
        self._ended.update(seconds)

    @contextlib.contextmanager
    def measure(self, name: str):
        self._running[name] = time.perf_counter()
        try:
            yield
        finally:
            self._ended = self.seconds
            del self._running[name]


def publish(trainer: Trainer, predicted: dict[str, Tensor], spent: dict[str, Any]) -> None:
    """Write the files of every rule that has chosen the epoch that ended last, then results.json.

    Args:
        predicted: split -> predicted labels (N,) int64 in dataset order.
        spent: from :func:`cost`, at the end of that epoch.
    """
    config, epoch = trainer.config, trainer.epoch - 1
    wanted = {"last": config.save_last}
    places = [
        place(config.log_dir, rule)
        for rule, choice in trainer.chosen.items()
        if choice.epoch == epoch and wanted.get(rule, config.save_best)
    ]
    if config.save_step is not None and (epoch + 1) % config.save_step == 0:
        places.append((config.log_dir, str(epoch)))
    model = {"algorithm": trainer.classifier.state_dict(), "epoch": epoch, "best_val_metric": _val_metric(trainer)}
    first = None
    for folder, word in places:
        path = os.path.join(folder, model_file(config.dataset, config.seed, word))
        if first is None:
            checkpoint.save(path, model)
            first = path
        else:
            checkpoint.link(first, path)
        if config.save_pred:
            for split, labels in predicted.items():
                checkpoint.save_predictions(
                    os.path.join(folder, prediction_file(config.dataset, config.seed, split, word)), labels
                )
    checkpoint.save_json(os.path.join(config.log_dir, RESULTS), {**summary(trainer), **spent})


def _val_metric(trainer: Trainer) -> float | None:
    if "best" not in trainer.outcomes:  # NaN so far
        return None
    return trainer.outcomes["best"]["val"].metrics[trainer.config.val_metric]


def summary(trainer: Trainer) -> dict[str, Any]:
    """results.json but for :func:`cost`: the configuration, what each rule chose and how that does on every split."""
    config = trainer.config
    return {
        "status": "finished" if trainer.epoch == config.n_epochs else "running",
        "epochs": trainer.epoch,
        "dataset": config.dataset,
        "algorithm": config.algorithm,
        "seed": config.seed,
        "synthetic": trainer.data.synthetic,
        "selection": {
            name: {
                "epoch": choice.epoch,
                "score": choice.score,
                "rule": trainer.rules[name].meaning,
                "needs": trainer.rules[name].needs,
                "splits": {key: as_record(trainer.data, outcome) for key, outcome in trainer.outcomes[name].items()},
            }
            for name, choice in trainer.chosen.items()
        },
        "config": config.as_record(),
        "data": trainer.fingerprint,
        "n_parameters": sum(p.numel() for p in trainer.classifier.parameters()),
        "agreeing_pseudo_environments": None
        if trainer.pseudo is None
        else shares_that_agree(trainer.data.splits, trainer.pseudo),
        "similarity": trainer.classifier.contrast and trainer.classifier.contrast.similarity.how,
        "seconds": {name: round(seconds, 3) for name, seconds in trainer.clock.seconds.items()},
        "steps": trainer.epoch * len(trainer.order),
    }


def cost(trainer: Trainer) -> dict[str, Any]:
    """What the run needs and runs on: the most memory of all sessions, and processes, device and versions of this
    one.
    """
    before = trainer.cost_before.get("peak_memory_bytes", {})
    now = peak_memory()
    return {
        "peak_memory_bytes": {kind: max(before.get(kind, 0), now.get(kind, 0)) for kind in {**before, **now}},
        "n_processes": trainer.fabric.world_size,
        "device": torch.cuda.get_device_name()
        if trainer.fabric.device.type == "cuda"
        else platform.processor() or platform.machine(),
        "versions": versions(),
    }


def peak_memory() -> dict[str, int]:
    """The most memory that this process has held, in bytes: resident, and on the GPU where there is one."""
    import resource  # Windows, where a finished run may be looked at, has none

    unit = 1 if platform.system() == "Darwin" else 1024
    memory = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        memory["gpu"] = torch.cuda.max_memory_allocated()
    return memory


@functools.cache
def versions() -> dict[str, str | None]:
    """Versions of what a result depends on, and the commit of this plugin where it runs from a checkout."""
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "cim_plugin": __version__,
        "cim_plugin_commit": _commit(),
    }
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _commit() -> str | None:
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if not os.path.exists(os.path.join(here, ".git")):
        return None
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True
        )
        return done.stdout.strip() or None
    return None
