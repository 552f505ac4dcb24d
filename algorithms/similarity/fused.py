"""The triplet of similarities with an analytic gradient: the numbers of ``ms_ssim.triplet``, several times faster.

At one scale, a plane x of psi is compared with a plane y. G is the Gaussian window; lum and d belong to the coarsest
scale, at the others lum = 1 and d = 0::

    mu_x = G x        mu_y = G y
    r    = 1 / (G(x² + y²) - mu_x² - mu_y² + C2)
    cs   = (2 (G(xy) - mu_x mu_y) + C2) r
    d    = 1 / (mu_x² + mu_y² + C1)
    lum  = (2 mu_x mu_y + C1) d
    term = average of s = cs lum

The term's derivative with respect to x, times half the number of pixels that it averages, is its slope::

    t       = s r
    slope_x = G^T((t - s d) mu_x - (lum r - cs d) mu_y) - x G^T t + y G^T(lum r)

and slope_y exchanges x and y. Slopes do not depend on what is done with the terms, so the forward pass computes them
while the maps that they are made of are in the cache, and keeps nothing else: three images per image of psi, six where
psi is compared with itself. The backward pass is their weighted sum.

This is the arithmetic of a CPU; ``triton_kernels`` has that of a GPU, for the same :class:`_Scale`.
"""

from __future__ import annotations

import functools
import logging
from typing import Callable, Iterator, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..morphing import Morphed
from .base import Similarity
from .gaussian_filter import HALO, WINDOW, gaussian_filter, gaussian_filter_transpose, gaussian_taps
from .ms_ssim import C1, C2, FLOORS, choose_scales, combine, full_precision, triplet, without_autocast

_LANES = 16  #: planes that a vector instruction takes at once
_TILE = 250_000  #: pixels of a map that is worked on at once, about: some twenty of them should fit the cache
_TOLERANCE = 1e-3  #: of a GPU's kernels against plain autograd: a mistake is far above, rounding far below


class _Arithmetic(NamedTuple):
    """How a device compares planes, and adds up their slopes."""

    compare: Callable  #: (psi, others, rows, coarsest, sides) -> sums (2, P) and slopes [(2, P, h, w)]
    add_rows: Callable  #: (total, rows, weights, slopes): adds weight · slope to the rows (2, P) of total (Q, h, w)
    tile: int  #: pixels of a map that is worked on at once, about


