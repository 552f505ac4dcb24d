"""What a host gives to our algorithms and gets from them: images, labels and numbers, held to what is assumed."""

from __future__ import annotations

import math
import warnings
from typing import Iterable, NamedTuple

import torch
from torch import Tensor

from ..algorithms.inputs import as_floats, check_labels, check_pixels, class_numbers
from ..algorithms.mask_statistics import constant_in_words
from ..algorithms.morphing import PixelSpace
from ..announcer import Announcer
from ..errors import InputError, NotFinite


class Batch(NamedTuple):
    """What a step trains on."""

    images: Tensor  #: (N, C, H, W), as the encoder takes them
    labels: Tensor  #: (N,) int64
    environments: Tensor  #: (N,) int64, what 'cross_environment' pairs go by


def checked(name: str, images: Tensor, labels: Tensor, input_shape) -> tuple[Tensor, Tensor]:
    """A host's images as the networks' floats and its labels as int64.

    Raises:
        InputError: images are not of the declared shape, or images or labels are of a kind that cannot be used.
    """
    try:
        images, labels = as_floats(images, torch.get_default_dtype()), class_numbers(labels)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error
    if tuple(images.shape[1:]) != tuple(input_shape):
        raise InputError(
            f"{name}: the images have the shape {tuple(images.shape[1:])}, and the data set declares input_shape "
            f"{tuple(input_shape)}; correct input_shape, or resize them in its transform"
        )
    return images, labels


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


def check_finite(
    name: str, logged: dict[str, float], step: int, sizes: Iterable[int], output: str = "--output_dir"
) -> None:
    """Raise NotFinite where a loss, or a part of one, that a step has logged is NaN or infinite; nothing is waited
    for.

    Args:
        sizes: of the minibatches that an environment each has given.
        output: the flag that names the folder of a run.
    """
    wrong = [key for key, value in logged.items() if isinstance(value, float) and not math.isfinite(value)]
    if wrong:
        single = 1 in sizes
        more = ", or a larger batch_size: an environment gave one image, which has no variance" if single else ""
        raise NotFinite(
            f"{name}: the loss is not finite at step {step} ({wrong[0]} is {logged[wrong[0]]}); what was recorded "
            f"before is kept. Try a smaller lr{more}, with another {output}"
        )


def check_predictions(name: str, logits: Tensor, step: int, output: str = "--output_dir") -> Tensor:
    """The logits; NotFinite where one is NaN or infinite. In evaluation: the host waits for each batch there."""
    if not logits.isfinite().all():
        raise NotFinite(
            f"{name}: a prediction is not finite after step {step}; what was recorded before is kept. Try a smaller "
            f"lr, with another {output}"
        )
    return logits


def warn_of_a_step(announcer: Announcer, name: str, logged: dict[str, float], n_images: int) -> None:
    """Say when it begins and when it ends that L_con is 0 for want of pairs, and that m is a constant."""
    if "mask_mean" not in logged:
        return
    no_triplet = f"none of the {n_images} images of a batch has a positive and a negative; L_con is 0"
    found = {
        "no_triplet": no_triplet if logged["no_triplet"] == n_images else None,
        "mask_mean": constant_in_words(logged["mask_mean"], logged["mask_std"]),
    }
    for words in announcer.changes(found):
        warnings.warn(f"{name}: {words}", RuntimeWarning, stacklevel=2)


def say_similarity(name: str, contrast, image_size: tuple[int, int], pixel_space: PixelSpace) -> None:
    height, width = image_size
    print(f"{name}: {contrast.similarity.how} for {height}x{width}; inputs are {pixel_space.words}")
