"""The host's train script, which also knows the data set :data:`NAME`.

Waterbirds as the host has it, of 32 instead of 224 pixels, decoded once and in the same process: for a CPU.
"""

from __future__ import annotations

import functools
import runpy
import sys

import numpy as np
import torch
from PIL import Image
from torch import Tensor

NAME = "SmallWaterbirds"
SIZE = 32


@functools.cache
def pixels(path: str) -> Tensor:
    """An image's RGB, (3, SIZE, SIZE) uint8."""
    image = Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def register() -> None:
    """Add the data set to the host's."""
    from subpopbench.dataset import datasets
    from torchvision.transforms.functional import normalize

    class SmallWaterbirds(datasets.Waterbirds):
        N_WORKERS = 0
        INPUT_SHAPE = (3, SIZE, SIZE)

        def transform(self, x):
            return normalize(pixels(x) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    setattr(datasets, NAME, SmallWaterbirds)
    datasets.DATASETS.append(NAME)


def train(words: list[str]) -> None:
    """``python -m subpopbench.train words``."""
    register()
    sys.argv = ["train", *words]
    runpy.run_module("subpopbench.train", run_name="__main__", alter_sys=True)
