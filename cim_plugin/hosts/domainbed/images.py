"""The host's images and the network that reads them, for whatever of ours stands before it."""

from __future__ import annotations

import warnings

import torch

from ...algorithms.morphing import PixelSpace
from ...errors import InputError
from ..batches import Batch, checked
from ..train_script import is_failed_download, last_line

REGISTRY = "domainbed.hparams_registry"
SMALL = "Debug28"  #: the host's data set of its smallest images
RAW = ((28, 28), (32, 32))  #: sizes of images that the host leaves in [0, 1]; it standardises photographs


def concatenate(minibatches) -> Batch:
    """[(images, labels)] per environment -> one batch."""
    images = torch.cat([x for x, _ in minibatches])
    labels = torch.cat([y for _, y in minibatches])
    return Batch(images, labels, torch.cat([torch.full_like(y, number) for number, (_, y) in enumerate(minibatches)]))


def checked_all(name: str, minibatches, input_shape) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The minibatches with their images as the networks' floats and their labels as int64.

    Raises:
        InputError: images are not of the declared shape, or images or labels are of a kind that cannot be used.
    """
    return [checked(name, images, labels, input_shape) for images, labels in minibatches]


def pixels(name: str, input_shape) -> tuple[tuple[int, int], PixelSpace]:
    """Height and width of the host's images, and how they relate to pixels in [0, 1]."""
    if len(input_shape) != 3:
        raise InputError(
            f"{name} works on images (channels, height, width), this data set has inputs of shape "
            f"{tuple(input_shape)}; choose one of images"
        )
    channels, height, width = input_shape
    normalised = (height, width) not in RAW and channels == 3
    return (height, width), PixelSpace.imagenet() if normalised else PixelSpace.raw(channels)


def featurizer(make, name: str, input_shape, hparams):
    """The featurizer that the host's ``networks.Featurizer`` makes, with its silent or bare faults said in words."""
    large, transformer = tuple(input_shape[1:]) == (224, 224), hparams.get("vit")
    if large and not transformer and hparams.get("resnet18") and hparams.get("resnet50_augmix"):
        warnings.warn(
            "resnet18=true has no effect while resnet50_augmix=true, DomainBed's default: a ResNet-50 is trained; "
            'pass --hparams \'{"resnet18": true, "resnet50_augmix": false}\'',
            RuntimeWarning,
            stacklevel=2,
        )
    try:
        return make(input_shape, hparams)
    except InputError:
        raise
    except NotImplementedError as error:
        if large and transformer:
            raise InputError(
                f"{name}: vit=true needs dinov2=true, DomainBed's only vision transformer; pass both, or vit=false"
            ) from error
        size = f"{input_shape[1]}x{input_shape[2]}"
        raise InputError(
            f"{name}: DomainBed has no network for images of {size}; it has them for 28x28, 32x32 and 224x224"
        ) from error
    except Exception as error:
        if is_failed_download(error):
            raise InputError(
                f"{name}: the pretrained weights could not be downloaded ({last_line(error)}); put "
                f"the file into {torch.hub.get_dir()}/checkpoints, "
                "or for timm models into the Hugging Face cache, on a machine with network"
            ) from error
        raise
