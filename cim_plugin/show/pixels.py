"""What the picture and the page have in common: pixels, the colours of m, and the words under an image."""

from __future__ import annotations

import math
from typing import NamedTuple

import matplotlib
import numpy as np
from torch import Tensor

from .examples import Comparison, Example, Prediction
from .opened_run import OpenedRun

COLOURS = "cividis"  #: of m: even in brightness, and alike with and without colour vision deficiency
RIGHT, WRONG = "✓", "✗"


class Scale(NamedTuple):
    """The values of m that the first and the last colour stand for: one scale for all images shown."""

    low: float
    high: float

    def words(self, value: float) -> str:
        """The value with as many digits as tell the ends of the scale apart."""
        width = self.high - self.low
        digits = 3 if width <= 0 else min(7, max(2, 1 + math.ceil(-math.log10(width))))
        return f"{value:.{digits}f}"


class Cell(NamedTuple):
    """One image of a row."""

    title: str
    pixels: np.ndarray  #: (H, W, 3) uint8; None where there is nothing to show
    first: str  #: the line under it
    second: str
    wrong: bool = False  #: the second line is a wrong prediction


def scale_of(shown: list[Example]) -> Scale:
    planes = [example.mask.mean(0) for example in shown]
    return Scale(min(float(plane.min()) for plane in planes), max(float(plane.max()) for plane in planes))


def colours(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Values of m -> (..., 3) uint8."""
    width = scale.high - scale.low
    return matplotlib.colormaps[COLOURS](
        (values - scale.low) / width if width > 0 else np.full(values.shape, 0.5), bytes=True
    )[..., :3]


def image_pixels(image: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] with 1 to 3 channels -> (H, W, 3) uint8: grey, red and green, or as it is."""
    planes = (image.clamp(0, 1) * 255).round().byte().numpy()
    if len(planes) == 2:
        planes = np.concatenate([planes, np.zeros_like(planes[:1])])
    return np.broadcast_to(planes, (3, *planes.shape[1:])).transpose(1, 2, 0).copy()


def titles(learnt: OpenedRun) -> list[str]:
    morphed = learnt.model.contrast.targets == "morphed"
    return ["x", "m", "ψ(x)", *(("ψ(x+)", "ψ(x−)") if morphed else ("x+", "x−"))]


def cells(learnt: OpenedRun, example: Example, scale: Scale) -> list[Cell]:
    """The five images of an example, with their words."""
    plane = example.mask.mean(0)
    names = titles(learnt)
    sides = [_side(learnt, name, side) for name, side in zip(names[3:], (example.positive, example.negative))]
    return [
        Cell(
            names[0],
            image_pixels(example.x),
            f"image {example.row}: {learnt.class_names[example.label]}",
            *_said(learnt, "before", example.before, example),
        ),
        Cell(
            names[1],
            colours(plane.numpy(), scale),
            f"{scale.words(float(plane.min()))} to {scale.words(float(plane.max()))}",
            f"mean {scale.words(float(plane.mean()))}",
        ),
        Cell(
            names[2],
            image_pixels(example.psi),
            f"of image {example.row}",
            *_said(learnt, "after", example.after, example),
        ),
        *sides,
    ]


def _said(learnt: OpenedRun, when: str, prediction: Prediction, example: Example) -> tuple[str, bool]:
    right = prediction.label == example.label
    return (
        f"{when}: {learnt.class_names[prediction.label]} {prediction.probability:.2f} {RIGHT if right else WRONG}",
        not right,
    )


def _side(learnt: OpenedRun, title: str, side: Comparison | None) -> Cell:
    if side is None:
        return Cell(title, None, "none among the images", "drawn from")
    return Cell(
        title,
        image_pixels(side.image),
        f"image {side.row}: {learnt.class_names[int(learnt.labels[side.row])]}",
        f"{learnt.model.contrast.similarity.measure} {side.similarity:.3f}",
    )
