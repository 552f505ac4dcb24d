"""Departures from the shipped algorithm that the study tries, by name. What is not changed is the shipped code."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cim_plugin.algorithms.classifier import RobustClassifier
from cim_plugin.algorithms.contrastive import TripletContrast

#: name -> what it does
CHANGES = {
    "detached": "the classifier's gradient does not reach the transformation network",
    "network_learning_rate": "the transformation network's own, in the optimizer of all weights: with its schedule, "
    "which cim_learning_rate does not have",
    "sgd": "SGD with momentum 0.9 instead of AdamW: 'all', or 'encoder' where the transformation network has its own "
    "Adam, as the package does",
    "pairs_per_anchor": "L_con is the mean over so many draws",
    "hardest_of": "L_con of every anchor is the largest of so many draws",
    "random_mask": "m is smooth noise, the same for an image whenever it is seen, with the mean of m of that row's run",
    "figure_only": "images are black but for the figure, in training and test: what is left to win where the ground "
    "misleads; pseudo-environments are those of whole images",
    "random_composites": "half of the cross-entropy is that of composites by smooth noise of this mean as m; no "
    "transformation network",
}


NOISE = 4.0  #: logits of random masks are uniform in [-NOISE, NOISE], about a bias


class RandomMask(nn.Module):
    """Smooth noise of a given mean as m; it follows from the image, so that an image keeps its mask. Images that it
    mixes are mixed much as by FMix (Harris et al., 2020, arXiv:2002.12047).
    """

    def __init__(self, mean: float):
        super().__init__()
        levels = torch.linspace(-NOISE, NOISE, 1001)[:, None]
        biases = torch.linspace(-12, 12, 2401)
        self.bias = biases[((levels + biases).sigmoid().mean(0) - mean).abs().argmin()].item()

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        key = (pixels.double().sum((1, 2, 3)) * 1e4).long()  # of an image, whatever batch it is in
        cells = torch.arange(49, device=pixels.device)
        noise = (
            torch.sin((key[:, None] % 9973 + 1) * (cells + 1) * 12.9898)
            .mul(43758.5453)
            .frac()
            .mul(NOISE)
            .view(-1, 1, 7, 7)
        )
        return F.interpolate((noise + self.bias).sigmoid(), (height, width), mode="bilinear", align_corners=False)


class ChangedContrast:
    """L_con as the mean or the largest of several draws of pairs."""

    def __init__(self, contrast: TripletContrast, pairs_per_anchor: int = 1, hardest_of: int = 1):
        self.contrast, self.draws, self.hardest = contrast, pairs_per_anchor * hardest_of, hardest_of > 1
        self.reading = contrast.reading

    def __call__(self, *args) -> tuple[Tensor, Tensor]:
        values, valid = zip(*(self.contrast(*args) for _ in range(self.draws)))
        drawn = torch.stack(list(values))
        return drawn.amax(0) if self.hardest else drawn.mean(0), valid[0]


def change(classifier: RobustClassifier, changes: dict[str, Any]) -> None:
    """Make the changes."""
    unknown = set(changes) - set(CHANGES)
    if unknown:
        raise KeyError(f"unknown changes {unknown}")
    of_contrast = {name: changes[name] for name in ("pairs_per_anchor", "hardest_of") if name in changes}
    if of_contrast:
        classifier.contrast = ChangedContrast(classifier.contrast, **of_contrast)
    if changes.get("detached"):
        classifier.encoder.register_forward_pre_hook(lambda module, inputs: (inputs[0].detach(),))


def objective(
    classifier: RobustClassifier,
    images: Tensor,
    labels: Tensor,
    environments: Tensor | None,
    groups: Tensor | None,
    changes: dict[str, Any],
) -> Tensor:
    """The training loss of a batch, ()."""
    if "random_composites" in changes:
        composites = torch.lerp(
            images[torch.randperm(len(images))], images, smooth_noise(images, changes["random_composites"])
        )
        return F.cross_entropy(classifier(torch.cat([images, composites])), labels.repeat(2))
    losses = classifier.loss_terms(images, labels, environments).losses
    return classifier.total(losses, groups)


def smooth_noise(images: Tensor, mean: float) -> Tensor:
    """Masks (N, 1, H, W) with that mean, mostly near 0 or 1."""
    cells = torch.randn(len(images), 1, 4, 4) * 3 + 3.1 * torch.logit(torch.tensor(mean)) / 1.5
    return torch.sigmoid(F.interpolate(cells, size=images.shape[-2:], mode="bilinear", align_corners=False))
