"""MS-SSIM by ``pytorch_msssim``: what our own is checked against, slower."""

from __future__ import annotations

import pytorch_msssim
from torch import Tensor

from .ms_ssim import full_precision, without_autocast


def library_triplet(anchor: Tensor, reference: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`~.ms_ssim.triplet` of five scales and the exact floor, by two calls of ``pytorch_msssim.ms_ssim``, for
    sides above 160 pixels.

    The library evaluates 0^(w-1) where a scale's term is not positive, which makes the gradient of that channel NaN
    (VainF/pytorch-msssim issues 7, 11, 16); it is 0 by definition and replaced by 0 here.
    """
    with without_autocast(anchor):
        # for channels_last cuDNN may filter in TF32, which E[x²] - E[x]² does not bear
        images = full_precision(anchor).contiguous()
        references = images if reference is anchor else full_precision(reference.detach()).contiguous()
        s_pos, s_neg = (
            pytorch_msssim.ms_ssim(
                _without_nan_gradient(images),
                _without_nan_gradient(references.index_select(0, rows)),
                data_range=1.0,
                size_average=False,
            )
            for rows in (positive, negative)
        )
        return s_pos, s_neg


def _without_nan_gradient(images: Tensor) -> Tensor:
    images = images.view_as(images)
    if images.requires_grad:
        images.register_hook(lambda gradient: gradient.nan_to_num(nan=0.0))
    return images
