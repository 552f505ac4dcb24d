"""The pseudo-environments of ``cim-plugin train --cross_fit`` for images in memory; the idea and its source stand
there.
"""

from __future__ import annotations

from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cim_plugin.wilds_runner.cross_fit import shuffle_tiles

from .rows import References

BATCH = 64


def out_of_fold_predictions(
    make_model: Callable[[], nn.Module],
    images: Tensor,
    labels: Tensor,
    others: Tensor,
    references: References,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """The class that models take every image for which were trained on the other folds; of other images, that of all
    models together.

    Args:
        make_model: a fresh model, uint8 images (N, C, H, W) -> logits (N, K).
        images: (N, C, H, W) uint8.
        labels: (N,) int64 in [0, K).
        others: (M, C, H, W) uint8, images that no model is trained on.
        references: the models.
        seed: of folds, initial weights and batches.

    Returns:
        (N,) and (M,) int64 in [0, K).
    """
    rng = np.random.default_rng([seed, references.steps])
    fold = torch.from_numpy(rng.permutation(len(labels)) % references.folds)
    predictions, of_others = torch.empty_like(labels), 0
    for held_out in range(references.folds):
        rows, of_rows = torch.nonzero(fold == held_out).flatten(), 0
        for number in range(references.models):
            torch.manual_seed(references.folds * (seed + 1000 * number) + held_out)
            model = _trained(make_model(), images, labels, torch.nonzero(fold != held_out).flatten(), references, rng)
            of_rows = of_rows + _probabilities(model, images[rows], references.tiles)
            of_others = of_others + _probabilities(model, others, references.tiles)
        predictions[rows] = of_rows.argmax(1)
    return predictions, of_others.argmax(1)


def _trained(
    model: nn.Module, images: Tensor, labels: Tensor, rows: Tensor, references: References, rng: np.random.Generator
) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(references.steps):
        batch = rows[torch.from_numpy(rng.integers(0, len(rows), BATCH))]
        optimizer.zero_grad()
        F.cross_entropy(model(shuffle_tiles(images[batch], references.tiles)), labels[batch]).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def _probabilities(model: nn.Module, images: Tensor, tiles: int) -> Tensor:
    return torch.cat([model(shuffle_tiles(part, tiles)).softmax(1) for part in images.split(1000)])


def describe(predictions: Tensor, labels: Tensor, environments: Tensor) -> dict[str, float]:
    """How good pseudo-environments are, by the true ones: shares in [0, 1]."""
    rare, flagged = labels != environments, predictions != labels
    return {
        "equal": (predictions == environments).double().mean().item(),
        "rare_found": flagged[rare].double().mean().item() if rare.any() else float("nan"),
        "found_are_rare": rare[flagged].double().mean().item() if flagged.any() else float("nan"),
    }
