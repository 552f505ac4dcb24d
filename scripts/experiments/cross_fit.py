"""The pseudo-environments of ``cim-plugin train --cross_fit`` for images in memory."""

from __future__ import annotations

from typing import Callable

import numpy as np
import torch
from torch import Tensor, nn

from cim_plugin.algorithms.pseudo_environments import fit, mean_probabilities, out_of_fold

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

    def trained(rows: Tensor) -> nn.Module:
        model = make_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

        def step(loss: Tensor) -> None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        drawn = (rows[torch.from_numpy(rng.integers(0, len(rows), BATCH))] for _ in range(references.steps))
        fit(model, ((images[batch], labels[batch]) for batch in drawn), step, references.tiles)
        return model

    def probabilities(held_out: int, training: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        of_rows, of_others = 0, 0
        for number in range(references.models):
            torch.manual_seed(references.folds * (seed + 1000 * number) + held_out)
            models = [trained(training)]
            of_rows = of_rows + mean_probabilities(models, images[rows].split(1000), references.tiles)
            of_others = of_others + mean_probabilities(models, others.split(1000), references.tiles)
        return of_rows, of_others

    return out_of_fold(labels, fold, probabilities)


def describe(predictions: Tensor, labels: Tensor, environments: Tensor) -> dict[str, float]:
    """How good pseudo-environments are, by the true ones: shares in [0, 1]."""
    rare, flagged = labels != environments, predictions != labels
    return {
        "equal": (predictions == environments).double().mean().item(),
        "rare_found": flagged[rare].double().mean().item() if rare.any() else float("nan"),
        "found_are_rare": rare[flagged].double().mean().item() if flagged.any() else float("nan"),
    }
