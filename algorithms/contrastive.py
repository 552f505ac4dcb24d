"""Losses that compare images of a minibatch: CIM's L_con and the supervised contrastive loss. One value per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .distributed import SINGLE_PROCESS, Shard
from .inputs import class_numbers
from .morphing import Morphed
from .similarity.base import Similarity
from .triplets import CANDIDATES, draw_triplets

#: The sign of L_con = sign · (s_pos - s_neg). The poster minimises MS(psi(x), x+) - MS(psi(x), x-). Read as the
#: distance 1 - MS-SSIM, minimising pulls psi(x) to its positive, as a triplet loss does; read as the similarity
#: itself it pushes psi(x) away. This is the one place that decides.
READINGS = {"distance": -1.0, "similarity": 1.0}

#: What psi(x) is compared with: the raw x+ and x- (the poster's), or psi(x+) and psi(x-).
TARGETS = ("input", "morphed")


def contrastive_loss(s_pos: Tensor, s_neg: Tensor, valid: Tensor, reading: str = "distance") -> Tensor:
    """L_con per anchor (the poster's, Taghanaki et al., ICML 2021).

    Args:
        s_pos, s_neg: similarity to the positive and to the negative, (N,), at most 1.
        valid: (N,) bool; an anchor without a positive or a negative contributes a graph-connected zero.
        reading: a key of ``READINGS``.

    Returns:
        (N,); for MS-SSIM in [-1, 1]; the least is best.

    >>> contrastive_loss(torch.tensor([0.75, 0.5]), torch.tensor([0.25, 0.0]), torch.tensor([True, False]))
    tensor([-0.5000,  0.0000])
    """
    return torch.where(valid, READINGS[reading] * (s_pos - s_neg), 0)


def gap(losses: Tensor, valid: Tensor, reading: str = "distance") -> Tensor:
    """How much more alike psi(x) is to its positives than to its negatives: what L_con has to go by.

    Args:
        losses, valid: (N,) each, from :func:`contrastive_loss`.
        reading: the one that they were computed with.

    Returns:
        (2,), detached: mean and standard deviation of s+ - s- over the valid anchors; 0 where there are none.
    """
    losses, n_valid = losses.detach(), valid.sum().clamp(min=1)
    mean = losses.sum() / n_valid
    variance = torch.where(valid, losses - mean, 0).square().sum() / n_valid
    return torch.stack([READINGS[reading] * mean, variance.sqrt()])


@dataclass(frozen=True)
class TripletContrast:
    """L_con of a batch: draws the triplets, compares the images, and reads the result.

    Args:
        similarity: what compares two images.
        pairs: a key of ``triplets.CANDIDATES``.
        targets: one of ``TARGETS``.
        reading: a key of ``READINGS``.
    """

    similarity: Similarity
    pairs: str = "random"
    targets: str = "input"
    reading: str = "distance"

    def __call__(
        self, morphed: Morphed, labels: Tensor, environments: Tensor | None, shard: Shard = SINGLE_PROCESS
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
            s_pos, s_neg = map(shard.local, self.similarity.compare(everyone, everyone, positive, negative))
        else:
            s_pos, s_neg = self.similarity.compare(
                own, shard.gather(reference), shard.local(positive), shard.local(negative)
            )
        valid = shard.local(valid)
        return contrastive_loss(s_pos, s_neg, valid, self.reading), valid

    def views(self, morphed: Morphed) -> tuple[Tensor, Tensor]:
        """What of every image is compared, as an anchor and as a positive or negative; one tensor where it is the same.
        Both (N, ...).
        """
        own = self.similarity.embed(morphed)
        return own, own if self.targets == "morphed" else self.similarity.embed(morphed.unmasked())


def supervised_contrastive_loss(
    features: Tensor,
    labels: Tensor,
    temperature: float,
    environments: Tensor | None = None,
    pairs: str = "random",
    shard: Shard = SINGLE_PROCESS,
) -> Tensor:
    """The supervised contrastive loss L_out (Khosla et al., 2020, arXiv:2004.11362, Eq. 2): the mean over an anchor's
    positives of -log(exp(its similarity) / sum over positives and negatives).

    With ``cross_environment`` pairs it is that of Correct-n-Contrast (Zhang et al., 2022, arXiv:2203.01517), where the
    environment is what a first model takes an image for. There batches are composed anchor by anchor; here every image
    of the batch is an anchor, with all of its positives and negatives in it.

    Args:
        features: (N, D) float, of any length; normalised here. Computed in at least float32.
        labels: (N,) whole numbers.
        temperature: positive.
        environments: (N,) whole numbers, or ``None`` where the host has none.
        pairs: a key of ``triplets.CANDIDATES``.
        shard: with several processes, anchors are the local rows, compared with the whole batch.

    Returns:
        (N,), at least 0; a graph-connected zero for an anchor without a positive.

    Raises:
        ValueError: labels or environments are no whole numbers of shape (N,), or the pairs need environments.
    """
    labels = shard.gather(class_numbers(labels))
    environments = None if environments is None else shard.gather(class_numbers(environments, "environments"))
    positives, negatives = map(shard.local, CANDIDATES[pairs](labels, environments))
    with torch.autocast(features.device.type, enabled=False):
        features = features if features.dtype == torch.float64 else features.float()
        features = F.normalize(features, dim=1)
        left_out = ~(positives | negatives)
        logits = (features @ shard.gather(features).T / temperature).masked_fill(
            left_out, torch.finfo(features.dtype).min
        )
        log_probability = F.log_softmax(logits, dim=1)
        return -torch.where(positives, log_probability, 0).sum(1) / positives.sum(1).clamp(min=1)
