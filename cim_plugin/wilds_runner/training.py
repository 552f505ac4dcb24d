"""What a training keeps from its first step to its last, made from a session."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..algorithms.distributed import Shard
from ..errors import InputError
from ..models import from_catalog
from ..models.transforms import Transform
from ..runs.configuration import Configuration
from . import selection
from .datasets import Dataset, fingerprint
from .evaluation import evaluate
from .loading import Loader, TrainingOrder, make_loader
from .model import compile_modules, group_environments
from .optimization import make_optimizer, make_scheduler
from .processes import gather
from .session import Session


@dataclass(frozen=True)
class Training:
    """The parts of a training; what changes is in them and in :class:`~.state.Progress`."""

    session: Session
    fabric: Any  #: Lightning's Fabric, launched
    cache: Any  #: (n_images, H, W, C) uint8, the resized images of the whole dataset, or None
    rules: dict[str, selection.Rule]
    splits: list[str]  #: that are evaluated in every epoch, "val" first
    order: TrainingOrder
    loaders: dict[str, Loader]  #: of "train" and ``splits``
    environments: Tensor  #: (N,) int64 of the training split: the combination of the group fields other than the label
    model: Any  #: the classifier as Fabric wraps it
    optimizer: Any
    scheduler: Any  #: or None
    fingerprint: dict[str, str]  #: of the data

    @property
    def config(self) -> Configuration:
        return self.session.config

    @property
    def data(self) -> Dataset:
        return self.session.data

    @property
    def transform(self) -> Transform:
        return self.session.transform

    @property
    def classifier(self):
        return self.session.classifier

    def ends_step(self, n_done: int, n_batches: int) -> bool:
        """Whether the weights change after so many batches of an epoch."""
        return n_done % self.config.gradient_accumulation_steps == 0 or n_done == n_batches

    def group_weights(self) -> Tensor | None:
        """(n_groups,) of group DRO, in the order of the data's groups; None for other algorithms, and where it weighs
        pseudo-groups.
        """
        weighing = self.classifier.group_weights
        return weighing.weights if weighing is not None and self.config.groups != "pseudo" else None


def make_training(session: Session, fabric, cache=None) -> Training:
    """The parts, at the beginning.

    Raises:
        InputError: flags do not go with the data, the model or each other.
    """
    config, data, transform, classifier = session.config, session.data, session.transform, session.classifier
    rules = selection.rules(config.val_metric, config.val_metric_decreasing)
    splits = _evaluated_splits(config, data)
    _check_metrics(config, data, rules)
    order = TrainingOrder(config, data.splits["train"], data.grouper)
    loaders = {key: make_loader(config, data, key, transform, cache) for key in ("train", *splits)}
    environments = group_environments(config, data, "train")
    _check_batch_of_one(session, len(environments), fabric.world_size)
    if config.compile:
        compile_modules(classifier)
    optimizer = make_optimizer(config, classifier.parameters(), fabric.device.type)
    n_steps = math.ceil(len(order) / config.gradient_accumulation_steps) * config.n_epochs
    scheduler = make_scheduler(config, optimizer, n_steps)
    model, wrapped = fabric.setup(classifier, from_catalog.optimizer(optimizer, classifier, config.hyperparameters))
    model.mark_forward_method("loss_terms")
    classifier.shard = Shard(fabric.global_rank, fabric.world_size, lambda values: gather(fabric, values))
    return Training(
        session=session,
        fabric=fabric,
        cache=cache,
        rules=rules,
        splits=splits,
        order=order,
        loaders=loaders,
        environments=environments,
        model=model,
        optimizer=wrapped,
        scheduler=scheduler,
        fingerprint=fingerprint(data),
    )


def _evaluated_splits(config: Configuration, data: Dataset) -> list[str]:
    others = [key for key in data.splits if key not in ("train", "val")]
    unknown = [key for key in config.eval_splits if key not in data.splits]
    if unknown:
        raise InputError(f"--eval_splits {unknown[0]!r} is not a split of {config.dataset}: {', '.join(data.splits)}")
    wanted = others if config.evaluate_all_splits else [key for key in others if key in config.eval_splits]
    return ["val", *(key for key in wanted if len(data.splits[key].labels))]


def _check_metrics(config: Configuration, data: Dataset, rules: dict[str, selection.Rule]) -> None:
    """Before the first epoch, which may take hours: a perfect prediction has the metrics that every other one has."""
    val = data.splits["val"]
    perfect = evaluate(data, val, val.labels)
    rules["best"].applies({"val": perfect})
    metric = config.scheduler_metric_name
    if config.scheduler == "ReduceLROnPlateau" and metric not in perfect.metrics:
        raise InputError(f"--scheduler_metric_name {metric!r} is not among the metrics: {', '.join(perfect.metrics)}")


@torch.no_grad()
def _check_batch_of_one(session: Session, n_images: int, n_processes: int) -> None:
    """Raise InputError where an epoch ends in one image and the model cannot train on it, before the first epoch is
    lost.
    """
    config = session.config
    left = n_images % config.batch_size if config.train_loader == "standard" else 0
    if (left or config.batch_size) // n_processes == 1:
        try:
            copy.deepcopy(session.classifier).train()(torch.zeros(1, 3, *session.transform.training_size))
        except ValueError as error:
            raise InputError(
                f"--batch_size {config.batch_size} leaves one image to the last batch of {n_images}, and the batch "
                f"normalisation of --model {config.model} needs two; give another one"
            ) from error
