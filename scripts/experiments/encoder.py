"""The encoders of the study."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import squeezenet1_0


class StudyEncoder(nn.Sequential):
    """Four convolutions with batch normalisation and a maximum over positions, 47,000 parameters.

    It is at its plateau after 1000 steps on every task, which the package's ``small_cnn`` (group normalisation, mean
    over
    positions) is not: a digit is a small part of its mean, and a method that merely trains faster looks better.

    Args:
        channels: of the images.
        width: times the number of channels inside.
    """

    n_features = 64

    def __init__(self, channels: int, width: float = 1.0):
        def block(n_inputs: int, n_outputs: int, stride: int) -> list[nn.Module]:
            return [
                nn.Conv2d(n_inputs, n_outputs, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(n_outputs),
                nn.ReLU(inplace=True),
            ]

        sizes = [round(width * n) for n in (16, 32, 48, self.n_features)]
        super().__init__(
            *block(channels, sizes[0], 2),
            *block(sizes[0], sizes[1], 1),
            *block(sizes[1], sizes[2], 2),
            *block(sizes[2], sizes[3], 1),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )


class FrozenSqueezeNet(nn.Module):
    """The features of a SqueezeNet that is trained on ImageNet and stays as it is, averaged over positions.

    Args:
        weights: a state dict of torchvision's squeezenet1_0 for blue, green and red in [0, 255] minus ``MEANS``.
    """

    n_features = 512
    MEANS = (104.0, 117.0, 123.0)

    def __init__(self, weights: Path):
        super().__init__()
        network = squeezenet1_0()
        network.load_state_dict(torch.load(weights, weights_only=True))
        self.features = network.features.requires_grad_(False)
        self.register_buffer("means", torch.tensor(self.MEANS).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.features((images.flip(1) + 1) * 127.5 - self.means).mean((2, 3))
