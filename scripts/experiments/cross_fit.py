"""The pseudo-environments of ``cim-plugin train --cross_fit`` for images in memory."""

from __future__ import annotations

from typing import Callable, Iterator, NamedTuple

import torch
from torch import Tensor, nn

from cim_plugin.algorithms.pseudo_environments import FOLDS, STEPS, Found, cross_fit, folds
from cim_plugin.algorithms.reference_models import ReferenceModels, balanced_draws


class References(NamedTuple):
    """The models that pseudo-environments come from."""

    #: few: they are to know what is easy, not what is right; None: as many as the models agree best at
    steps: int | None = 100
    models: int = 1  #: per fold, their probabilities averaged
    tiles: int = 1  #: per side of an image, shuffled before a model sees it
    batch: int = 64


def find_pseudo_environments(
    make_model: Callable[[], nn.Module],
    images: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    references: References,
    seed: int,
    draws: Callable[..., Tensor] = balanced_draws,
    make_references: Callable[..., ReferenceModels] = ReferenceModels,
) -> Found:
    """See :func:`cim_plugin.algorithms.pseudo_environments.cross_fit`.

    Args:
        make_model: a fresh model, uint8 images (N, C, H, W) -> logits (N, K).
        images: (N, C, H, W) uint8.
        labels: (N,) int64 in [0, K).
        others: (M, C, H, W) uint8, images that no model is trained on.
        other_labels: (M,) int64, looked at where the number of steps is chosen.
        references: the models.
        seed: of folds, initial weights and batches.
        draws: of a model's batches; as :func:`~cim_plugin.algorithms.reference_models.balanced_draws`.
        make_references: as :class:`~cim_plugin.algorithms.reference_models.ReferenceModels`.
    """
    generator = torch.Generator().manual_seed(seed)
    fold = folds(labels, generator)
    shape = (references.steps or STEPS[-1], references.batch)
    models, steps, rows = [], [], []
    for number in range(FOLDS * references.models):
        torch.manual_seed(1000 * seed + number)
        models.append(make_model())
        steps.append(_stepper(models[-1]))
        rows.append(draws(labels, torch.nonzero(fold != number // references.models).flatten(), shape, generator))
    of_split = {"train": images, "val": others}

    def batches(split: str, parts: list[Tensor], seeds: list[tuple]) -> Iterator[Tensor]:
        for part, words in zip(parts, seeds):
            torch.manual_seed(sum(10_000**place * word for place, word in enumerate((seed, *words[1:]))))
            yield of_split[split][part]

    reference_models = make_references(models, steps, rows, labels, batches, references.tiles)
    return cross_fit(reference_models, labels, other_labels, fold, references.steps, generator)


def _stepper(model: nn.Module) -> Callable[[Tensor], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
