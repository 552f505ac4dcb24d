"""Contrastive Input Morphing's psi(x) = m∘x, in pixel space (Taghanaki et al., ICML 2021, the poster)."""

from __future__ import annotations

import math
from typing import NamedTuple, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .inputs import as_floats

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  #: mean and standard deviation of RGB
CENTRE, SPREAD = 0.5, 0.25  #: mean and standard deviation of pixels, about, of any data set


class PixelSpace(nn.Module):
    """Between the images that a host gives to its encoder and pixels in [0, 1].

    Args:
        mean: per-channel mean that the host subtracted, length C (0 for images that are pixels already).
        std: per-channel standard deviation that the host divided by, length C, positive.
    """

    mean: Tensor  #: (C, 1, 1), float32
    std: Tensor  #: (C, 1, 1), float32

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"mean has {len(mean)} channels and std has {len(std)}; give one of each per channel")
        if min(std) <= 0:
            raise ValueError(f"std must be positive in every channel, {tuple(std)} was given")
        self.mean_and_std = tuple(mean), tuple(std)
        self.normalised = any(mean) or any(value != 1 for value in std)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @classmethod
    def raw(cls, channels: int) -> PixelSpace:
        """The host's images are pixels in [0, 1]."""
        return cls([0.0] * channels, [1.0] * channels)

    @classmethod
    def imagenet(cls) -> PixelSpace:
        """The host's images are RGB, normalised with ImageNet's mean and standard deviation."""
        return cls(*IMAGENET)

    @property
    def is_imagenet(self) -> bool:
        return self.mean_and_std == IMAGENET

    @property
    def words(self) -> str:
        """What the host's images are, in words."""
        if not self.normalised:
            return "pixels in [0, 1]"
        return (
            "ImageNet-normalised images"
            if self.is_imagenet
            else "images normalised by {} and {}".format(*self.mean_and_std)
        )

    @property
    def channels(self) -> int:
        return len(self.mean)

    def to_pixels(self, images: Tensor) -> Tensor:
        """(N, C, H, W) as the encoder takes them -> (N, C, H, W) in [0, 1] up to rounding."""
        return images * self.std + self.mean if self.normalised else images

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """The inverse of :meth:`to_pixels`."""
        return (pixels - self.mean) / self.std if self.normalised else pixels


class TransformationNetwork(nn.Module):
    """A small strided encoder-decoder that maps pixels to the weighting matrix m.

    Kept small because it decides the price of a CIM step: two stride-2 convolutions, one at a quarter of the
    resolution, a projection to the mask and a bilinear upsampling, which also keeps m smooth.

    Args:
        channels: image channels C, 1 to 3.
        mask_channels: 1 (one mask for all channels) or C (one mask per channel).
        stride: 4, or 2 for a mask at half of the resolution, at about three times the price.
    """

    start = 0.5  #: m before training, about, in (0, 1); docs/mask.md has what was tried

    def __init__(self, channels: int, mask_channels: int = 1, stride: int = 4):
        super().__init__()
        if not 1 <= channels <= 3:
            raise ValueError(f"images have 1 to 3 channels, {channels} were given")
        if mask_channels not in (1, channels):
            raise ValueError(
                f"a mask has 1 channel or one per image channel ({channels}), {mask_channels} were asked for"
            )
        if stride not in (2, 4):
            raise ValueError(f"a mask has a stride of 2 or 4 pixels, {stride} was asked for")
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 3, stride=stride // 2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, mask_channels, 1),
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights: He et al.'s (2015, arXiv:1502.01852) for centred pixels, and a tenth of it in the last
        layer.

        By torch's own draw the pixels hardly reach m: it is a constant, and stays one (docs/mask.md).
        """
        first, *others, last = [tuple(layer.parameters()) for layer in self.features if isinstance(layer, nn.Conv2d)]
        for weight, bias in (first, *others, last):
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
            nn.init.zeros_(bias)
        weight, bias = first
        weight.div_(SPREAD)
        bias.sub_(CENTRE * weight.sum((1, 2, 3)))
        weight, bias = last
        weight.mul_(0.1)
        bias.add_(math.log(self.start / (1 - self.start)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (N, C, H, W) in [0, 1] -> m (N, 1 or C, H, W) in (0, 1), of their dtype also under autocast: rounded m
        would draw contours into psi(x).
        """
        logits = F.interpolate(
            self.features(pixels).to(pixels.dtype), size=pixels.shape[-2:], mode="bilinear", align_corners=False
        )
        return logits.sigmoid()


class Morphed(NamedTuple):
    """What morphing a batch gives; all float tensors."""

    pixels: Tensor  #: x, (N, C, H, W) in [0, 1]
    mask: Tensor  #: m, (N, 1 or C, H, W) in (0, 1)
    psi: Tensor  #: m∘x, (N, C, H, W) in [0, 1]
    images: Tensor  #: psi as the encoder takes it, (N, C, H, W)

    def unmasked(self) -> Morphed:
        """The same images with m = 1, but for ``images``."""
        return self._replace(mask=torch.ones_like(self.mask), psi=self.pixels)


class InputMorphing(nn.Module):
    """psi(x) = m∘x with m = network(x), whatever normalisation the host applies.

    Args:
        pixel_space: the host's normalisation.
        network: pixels (N, C, H, W) in [0, 1] -> m (N, 1 or C, H, W); a :class:`TransformationNetwork` unless given.
    """

    def __init__(self, pixel_space: PixelSpace, network: nn.Module | None = None):
        super().__init__()
        self.pixel_space = pixel_space
        self.network = TransformationNetwork(pixel_space.channels) if network is None else network

    def forward(self, images: Tensor) -> Morphed:
        """Images (N, C, H, W), floats, as the encoder takes them -> :class:`Morphed`, of the weights' dtype.

        Raises:
            ValueError: the images are no floats, or have another number of channels.
        """
        weight = next(self.network.parameters(), None)
        images = as_floats(images, None if weight is None else weight.dtype)
        if images.shape[1] != self.pixel_space.channels:
            raise ValueError(f"images have {images.shape[1]} channels, {self.pixel_space.channels} were declared")
        pixels = self.pixel_space.to_pixels(images)
        mask = self.network(pixels)
        psi = mask * pixels
        return Morphed(pixels, mask, psi, self.pixel_space.from_pixels(psi))
