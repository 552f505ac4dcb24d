"""MS-SSIM's Gaussian window G and its transpose, over many planes at once.

Maps are (B, P, h, w) in the channels_last memory format: the P planes of a pixel are neighbours in memory, and every
step of a filter is one vector operation over planes. G is separable, and there are two ways to filter along a
dimension: depthwise convolution, which needs oneDNN to be fast and which oneDNN has for float32 only, and products with
the window's banded matrix, which every BLAS has in every precision. ``scripts/bench similarity`` measures the
whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  #: taps and standard deviation, in pixels
HALO = WINDOW - 1  #: pixels that G takes off each dimension
_BLOCK = 32  #: outputs per banded product: more of them multiply more zeros, fewer make more calls


def gaussian_taps(like: Tensor) -> Tensor:
    """The window along one dimension, (WINDOW,), summing to 1; dtype and device as ``like``."""
    offsets = torch.arange(WINDOW, device=like.device, dtype=like.dtype) - WINDOW // 2
    taps = torch.exp(-offsets.square() / (2 * SIGMA**2))
    return taps / taps.sum()


def gaussian_filter(maps: Tensor, taps: Tensor) -> Tensor:
    """G: local averages without padding, (B, P, h, w) -> (B, P, h-10, w-10)."""
    return _filter(maps, taps, padding=0)


def gaussian_filter_transpose(maps: Tensor, taps: Tensor) -> Tensor:
    """The transpose of G, which spreads a value over its window, (B, P, h, w) -> (B, P, h+10, w+10)."""
    return _filter(maps, taps, padding=HALO)  # the window is symmetric


def _filter(maps: Tensor, taps: Tensor, padding: int) -> Tensor:
    if maps.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return _depthwise(maps, taps, padding)
    return _banded(F.pad(maps, [padding] * 4), taps)


def _depthwise(maps: Tensor, taps: Tensor, padding: int) -> Tensor:
    planes = maps.shape[1]
    maps = F.conv2d(maps, taps.view(-1, 1).expand(planes, 1, -1, -1), groups=planes, padding=(padding, 0))
    return F.conv2d(maps, taps.view(1, -1).expand(planes, 1, -1, -1), groups=planes, padding=(0, padding))


def _banded(maps: Tensor, taps: Tensor) -> Tensor:
    batch, planes, height, width = maps.shape
    rows = maps.permute(0, 2, 3, 1).reshape(batch, height, width * planes)
    rows = _banded_product(rows, taps).view(-1, width, planes)
    return _banded_product(rows, taps).view(batch, height - HALO, width - HALO, planes).permute(0, 3, 1, 2)


def _banded_product(rows: Tensor, taps: Tensor) -> Tensor:
    """The window along dimension 1, (n, length, m) -> (n, length-10, m)."""
    shift = torch.arange(_BLOCK + HALO) - torch.arange(_BLOCK)[:, None]
    band = torch.where((shift >= 0) & (shift < WINDOW), taps[shift.clamp(0, HALO)], 0)
    outputs = rows.shape[1] - HALO
    blocks = []
    for start in range(0, outputs, _BLOCK):
        size = min(_BLOCK, outputs - start)
        blocks.append(band[:size, : size + HALO] @ rows[:, start : start + size + HALO])
    return torch.cat(blocks, dim=1)
