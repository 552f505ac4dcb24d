"""``--hparams '{"image_size": 64}'``: the host's data sets of image files at another size than 224 pixels, for a CPU.

Every image is decoded and shrunk once and kept in memory, and no data loader has a process of its own: the host starts
eight for each of its eleven. Evaluation sees the pixels that the host's own transform would make at that size;
augmentation starts from the shrunken image.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Iterable, Mapping

from PIL import Image
from torchvision import transforms

from ...errors import InputError

IMAGE_SIZE = "image_size"
LEAST = 33  #: the host leaves images of 28 and 32 pixels in [0, 1], and standardises all others
LARGEST = 2048


def given(hparams: Mapping[str, Any]) -> int | None:
    """The side in pixels, where there is one.

    Raises:
        InputError: it is no such number.
    """
    size = hparams.get(IMAGE_SIZE)
    if size is None:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or not LEAST <= size <= LARGEST:
        raise InputError(f"--hparams: {IMAGE_SIZE}={size!r} is not a whole number of pixels from {LEAST} to {LARGEST}")
    return size


class KeptImages:
    """A loader of torchvision's ``ImageFolder`` that reads each file once.

    Args:
        load: path -> image.
        size: height and width of the images that it keeps, 3 bytes per pixel.
    """

    def __init__(self, load: Callable[[str], Image.Image], size: int):
        self.load, self.shrink = load, transforms.Resize((size, size))
        self.kept: dict[str, Image.Image] = {}

    def __call__(self, path: str) -> Image.Image:
        if path not in self.kept:
            self.kept[path] = self.shrink(self.load(path))
        return self.kept[path]


def sized(inner: Callable[..., None]) -> Callable[..., None]:
    """The host's ``MultipleEnvironmentImageFolder.__init__``, which also knows :data:`IMAGE_SIZE`."""

    @functools.wraps(inner)
    def __init__(self, root, test_envs, augment, hparams):
        size = given(hparams)
        inner(self, root, test_envs, augment, hparams)
        if size is not None:
            self.input_shape, self.N_WORKERS = (3, size, size), 0
            for environment in self.datasets:
                environment.loader = KeptImages(environment.loader, size)
                _resize(environment.transform.transforms, size)

    return __init__


def _resize(steps: Iterable[Any], size: int) -> None:
    """Of the host's transform, augmenting or not, the steps that make images of 224 pixels."""
    for step in steps:
        if isinstance(step, (transforms.Resize, transforms.RandomResizedCrop)):
            step.size = (size, size)
