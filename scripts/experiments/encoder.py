"""The encoder of the study."""

from __future__ import annotations

from torch import nn


class StudyEncoder(nn.Sequential):
    """Four convolutions with batch normalisation and a maximum over positions, 47,000 parameters: (N, 3, H, W) ->
    (N, ``n_features``).

    It is at its plateau after 1000 steps, which the package's ``small_cnn`` (group normalisation, mean over positions)
    is not: a digit is a small part of its mean, and a method that merely trains faster looks better.

    Args:
        width: times the number of channels inside.
    """

    def __init__(self, width: float = 1.0):
        def block(n_inputs: int, n_outputs: int, stride: int) -> list[nn.Module]:
            return [
                nn.Conv2d(n_inputs, n_outputs, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(n_outputs),
                nn.ReLU(inplace=True),
            ]

        sizes = [round(width * n) for n in (16, 32, 48, 64)]
        super().__init__(
            *block(3, sizes[0], 2),
            *block(sizes[0], sizes[1], 1),
            *block(sizes[1], sizes[2], 2),
            *block(sizes[2], sizes[3], 1),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
        )
        self.n_features = sizes[3]
