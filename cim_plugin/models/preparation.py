"""From a photograph to the tensor that a network takes, as the run prepared its evaluation images."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image
from torch import Tensor

from ..data.rgb import rgb
from ..errors import InputError
from .recipe import Recipe
from .transforms import SquareInTheMiddle

Step = tuple[Any, ...]


def _square(image: Image.Image) -> Image.Image:
    return T.functional.center_crop(image, min(image.size))


#: step of a recipe -> its numbers -> PIL image -> PIL image
_MAKE: dict[str, Callable[..., Callable[[Image.Image], Image.Image]]] = {
    "square": lambda: _square,
    "resize": lambda height, width: T.Resize([height, width]),
    "shorter_side": lambda side: T.Resize(side),
    "center_crop": lambda height, width: T.CenterCrop([height, width]),
}


def steps_of(resize: Callable) -> tuple[Step, ...]:
    """The steps of :func:`.transforms.make_transform`'s first part, as a recipe has them."""
    steps: list[Step] = []
    for step in resize.transforms:
        if isinstance(step, SquareInTheMiddle):
            steps.append(("square",))
        elif isinstance(step, (T.Resize, T.CenterCrop)):
            height, width = step.size
            steps.append(("resize" if isinstance(step, T.Resize) else "center_crop", int(height), int(width)))
        else:
            raise TypeError(f"no recipe has a step like {step}")
    return tuple(steps)


class Preparation:
    """A recipe's preparation of one image: PIL image of any mode and size -> (C, H, W) float32, as the model takes it.

    Of an image with the size of the data set's it is what the run's evaluation made, to the last bit; of another size
    it is resized, and where the data set's were cut to a square, the largest one in the middle is taken.

    Raises:
        InputError: the model takes images that no photograph is, of 2 or of more than 3 channels.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.steps = T.Compose([_MAKE[name](*numbers) for name, *numbers in recipe.preparation])
        self.resize = T.Resize(list(recipe.image_size))
        normalised = any(recipe.mean) or any(value != 1 for value in recipe.std)
        self.normalise = T.Normalize(recipe.mean, recipe.std) if normalised else None

    def __call__(self, image: Image.Image) -> Tensor:
        image = self.steps(self._coloured(image))
        height, width = self.recipe.image_size
        if image.size != (width, height):
            image = self.resize(image)
        pixels = torch.from_numpy(np.array(image)).reshape(height, width, -1).permute(2, 0, 1)
        tensor = pixels.contiguous().float().div_(255)
        return tensor if self.normalise is None else self.normalise(tensor)

    def _coloured(self, image: Image.Image) -> Image.Image:
        if self.recipe.channels == 3:
            return rgb(image)
        if self.recipe.channels == 1:
            return rgb(image).convert("L")
        raise InputError(
            f"this model takes images of {self.recipe.channels} channels, which no photograph has; give it tensors "
            f"(N, {self.recipe.channels}, {', '.join(map(str, self.recipe.image_size))})"
        )

    def __repr__(self) -> str:
        return f"Preparation({self.steps}, image_size={self.recipe.image_size})"
