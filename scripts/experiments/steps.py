"""Departures from the shipped algorithm that the study tries, by name. What is not changed is the shipped code."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cim_plugin.algorithms.classifier import RobustClassifier
from cim_plugin.algorithms.morphing import Morphed, TransformationNetwork

#: name -> what it does
CHANGES = {
    "detached": "the classifier's gradient does not reach the transformation network",
    "free_mask": "m is softplus, unbounded above, instead of a sigmoid",
    "mask_bias": "added to the last bias of the network at the start: 3 makes m start at 0.95",
    "margin": "L_con is relu(margin + d(psi, x+) - d(psi, x-))",
    "pairs_per_anchor": "L_con is the mean over so many draws",
    "scales": "of MS-SSIM",
    "warm_up": "λ and the weight of sparsity rise linearly over this share of the steps",
    "sparsity": "weight of the mean of m in the loss",
    "fine_mask": "m at half the resolution of the image, not at a quarter",
    "composites": "the cross-entropy of m∘x + (1 - m)∘x', with the label of x, is added; x' is another image of the batch",
    "random_composites": "the same with smooth noise of this mean as m, and no transformation network",
    "random_mask": "m is smooth noise, the same for an image whenever it is seen, with the mean of m of that row's run",
}


class FreeNetwork(TransformationNetwork):
    """A mask that is not bounded above."""

    def forward(self, pixels: Tensor) -> Tensor:
        return F.softplus(F.interpolate(self.features(pixels), size=pixels.shape[-2:], mode="bilinear", align_corners=False))


class RandomMask(nn.Module):
    """Smooth noise of a given mean as m; it follows from the image, so that an image keeps its mask."""

    def __init__(self, mean: float):
        super().__init__()
        self.bias = torch.logit(torch.tensor(mean)).item()

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        key = (pixels.double().sum((1, 2, 3)) * 1e4).long()  # of an image, whatever batch it is in
        cells = torch.arange(49, device=pixels.device)
        noise = torch.sin((key[:, None] % 9973 + 1) * (cells + 1) * 12.9898).mul(43758.5453).frac().mul(4).view(-1, 1, 7, 7)
        return torch.sigmoid(F.interpolate(noise, (height, width), mode="bilinear", align_corners=False) + self.bias)


def change(classifier: RobustClassifier, changes: dict[str, Any]) -> None:
    """Make the changes that are made once, before training."""
    unknown = set(changes) - set(CHANGES)
    if unknown:
        raise KeyError(f"unknown changes {unknown}")
    if changes.get("free_mask"):
        network = classifier.morphing.network
        network.__class__ = FreeNetwork
    if "mask_bias" in changes:
        nn.init.constant_(classifier.morphing.network.features[-1].bias, changes["mask_bias"])
    if changes.get("fine_mask"):
        classifier.morphing.network.features[2].stride = (1, 1)
    if "scales" in changes:
        classifier.contrast = dataclasses.replace(classifier.contrast, scales=changes["scales"])


def objective(
    classifier: RobustClassifier, images: Tensor, labels: Tensor, environments: Tensor | None, groups: Tensor | None, changes: dict[str, Any], progress: float
) -> Tensor:
    """The training loss of a batch, (): the shipped one, or the changed one.

    Args:
        progress: share of the steps that are done, in [0, 1].
    """
    if "random_composites" in changes:
        composites = composite(_noise(images, changes["random_composites"]), images)
        return F.cross_entropy(classifier(torch.cat([images, composites])), labels.repeat(2))
    if not set(changes) & {"detached", "margin", "pairs_per_anchor", "warm_up", "sparsity", "composites"}:
        return classifier.total(classifier.loss_terms(images, labels, environments).losses, groups)
    morphed = classifier.morphing(images)
    ramp = min(1.0, progress / changes["warm_up"]) if "warm_up" in changes else 1.0
    seen = morphed.images.detach() if changes.get("detached") else morphed.images
    if changes.get("composites"):
        seen = torch.cat([seen, composite(morphed.mask, images)])  # PixelSpace is raw here: images are pixels
    logits = classifier.head(classifier.encoder(seen))
    losses = {
        "supervised": F.cross_entropy(logits, labels.repeat(len(seen) // len(labels)), reduction="none"),
        "contrastive": ramp * _contrastive(classifier, morphed, labels, environments, changes),
    }
    return classifier.total(losses) + ramp * changes.get("sparsity", 0.0) * morphed.mask.mean()


def composite(mask: Tensor, pixels: Tensor) -> Tensor:
    """m∘x + (1 - m)∘x', where x' is drawn from the batch without replacement: (N, C, H, W)."""
    return torch.lerp(pixels[torch.randperm(len(pixels))], pixels, mask)


def _noise(images: Tensor, mean: float) -> Tensor:
    """Smooth random masks (N, 1, H, W), mostly near 0 or 1."""
    cells = torch.randn(len(images), 1, 4, 4) * 3 + 3.1 * torch.logit(torch.tensor(mean)) / 1.5
    return torch.sigmoid(F.interpolate(cells, size=images.shape[-2:], mode="bilinear", align_corners=False))


def _contrastive(classifier: RobustClassifier, morphed: Morphed, labels: Tensor, environments: Tensor | None, changes: dict[str, Any]) -> Tensor:
    draws = [classifier.contrast(morphed.psi, morphed.pixels, labels, environments) for _ in range(changes.get("pairs_per_anchor", 1))]
    values = torch.stack([torch.where(valid, F.relu(value + changes["margin"]), 0) if "margin" in changes else value for value, valid in draws])
    return values.mean(0)
