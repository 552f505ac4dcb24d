"""Losses that compare images of a minibatch: CIM's L_con and the supervised contrastive loss. One value per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .colours import colour_embedding, cosine_triplet
from .fused_triplet import fused_triplet
from .inputs import class_numbers
from .morphing import Morphed
from .shard import WHOLE, Shard
from .similarity import check_library, library_triplet
from .triplets import draw_triplets

#: The sign of L_con = sign · (s_pos - s_neg). The poster minimises MS(psi(x), x+) - MS(psi(x), x-). Read as the
#: distance 1 - MS-SSIM, minimising pulls psi(x) to its positive, as a triplet loss does; read as the similarity
#: itself it pushes psi(x) away. This is the one place that decides.
READINGS = {"distance": -1.0, "similarity": 1.0}

#: What psi(x) is compared with: the raw x+ and x- (the poster's), or psi(x+) and psi(x-).
TARGETS = ("input", "morphed")

#: How s_pos and s_neg are computed from what :meth:`TripletContrast.views` gives, by the name that a user gives.
TRIPLETS = {"ms_ssim": fused_triplet, "pytorch_msssim": library_triplet, "colours": cosine_triplet}


def contrastive_loss(s_pos: Tensor, s_neg: Tensor, valid: Tensor, reading: str = "distance") -> Tensor:
    """L_con per anchor (arXiv:2106.06620, Eq. 1).

    Args:
        s_pos, s_neg: similarity to the positive and to the negative, (N,), at most 1.
        valid: (N,) bool; an anchor without a positive or a negative contributes a graph-connected zero.
        reading: a key of ``READINGS``.

    Returns:
        (N,); for MS-SSIM in [-1, 1]; the least is best.
    """
    return torch.where(valid, READINGS[reading] * (s_pos - s_neg), 0)


@dataclass(frozen=True)
class TripletContrast:
    """L_con of a batch: draws the triplets, compares the images, and reads the result.

    Args:
        scales: MS-SSIM scales, from :func:`~.similarity.choose_scales`; any number with "colours".
        pairs: a key of ``triplets.CANDIDATES``.
        targets: one of ``TARGETS``.
        similarity: a key of ``TRIPLETS``.
        floor: of MS-SSIM, a key of ``similarity.FLOORS``.
        reading: a key of ``READINGS``.

    Raises:
        ValueError: ``similarity`` cannot do these scales or this floor.
    """

    scales: int
    pairs: str = "random"
    targets: str = "input"
    similarity: str = "ms_ssim"
    floor: str = "smooth"
    reading: str = "distance"

    def __post_init__(self):
        if self.similarity == "pytorch_msssim":
            check_library(self.scales, self.floor)
        if self.similarity == "colours" and self.floor != "smooth":
            raise ValueError(
                f"the floor is of MS-SSIM, {self.floor!r} does nothing with similarity 'colours'; leave it out"
            )

    def __call__(
        self, morphed: Morphed, labels: Tensor, environments: Tensor | None, shard: Shard = WHOLE
    ) -> tuple[Tensor, Tensor]:
        """What morphing a batch gave; labels and environments, (N,) whole numbers -> (L_con (N,), valid (N,)).

        Positives and negatives come from the whole of a batch that several processes share.

        Raises:
            ValueError: the images are too small for the scales, or labels are no whole numbers of shape (N,).
        """
        environments = None if environments is None else shard.gather(class_numbers(environments, "environments"))
        positive, negative, valid = draw_triplets(shard.gather(class_numbers(labels)), environments, self.pairs)
        own, reference = self.views(morphed)
        if own is reference:
            everyone = shard.gather(own)
            s_pos, s_neg = map(shard.local, self.compare(everyone, everyone, positive, negative))
        else:
            s_pos, s_neg = self.compare(own, shard.gather(reference), shard.local(positive), shard.local(negative))
        valid = shard.local(valid)
        return contrastive_loss(s_pos, s_neg, valid, self.reading), valid

    def views(self, morphed: Morphed) -> tuple[Tensor, Tensor]:
        """What of every image is compared, as an anchor and as a positive or negative; one tensor where it is the same.
        Both (N, ...).
        """
        if self.similarity != "colours":
            return morphed.psi, morphed.psi if self.targets == "morphed" else morphed.pixels
        own = colour_embedding(morphed.pixels, morphed.mask)
        return own, own if self.targets == "morphed" else colour_embedding(
            morphed.pixels, torch.ones_like(morphed.mask)
        )

    def compare(self, own: Tensor, reference: Tensor, positive: Tensor, negative: Tensor) -> Sequence[Tensor]:
        """Similarity of every anchor to its positive and to its negative, (N,) each.

        Args:
            own, reference: from :meth:`views`, of the same images or of others.
            positive, negative: (N,) int64, rows of ``reference``.
        """
        return TRIPLETS[self.similarity](own, reference, positive, negative, self.scales, self.floor)

    @property
    def measure(self) -> str:
        """The similarity in words."""
        return "cosine of colours" if self.similarity == "colours" else "MS-SSIM"

    @property
    def how(self) -> str:
        """How images are compared, in words."""
        return self.measure if self.similarity == "colours" else f"{self.measure} with {self.scales} scales"


def supervised_contrastive_loss(features: Tensor, labels: Tensor, temperature: float, shard: Shard = WHOLE) -> Tensor:
    """The supervised contrastive loss L_out (Khosla et al., 2020, arXiv:2004.11362, Eq. 2).

    Args:
        features: (N, D) float, of any length; normalised here. Computed in at least float32.
        labels: (N,) whole numbers.
        temperature: positive.
        shard: with several processes, anchors are the local rows, compared with the whole batch.

    Returns:
        (N,), at least 0; a graph-connected zero for an anchor without a positive.

    Raises:
        ValueError: labels are no whole numbers of shape (N,).
    """
    labels = class_numbers(labels)
    with torch.autocast(features.device.type, enabled=False):
        features = features if features.dtype == torch.float64 else features.float()
        features = F.normalize(features, dim=1)
        everyone, all_labels = shard.gather(features), shard.gather(labels)
        own = shard.local(torch.eye(len(all_labels), dtype=torch.bool, device=labels.device))
        positives = (labels[:, None] == all_labels) & ~own
        logits = (features @ everyone.T / temperature).masked_fill(own, torch.finfo(features.dtype).min)
        log_probability = F.log_softmax(logits, dim=1)
        return -torch.where(positives, log_probability, 0).sum(1) / positives.sum(1).clamp(min=1)
