"""What people give to a classifier, checked: images as floats in the range that is assumed of them, labels as class
numbers.

Shapes and dtypes are known without waiting for a device. Values are looked at where that costs nothing, on the CPU, and
on a GPU once, in the first batch.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .morphing import PixelSpace

ROUNDING = 0.01  #: how far pixels may be outside [0, 1] without a word: half precision, resampling
SLIGHT = 0.25  #: how far with a warning: noise that an augmentation adds. Further off it is another unit


def as_floats(images: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Images (N, C, H, W) of any floating dtype as ``dtype``, that of the weights; as they are where it is ``None``.

    Raises:
        ValueError: they are of another dtype or number of dimensions.
    """
    if images.dim() != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}; a batch (N, channels, height, width) is needed")
    if not images.is_floating_point():
        raise ValueError(
            f"images are {_name(images.dtype)}, and networks take float32 with pixels in [0, 1]; convert them in the "
            f"data set, as torchvision's ToTensor does (images.float() / 255 for uint8)"
        )
    return images if dtype is None else images.to(dtype)


def class_numbers(values: Tensor, what: str = "labels") -> Tensor:
    """Labels, groups or environments (N,) of any real dtype as int64; float ones are looked at, as a device's too.

    Raises:
        ValueError: their shape is another one, or a value is no whole number.
    """
    if values.dim() != 1:
        fix = "argmax(1) of one-hot ones" if values.dim() == 2 and values.shape[1] != 1 else f"{what}.reshape(-1)"
        raise ValueError(f"{what} have shape {tuple(values.shape)}; one number per image, (N,), is needed: give {fix}")
    if values.is_complex():
        raise ValueError(f"{what} are {_name(values.dtype)}; whole numbers from 0 on are needed")
    if values.is_floating_point():
        wrong = values[~(values.isfinite() & (values == values.round()))]
        if len(wrong):
            raise ValueError(
                f"{what} are {_name(values.dtype)}, and {float(wrong[0]):g} among them is no whole number; give whole "
                f"numbers from 0 on"
            )
    return values.long()


def check_labels(labels: Tensor, n_classes: int, wait: bool) -> None:
    """Raise ValueError for a label outside [0, n_classes).

    Args:
        labels: (N,) int64.
        wait: look at them on any device, not only on the CPU.
    """
    if not (wait or labels.device.type == "cpu") or not len(labels):
        return
    wrong = labels[(labels < 0) | (labels >= n_classes)]
    if len(wrong):
        raise ValueError(
            f"label {int(wrong[0])} is out of range: this classifier has {n_classes} classes, labels go from 0 to "
            f"{n_classes - 1}"
        )


def check_pixels(images: Tensor, space: PixelSpace) -> None:
    """Compare the values of a batch with what is assumed of them; waits for the device. Meant for a first batch.

    Pixels slightly outside [0, 1] give a warning. Standard normal noise, which DomainBed's Debug sets hold for trying
    things, is an image in no unit and passes.

    Args:
        images: (N, C, H, W) floats, as they are given to the encoder.
        space: what is assumed.

    Raises:
        ValueError: values are not finite, or of another unit.
    """
    if not images.numel():
        return
    with torch.no_grad():
        extremes = torch.stack([*images.aminmax(), *space.to_pixels(images).aminmax()]).tolist()
    low, high, darkest, brightest = extremes
    said = f"images hold values from {low:.4g} to {high:.4g}, and are taken as {space.words}"
    outside = max(-darkest, brightest - 1)
    if outside != outside or outside == float("inf"):
        raise ValueError(f"{said}; remove what is not a finite number from the data set")
    if outside <= ROUNDING:
        if space.is_imagenet and (_fill(low, high, 0, 1) or _fill(low, high, -1, 1)):
            raise ValueError(f"{said}; {_fix(low, high, space)}")
    elif outside <= SLIGHT:
        warnings.warn(f"{said}; values outside are used as they are", RuntimeWarning, stacklevel=2)
    elif not _is_standard_noise(images):
        raise ValueError(f"{said}; {_fix(low, high, space)}")


def _fill(low: float, high: float, first: float, last: float) -> bool:
    """Whether values lie inside an interval and take up most of it, as normalised photographs never do."""
    return first <= low and high <= last and high - low >= 0.75 * (last - first)


def _fix(low: float, high: float, space: PixelSpace) -> str:
    if low >= 0:
        unit = next((unit for unit in (1, 255, 65535) if high <= unit), None)
        scale = {None: "scale them to [0, 1]", 1: ""}.get(unit, f"divide them by {unit}")
    elif -1 <= low and high <= 1:
        scale = "give (x + 1) / 2 for x in [-1, 1]"
    else:
        scale = "undo the normalisation that they have, or scale them to [0, 1]"
    normalise = f"normalise them by mean {space.mean_and_std[0]} and std {space.mean_and_std[1]}"
    steps = [scale, normalise] if space.normalised else [scale]
    return f"{' and then '.join(filter(None, steps))} in the data set's transform"


def _is_standard_noise(images: Tensor) -> bool:
    """Mean 0, standard deviation 1, and neighbours that know nothing of each other: no image in any unit."""
    values = images.detach().double()
    mean, spread = values.mean(), values.std()
    neighbours = (values[..., 1:] * values[..., :-1]).mean()
    return max(abs(float(mean)), abs(float(spread) - 1), abs(float(neighbours))) < 0.1


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
