"""MS-SSIM and the triplet of similarities that CIM's loss is made of.

MS-SSIM is Wang, Simoncelli and Bovik (2003), doi:10.1109/ACSSC.2003.1292216: at every scale the images' local
contrast-structure term, at the coarsest one also luminance, combined as a weighted product. Images are (N, C, H, W)
with values in [0, 1] up to rounding; float32 and float64 are computed as they come, half precision in float32, also
under autocast. Every result is one value per image, (N,), in [0, 1] up to rounding.
"""

from __future__ import annotations

from typing import NamedTuple, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .gaussian_filter import WINDOW, gaussian_taps

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  #: Wang et al. (2003), finest scale first
C1, C2 = 0.01**2, 0.03**2  #: stabilisers for a data range of 1
SMOOTHNESS = 0.02  #: width of the smooth floor


def choose_scales(height: int, width: int, scales: int | None = None) -> int:
    """The number of MS-SSIM scales for an image size.

    The shorter side must exceed ``(WINDOW - 1) * 2**(scales - 1)`` pixels, so that the window fits at every scale.

    Args:
        height, width: image size in pixels.
        scales: the number that is wanted, 1 to 5; ``None`` takes as many as fit.

    Raises:
        ValueError: no scale fits, or fewer than ``scales`` do.

    >>> choose_scales(28, 28), choose_scales(224, 224)
    (2, 5)
    """
    name, side = min(("height", height), ("width", width), key=lambda item: item[1])
    fitting = sum(side > (WINDOW - 1) * 2**level for level in range(len(WEIGHTS)))
    if fitting == 0:
        raise ValueError(
            f"{name} {side} is smaller than MS-SSIM's {WINDOW}-pixel window; use images of at least {WINDOW} pixels a "
            f"side"
        )
    if scales is None:
        return fitting
    if not 1 <= scales <= fitting:
        raise ValueError(
            f"{name} {side} allows 1 to {fitting} scales of an {WINDOW}-pixel window, {scales} were asked for"
        )
    return scales


def scale_weights(scales: int) -> tuple[float, ...]:
    """The exponents of the ``scales`` finest scales, renormalised to sum to 1, as those of all five do."""
    if scales == len(WEIGHTS):
        return WEIGHTS
    total = sum(WEIGHTS[:scales])
    return tuple(weight / total for weight in WEIGHTS[:scales])


def exact_floor(values: Tensor, weight: float) -> Tensor:
    """relu(v)^w, with gradient 0 where v <= 0: 0^(w-1) is never evaluated."""
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1).pow(weight), 0)


def smooth_floor(values: Tensor, weight: float) -> Tensor:
    """(softplus(v/s)·s)^w with s = ``SMOOTHNESS``: a pair that looks opposite keeps a gradient, and a bounded one."""
    return F.softplus(values, beta=1 / SMOOTHNESS).pow(weight)


FLOORS = {"smooth": smooth_floor, "exact": exact_floor}


class _Scale(NamedTuple):
    """One scale of a batch: the images (N, C, h, w), and their local mean and variance (N, C, h-10, w-10)."""

    images: Tensor
    mean: Tensor
    variance: Tensor

    def of(self, rows: Tensor) -> _Scale:
        return _Scale(*(part.index_select(0, rows) for part in self))


def _blur(images: Tensor) -> Tensor:
    """The Gaussian window over (..., h, w) without padding; each plane is a group of one depthwise convolution."""
    taps = gaussian_taps(images)
    planes = images.reshape(1, -1, *images.shape[-2:])
    groups = planes.shape[1]
    planes = F.conv2d(planes, taps.view(1, 1, -1, 1).expand(groups, -1, -1, -1), groups=groups)
    planes = F.conv2d(planes, taps.view(1, 1, 1, -1).expand(groups, -1, -1, -1), groups=groups)
    return planes.reshape(*images.shape[:-2], *planes.shape[-2:])


