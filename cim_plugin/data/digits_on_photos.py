"""Real handwritten digits on crops of real photographs, both carried by scikit-learn: nothing is downloaded.

Whether the digit is below 5 is the label; which of two photographs lies behind it is the spurious attribute.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 28  #: side of an image in pixels
CROP = 2 * SIDE  #: side of the region of the photograph behind it, which is halved
DIM = 0.6  #: the photograph's brightness is multiplied by this, so that a white digit shows on a white sky


def load_digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 digits: strength (1797, 1, 8, 8) float32 in [0, 1] and class (1797,) int64 in 0..9."""
    from sklearn.datasets import load_digits as load

    digits = load()
    return torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(
        digits.target, dtype=torch.int64
    )


def load_photos() -> Tensor:
    """scikit-learn's two photographs, a temple and a flower: (2, 3, 427, 640) float32 in [0, 1]."""
    from sklearn.datasets import load_sample_images

    return torch.tensor(np.stack(load_sample_images().images)).permute(0, 3, 1, 2).float() / 255


def digits_on_photos(
    agreements: Sequence[float], seed: int, digits: tuple[Tensor, Tensor] | None = None, photos: Tensor | None = None
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Environments that share neither a digit nor a pixel of a photograph.

    Every environment gets its own share of the digits and its own vertical strip of both photographs.

    Args:
        agreements: per environment, the probability that the photograph's number equals the label.
        seed: everything random follows from it.
        digits, photos: as :func:`load_digits` and :func:`load_photos` give them; None takes those.

    Returns:
        Per environment: images (N, 3, 28, 28) float32 in [0, 1], labels (N,) int64, 1 for digits below 5, and the
        photograph's number (N,) int64, 0 or 1.
    """
    rng = np.random.default_rng(seed)
    strengths, classes = load_digits() if digits is None else digits
    photos = load_photos() if photos is None else photos
    shares = np.array_split(rng.permutation(len(strengths)), len(agreements))
    strips = np.array_split(np.arange(photos.shape[-1]), len(agreements))
    environments = []
    for rows, columns, agreement in zip(shares, strips, agreements):
        labels = (classes[rows] < 5).long()
        agrees = torch.from_numpy(rng.random(len(rows)) < agreement)
        photo = torch.where(agrees, labels, 1 - labels)
        top = rng.integers(0, photos.shape[-2] - CROP + 1, len(rows))
        left = rng.integers(columns[0], columns[-1] + 1 - CROP + 1, len(rows))
        behind = torch.stack([photos[p, :, y : y + CROP, x : x + CROP] for p, y, x in zip(photo, top, left)])
        environments.append((compose(strengths[rows], F.avg_pool2d(behind, 2)), labels, photo))
    return environments


def compose(digits: Tensor, behind: Tensor) -> Tensor:
    """White digits (N, 1, 8, 8) of strength [0, 1] over pictures (N, 3, H, W) in [0, 1] -> (N, 3, H, W)."""
    ink = F.interpolate(digits, size=behind.shape[-2:], mode="bilinear", align_corners=False)
    return ink + (1 - ink) * DIM * behind
