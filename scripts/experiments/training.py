"""One run of the study: a row of the table on a task with a seed, and its result in the form of ``cim-plugin
train``.
"""

from __future__ import annotations

import math
import platform
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cim_plugin import catalog
from cim_plugin.algorithms.morphing import InputMorphing, PixelSpace
from cim_plugin.algorithms.pseudo_environments import pseudo_groups
from cim_plugin.algorithms.reference_models import shuffle_tiles
from cim_plugin.models import from_catalog
from cim_plugin.wilds_runner.costs import versions

from .cross_fit import describe, find_pseudo_environments
from .rows import References, Row
from .steps import RandomMask, change, objective
from .tasks import Images, Task

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


class Pseudo(NamedTuple):
    """Pseudo-environments, see :mod:`cross_fit`: no label of an environment or a group is looked at."""

    train: Tensor  #: (N,) int64
    val: Tensor  #: (N,) int64


def pseudo_environments(task: Task, seed: int, references: References) -> Pseudo:
    """Of the training and the validation split."""
    train, val = task.splits["train"], task.splits["val"]

    def make_model() -> nn.Sequential:
        return nn.Sequential(FromBytes(), task.make_encoder(), nn.Linear(task.n_features, task.n_classes))

    encoder = make_model()[:-1]
    if any(weight.requires_grad for weight in encoder.parameters()):
        found = find_pseudo_environments(
            make_model, train.images, train.labels, val.images, val.labels, references, seed
        )
        return Pseudo(found.train, found.val)
    with torch.no_grad():  # a frozen encoder sees every image once
        features = [
            torch.cat([encoder(shuffle_tiles(part, references.tiles)) for part in split.images.split(1000)])
            for split in (train, val)
        ]
    found = find_pseudo_environments(
        lambda: make_model()[-1], features[0], train.labels, features[1], val.labels, references._replace(tiles=1), seed
    )
    return Pseudo(found.train, found.val)


def run(task: Task, row: Row, seed: int, steps: int, pseudo: Pseudo, mask_mean: float | None = None) -> dict[str, Any]:
    """Train and evaluate; the record is results.json of ``cim-plugin train`` with the curves added.

    Args:
        mask_mean: for the row with random masks.
    """
    start = time.perf_counter()
    if row.changes.get("figure_only"):
        task = task.figure_only()
    steps = number_of_steps(task, row, steps)
    classifier, curve, done = fit(task, row, seed, steps, pseudo, mask_mean)
    train = task.splits["train"]
    quality = describe(pseudo.train, train.labels, train.environments) if task.tied else {}
    return record(task, row, seed, steps, done, curve, classifier, quality, time.perf_counter() - start)


