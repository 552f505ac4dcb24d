"""The comparison of ``fused`` as Triton kernels, for a GPU: the same formulas, in plain float32 sums.

The window is separable, so each comparison is four passes over memory, each of which reads what it needs along one
dimension: G along the height of x, y, x² + y² and xy; G along the width, the term and the three or four maps that the
slopes are made of; G^T along the height; G^T along the width and the slopes. No product of matrices is involved, so no
TF32; no atomics either: sums are made per block of pixels, then over blocks, and a row that several others were
compared
with gathers their slopes in a fixed order. Results are the same to the bit from run to run.

A pair is a plane of psi with a plane that it is compared with; maps of pairs are (pairs, h, w), contiguous.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gaussian_filter import HALO, WINDOW, gaussian_taps
from .ms_ssim import C1, C2

TILE = 4_000_000  #: pixels of a map that is worked on at once, about: bounds the memory of the maps between the passes

_TAPS, _HALO, _C1, _C2 = tl.constexpr(WINDOW), tl.constexpr(HALO), tl.constexpr(C1), tl.constexpr(C2)
_BLOCK = 512  #: pixels per program


def compare(psi: Tensor, others: Tensor, rows: Tensor, coarsest: bool, sides: int) -> tuple[Tensor, list[Tensor]]:
    """The sums of s, (2, P), and the slopes of the first ``sides`` of both images, (2, P, h, w) each.

    Args:
        psi: (P, h, w).
        others: (Q, h, w).
        rows: the planes of ``others`` that each plane of psi is compared with, (2, P) int64.
        coarsest: with luminance.
        sides: 0, 1 (psi's) or 2.
    """
    planes, height, width = psi.shape
    pairs, lines, columns = 2 * planes, height - HALO, width - HALO
    psi, others, rows, taps = psi.contiguous(), others.contiguous(), rows.contiguous(), gaussian_taps(psi)
    with torch.cuda.device_of(psi):
        blurred = psi.new_empty(4, pairs, lines, width)
        _blur_columns[_grid(pairs, lines * width)](psi, others, rows, taps, blurred, planes, height, width, _BLOCK)
        grid = _grid(pairs, lines * columns)
        sums, maps = psi.new_empty(grid), psi.new_empty(2 + sides if sides else 0, pairs, lines, columns)
        _blur_rows_and_compare[grid](blurred, taps, sums, maps, lines, width, coarsest, sides, _BLOCK)
        del blurred
        sums = sums.sum(1).view(2, planes)
        if not sides:
            return sums, []
        spread = psi.new_empty(2 + sides, pairs, height, columns)
        _spread_columns[_grid((2 + sides) * pairs, height * columns)](maps, taps, spread, lines, columns, _BLOCK)
        slopes = psi.new_empty(sides, 2, planes, height, width)
        _spread_rows_and_combine[_grid(pairs, height * width)](
            psi, others, rows, taps, spread, slopes, planes, height, width, sides, _BLOCK
        )
    return sums, list(slopes)


def add_rows(total: Tensor, rows: Tensor, weights: Tensor, slopes: Tensor) -> None:
    """Add weight · slope of every pair to the row of ``total`` that it names, always in the same order.

    Args:
        total: (Q, h, w), whose planes are contiguous; changed in place.
        rows: (2, P) int64.
        weights: (2, P, 1, 1).
        slopes: (2, P, h, w).
    """
    named, order = rows.flatten().sort(stable=True)
    starts = torch.searchsorted(named, torch.arange(len(total) + 1, device=named.device))
    pixels = total[0].numel()
    with torch.cuda.device_of(total):
        _gather[_grid(len(total), pixels)](
            total, order, starts, weights.contiguous(), slopes.contiguous(), total.stride(0), pixels, _BLOCK
        )


def _grid(maps: int, pixels: int) -> tuple[int, int]:
    return maps, triton.cdiv(pixels, _BLOCK)


@triton.jit
def _pixels(count, BLOCK: tl.constexpr):
    """This program's map, its pixels, and which of them exist."""
    pixels = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    return tl.program_id(0).to(tl.int64), pixels, pixels < count


@triton.jit
def _blur_columns(psi, others, rows, taps, blurred, planes, height, width, BLOCK: tl.constexpr):
    """G along the height of x, y, x² + y² and xy: (P, h, w) and (Q, h, w) -> (4, pairs, h-10, w)."""
    size = (height - _HALO) * width
    pair, pixels, inside = _pixels(size, BLOCK)
    x = psi + pair % planes * height * width + pixels
    y = others + tl.load(rows + pair) * height * width + pixels
    mu_x = tl.zeros([BLOCK], psi.dtype.element_ty)
    mu_y, squares, product = mu_x, mu_x, mu_x
    for k in tl.static_range(_TAPS):
        tap = tl.load(taps + k)
        a = tl.load(x + k * width, inside, 0.0)
        b = tl.load(y + k * width, inside, 0.0)
        mu_x += tap * a
        mu_y += tap * b
        squares += tap * (a * a + b * b)
        product += tap * (a * b)
    step = tl.num_programs(0).to(tl.int64) * size
    blurred += pair * size + pixels
    tl.store(blurred, mu_x, inside)
    tl.store(blurred + step, mu_y, inside)
    tl.store(blurred + 2 * step, squares, inside)
    tl.store(blurred + 3 * step, product, inside)


@triton.jit
def _blur_rows_and_compare(
    blurred, taps, sums, maps, lines, width, coarsest: tl.constexpr, sides: tl.constexpr, BLOCK: tl.constexpr
):
    """G along the width, (4, pairs, h-10, w) -> the sum of s of every block, (pairs, blocks), and what is spread for
    the slopes, (2 + sides, pairs, h-10, w-10).
    """
    columns = width - _HALO
    pair, pixels, inside = _pixels(lines * columns, BLOCK)
    step = tl.num_programs(0).to(tl.int64) * lines * width
    at = blurred + pair * lines * width + pixels // columns * width + pixels % columns
    mu_x = tl.zeros([BLOCK], blurred.dtype.element_ty)
    mu_y, squares, product = mu_x, mu_x, mu_x
    for k in tl.static_range(_TAPS):
        tap = tl.load(taps + k)
        mu_x += tap * tl.load(at + k, inside, 0.0)
        mu_y += tap * tl.load(at + step + k, inside, 0.0)
        squares += tap * tl.load(at + 2 * step + k, inside, 0.0)
        product += tap * tl.load(at + 3 * step + k, inside, 0.0)
    r = 1 / (squares - mu_x * mu_x - mu_y * mu_y + _C2)
    cs = (2 * (product - mu_x * mu_y) + _C2) * r
    s, lum_r = cs, r
    own, other = cs * r, r
    if coarsest:
        d = 1 / (mu_x * mu_x + mu_y * mu_y + _C1)
        lum = (2 * mu_x * mu_y + _C1) * d
        s, lum_r = cs * lum, lum * r
        own, other = s * r - s * d, lum_r - cs * d
    tl.store(sums + pair * tl.num_programs(1) + tl.program_id(1), tl.sum(tl.where(inside, s, 0.0)))
    if sides > 0:
        step = tl.num_programs(0).to(tl.int64) * lines * columns
        maps += pair * lines * columns + pixels
        tl.store(maps, s * r, inside)
        tl.store(maps + step, lum_r, inside)
        tl.store(maps + 2 * step, own * mu_x - other * mu_y, inside)
        if sides > 1:
            tl.store(maps + 3 * step, own * mu_y - other * mu_x, inside)


@triton.jit
def _spread_columns(maps, taps, spread, lines, columns, BLOCK: tl.constexpr):
    """G^T along the height, (maps, h-10, w-10) -> (maps, h, w-10)."""
    size = (lines + _HALO) * columns
    number, pixels, inside = _pixels(size, BLOCK)
    line = pixels // columns
    at = maps + number * lines * columns + pixels
    total = tl.zeros([BLOCK], maps.dtype.element_ty)
    for k in tl.static_range(_TAPS):
        total += tl.load(taps + k) * tl.load(at - k * columns, (line >= k) & (line < lines + k), 0.0)
    tl.store(spread + number * size + pixels, total, inside)


@triton.jit
def _spread_rows_and_combine(
    psi, others, rows, taps, spread, slopes, planes, height, width, sides: tl.constexpr, BLOCK: tl.constexpr
):
    """G^T along the width, (2 + sides, pairs, h, w-10) -> the slopes, (sides, pairs, h, w)."""
    size, columns = height * width, width - _HALO
    pair, pixels, inside = _pixels(size, BLOCK)
    column = pixels % width
    step = tl.num_programs(0).to(tl.int64) * height * columns
    at = spread + pair * height * columns + pixels // width * columns + column
    spread_t = tl.zeros([BLOCK], spread.dtype.element_ty)
    spread_r, slope_x, slope_y = spread_t, spread_t, spread_t
    for k in tl.static_range(_TAPS):
        tap = tl.load(taps + k)
        there = inside & (column >= k) & (column < columns + k)
        spread_t += tap * tl.load(at - k, there, 0.0)
        spread_r += tap * tl.load(at + step - k, there, 0.0)
        slope_x += tap * tl.load(at + 2 * step - k, there, 0.0)
        if sides > 1:
            slope_y += tap * tl.load(at + 3 * step - k, there, 0.0)
    x = tl.load(psi + pair % planes * size + pixels, inside, 0.0)
    y = tl.load(others + tl.load(rows + pair) * size + pixels, inside, 0.0)
    slopes += pair * size + pixels
    tl.store(slopes, slope_x - x * spread_t + y * spread_r, inside)
    if sides > 1:
        tl.store(slopes + tl.num_programs(0).to(tl.int64) * size, slope_y - y * spread_t + x * spread_r, inside)


@triton.jit
def _gather(total, order, starts, weights, slopes, stride, count, BLOCK: tl.constexpr):
    """Add to every plane of ``total`` the weighted slopes of the pairs that name it, ``order[starts[row]:starts[row +
    1]]``.
    """
    row, pixels, inside = _pixels(count, BLOCK)
    total += row * stride + pixels
    value = tl.load(total, inside, 0.0)
    for place in range(tl.load(starts + row), tl.load(starts + row + 1)):
        pair = tl.load(order + place)
        value += tl.load(weights + pair) * tl.load(slopes + pair * count + pixels, inside, 0.0)
    tl.store(total, value, inside)