class MSSSIM(Similarity):
    """MS-SSIM of psi(x) with its positive and its negative (Wang et al., 2003): the poster's MS(·,·).

    Args:
        image_size: height and width in pixels; as many scales are taken as fit, see :func:`~.ms_ssim.choose_scales`.
        floor: a key of ``FLOORS``.
        scales: fewer than fit.

    Raises:
        ValueError: an image of this size allows no scale, or not so many.
    """

    measure = "MS-SSIM"
    smallest_side = WINDOW

    def __init__(self, image_size: tuple[int, int], floor: str = "smooth", scales: int | None = None):
        if floor not in FLOORS:
            raise ValueError(f"the floor is one of {', '.join(FLOORS)}, {floor!r} was given")
        self.scales, self.floor = choose_scales(*image_size, scales), floor

    @property
    def how(self) -> str:
        """With the number of scales, and the floor where it is not the smooth one."""
        floor = "" if self.floor == "smooth" else f" and the {self.floor} floor"
        return f"{self.measure} with {self.scales} scales{floor}"

    def embed(self, morphed: Morphed) -> Tensor:
        """psi(x) itself, (N, C, H, W) in [0, 1]."""
        return morphed.psi

    def compare(self, own: Tensor, reference: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Similarity.compare`."""
        return fused_triplet(own, reference, positive, negative, self.scales, self.floor)


def fused_triplet(
    anchor: Tensor, reference: Tensor, positive: Tensor, negative: Tensor, scales: int, floor: str
) -> tuple[Tensor, Tensor]:
    """:func:`~.ms_ssim.triplet`, with the same arguments and results; it is that function where a device has no
    arithmetic here.

    The gradient can be taken once, not twice. Extra memory is a few images of psi, however many scales there are.
    """
    with without_autocast(anchor):
        psi = full_precision(anchor)
        others = None if reference is anchor else full_precision(reference.detach())
        arithmetic = _arithmetic(psi)
        if arithmetic is None:
            return triplet(anchor, reference, positive, negative, scales, floor)
        return _triplet(psi, others, positive, negative, scales, floor, arithmetic)


def _arithmetic(images: Tensor) -> _Arithmetic | None:
    if images.device.type == "cpu":
        return _Arithmetic(_compare_gathered, _add_rows, _TILE)
    if images.device.type == "cuda" and images.dtype == torch.float32:
        return _on_gpu(images.device)
    return None


@functools.cache
def _on_gpu(device: torch.device) -> _Arithmetic | None:
    """The Triton kernels, once they have given the numbers of plain autograd on this GPU; None, and a line in the log,
    where they do not.
    """
    try:
        from . import triton_kernels

        arithmetic = _Arithmetic(triton_kernels.compare, triton_kernels.add_rows, triton_kernels.TILE)
        trouble = _trouble(arithmetic, device)
    except Exception as failure:  # no Triton, no compiler for it, a GPU that it does not know
        trouble = f"{type(failure).__name__}: {failure}".splitlines()[0]
    if not trouble:
        return arithmetic
    logging.getLogger(__name__).warning(
        "MS-SSIM runs by plain autograd on %s, slower: its Triton kernels cannot be used (%s)", device, trouble
    )
    return None


def _trouble(arithmetic: _Arithmetic, device: torch.device) -> str:
    """By how much its numbers are off, in words; nothing where they are right."""
    error = _largest_error(arithmetic, device)
    return "" if error <= _TOLERANCE else f"they are {error:.1e} off"


def _largest_error(arithmetic: _Arithmetic, device: torch.device) -> float:
    """Against plain autograd in double precision, of values, and of gradients relative to the largest: small random
    images in both modes.
    """
    psi, x = torch.rand(2, 3, 1, 33, 27, generator=torch.Generator().manual_seed(0)).to(device)
    positive, negative = torch.tensor([[1, 2, 0], [0, 0, 1]], device=device)
    errors = []
    with torch.enable_grad():
        for others in (x, None):
            images = psi.clone().requires_grad_()
            exact = images.double()  # no TF32 in double precision
            ours = _triplet(images, others, positive, negative, 2, "smooth", arithmetic)
            reference = exact if others is None else others.double()
            expected = triplet(exact, reference, positive, negative, 2, "smooth")
            gradient, expected_gradient = (
                torch.autograd.grad((s_pos - 2 * s_neg).sum(), images)[0] for s_pos, s_neg in (ours, expected)
            )
            errors += [(a - b).detach().abs().max() for a, b in zip(ours, expected)]
            errors.append((gradient - expected_gradient).abs().max() / expected_gradient.abs().max())
    return float(torch.stack(errors).nan_to_num(torch.inf).max())


def _triplet(
    psi: Tensor,
    others: Tensor | None,
    positive: Tensor,
    negative: Tensor,
    scales: int,
    floor: str,
    arithmetic: _Arithmetic,
) -> tuple[Tensor, Tensor]:
    """psi, in full precision, is compared with ``others``, which get no gradient, or with itself."""
    height, width = psi.shape[-2:]
    choose_scales(height, width, scales)
    n, channels = psi.shape[:2]
    rows = (
        torch.stack([positive, negative])[:, :, None] * channels + torch.arange(channels, device=positive.device)
    ).flatten(1)
    psi, others = psi.flatten(0, 1), None if others is None else others.flatten(0, 1)
    terms = []
    for level in range(scales):
        term, halved = _Scale.apply(psi, others, rows, level == scales - 1, arithmetic)
        terms.append(term.view(2, n, channels))
        psi, others = halved, None if others is None else _halve(others)
    s_pos, s_neg = combine(terms, floor)
    return s_pos, s_neg


class _Scale(torch.autograd.Function):
    """One scale: the terms of every plane of psi, and psi at half the size for the next scale.

    Takes psi (P, h, w); the planes that it is compared with (Q, h, w), which get no gradient, or ``None`` for psi
    itself, which then gets both sides'; for every plane the row of its positive and of its negative, (2, P); whether
    this is the coarsest scale; the device's arithmetic. Gives (2, P) and (P, h/2, w/2).
    """

    @staticmethod
    def forward(
        ctx, psi: Tensor, others: Tensor | None, rows: Tensor, coarsest: bool, arithmetic: _Arithmetic
    ) -> tuple[Tensor, Tensor]:
        sides = 0 if not ctx.needs_input_grad[0] else 1 if others is not None else 2
        others = psi if others is None else others
        sums = psi.new_zeros(rows.shape)
        slopes: list[Tensor] = []
        for planes, lines in _tiles(psi.shape, arithmetic.tile):
            of_tile, slopes_of_tile = arithmetic.compare(
                psi[planes, lines], others[:, lines], rows[:, planes], coarsest, sides
            )
            sums[:, planes] += of_tile
            slopes += slopes_of_tile
        ctx.save_for_backward(rows, *slopes)
        ctx.shape, ctx.sides, ctx.arithmetic = psi.shape, sides, arithmetic
        ctx.pixels = (psi.shape[1] - HALO) * (psi.shape[2] - HALO)
        return sums / ctx.pixels, _halve(psi)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_terms: Tensor, d_halved: Tensor) -> tuple[Tensor, None, None, None, None]:
        rows, *slopes = ctx.saved_tensors
        weights = d_terms * (2 / ctx.pixels)
        d_psi = _halve_transpose(d_halved, ctx.shape)
        for tile, (planes, lines) in enumerate(_tiles(ctx.shape, ctx.arithmetic.tile)):
            slope_x, *slope_y = slopes[tile * ctx.sides : (tile + 1) * ctx.sides]
            of_positive, of_negative = weight = weights[:, planes, None, None]
            d_psi[planes, lines] += torch.addcmul(slope_x[0] * of_positive, slope_x[1], of_negative)
            if slope_y:
                ctx.arithmetic.add_rows(d_psi[:, lines], rows[:, planes], weight, slope_y[0])
        return d_psi, None, None, None, None


def _compare_gathered(
    psi: Tensor, others: Tensor, rows: Tensor, coarsest: bool, sides: int
) -> tuple[Tensor, list[Tensor]]:
    x = psi[None].contiguous(memory_format=torch.channels_last)
    y = others.index_select(0, rows.flatten()).unflatten(0, (2, -1)).contiguous(memory_format=torch.channels_last)
    return _compare(x, y, gaussian_taps(psi), coarsest, sides)


def _add_rows(total: Tensor, rows: Tensor, weights: Tensor, slopes: Tensor) -> None:
    total.index_add_(0, rows.flatten(), (slopes * weights).contiguous().flatten(0, 1))


def _compare(x: Tensor, y: Tensor, taps: Tensor, coarsest: bool, sides: int) -> tuple[Tensor, list[Tensor]]:
    """The sums of s, (2, P), and the slopes of the first ``sides`` of x and y, (2, P, h, w).

    x (1, P, h, w) is compared with both maps of y (2, P, h, w).
    """
    mu_x, mu_y = gaussian_filter(x, taps), gaussian_filter(y, taps)
    r = gaussian_filter(torch.addcmul(x.square(), y, y), taps)
    r.addcmul_(mu_x, mu_x, value=-1).addcmul_(mu_y, mu_y, value=-1).add_(C2).reciprocal_()
    cs = gaussian_filter(x * y, taps)
    cs.addcmul_(mu_x, mu_y, value=-1).mul_(2).add_(C2).mul_(r)
    s, lum_r = cs, r
    if coarsest:
        d = (mu_x.square() + mu_y.square() + C1).reciprocal_()
        lum = (2 * mu_x * mu_y + C1) * d
        s, lum_r = cs * lum, lum * r
    sums = s.sum((2, 3))
    if not sides:
        return sums, []
    t = s * r
    own, other = (t - s * d, lum_r - cs * d) if coarsest else (t, lum_r)
    spread_t, spread_r = gaussian_filter_transpose(t, taps), gaussian_filter_transpose(lum_r, taps)
    slopes = []
    for a, b, mu_a, mu_b in ((x, y, mu_x, mu_y), (y, x, mu_y, mu_x))[:sides]:
        slope = gaussian_filter_transpose((own * mu_a).addcmul_(other, mu_b, value=-1), taps)
        slopes.append(slope.addcmul_(a, spread_t, value=-1).addcmul_(b, spread_r))
    return sums, slopes


def _tiles(shape: torch.Size, tile: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of planes and, where one plane is large, strips of lines; strips overlap by what the window takes off."""
    count, height, width = shape
    planes = min(count, max(_LANES, tile // (height * width) // _LANES * _LANES))
    lines = max(3 * HALO, tile // (planes * width))
    for plane in range(0, count, planes):
        for line in range(0, height - HALO, lines):
            yield slice(plane, plane + planes), slice(line, line + lines + HALO)


def _halve(planes: Tensor) -> Tensor:
    """Averages of 2x2 pixels; an odd side starts with a zero that counts. (P, h, w) -> (P, ceil(h/2), ceil(w/2))."""
    height, width = planes.shape[1:]
    if height % 2 or width % 2:
        planes = F.pad(planes, (width % 2, 0, height % 2, 0))
    planes = planes[:, ::2] + planes[:, 1::2]
    return (planes[..., ::2] + planes[..., 1::2]).div_(4)


def _halve_transpose(planes: Tensor, shape: torch.Size) -> Tensor:
    """(P, ceil(h/2), ceil(w/2)) -> (P, h, w)."""
    _, height, width = shape
    planes = (planes / 4).repeat_interleave(2, 1).repeat_interleave(2, 2)
    return planes[:, height % 2 :, width % 2 :].contiguous()
