"""Pseudo-environments without labels of environments or groups: what short reference models take an image for.

A model that has been trained for few steps goes by what is easiest. On images that it has not seen its prediction tells
the nuisance that the label is tied to; where it is wrong, the image is one of the few in which label and nuisance
disagree (Liu et al., 2021, arXiv:2107.09044, find them by their training error; out of fold no image is memorised).
Where many different grounds make the figure the easier of the two, it must not see the figure: tiles of the image in
random order keep colours and textures.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, ContextManager, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pseudo_groups(labels: Tensor, environments: Tensor) -> Tensor:
    """The cell of every image, (N,) int64: 2·label where the pseudo-environment is the label's, 2·label + 1 where it is
    another one.
    """
    return 2 * labels + (environments != labels)


def out_of_fold(
    labels: Tensor, fold: Tensor, probabilities: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """The class that models take every image for which were trained on the other folds; of other images, that of all
    models together.

    Args:
        labels: (N,) int64 in [0, K).
        fold: (N,) int64, the fold of every image, counted from 0.
        probabilities: (a fold, the rows of the others, its own rows) -> what models that were trained on the former
            give its own rows, (n, K), and other images, (M, K): sums or means over the models.

    Returns:
        (N,) and (M,) int64 in [0, K).
    """
    predictions, of_others = torch.empty_like(labels), 0
    for held_out in range(int(fold.max()) + 1):
        rows = torch.nonzero(fold == held_out).flatten()
        of_rows, of_more = probabilities(held_out, torch.nonzero(fold != held_out).flatten(), rows)
        predictions[rows] = of_rows.argmax(1)
        of_others = of_others + of_more
    return predictions, of_others.argmax(1)


def fit(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    step: Callable[[Tensor], Any],
    tiles: int = 1,
    forward: Callable[[], ContextManager] = contextlib.nullcontext,
) -> None:
    """Train a reference model by cross-entropy.

    Args:
        model: images -> logits (B, K).
        batches: images (B, C, H, W), as the model takes them, and labels (B,) int64.
        step: takes the loss, (), and steps the optimizer.
        tiles: see :func:`shuffle_tiles`.
        forward: around the model's forward pass, for its precision.
    """
    model.train()
    for images, labels in batches:
        images = shuffle_tiles(images, tiles)
        with forward():
            logits = model(images)
        step(F.cross_entropy(logits.float(), labels))


@torch.no_grad()
def mean_probabilities(
    models: Sequence[nn.Module],
    batches: Iterable[Tensor],
    tiles: int = 1,
    forward: Callable[[], ContextManager] = contextlib.nullcontext,
) -> Tensor:
    """The mean over the models of every image's probabilities, (N, K) float32 on the CPU.

    Args:
        models: images -> logits (B, K).
        batches: images (B, C, H, W), as the models take them.
        tiles: see :func:`shuffle_tiles`; all models see the same.
        forward: around the models' forward passes, for their precision.

    Raises:
        FloatingPointError: logits are NaN or infinite.
    """
    for model in models:
        model.eval()
    parts = []
    for images in batches:
        images = shuffle_tiles(images, tiles)
        with forward():
            logits = torch.stack([model(images).float() for model in models])
        if not logits.isfinite().all():
            raise FloatingPointError("the logits of a reference model are not finite")
        parts.append(logits.softmax(-1).mean(0).cpu())
    return torch.cat(parts)


def shuffle_tiles(images: Tensor, tiles: int) -> Tensor:
    """Cut every image into equal tiles and put them into an order of its own, drawn from torch's generator.

    What fills a ground, its colours and its texture, is left; the shape of what is larger than a tile is not.

    Args:
        images: (N, C, H, W), any dtype.
        tiles: per side; 1 leaves the images as they are. Where it does not divide a side, the pixels left over at the
            end stay in place.

    Returns:
        (N, C, H, W), as the images.
    """
    if tiles == 1:
        return images
    n, channels, height, width = images.shape
    h, w = height // tiles, width // tiles
    cut = (
        images[:, :, : tiles * h, : tiles * w]
        .reshape(n, channels, tiles, h, tiles, w)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(n, tiles * tiles, -1)
    )
    order = torch.rand(n, tiles * tiles, device=images.device).argsort(1)
    moved = (
        cut.gather(1, order[:, :, None].expand_as(cut))
        .reshape(n, tiles, tiles, channels, h, w)
        .permute(0, 3, 1, 4, 2, 5)
    )
    images = images.clone()
    images[:, :, : tiles * h, : tiles * w] = moved.reshape(n, channels, tiles * h, tiles * w)
    return images