def evaluations(steps: int) -> list[int]:
    """After which steps; the last one is among them."""
    count = min(N_EVALUATIONS, steps)
    return [steps * number // count for number in range(1, count + 1)]


def number_of_steps(task: Task, row: Row, steps: int) -> int:
    return max(1, round(steps * task.steps * row.steps))


def fit(
    task: Task, row: Row, seed: int, steps: int, pseudo: Pseudo, mask_mean: float | None = None
) -> tuple[nn.Module, list[dict[str, Any]], int]:
    """Train: the classifier, its evaluations and the steps that were taken. A run whose loss is not finite ends there,
    and its earlier evaluations stand.
    """
    train = task.splits["train"]
    environments = pseudo.train if row.environments == "cross_fit" else train.environments
    classifier = build(task, row, seed, mask_mean)
    optimizer = host_optimizer(classifier, row)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if row.changes.get("sgd") != "all":
        optimizer = from_catalog.optimizer(
            optimizer, classifier, catalog.complete_old(row.algorithm, row.hyperparameters)
        )
    groups = _cells(train.labels, train.environments) if row.algorithm == "groupDRO" else None
    chances = _chances(row, train, environments, groups)
    rng = np.random.default_rng([seed, 1])
    due = set(evaluations(steps))
    curve: list[dict[str, Any]] = []
    cells = {"val": pseudo_groups(task.splits["val"].labels, pseudo.val), "test": None}
    for step in range(1, steps + 1):
        rows = torch.from_numpy(rng.choice(len(train.labels), BATCH, p=chances))
        classifier.train()
        of_batch = None if groups is None else groups[rows]
        loss = objective(
            classifier,
            train.images[rows].float() / 255,
            train.labels[rows],
            environments[rows],
            of_batch,
            row.changes,
        )
        diverged = not math.isfinite(loss.item())
        if not diverged:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if (step in due and not diverged) or (diverged and not curve):
            curve.append(
                {"step": step, **{split: evaluate(classifier, task, split, cells[split]) for split in ("val", "test")}}
            )
        if diverged:
            break
    return classifier, curve, step


def build(task: Task, row: Row, seed: int, mask_mean: float | None) -> nn.Module:
    """The classifier of a row, from the catalog."""
    train = task.splits["train"]
    channels, side = train.images.shape[1], train.images.shape[2]
    torch.manual_seed(seed)
    classifier = from_catalog.build(
        row.algorithm,
        catalog.complete_old(row.algorithm, row.hyperparameters),
        encoder=nn.Sequential(Standardise(), task.make_encoder()),
        n_features=task.n_features,
        make_head=lambda n: nn.Linear(n, task.n_classes),
        image_size=(side, side),
        pixel_space=PixelSpace.raw(channels),
        n_environments=len(train.environments.unique()),
        groups_in_training=torch.bincount(_cells(train.labels, train.environments)) > 0,
    )
    if "random_mask" in row.changes:
        classifier.morphing = InputMorphing(PixelSpace.raw(channels), RandomMask(mask_mean))
    change(classifier, row.changes)
    return classifier


def host_optimizer(classifier: nn.Module, row: Row) -> torch.optim.Optimizer:
    """Of all weights."""
    network = list(classifier.morphing.parameters()) if "network_learning_rate" in row.changes else []
    groups = [{"params": [weight for weight in classifier.parameters() if not any(weight is own for own in network)]}]
    if network:
        groups.append({"params": network, "lr": row.changes["network_learning_rate"]})
    if "sgd" in row.changes:
        return torch.optim.SGD(groups, row.learning_rate, momentum=0.9, weight_decay=WEIGHT_DECAY)
    return torch.optim.AdamW(groups, row.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)


def _cells(labels: Tensor, environments: Tensor) -> Tensor:
    return labels * (int(environments.max()) + 1) + environments


def _chances(row: Row, train: Images, environments: Tensor, groups: Tensor | None) -> np.ndarray | None:
    """How often every training image is drawn; None: equally."""
    if row.balanced and row.environments == "cross_fit":
        cells = pseudo_groups(train.labels, environments)
    elif row.balanced:
        cells = _cells(train.labels, environments)
    elif groups is not None:
        cells = groups
    else:
        return None
    chances = (1 / torch.bincount(cells).double())[cells].numpy()
    return chances / chances.sum()


@torch.no_grad()
def evaluate(classifier: nn.Module, task: Task, split: str, pseudo_groups: Tensor | None) -> dict[str, Any]:
    """Average and worst-group accuracy, every group's, the worst class', that over pseudo-groups, and the mean of m."""
    images, labels, groups, _, figure = task.splits[split]
    classifier.eval()
    parts = [part.float() / 255 for part in images.split(1000)]
    correct = torch.cat([classifier(part).argmax(1) for part in parts]) == labels
    accuracy = {
        task.group_names[group]: (correct[groups == group].double().mean().item(), int((groups == group).sum()))
        for group in groups.unique()
    }
    found = {
        "accuracy": correct.double().mean().item(),
        "worst_group": min(value for value, _ in accuracy.values()),
        "worst_class": min(correct[labels == label].double().mean().item() for label in labels.unique()),
        "groups": accuracy,
    }
    if pseudo_groups is not None:
        found["worst_pseudo_group"] = min(
            correct[pseudo_groups == group].double().mean().item() for group in pseudo_groups.unique()
        )
    if classifier.morphing is not None:
        mask = classifier.morphing(parts[0]).mask.mean(1)
        found["mask_mean"] = mask.mean().item()
        if figure is not None:
            on_figure = figure[: len(mask)]
            found |= {"mask_on_figure": mask[on_figure].mean().item(), "mask_on_ground": mask[~on_figure].mean().item()}
    return found


#: selection rule -> score of an evaluation; all but the oracle read validation data that is drawn as the training data
#: is. The table goes by the first, which looks at labels of groups there
RULES = {
    "worst_group": lambda point: point["val"]["worst_group"],
    "worst_pseudo_group": lambda point: point["val"]["worst_pseudo_group"],
    "average": lambda point: point["val"]["accuracy"],
    "worst_class": lambda point: point["val"]["worst_class"],
    "last": lambda point: point["step"],
    "oracle": lambda point: point["test"]["worst_group"],
}


def record(
    task: Task,
    row: Row,
    seed: int,
    steps: int,
    done: int,
    curve: list[dict],
    classifier: nn.Module,
    pseudo: dict[str, float],
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
        "environments": row.environments,
        "balanced": row.balanced,
        **row.changes,
    }
    flags |= {
        f"reference_{name}": value
        for name, value in row.references._asdict().items()
        if value != getattr(References(), name)
    }
    return {
        "status": "finished",
        "dataset": task.name,
        "algorithm": row.algorithm,
        "seed": seed,
        "synthetic": task.tied,  # made here, of real digits
        "selection": selection,
        "config": {**flags, "hyperparameters": row.hyperparameters},
        "epochs": len(curve),
        "pseudo_environments": pseudo,
        "n_parameters": sum(weight.numel() for weight in classifier.parameters()),
        "seconds": {"run": round(seconds, 1)},  # evaluations included
        "steps": done,
        "peak_memory_bytes": {},  # a process trains many runs
        "device": platform.processor() or platform.machine(),
        "curve": [
            {
                "step": p["step"],
                **{f"{s}_{k}": round(p[s][k], 4) for s in ("val", "test") for k in ("accuracy", "worst_group")},
            }
            for p in curve
        ],
        **{name: value for name, value in curve[-1]["val"].items() if name.startswith("mask")},
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
