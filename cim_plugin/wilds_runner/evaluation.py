"""Predictions over a split and what the dataset's own evaluator says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .datasets import Dataset, Split
from .loading import evaluation_order, to_pixels
from .processes import gather_lists

if TYPE_CHECKING:
    from .training import Training


class Outcome(NamedTuple):
    """A split's evaluation. Accuracies are fractions in [0, 1]."""

    metrics: dict[str, float]  #: as the ``wilds`` evaluator names them
    text: str  #: the evaluator's own words
    accuracy: float  #: of all images alike, whatever the evaluator reports as average
    class_accuracy: list[float | None]  #: per class; None for a class that the split does not hold
    group_accuracy: list[float | None]  #: per group of --groupby_fields
    group_count: list[int]
    worst_pseudo_group_accuracy: float | None = None  #: over the pseudo-groups of --cross_fit, None without them

    @property
    def worst_class_accuracy(self) -> float:
        return _worst(self.class_accuracy)

    @property
    def worst_group_metric(self) -> float | None:
        """The evaluator's worst-group accuracy, None where it has none."""
        return next((self.metrics[name] for name in WORST_GROUP if name in self.metrics), None)


WORST_GROUP = ("acc_wg", "acc_worst_region")  #: what the evaluators call worst-group accuracy


def evaluate(
    data: Dataset, split: Split, predictions: Tensor, rows: Tensor | None = None, pseudo_groups: Tensor | None = None
) -> Outcome:
    """Evaluate predicted labels (N,) int64, for the rows (N,) of the split, by default all in order.

    Args:
        pseudo_groups: (N,) int64, of the same images, see :func:`~..algorithms.pseudo_environments.pseudo_groups`.
    """
    labels, metadata, groups = split.labels, split.metadata, split.groups
    if rows is not None:
        labels, metadata, groups = labels[rows], metadata[rows], groups[rows]
    metrics, text = data.wilds.eval(predictions, labels, metadata)
    correct = predictions == labels
    group_accuracy, group_count = _accuracy_by(correct, groups, data.grouper.n_groups)
    return Outcome(
        {name: float(value) for name, value in metrics.items()},
        text,
        correct.double().mean().item(),
        _accuracy_by(correct, labels, data.n_classes)[0],
        group_accuracy,
        group_count,
        None
        if pseudo_groups is None
        else _worst(_accuracy_by(correct, pseudo_groups, int(pseudo_groups.max()) + 1)[0]),
    )


def predict(training: Training, key: str, after_batch: Callable[[], None] = lambda: None) -> tuple[Tensor, Tensor]:
    """Predicted labels (N,) int64 and cross-entropies (N,) of a whole split in dataset order.

    Args:
        after_batch: called after every batch; what it raises ends the work.
    """
    training.model.eval()
    fabric, labels = training.fabric, training.data.splits[key].labels
    batches = evaluation_order(len(labels), training.config.batch_size, fabric.global_rank, fabric.world_size)
    rows, found, losses = [], [], []
    with torch.no_grad():
        for batch in training.loaders[key](batches):
            logits = training.model(to_pixels(batch.images, fabric.device)).float()
            rows.append(batch.rows)
            found.append(logits.argmax(1))
            losses.append(F.cross_entropy(logits, labels[batch.rows].to(fabric.device), reduction="none"))
            after_batch()
    in_order, predictions, of_each = gather_lists(fabric, rows, found, losses)
    if not torch.equal(in_order, torch.arange(len(labels))):
        raise RuntimeError(f"split {key} was not read exactly once")
    return predictions, of_each


def _worst(accuracies: list[float | None]) -> float:
    return min(value for value in accuracies if value is not None)


def _accuracy_by(correct: Tensor, kind: Tensor, n_kinds: int) -> tuple[list[float | None], list[int]]:
    counts = torch.bincount(kind, minlength=n_kinds).tolist()
    hits = torch.bincount(kind[correct], minlength=n_kinds).tolist()
    return [hit / count if count else None for hit, count in zip(hits, counts)], counts


def as_record(data: Dataset, outcome: Outcome) -> dict[str, Any]:
    """An outcome for results.json."""
    names = data.group_names()
    return {
        "metrics": outcome.metrics,
        "accuracy": outcome.accuracy,
        "worst_class_accuracy": outcome.worst_class_accuracy,
        "class_accuracy": outcome.class_accuracy,
        "groups": {
            name: {"accuracy": a, "count": n}
            for name, a, n in zip(names, outcome.group_accuracy, outcome.group_count)
            if n
        },
    }
