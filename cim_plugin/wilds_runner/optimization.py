"""Optimizers and learning-rate schedules by the names of WILDS' ``run_expt.py``."""

from __future__ import annotations

import contextlib
import math
from typing import Iterable, Iterator

import torch
from torch import nn
from torch.optim import lr_scheduler

from ..errors import InputError, first_line
from ..flags import is_finite, is_whole, shortened
from ..runs.configuration import Configuration

MOST_REHEARSED = 1000  #: epochs

#: device -> optimizers whose one kernel for all weights pays; on a CPU SGD's copies channels_last weights and is the
#: slower one
FUSED = {"cuda": ("SGD", "Adam", "AdamW"), "cpu": ("Adam", "AdamW")}


def make_optimizer(config: Configuration, parameters: Iterable, device: str = "cpu") -> torch.optim.Optimizer:
    """The optimizer that the configuration names, for weights that will be on a device of type ``device``.

    Raises:
        InputError: it cannot be made with its arguments, or not take a step.
    """
    _try(_optimizer(config, [nn.Parameter(torch.zeros(2, 2))], "cpu"), config)
    return _optimizer(config, parameters, device)


def _optimizer(config: Configuration, parameters: Iterable, device: str) -> torch.optim.Optimizer:
    kind = getattr(torch.optim, config.optimizer)
    with _said("optimizer", config):
        return kind(
            parameters,
            lr=config.lr,
            weight_decay=config.weight_decay,
            **_fused(config, device),
            **config.optimizer_kwargs,
        )


def _try(optimizer: torch.optim.Optimizer, config: Configuration) -> None:
    """What no constructor looks at fails here, before the data are read."""
    (weight,) = optimizer.param_groups[0]["params"]
    with _said("optimizer", config):
        for _ in range(2):  # momentum begins with the second step
            weight.grad = torch.ones_like(weight)
            optimizer.step()


def _fused(config: Configuration, device: str) -> dict[str, bool]:
    """One kernel for all weights, unless an argument asks for another way; with 16-mixed it would hide the gradients
    that are to be clipped.
    """
    if config.precision == "16-mixed" or {"fused", "foreach", "differentiable"} & set(config.optimizer_kwargs):
        return {}
    return {"fused": True} if config.optimizer in FUSED.get(device, ()) else {}


def make_scheduler(config: Configuration, optimizer: torch.optim.Optimizer, n_steps: int):
    """The schedule that the configuration names, or None.

    Args:
        n_steps: optimizer steps of the whole run.
    """
    name = config.scheduler
    if name is None:
        return None
    if name not in WARMUPS:
        _rehearse(config)
        return _by_epoch(config, optimizer)
    options = dict(config.scheduler_kwargs)
    warmup = options.pop("num_warmup_steps")
    if options:
        raise InputError(f"--scheduler_kwargs {options} is unknown to {name}; it takes num_warmup_steps")
    if not is_finite(warmup) or warmup < 0:
        raise InputError(
            f"--scheduler_kwargs num_warmup_steps={shortened(str(warmup), 40)} is not a number of steps of at least 0"
        )
    return lr_scheduler.LambdaLR(optimizer, lambda step: _warm(step, warmup, n_steps, WARMUPS[name]))


def _by_epoch(config: Configuration, optimizer: torch.optim.Optimizer):
    with _said("scheduler", config):
        scheduler = getattr(lr_scheduler, str(config.scheduler))(optimizer, **config.scheduler_kwargs)
    for name, low, epochs in (
        ("step_size", 1, [getattr(scheduler, "step_size", 1)]),
        ("milestones", 0, list(getattr(scheduler, "milestones", ()))),
    ):
        if not all(is_whole(epoch, low) for epoch in epochs):
            raise InputError(
                f"--scheduler_kwargs {name}={shortened(str(config.scheduler_kwargs[name]), 40)}: epochs are whole "
                f"numbers of at least {low}"
            )
    return scheduler


def _rehearse(config: Configuration) -> None:
    """The rates of the run's epochs on a model of one weight: what goes wrong after some of them goes wrong here.

    Raises:
        InputError: a step fails, or a rate is negative or not finite.
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.lr)
    scheduler = _by_epoch(config, optimizer)
    words = [0.5] if config.scheduler == "ReduceLROnPlateau" else []  # a metric that never gets better
    for epoch in range(min(config.n_epochs, MOST_REHEARSED)):
        optimizer.step()
        with _said("scheduler", config):
            scheduler.step(*words)
        rate = optimizer.param_groups[0]["lr"]
        if not (is_finite(rate) and rate >= 0):
            raise InputError(
                f"--scheduler {config.scheduler} with --scheduler_kwargs {config.scheduler_kwargs} makes the "
                f"learning rate {rate} after epoch {epoch}"
            )


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


@contextlib.contextmanager
def _said(flag: str, config: Configuration) -> Iterator[None]:
    """Whatever torch raises for arguments that it cannot use, in one line."""
    try:
        yield
    except Exception as error:
        name, options = getattr(config, flag), shortened(str(getattr(config, f"{flag}_kwargs")), 200)
        what = first_line(error)
        raise InputError(f"--{flag} {name} cannot be made with --{flag}_kwargs {options}: {what}") from error
