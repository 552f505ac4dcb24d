"""Where the digit is in images that this plugin makes itself, so that m can be looked at on figure and ground.

Nothing is guessed from pixels: which digit an image shows follows from how the set is made, and is believed only where
all labels agree with it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..data.demo import LOOKS, draw
from ..data.digits_on_photos import SIDE, compose, load_digits
from ..files import read_bytes

_MADE = re.compile(r"'cim-plugin data demo --seed (\d+)'")


def release_figures(data, part, transform) -> Callable[[list[int]], Tensor] | None:
    """For a release of ``cim-plugin data demo``: rows of a split -> how much of a pixel is the digit, (n, 1, H, W) in
    [0, 1], else None.

    Args:
        data: the opened :class:`~..wilds_runner.datasets.Dataset`.
        part: one of its splits.
        transform: of its images; figures are cropped and resized as they are.
    """
    look = LOOKS.get(data.wilds.dataset_name)
    files = [path for path in Path(data.wilds.data_dir).glob("RELEASE_v*.txt") if path.is_file()]
    texts = [read_bytes(path).decode(errors="replace") for path in files]
    seed = next((int(found.group(1)) for text in texts if (found := _MADE.search(text))), None)
    if not data.synthetic or look is None or seed is None or seed >= 2**32:
        return None
    table = draw(look, seed)
    made = {"label": data.wilds.y_array.reshape(-1).numpy(), "split": np.asarray(data.wilds.split_array)}
    if any(not np.array_equal(table[column].to_numpy(), values) for column, values in made.items()):
        return None
    digits = F.pad(load_digits()[0], look.margin)  # row i of the release shows scikit-learn's digit i

    def figures(rows: list[int]) -> Tensor:
        ink = _ink(digits[part.indices[rows]], (look.height, look.width))
        resized = [np.asarray(transform.resize(Image.fromarray(plane.numpy()))) for plane in ink[:, 0]]
        return torch.from_numpy(np.stack(resized)).unsqueeze(1).clamp(0, 1)

    return figures


def environment_digits(seed: int, labels: list[Tensor]) -> list[Tensor] | None:
    """For DebugDigitsOnPhotos: how much of a pixel is the digit, (N, 1, 28, 28) in [0, 1] per environment; None unless
    all labels agree.

    Args:
        seed: what the set was made with.
        labels: per environment, (N,) int64.
    """
    digits, classes = load_digits()
    shares = np.array_split(
        np.random.default_rng(seed).permutation(len(digits)), len(labels)
    )  # the first draw of digits_on_photos
    if any(not torch.equal((classes[rows] < 5).long(), of_environment) for rows, of_environment in zip(shares, labels)):
        return None
    return [_ink(digits[rows], (SIDE, SIDE)) for rows in shares]


def _ink(digits: Tensor, size: tuple[int, int]) -> Tensor:
    """The digit without the photograph behind it: what is drawn on black."""
    return compose(digits, torch.zeros(len(digits), 1, *size))
