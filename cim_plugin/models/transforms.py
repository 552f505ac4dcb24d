"""How images of a ``wilds`` dataset become uint8 tensors of one size, and how the encoder's input is normalised.

Three parts, so that a cache can keep the first, the loader do the second, and the device the third:
resize (deterministic), augment (random, training only), standardise (on the device, after morphing).
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import torch
import torchvision.transforms as T
from torch import Tensor, nn
from torchvision.transforms.functional import rotate

from ..algorithms.morphing import PixelSpace
from ..errors import InputError
from ..runs.configuration import Configuration


class Transform(NamedTuple):
    """The three parts, and the size of an image after resizing."""

    resize: Callable  #: PIL image -> PIL image, always the same
    augment: (
        Callable | None
        #: PIL image -> PIL image, drawn from torch's random state; training only. Crops to --target_resolution as WILDS
        #: does
    )
    standardise: nn.Module  #: (N, C, H, W) float in [0, 1] -> what the encoder takes
    size: tuple[int, int]  #: height, width
    training_size: tuple[int, int]  #: of augmented images


class StandardisePerImage(nn.Module):
    """Every channel of every image to mean 0 and standard deviation 1, as WILDS does for RxRx1."""

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float -> the same shape; a constant channel becomes 0."""
        mean, std = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True)
        return (images - mean) / torch.where(std == 0, 1.0, std)


class StandardiseImageNet(nn.Module):
    """Subtract ImageNet's mean and divide by its standard deviation."""

    def __init__(self):
        super().__init__()
        self.space = PixelSpace.imagenet()

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape."""
        return self.space.from_pixels(images)


class SquareInTheMiddle(nn.Module):
    """The largest square of images of one size, (width, height).

    Raises:
        ValueError: an image has another size: of a smaller one the rim would be black, of a larger one much be lost.
    """

    def __init__(self, original_resolution: tuple[int, int]):
        super().__init__()
        self.original_resolution = tuple(original_resolution)
        self.crop = T.CenterCrop(min(original_resolution))

    def forward(self, image):
        if image.size != self.original_resolution:
            width, height = self.original_resolution
            raise ValueError(
                f"it has {image.size[0]}x{image.size[1]} pixels where the data set's have {width}x{height}, of which "
                f"--transform image_base takes the {min(width, height)} in the middle"
            )
        return self.crop(image)

    def extra_repr(self) -> str:
        return f"original_resolution={self.original_resolution}"


class RandomRightAngle(nn.Module):
    """Turn an image by 0, 90, 180 or 270 degrees."""

    def forward(self, image):
        angle = 90 * int(torch.randint(4, ()))
        return rotate(image, angle) if angle else image


def make_transform(config: Configuration, original_resolution: tuple[int, int] | None) -> Transform:
    """The transform that WILDS' ``run_expt.py`` gives for this configuration.

    Args:
        config: the run's configuration.
        original_resolution: the dataset's, (width, height) where they differ, as the ``wilds`` package has it.

    Raises:
        InputError: the size of the images stays open.
    """
    name, target = config.transform, config.target_resolution
    steps: list[Callable] = []
    size = target
    if name == "rxrx1":
        size = original_resolution or target
    elif name == "image_base":
        if original_resolution is not None and len(set(original_resolution)) > 1:
            steps.append(SquareInTheMiddle(original_resolution))
            size = size or [min(original_resolution)] * 2
        if target is not None:
            steps.append(T.Resize(target))
    elif original_resolution is None:
        raise InputError(f"--transform {name} needs images of one size, {config.dataset} has several; use image_base")
    else:
        steps.append(T.Resize([int(side * config.resize_scale) for side in original_resolution]))
        size = [int(side * config.resize_scale) for side in original_resolution]
        if name == "image_resize_and_center_crop":
            resized, size = size, target or original_resolution
            if any(side > whole for side, whole in zip(size, resized)):
                raise InputError(
                    f"--transform {name} cuts {size[0]}x{size[1]} out of images of {resized[0]}x{resized[1]}, so that "
                    f"their rim would be black; give a larger --resize_scale or a smaller --target_resolution"
                )
            steps.append(T.CenterCrop(size))
    size = size or original_resolution
    if size is None:
        raise InputError(
            f"--transform {name} leaves the images of {config.dataset} as they are, of unknown size; give "
            f"--target_resolution"
        )
    crop = target or (size if name == "image_base" else original_resolution)  # image_base has cut a square already
    if config.additional_train_transform is not None and any(side > whole for side, whole in zip(crop, size)):
        raise InputError(
            f"--additional_train_transform {config.additional_train_transform} cuts {crop[0]}x{crop[1]} out of "
            f"images of {size[0]}x{size[1]}; give a smaller --target_resolution"
        )
    training_size = size if config.additional_train_transform is None else crop
    standardise = StandardisePerImage() if name == "rxrx1" else StandardiseImageNet()
    return Transform(T.Compose(steps), _augment(config, crop), standardise, tuple(size), tuple(training_size))


def _augment(config: Configuration, size) -> Callable | None:
    steps: list[nn.Module] = []
    if config.transform == "rxrx1":
        steps += [RandomRightAngle(), T.RandomHorizontalFlip()]
    if config.additional_train_transform is not None:
        crop = T.RandomResizedCrop if config.additional_train_transform == "resized_crop" else T.RandomCrop
        steps += [T.RandomHorizontalFlip(), crop(size)]
    if config.additional_train_transform == "randaugment":
        steps.append(T.RandAugment(config.randaugment_n))
    return T.Compose(steps) if steps else None
