"""Optimizers and learning-rate schedules by the names of WILDS' ``run_expt.py``."""

from __future__ import annotations

import math
from typing import Any, Iterable

import torch
from torch.optim import lr_scheduler

from ..errors import InputError

#: device -> optimizers whose one kernel for all weights pays; on a CPU SGD's copies channels_last weights and is the
#: slower one
FUSED = {"cuda": ("SGD", "Adam", "AdamW"), "cpu": ("Adam", "AdamW")}


def make_optimizer(config: dict[str, Any], parameters: Iterable, device: str = "cpu") -> torch.optim.Optimizer:
    """The optimizer that the configuration names, for weights that will be on a device of type ``device``."""
    kind = getattr(torch.optim, config["optimizer"])
    return _with_arguments(
        kind,
        "optimizer",
        config,
        parameters,
        lr=config["lr"],
        weight_decay=config["weight_decay"],
        **_fused(config, device),
    )


def _fused(config: dict[str, Any], device: str) -> dict[str, bool]:
    """One kernel for all weights, unless an argument asks for another way; with 16-mixed it would hide the gradients
    that are to be clipped.
    """
    if config["precision"] == "16-mixed" or {"fused", "foreach", "differentiable"} & set(config["optimizer_kwargs"]):
        return {}
    return {"fused": True} if config["optimizer"] in FUSED.get(device, ()) else {}


def make_scheduler(config: dict[str, Any], optimizer: torch.optim.Optimizer, n_steps: int):
    """The schedule that the configuration names, or None.

    Args:
        n_steps: optimizer steps of the whole run.
    """
    name = config["scheduler"]
    if name is None:
        return None
    if name in WARMUPS:
        options = dict(config["scheduler_kwargs"])
        warmup = options.pop("num_warmup_steps")
        if options:
            raise InputError(f"--scheduler_kwargs {options} is unknown to {name}; it takes num_warmup_steps")
        if not isinstance(warmup, (int, float)) or not 0 <= warmup < math.inf:
            raise InputError(f"--scheduler_kwargs num_warmup_steps={warmup} is not a number of steps of at least 0")
        return lr_scheduler.LambdaLR(optimizer, lambda step: _warm(step, warmup, n_steps, WARMUPS[name]))
    return _with_arguments(getattr(lr_scheduler, name), "scheduler", config, optimizer)


#: schedule -> the rate by progress in [0, 1] after the warm-up; these step after every batch, the others after every
#: epoch
WARMUPS = {
    "linear_schedule_with_warmup": lambda progress: 1 - progress,
    "cosine_schedule_with_warmup": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}


def _warm(step: int, warmup: int, n_steps: int, rate) -> float:
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, rate(min(1.0, (step - warmup) / max(1, n_steps - warmup))))


def _with_arguments(kind, flag: str, config: dict[str, Any], *words, **keywords):
    options = config[f"{flag}_kwargs"]
    try:
        return kind(*words, **keywords, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"--{flag} {config[flag]} cannot be made with --{flag}_kwargs {options}: {error}") from error
