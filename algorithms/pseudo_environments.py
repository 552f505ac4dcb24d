"""Pseudo-environments without labels of environments or groups: what short reference models take an image for.

On images that it has not seen the prediction of a model that has been trained for few steps tells the nuisance that
the label is tied to; where it is wrong, the image is *flagged*: one of the few in which label and nuisance disagree.

Random halves, held-out mistakes, classes that count equally, environments of training and validation images, and
selection by them are those of XRM (Pezeshki et al., ICML 2024, arXiv:2309.16748). Of our own are several models per
half, tiles of images, and the number of steps by the agreement of models (:func:`agreement`) instead of by labels that
flip. Liu et al. (JTT, 2021, arXiv:2107.09044) take the errors of a first model on its own training images; out of fold
no image is memorised.
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Protocol, Sequence

import torch
from torch import Tensor

FOLDS = 2
MODELS = 4  #: per fold, their probabilities averaged
#: after which :func:`choose_steps` has a look; earlier the statistics of a batch normalisation have not settled
STEPS = tuple(round(40 * 2 ** (number / 2)) for number in range(9))
PATIENCE = 4  #: looks that are worse than the best, after which no more steps are taken: at four times as many steps
TOLERANCE = 0.02  #: of two looks that agree so nearly the later one is taken: its models know more
SAMPLE = 2048  #: validation images of a look; so many of a larger data set tell as much


def pseudo_groups(labels: Tensor, environments: Tensor) -> Tensor:
    """The cell of every image, (N,) int64: 2·label where the pseudo-environment is the label's, 2·label + 1 where it is
    another one.

    >>> pseudo_groups(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])).tolist()
    [0, 1, 2]
    """
    return 2 * labels + (environments != labels)


def flagged_shares(labels: Tensor, environments: Tensor, n_classes: int) -> Tensor:
    """Of every class the share whose pseudo-environment is another one, (K,) float64; NaN of a class without images."""
    return _shares_by_class(labels, environments != labels, n_classes)


def agreement(labels: Tensor, first: Tensor, second: Tensor) -> float:
    """How far two predictions of the same images flag the same ones, beyond chance: Cohen's kappa (1960), with chance
    counted class by class and every class with the same weight.

    Models that have learnt nothing yet flag by their initial weights, and models that go by the figure flag by what
    each of them has memorised. While the nuisance is what they know, they flag the same images.

    Args:
        labels: (N,) int64 in [0, K).
        first: (N,) int64, what one model takes the images for.
        second: (N,) int64, what one that was trained independently takes them for.

    Returns:
        1 where all are equal, about 0 by chance, and 0 where nothing is flagged.
    """
    n_classes = int(labels.max()) + 1
    one, two = (_shares_by_class(labels, values != labels, n_classes) for values in (first, second))
    equal = _shares_by_class(labels, (first != labels) == (second != labels), n_classes)
    chance = one * two + (1 - one) * (1 - two)
    most = (1 - chance).nansum()
    return ((equal - chance).nansum() / most).item() if most else 0.0


def _shares_by_class(labels: Tensor, chosen: Tensor, n_classes: int) -> Tensor:
    counts = torch.bincount(labels, minlength=n_classes)
    return torch.bincount(labels, chosen.double(), n_classes) / counts


def folds(labels: Tensor, generator: torch.Generator, n_folds: int = FOLDS) -> Tensor:
    """The fold of every image, (N,) int64 in [0, n_folds), drawn so that the folds have equally many of every class, or
    one more.
    """
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]
    fold = torch.empty_like(labels)
    fold[order] = torch.arange(len(labels)) % n_folds
    return fold


def sample(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Rows of at most about :data:`SAMPLE` images, equally many of every class as far as there are so many.

    Args:
        labels: (N,) int64 in [0, K).
    """
    rows = torch.randperm(len(labels), generator=generator)
    rows = rows[labels[rows].argsort(stable=True)]
    counts = torch.bincount(labels)
    place = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[labels[rows]]
    return rows[place < max(1, SAMPLE // int((counts > 0).sum()))]


class Models(Protocol):
    """Models in training, equally many per fold, as :class:`.reference_models.ReferenceModels` are; of MODELS per fold
    model n is trained without fold n // MODELS.
    """

    def __len__(self) -> int: ...

    def train(self, start: int, stop: int) -> None:
        """Take the steps from ``start`` up to ``stop``."""

    def probabilities(self, numbers: Sequence[int], split: str, rows: Tensor) -> Tensor:
        """The mean over some models of the probabilities of rows (n,) of "train" or "val", (n, K) float."""

    def keep(self) -> None:
        """Remember all weights as they are, and forget those that were kept before."""

    def restore(self) -> None:
        """Go back to the weights that were kept."""


class Look(NamedTuple):
    """The models after some steps."""

    steps: int
    agreement: float  #: of the models of one half with those of the other, see :func:`agreement`
    flagged: float  #: the share of validation images that all models together flag, every class with the same weight


class Found(NamedTuple):
    """Pseudo-environments."""

    train: Tensor  #: (N,) int64 in [0, K)
    val: Tensor  #: (M,) int64 in [0, K)
    steps: int  #: that the models have taken
    curve: list[Look]  #: by which the number of steps was chosen; empty where it was given


def cross_fit(
    models: Models, labels: Tensor, val_labels: Tensor, fold: Tensor, steps: int | None, generator: torch.Generator
) -> Found:
    """Train the models, and take every training image for what those say that have not seen its fold, and validation
    images for what all say together.

    Args:
        models: before their first step.
        labels: (N,) int64 in [0, K), of the training images.
        val_labels: (M,) int64, of the validation images; only :func:`choose_steps` looks at them.
        fold: (N,) int64, counted from 0, see :func:`folds`.
        steps: that every model takes; None: see :func:`choose_steps`, for two folds.
        generator: draws the validation images of a look.
    """
    curve: list[Look] = []
    if steps is None:
        rows = sample(val_labels, generator)
        curve = choose_steps(models, lambda: _look(models, val_labels[rows], rows))
        steps = chosen(curve).steps
    else:
        models.train(0, steps)
    return Found(*_out_of_fold(models, fold, len(val_labels)), steps, curve)


def _by_fold(models: Models, n_folds: int) -> list[range]:
    """The numbers of the models that are trained without each fold."""
    count = len(models) // n_folds
    return [range(held_out * count, (held_out + 1) * count) for held_out in range(n_folds)]


def _out_of_fold(models: Models, fold: Tensor, n_val: int) -> tuple[Tensor, Tensor]:
    predictions, of_val = torch.empty_like(fold), torch.zeros(())
    for held_out, numbers in enumerate(_by_fold(models, int(fold.max()) + 1)):
        rows = torch.nonzero(fold == held_out).flatten()
        predictions[rows] = models.probabilities(numbers, "train", rows).argmax(1)
        of_val = of_val + models.probabilities(numbers, "val", torch.arange(n_val))
    return predictions, of_val.argmax(1)


def _look(models: Models, labels: Tensor, rows: Tensor) -> tuple[float, float]:
    one, two = (models.probabilities(numbers, "val", rows) for numbers in _by_fold(models, 2))
    flagged = flagged_shares(labels, (one + two).argmax(1), one.shape[1])
    return agreement(labels, one.argmax(1), two.argmax(1)), flagged.nanmean().item()


def choose_steps(models: Models, look: Callable[[], tuple[float, float]]) -> list[Look]:
    """Train until the models of the two halves agree on what they flag of images that neither has seen no better than
    before, and go back to where they agreed best.

    Labels of groups are not looked at. The cost is bounded by STEPS[-1] steps, whatever the size of the data set.

    Args:
        models: before their first step.
        look: -> agreement and flagged share of the models as they are.

    Returns:
        The curve; the models are at the look that :func:`chosen` names.
    """
    curve: list[Look] = []
    for start, stop in zip((0, *STEPS), STEPS):
        models.train(start, stop)
        curve.append(Look(stop, *look()))
        best = curve.index(chosen(curve))
        if best == len(curve) - 1:
            models.keep()
        elif len(curve) - 1 - best == PATIENCE:
            break
    models.restore()
    return curve


def chosen(curve: Sequence[Look]) -> Look:
    """The last look whose agreement is the best but for TOLERANCE."""
    best = max(look.agreement for look in curve)
    return [look for look in curve if look.agreement >= best - TOLERANCE][-1]
