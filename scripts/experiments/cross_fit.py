"""The pseudo-environments of ``cim-plugin train --cross_fit`` for images in memory; the idea and its source stand there."""

from __future__ import annotations

from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FOLDS = 2
BATCH = 64


def out_of_fold_predictions(
    make_model: Callable[[], nn.Module], images: Tensor, labels: Tensor, others: Tensor, steps: int, seed: int
) -> tuple[Tensor, Tensor]:
    """The class that a model takes every image for, trained on the other fold; of other images, that of both models together.

    Args:
        make_model: a fresh model, uint8 images (N, C, H, W) -> logits (N, K).
        images: (N, C, H, W) uint8.
        labels: (N,) int64 in [0, K).
        others: (M, C, H, W) uint8, images that no model is trained on.
        steps: of AdamW, per fold. Few: the reference is to know what is easy, not what is right.
        seed: of folds, initial weights and batches.

    Returns:
        (N,) and (M,) int64 in [0, K).
    """
    rng = np.random.default_rng([seed, steps])
    fold = torch.from_numpy(rng.permutation(len(labels)) % FOLDS)
    predictions, of_others = torch.empty_like(labels), 0
    for held_out in range(FOLDS):
        torch.manual_seed(FOLDS * seed + held_out)
        model = make_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        rows = torch.nonzero(fold != held_out).flatten()
        for _ in range(steps):
            batch = rows[torch.from_numpy(rng.integers(0, len(rows), BATCH))]
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        rows = torch.nonzero(fold == held_out).flatten()
        model.eval()
        with torch.no_grad():
            predictions[rows] = torch.cat([model(images[part]).argmax(1) for part in rows.split(1000)])
            of_others = of_others + torch.cat([model(part).softmax(1) for part in others.split(1000)])
    return predictions, of_others.argmax(1)


def describe(predictions: Tensor, labels: Tensor, environments: Tensor) -> dict[str, float]:
    """How good pseudo-environments are, by the true ones: shares in [0, 1]."""
    rare, flagged = labels != environments, predictions != labels
    return {
        "equal": (predictions == environments).double().mean().item(),
        "rare_found": flagged[rare].double().mean().item() if rare.any() else float("nan"),
        "found_are_rare": rare[flagged].double().mean().item() if flagged.any() else float("nan"),
    }
