"""How alike the colours of two images are, wherever they stand in them: what L_con can compare where images are not
aligned.

MS-SSIM compares an image with another one pixel by pixel; two crops of one landscape are as different by it as two
landscapes. Their colours are not. The distribution of an image's colours, weighted by m, is held as its mean embedding
in the space of a Gaussian kernel (Smola et al., 2007, doi:10.1007/978-3-540-75225-7_5), by random Fourier features
(Rahimi and Recht, 2007), and two distributions are compared by the cosine of their embeddings. The weights need not
add up to one: images are not alike because both are dark. The poster has MS-SSIM only; this is ours, see docs/study.md.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..morphing import Morphed
from .base import Similarity
from .ms_ssim import full_precision, without_autocast

FEATURES = 64  #: cosines; their noise is about 1/8 of the kernel
WIDTH = 0.05  #: standard deviation of the kernel, for colours in [0, 1]
SIDE = 56  #: images whose shorter side is above it are averaged over squares first, so that it is at most SIDE


def colour_embedding(pixels: Tensor, weights: Tensor) -> Tensor:
    """The weighted distribution of every image's colours as a unit vector.

    Args:
        pixels: (N, C, H, W) in [0, 1]; they get no gradient.
        weights: (N, 1 or C, H, W), at least 0, e.g. m; of several channels their mean counts.

    Returns:
        (N, FEATURES); float64 for float64, else float32, also under autocast. Where all weights of an image are 0,
        zeros.
    """
    with without_autocast(pixels):
        pixels, weights = full_precision(pixels.detach()), full_precision(weights).mean(1, keepdim=True)
        square = math.ceil(min(pixels.shape[-2:]) / SIDE)
        if square > 1:
            pixels, weights = F.avg_pool2d(pixels, square), F.avg_pool2d(weights, square)
        frequencies, phases = _frequencies(pixels.shape[1], pixels.dtype, pixels.device)
        with torch.no_grad():
            features = (
                torch.matmul(frequencies, pixels.flatten(2)).add_(phases).cos_()
            )  # no convolution: TF32 would be too coarse
        return F.normalize(torch.einsum("ndp,np->nd", features, weights.flatten(1)), dim=1)


class Colours(Similarity):
    """The cosine of two images' colours, as far as m leaves them; no alignment is asked for."""

    measure = "cosine of colours"

    def embed(self, morphed: Morphed) -> Tensor:
        """(N, FEATURES), see :func:`colour_embedding`."""
        return colour_embedding(morphed.pixels, morphed.mask)

    def compare(self, own: Tensor, reference: Tensor, positive: Tensor, negative: Tensor) -> list[Tensor]:
        """See :meth:`Similarity.compare`."""
        return [(own * reference[rows]).sum(1) for rows in (positive, negative)]


@functools.lru_cache
def _frequencies(channels: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The same ones in every run: (FEATURES, C) and (FEATURES, 1)."""
    random = np.random.RandomState(0)
    frequencies, phases = random.randn(FEATURES, channels) / WIDTH, random.uniform(0, 2 * math.pi, (FEATURES, 1))
    with torch.inference_mode(False):
        return torch.tensor(frequencies, dtype=dtype, device=device), torch.tensor(phases, dtype=dtype, device=device)
