"""What is logged of psi and its triplets while it trains, and when there is something to say of it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .contrastive import gap
from .distributed import SINGLE_PROCESS, Shard

COLLAPSED = 1e-4  #: a mean of m so close to 0, or to 1, is that of a network that tells no pixels apart any more
CONSTANT = 1 / 255  #: m varies by less than a grey level inside images, in standard deviation: it is a constant
NAMES = ("no_triplet", "mask_mean", "mask_std", "gap_mean", "gap_std")  #: in logs


class MaskStatistics(NamedTuple):
    """Of one batch; nothing waits for the device. All are detached, and floats of L_con's dtype but for the count."""

    without_triplet: Tensor  #: (), int64: how many anchors had no positive or no negative
    mask_mean: Tensor  #: (N,), the mean of every image's m
    mask_std: Tensor  #: (N,), the standard deviation of m inside every image
    gap_mean: Tensor  #: (), the mean of s+ - s- over the anchors that had both; see :func:`~.contrastive.gap`
    gap_std: Tensor  #: (), its standard deviation

    @classmethod
    def of(
        cls, mask: Tensor, losses: Tensor, valid: Tensor, reading: str, shard: Shard = SINGLE_PROCESS
    ) -> MaskStatistics:
        """m, (N, 1 or C, H, W), float; L_con and whether an anchor had a triplet, (N,) each, by ``reading``.

        Of several processes each has the gap of the whole batch.
        """
        of_all = gap(shard.gather(losses.detach()), shard.gather(valid.long()) > 0, reading)
        planes = mask.detach().to(losses.dtype).flatten(1)
        return cls((~valid).sum(), planes.mean(1), planes.std(1, unbiased=False), *of_all)

    def per_image(self) -> dict[str, Tensor]:
        """By ``NAMES``, (N,) each, so that means over images of several batches or processes are right; no_triplet is
        the share of the batch.
        """
        n_images = len(self.mask_mean)
        values = (self.without_triplet / n_images, *self[1:])
        return {name: value.expand(n_images) for name, value in zip(NAMES, values)}

    def of_batch(self) -> dict[str, Tensor]:
        """By ``NAMES``, () each; no_triplet is a number of images."""
        values = (self.without_triplet.to(self.mask_mean.dtype), *(value.mean() for value in self[1:]))
        return dict(zip(NAMES, values))


def constant_in_words(mask_mean: float, mask_std: float) -> str | None:
    """What to say of m that is the same everywhere; None of any other.

    Args:
        mask_mean, mask_std: means over images of those in :class:`MaskStatistics`.
    """
    if mask_mean < COLLAPSED:
        return (
            f"m has a mean below {COLLAPSED:g}, so the encoder sees next to nothing of the images; a smaller "
            f"cim_learning_rate (of the network alone) or learning rate keeps it up"
        )
    if mask_mean > 1 - COLLAPSED:
        return (
            "m is 1 everywhere, so the encoder sees the images as they are, and CIM does nothing; a smaller "
            "cim_learning_rate (of the network alone) or learning rate keeps it from that"
        )
    if mask_std < CONSTANT:
        return (
            f"m is a constant (its standard deviation inside images is below {CONSTANT:.3f}), so CIM only dims the "
            f"images; a larger cim_learning_rate moves it, unless gap_mean, what L_con goes by, is next to 0"
        )
    return None
