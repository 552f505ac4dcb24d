"""The host's images and the network that reads them, for whatever of ours stands before it."""

from __future__ import annotations

import math
import warnings

import torch

from ...algorithms.classifier import collapse_in_words
from ...algorithms.inputs import as_floats, check_labels, check_pixels, class_numbers
from ...algorithms.morphing import PixelSpace
from ...announcer import Announcer
from ...errors import InputError, NotFinite
from . import faults
from .featurizer_hook import Batch


def concatenate(minibatches) -> Batch:
    """[(images, labels)] per environment -> one batch."""
    images = torch.cat([x for x, _ in minibatches])
    labels = torch.cat([y for _, y in minibatches])
    return Batch(images, labels, torch.cat([torch.full_like(y, number) for number, (_, y) in enumerate(minibatches)]))


def checked(name: str, minibatches, input_shape) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The minibatches with their images as the networks' floats and their labels as int64.

    Raises:
        InputError: images are not of the declared shape, or images or labels are of a kind that cannot be used.
    """
    taken = []
    for images, labels in minibatches:
        try:
            images, labels = as_floats(images, torch.get_default_dtype()), class_numbers(labels)
        except ValueError as error:
            raise InputError(f"{name}: {error}") from error
        if tuple(images.shape[1:]) != tuple(input_shape):
            raise InputError(
                f"{name}: the images have the shape {tuple(images.shape[1:])}, and the data set declares input_shape "
                f"{tuple(input_shape)}; correct input_shape, or resize them in its transform"
            )
        taken.append((images, labels))
    return taken


def check_values(name: str, batch: Batch, n_classes: int, space: PixelSpace | None, first: bool) -> None:
    """Raise InputError where labels of a batch, or in the first one pixels, are not what is assumed of them. On a GPU
    only the first batch is looked at.

    Args:
        space: None where nothing is assumed of pixels.
    """
    try:
        check_labels(batch.labels, n_classes, wait=first)
        if first and space is not None:
            check_pixels(batch.images, space.to(batch.images.device))
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def check_finite(name: str, logged: dict[str, float], step: int, minibatches) -> None:
    """Raise NotFinite where a loss, or a part of one, that a step has logged is NaN or infinite; nothing is waited
    for.
    """
    wrong = [key for key, value in logged.items() if isinstance(value, float) and not math.isfinite(value)]
    if wrong:
        single = any(len(images) == 1 for images, _ in minibatches)
        more = ", or a larger batch_size: an environment gave one image, which has no variance" if single else ""
        raise NotFinite(
            f"{name}: the loss is not finite at step {step} ({wrong[0]} is {logged[wrong[0]]}); what was recorded "
            f"before is kept. Try a smaller lr{more}, with another --output_dir"
        )


def check_predictions(name: str, logits: torch.Tensor, step: int) -> torch.Tensor:
    """The logits; NotFinite where one is NaN or infinite. In evaluation: the host waits for each batch there."""
    if not logits.isfinite().all():
        raise NotFinite(
            f"{name}: a prediction is not finite after step {step}; what was recorded before is kept. Try a smaller "
            f"lr, with another --output_dir"
        )
    return logits


def warn_of_a_step(announcer: Announcer, name: str, logged: dict[str, float], n_images: int) -> None:
    """Say when it begins and when it ends that L_con is 0 for want of pairs, and that m lets nothing or everything
    through.
    """
    if "mask_mean" not in logged:
        return
    no_triplet = f"none of the {n_images} images of a batch has a positive and a negative; L_con is 0"
    found = {
        "no_triplet": no_triplet if logged["no_triplet"] == n_images else None,
        "mask_mean": collapse_in_words(logged["mask_mean"]),
    }
    for words in announcer.changes(found):
        warnings.warn(f"{name}: {words}", RuntimeWarning, stacklevel=2)


def pixels(name: str, input_shape) -> tuple[tuple[int, int], PixelSpace]:
    """Height and width of the host's images, and how they relate to pixels in [0, 1]."""
    if len(input_shape) != 3:
        raise InputError(
            f"{name} works on images (channels, height, width), this data set has inputs of shape "
            f"{tuple(input_shape)}; choose one of images"
        )
    channels, height, width = input_shape
    normalised = (height, width) == (224, 224) and channels == 3  # the host normalises exactly these
    return (height, width), PixelSpace.imagenet() if normalised else PixelSpace.raw(channels)


def say_similarity(name: str, contrast, image_size: tuple[int, int], pixel_space: PixelSpace) -> None:
    height, width = image_size
    print(f"{name}: {contrast.similarity.how} for {height}x{width}; inputs are {pixel_space.words}")


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
        if faults.is_failed_download(error):
            raise InputError(
                f"{name}: the pretrained weights could not be downloaded ({faults.last_line(error)}); put "
                f"the file into {torch.hub.get_dir()}/checkpoints, "
                "or for timm models into the Hugging Face cache, on a machine with network"
            ) from error
        raise
