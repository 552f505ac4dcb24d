"""Images for the tests of MS-SSIM, and the library as their reference, called as ours are."""

from __future__ import annotations

import pytorch_msssim
import torch
import torch.nn.functional as F
from torch import Tensor


def smooth_masks(images: Tensor) -> Tensor:
    """A random mask per image, one channel, as a transformation network gives."""
    masks = 0.3 + 0.7 * torch.rand(len(images), 1, 5, 5, dtype=images.dtype)
    return F.interpolate(masks, size=images.shape[-2:], mode="bicubic").clamp(0, 1)


def related(images: Tensor) -> Tensor:
    """Blended so that every term of every pair is positive."""
    return 0.7 * images[:1] + 0.3 * images


def adversarial_pairs(n: int, side: int) -> tuple[Tensor, Tensor]:
    """n pairs of float32 images, (n, 3, side, side) each: every kind of trouble in turn."""
    board = ((torch.arange(side)[:, None] + torch.arange(side)) % 2).float().expand(3, -1, -1)
    black, white = torch.zeros(3, side, side), torch.ones(3, side, side)

    def noise():
        return torch.rand(3, side, side)

    def constant():
        return torch.rand(3, 1, 1).expand(3, side, side)

    def smooth():
        return F.interpolate(torch.rand(1, 3, 4, 4), size=side, mode="bilinear")[0]

    def same(image, other=lambda x: x):
        return image, other(image)

    kinds = [
        lambda: (noise(), noise()),
        lambda: (smooth(), smooth()),
        lambda: same(noise()),
        lambda: same(constant()),
        lambda: same(black),
        lambda: same(board),
        lambda: same(noise(), lambda x: 1 - x),
        lambda: same(smooth(), lambda x: 1 - x),
        lambda: same(smooth(), lambda x: (1 - x) * torch.rand(())),
        lambda: same(smooth(), lambda x: x + 1e-4 * noise()),
        lambda: (board, 1 - board),
        lambda: (board, noise()),
        lambda: (constant(), constant()),
        lambda: (constant(), noise()),
        lambda: (constant(), 0.5 + 1e-4 * (noise() - 0.5)),
        lambda: (black, white),
        lambda: (black, noise()),
        lambda: (white + 1e-6, black - 1e-6),
        lambda: same(white + 1e-6),
        lambda: (noise().round() * (1 + 2e-6) - 1e-6, noise().round() * (1 + 2e-6) - 1e-6),
        lambda: (torch.stack([smooth()[0], black[0], white[0]]), torch.stack([board[0], noise()[0], black[0]])),
    ]
    a, b = zip(*(kinds[i % len(kinds)]() for i in range(n)))
    return torch.stack(a), torch.stack(b)


def reference_library(a: Tensor, b: Tensor) -> Tensor:
    """pytorch_msssim with a window in double precision; its own is float32."""
    window = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / 4.5)
    window = (window / window.sum()).view(1, 1, 1, 11).repeat(a.shape[1], 1, 1, 1)
    return pytorch_msssim.ms_ssim(a, b, data_range=1.0, size_average=False, win=window)


def of_library(
    anchor: Tensor, reference: Tensor, positive: Tensor, negative: Tensor, scales: int, floor: str
) -> tuple[Tensor, Tensor]:
    """Two calls of pytorch_msssim, for sides above 160 pixels, by the arguments of our own triplet."""
    assert (scales, floor) == (5, "exact"), "the library knows nothing else"
    references = anchor if reference is anchor else reference.detach()
    s_pos, s_neg = (
        pytorch_msssim.ms_ssim(anchor, references[rows], data_range=1.0, size_average=False)
        for rows in (positive, negative)
    )
    return s_pos, s_neg
