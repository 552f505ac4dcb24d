"""Encoder, optional morphing, optional bottleneck and head as one classifier, with its loss terms per sample."""

from __future__ import annotations

import functools
from typing import Mapping, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bottleneck import GaussianBottleneck
from .contrastive import TripletContrast, supervised_contrastive_loss
from .distributed import SINGLE_PROCESS, Shard
from .first_convolution import phased
from .group_dro import GroupWeights
from .inputs import as_floats, check_labels, check_pixels, class_numbers
from .mask_statistics import MaskStatistics
from .morphing import InputMorphing

GRADIENTS = ("both", "contrastive")  #: which losses reach the transformation network: L_con and L_sup, or L_con alone

#: loss term -> its name in logs
LOG_NAMES = {
    "supervised": "L_sup",
    "contrastive": "L_con",
    "kl": "KL",
    "supervised_contrastive": "L_scl",
}


class LossTerms(NamedTuple):
    """The parts of a batch's loss, before they are reduced."""

    losses: dict[str, Tensor]  #: name -> (N,); the names are those of ``RobustClassifier.weights``
    logits: Tensor  #: (N, K)
    statistics: MaskStatistics | None  #: of psi and its triplets; None without L_con


class RobustClassifier(nn.Module):
    """What CIM, CIM+VIB, VIB and SCL have in common: L = sum over terms of weight · mean over the batch.

    Args:
        encoder: images (N, C, H, W) -> features (N, F).
        head: features, or the bottleneck's code -> logits (N, K).
        weights: the weight of each loss term: "supervised", with ``contrast`` also "contrastive" (λ), with
            ``bottleneck`` "kl" (β), and "supervised_contrastive" where that loss is wanted.
        morphing: psi, before the encoder.
        contrast: L_con on psi; needs ``morphing``.
        bottleneck: between encoder and head.
        temperature: of the supervised contrastive loss.
        pairs: of the supervised contrastive loss, a key of ``triplets.CANDIDATES``.
        group_weights: group DRO's weights of the supervised loss.
        gradient: one of ``GRADIENTS``.

    ``shard`` tells a process of several which rows of the global batch it holds; set it where there are several.
    With ``frozen_batch_norm``, set before ``train()``, the encoder's batch normalisation goes by its running statistics
    in training, too, and does not move them; its weights are trained. That is DomainBed's ``freeze_bn``.
    """

    shard: Shard = SINGLE_PROCESS
    frozen_batch_norm = False
    inputs_checked = False  #: whether a training batch was compared with what is assumed of images and labels

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        weights: Mapping[str, float],
        morphing: InputMorphing | None = None,
        contrast: TripletContrast | None = None,
        bottleneck: GaussianBottleneck | None = None,
        temperature: float = 0.1,
        pairs: str = "random",
        group_weights: GroupWeights | None = None,
        gradient: str = "both",
    ):
        if gradient not in GRADIENTS:
            raise ValueError(f"gradient is one of {', '.join(GRADIENTS)}, {gradient!r} was given")
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.weights = dict(weights)
        self.morphing = morphing
        self.contrast = contrast
        self.bottleneck = bottleneck
        self.temperature = temperature
        self.pairs = pairs
        self.group_weights = group_weights
        self.gradient = gradient

    def train(self, mode: bool = True) -> RobustClassifier:
        super().train(mode)
        if self.frozen_batch_norm:
            for module in self.encoder.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def _load_from_state_dict(self, state_dict, prefix, *others) -> None:
        state_dict.pop(f"{prefix}sparsity_step", None)  # a counter of version 0.1
        super()._load_from_state_dict(state_dict, prefix, *others)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> logits (N, K), without any noise: a bottleneck's code is its mean."""
        return self.head(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> what the head takes (N, F), of the morphed images, without any noise."""
        images = self._floats(images)
        if self.morphing is not None:
            images = self.morphing(images).images
        features = self.encoder(images)
        if self.bottleneck is not None:
            features = self.bottleneck.mean(features)
        return features

    def loss_terms(self, images: Tensor, labels: Tensor, environments: Tensor | None = None) -> LossTerms:
        """One training forward.

        Args:
            images: (N, C, H, W), floats, normalised as the encoder takes them.
            labels: (N,) whole numbers in [0, K) of any dtype.
            environments: (N,) int64, or ``None`` where the host has none.

        Raises:
            ValueError: a shape or a dtype cannot be used, a label is outside [0, K), or, with morphing, the first
                batch's values do not fit the pixel space. On a GPU values are looked at in the first batch only.
        """
        images, labels = self._floats(images), class_numbers(labels)
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images came with {len(labels)} labels; give one label per image")
        first, self.inputs_checked = not self.inputs_checked, True
        if first and self.morphing is not None:
            check_pixels(images, self.morphing.pixel_space)
        losses: dict[str, Tensor] = {}
        statistics = None
        if self.morphing is not None:
            morphed = self.morphing(images)
            images = morphed.images if self.gradient == "both" else morphed.images.detach()
            if self.contrast is not None:
                losses["contrastive"], valid = self.contrast(morphed, labels, environments, self.shard)
                statistics = MaskStatistics.of(
                    morphed.mask, losses["contrastive"], valid, self.contrast.reading, self.shard
                )
        with phased(images, self.encoder):
            features = self.encoder(images)
        if "supervised_contrastive" in self.weights:
            losses["supervised_contrastive"] = supervised_contrastive_loss(
                features, labels, self.temperature, environments, self.pairs, self.shard
            )
        if self.bottleneck is not None:
            features, losses["kl"] = self.bottleneck(features, self.shard)
        logits = self.head(features)
        check_labels(labels, logits.shape[1], wait=first)
        losses["supervised"] = F.cross_entropy(logits, labels, reduction="none")
        return LossTerms(losses, logits, statistics)

    def _floats(self, images: Tensor) -> Tensor:
        weight = next(self.parameters(), None)
        return as_floats(images, None if weight is None else weight.dtype)

    def total(self, losses: Mapping[str, Tensor], groups: Tensor | None = None) -> Tensor:
        """The training loss, (): the one place that reduces and weighs the terms.

        Args:
            losses: from :meth:`loss_terms`.
            groups: (N,) int64, needed with ``group_weights``, whose weights move here in training.
        """
        if self.group_weights is not None:
            losses = {**losses, "supervised": self.group_weights(losses["supervised"], groups, self.shard)}
        return functools.reduce(torch.add, (self.weights[name] * values.mean() for name, values in losses.items()))
