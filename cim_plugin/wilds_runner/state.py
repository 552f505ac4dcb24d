"""How far a run is, and the state from which it goes on: what is saved and restored."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Mapping

import torch
from torch import Tensor

from .. import catalog
from ..runs.layout import STATE
from . import checkpoint, selection
from . import pseudo as pseudo_environments
from .costs import Clock, cost
from .evaluation import Outcome
from .logs import RunLog
from .processes import on_rank_zero
from .pseudo import Pseudo
from .training import Training


@dataclass
class Progress:
    """What changes while a run goes on, beside weights and logs."""

    epoch: int = 0  #: that runs or comes next
    batch: int = 0  #: of it, that comes next
    pseudo: Pseudo | None = None  #: once they are known
    chosen: dict[str, selection.Chosen] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)  #: rule -> split -> outcome
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)  #: rows and predictions of this epoch's batches
    clock: Clock = field(default_factory=Clock)
    cost_before: dict[str, Any] = field(default_factory=dict)  #: :func:`~.costs.cost` of the sessions before this one

    def choose(self, rules: Mapping[str, selection.Rule], outcomes: dict[str, Outcome]) -> list[str]:
        """Let every rule look at the epoch that ends; the rules that choose it."""
        self.chosen = selection.choose(rules, self.chosen, outcomes, self.epoch)
        choosing = [name for name, choice in self.chosen.items() if choice.epoch == self.epoch]
        self.outcomes.update({name: outcomes for name in choosing})
        return choosing

    def end_epoch(self) -> None:
        self.epoch, self.batch, self.seen = self.epoch + 1, 0, []


def environments(training: Training, progress: Progress) -> Tensor:
    """(N,) int64 of the training split: what pairs go by."""
    return training.environments if progress.pseudo is None else progress.pseudo.environments["train"]


def groups_of_pseudo(progress: Progress, key: str) -> Tensor | None:
    """(N,) int64 of a split: its pseudo-groups; None where none are known."""
    return None if progress.pseudo is None else progress.pseudo.groups.get(key)


def weighed_groups(training: Training, progress: Progress, key: str) -> Tensor | None:
    """(N,) int64 of a split: the groups that group DRO weighs; None where they are not known."""
    if training.config.groups == "pseudo":
        return groups_of_pseudo(progress, key)
    return training.data.splits[key].groups


def go_by(training: Training, progress: Progress, pseudo: Pseudo) -> None:
    """Batches, triplets and selection go by these pseudo-environments from now on."""
    progress.pseudo = pseudo
    config, train = training.config, training.data.splits["train"].labels
    if catalog.trains_twice(config.algorithm):
        training.order.upweight(pseudo.environments["train"] != train, config.hyperparameters["jtt_upweight"])
    elif config.balance_batches:
        training.order.balance(train, pseudo.groups["train"])


def begin_by(training: Training, progress: Progress, pseudo: Pseudo) -> None:
    """As :func:`go_by`, at the beginning of a run: with --groups pseudo all pseudo-groups that the training split holds
    have the same weight.
    """
    go_by(training, progress, pseudo)
    if training.config.groups == "pseudo":
        held = torch.bincount(pseudo.groups["train"], minlength=pseudo.n_groups) > 0
        training.classifier.group_weights.weights.copy_(held / held.sum())


def state_of(training: Training, progress: Progress, log: RunLog) -> dict[str, Any]:
    """Everything from which the run goes on: tensors and plain values."""
    scheduler = training.scheduler
    return {
        "config": training.config.as_record(),
        "epoch": progress.epoch,
        "batch": progress.batch,
        "cross_fit": progress.pseudo is not None,  # their file is there
        "model": training.classifier.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scheduler": scheduler.state_dict() if scheduler is not None else None,
        "precision": training.fabric.strategy.precision.state_dict(),
        "chosen": {name: tuple(choice) for name, choice in progress.chosen.items()},
        "outcomes": {
            name: {key: outcome._asdict() for key, outcome in of_rule.items()}
            for name, of_rule in progress.outcomes.items()
        },
        "seen": list(progress.seen),
        "averages": log.averages.state(),
        "log_sizes": dict(log.files.sizes),
        "clock": progress.clock.seconds,
        "cost": cost(training.fabric, progress.cost_before),
        "lasting": dict(log.announcer.lasting),
        "data": training.fingerprint | pseudo_environments.fingerprint(progress.pseudo),
    }


def restore(training: Training, progress: Progress, log: RunLog, state: dict[str, Any]) -> None:
    """Go on from :func:`state_of`, which :func:`~.state_check.check_state` has looked at."""
    training.classifier.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    if training.scheduler is not None:
        training.scheduler.load_state_dict(state["scheduler"])
    training.fabric.strategy.precision.load_state_dict(state["precision"])
    progress.epoch, progress.batch = state["epoch"], state["batch"]
    if state.get("cross_fit"):
        go_by(training, progress, pseudo_environments.read(training.config.log_dir, training.data))
    progress.chosen = {name: selection.Chosen(*choice) for name, choice in state["chosen"].items()}
    progress.outcomes = {
        name: {key: Outcome(**outcome) for key, outcome in of_rule.items()}
        for name, of_rule in state["outcomes"].items()
    }
    progress.seen = [(rows, predictions.to(training.fabric.device)) for rows, predictions in state["seen"]]
    progress.clock.go_on_from(state["clock"])
    progress.cost_before = state.get("cost", {})
    log.averages.load(state["averages"])
    log.announcer.lasting = state.get("lasting", {})


def save(training: Training, state: dict[str, Any]) -> None:
    """Write state.pth, by the first process."""
    path = os.path.join(training.config.log_dir, STATE)
    on_rank_zero(training.fabric, lambda: checkpoint.save(path, state))