def _pyramid(images: Tensor, scales: int) -> list[_Scale]:
    """The statistics that a batch brings to every comparison, finest scale first."""
    height, width = images.shape[-2:]
    choose_scales(height, width, scales)
    pyramid = []
    for level in range(scales):
        if level:  # odd sides are padded with a counted zero, as pytorch_msssim does
            images = F.avg_pool2d(images, 2, padding=[side % 2 for side in images.shape[-2:]])
        mean, square = _blur(torch.stack([images, images.square()]))
        pyramid.append(_Scale(images, mean, square - mean.square()))
    return pyramid


def _compare(a: list[_Scale], b: list[_Scale], floor: str) -> Tensor:
    """MS-SSIM of two pyramids, (N,)."""
    terms = []
    for level, (x, y) in enumerate(zip(a, b)):
        means = x.mean * y.mean
        covariance = _blur(x.images * y.images) - means
        similarity = (2 * covariance + C2) / (x.variance + y.variance + C2)
        if level == len(a) - 1:
            similarity = similarity * (2 * means + C1) / (x.mean.square() + y.mean.square() + C1)
        terms.append(similarity.mean((-2, -1)))
    return combine(terms, floor)


def combine(terms: Sequence[Tensor], floor: str) -> Tensor:
    """MS-SSIM from the terms of every scale, finest first: their floored and weighted product, averaged over channels.

    Args:
        terms: (..., C) each, in [-1, 1] up to rounding.
        floor: a key of ``FLOORS``.
    """
    product = torch.ones_like(terms[0])
    for term, weight in zip(terms, scale_weights(len(terms))):
        # Cauchy and Schwarz bound a term by 1; rounding does not.
        product = product * FLOORS[floor](term.clamp(-1, 1), weight)
    return product.mean(-1)


def without_autocast(images: Tensor) -> torch.autocast:
    return torch.autocast(images.device.type, enabled=False)


def full_precision(images: Tensor) -> Tensor:
    return images if images.dtype == torch.float64 else images.float()


def ms_ssim(a: Tensor, b: Tensor, scales: int, floor: str = "exact") -> Tensor:
    """MS-SSIM between two batches.

    Args:
        a, b: (N, C, H, W) in [0, 1].
        scales: from :func:`choose_scales`.
        floor: "exact" or "smooth", a key of ``FLOORS``.

    Returns:
        (N,), 1 for equal images; averaged over channels.

    >>> images = torch.rand(2, 3, 32, 32)
    >>> ms_ssim(images, images, scales=2).allclose(torch.ones(2))
    True
    """
    with without_autocast(a):
        a, b = full_precision(a), full_precision(b)
        return _compare(_pyramid(a, scales), _pyramid(b, scales), floor)


def triplet(
    anchor: Tensor, reference: Tensor, positive: Tensor, negative: Tensor, scales: int, floor: str
) -> tuple[Tensor, Tensor]:
    """MS-SSIM of every anchor with its positive and its negative, which are rows of one reference batch.

    The reference's statistics are computed once and gathered, however many anchors share a row.

    Args:
        anchor: psi(x), (N, C, H, W) in [0, 1], with gradient.
        reference: the batch that positives and negatives are rows of, (N, C, H, W) in [0, 1]: x, which gets no
            gradient, or ``anchor`` itself (the same object), where the gradient goes through both sides.
        positive, negative: rows of ``reference``, (N,) int64.
        scales: from :func:`choose_scales`.
        floor: "exact" or "smooth".

    Returns:
        (s_pos, s_neg), (N,) each.

    Raises:
        ValueError: the images are too small for so many scales.
    """
    with without_autocast(anchor):
        anchors = _pyramid(full_precision(anchor), scales)
        references = anchors if reference is anchor else _pyramid(full_precision(reference.detach()), scales)
        s_pos, s_neg = (
            _compare(anchors, [scale.of(rows) for scale in references], floor) for rows in (positive, negative)
        )
        return s_pos, s_neg
