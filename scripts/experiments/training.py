"""One run of the study: a row of the table on a task with a seed, and its result in the form of ``cim-plugin
train``.
"""

from __future__ import annotations

import math
import platform
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cim_plugin import catalog
from cim_plugin.algorithms.classifier import RobustClassifier
from cim_plugin.algorithms.morphing import PixelSpace
from cim_plugin.algorithms.pseudo_environments import pseudo_groups
from cim_plugin.models import from_catalog
from cim_plugin.wilds_runner.costs import versions

from .cross_fit import References, find_pseudo_environments
from .encoder import StudyEncoder
from .rows import Row
from .tasks import Task

BATCH = 64
WEIGHT_DECAY = 1e-4  #: of AdamW; the learning rate falls to 0 along a cosine
N_EVALUATIONS = 10


class Standardise(nn.Module):
    """Pixels in [0, 1] -> about [-1, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5) / 0.5


class FromBytes(nn.Module):
    """uint8 -> [-1, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        return images / 127.5 - 1


def pseudo_environments(task: Task, seed: int, references: References) -> Tensor:
    """Of the training images, (N,) int64, see :mod:`cross_fit`: no label of an environment or a group is looked at."""
    train, val = task.splits["train"], task.splits["val"]

    def make_model() -> nn.Module:
        encoder = StudyEncoder()
        return nn.Sequential(FromBytes(), encoder, nn.Linear(encoder.n_features, task.n_classes))

    return find_pseudo_environments(
        make_model, train.images, train.labels, val.images, val.labels, references, seed
    ).train


def run(task: Task, row: Row, seed: int, steps: int, pseudo: Tensor | None) -> dict[str, Any]:
    """Train and evaluate; the record is results.json of ``cim-plugin train``.

    Args:
        pseudo: the row's pseudo-environments, (N,) int64; None of a row without.
    """
    start = time.perf_counter()
    if row.figure_only:
        task = task.figure_only()
    classifier, curve, done = fit(task, row, seed, steps, pseudo)
    return record(task, row, seed, steps, done, curve, classifier, time.perf_counter() - start)


def evaluations(steps: int) -> list[int]:
    """After which steps; the last one is among them."""
    count = min(N_EVALUATIONS, steps)
    return [steps * number // count for number in range(1, count + 1)]


def fit(
    task: Task, row: Row, seed: int, steps: int, pseudo: Tensor | None
) -> tuple[nn.Module, list[dict[str, Any]], int]:
    """Train: the classifier, its evaluations and the steps that were taken. A run whose loss is not finite ends there,
    and its earlier evaluations stand.
    """
    train = task.splits["train"]
    environments = train.environments if pseudo is None else pseudo
    classifier = build(task, row, seed)
    optimizer = host_optimizer(classifier, row)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    optimizer = from_catalog.optimizer(optimizer, classifier, catalog.complete_old(row.algorithm, row.hyperparameters))
    groups = _cells(train.labels, train.environments) if row.algorithm == "groupDRO" else None
    chances = _chances(groups if pseudo is None else pseudo_groups(train.labels, pseudo))
    rng = np.random.default_rng([seed, 1])
    due = set(evaluations(steps))
    curve: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        rows = torch.from_numpy(rng.choice(len(train.labels), BATCH, p=chances))
        classifier.train()
        of_batch = None if groups is None else groups[rows]
        images = train.images[rows].float() / 255
        loss = objective(classifier, images, train.labels[rows], environments[rows], of_batch, row.random_composites)
        diverged = not math.isfinite(loss.item())
        if not diverged:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if (step in due and not diverged) or (diverged and not curve):
            curve.append({"step": step, **{split: evaluate(classifier, task, split) for split in ("val", "test")}})
        if diverged:
            break
    return classifier, curve, step


def build(task: Task, row: Row, seed: int) -> nn.Module:
    """The classifier of a row, from the catalog."""
    train = task.splits["train"]
    channels, side = train.images.shape[1], train.images.shape[2]
    torch.manual_seed(seed)
    encoder = StudyEncoder()
    return from_catalog.build(
        row.algorithm,
        catalog.complete_old(row.algorithm, row.hyperparameters),
        encoder=nn.Sequential(Standardise(), encoder),
        n_features=encoder.n_features,
        make_head=lambda n: nn.Linear(n, task.n_classes),
        image_size=(side, side),
        pixel_space=PixelSpace.raw(channels),
        n_environments=len(train.environments.unique()),
        groups_in_training=torch.bincount(_cells(train.labels, train.environments)) > 0,
    )


def host_optimizer(classifier: nn.Module, row: Row) -> torch.optim.Optimizer:
    """Of all weights."""
    network = [] if row.network_learning_rate is None else list(classifier.morphing.parameters())
    groups = [{"params": [weight for weight in classifier.parameters() if not any(weight is own for own in network)]}]
    if network:
        groups.append({"params": network, "lr": row.network_learning_rate})
    return torch.optim.AdamW(groups, row.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)


def _cells(labels: Tensor, environments: Tensor) -> Tensor:
    return labels * (int(environments.max()) + 1) + environments


def _chances(cells: Tensor | None) -> np.ndarray | None:
    """How often every training image is drawn, so that every cell is as often as the others; None: equally."""
    if cells is None:
        return None
    chances = (1 / torch.bincount(cells).double())[cells].numpy()
    return chances / chances.sum()


def objective(
    classifier: RobustClassifier,
    images: Tensor,
    labels: Tensor,
    environments: Tensor,
    groups: Tensor | None,
    random_composites: float | None,
) -> Tensor:
    """The training loss of a batch, ()."""
    if random_composites is not None:
        noise = smooth_noise(images, random_composites)
        composites = torch.lerp(images[torch.randperm(len(images))], images, noise)
        return F.cross_entropy(classifier(torch.cat([images, composites])), labels.repeat(2))
    losses = classifier.loss_terms(images, labels, environments).losses
    return classifier.total(losses, groups)


def smooth_noise(images: Tensor, mean: float) -> Tensor:
    """Masks (N, 1, H, W) with that mean, mostly near 0 or 1."""
    cells = torch.randn(len(images), 1, 4, 4) * 3 + 3.1 * torch.logit(torch.tensor(mean)) / 1.5
    return torch.sigmoid(F.interpolate(cells, size=images.shape[-2:], mode="bilinear", align_corners=False))


@torch.no_grad()
def evaluate(classifier: nn.Module, task: Task, split: str) -> dict[str, Any]:
    """Average and worst-group accuracy, every group's, and the worst class'."""
    images, labels, groups, *_ = task.splits[split]
    classifier.eval()
    correct = torch.cat([classifier(part.float() / 255).argmax(1) for part in images.split(1000)]) == labels
    accuracy = {
        task.group_names[group]: (correct[groups == group].double().mean().item(), int((groups == group).sum()))
        for group in groups.unique()
    }
    return {
        "accuracy": correct.double().mean().item(),
        "worst_group": min(value for value, _ in accuracy.values()),
        "worst_class": min(correct[labels == label].double().mean().item() for label in labels.unique()),
        "groups": accuracy,
    }


#: selection rule -> score of an evaluation, on validation data that is drawn as the training data is. The table goes by
#: the first, which looks at labels of groups there
RULES = {
    "worst_group": lambda point: point["val"]["worst_group"],
    "average": lambda point: point["val"]["accuracy"],
    "worst_class": lambda point: point["val"]["worst_class"],
    "last": lambda point: point["step"],
}


def record(
    task: Task,
    row: Row,
    seed: int,
    steps: int,
    done: int,
    curve: list[dict],
    classifier: nn.Module,
    seconds: float,
) -> dict[str, Any]:
    """results.json of a run that was to take ``steps`` and took ``done``."""
    selection = {}
    for rule, score in RULES.items():
        chosen = max(curve, key=score)  # the first of equals
        selection[rule] = {
            "epoch": curve.index(chosen),
            "score": score(chosen),
            "splits": {split: _as_split(chosen[split]) for split in ("val", "test")},
        }
    flags = {
        "n_epochs": len(evaluations(steps)),
        "batch_size": BATCH,
        "steps": steps,
        "lr": row.learning_rate,
        "environments": None if row.references is None else "cross_fit",
        "balanced": row.references is not None,
        **row.changes,
    }
    references = row.references or References()
    flags |= {
        f"reference_{name}": value
        for name, value in references._asdict().items()
        if value != getattr(References(), name)
    }
    return {
        "status": "finished",
        "dataset": task.name,
        "algorithm": row.algorithm,
        "seed": seed,
        "synthetic": True,  # made here, of real digits
        "selection": selection,
        "config": {**flags, "hyperparameters": row.hyperparameters},
        "epochs": len(curve),
        "n_parameters": sum(weight.numel() for weight in classifier.parameters()),
        "seconds": {"run": round(seconds, 1)},  # evaluations included
        "steps": done,
        "peak_memory_bytes": {},  # a process trains many runs
        "device": platform.processor() or platform.machine(),
        "versions": versions(),
    }


def _as_split(found: dict[str, Any]) -> dict[str, Any]:
    groups = {name: {"accuracy": accuracy, "count": count} for name, (accuracy, count) in found["groups"].items()}
    metrics = {"acc_avg": found["accuracy"], "acc_wg": found["worst_group"]}
    return {
        "metrics": metrics,
        "accuracy": found["accuracy"],
        "worst_class_accuracy": found["worst_class"],
        "groups": groups,
    }
