"""Fixed seeds, two threads, a device without values and real photographs for the tests of the method."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(min(threads, 2))
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def meta(monkeypatch) -> str:
    """A device whose tensors have no values: item(), a branch on a tensor, nonzero, a boolean index and a copy to the
    host all raise.

    What runs there never synchronises on a GPU. torch.autocast refuses the device, so it is left out.
    """
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    return "meta"


@pytest.fixture(scope="session")
def crops():
    """A function (n, channels, height, width) -> that many crops of scikit-learn's two photographs, float64 in [0,
    1].
    """
    photos = np.stack(load_sample_images().images).transpose(0, 3, 1, 2) / 255

    def cut(n: int, channels: int, height: int, width: int) -> Tensor:
        rng = np.random.default_rng(0)
        tops, lefts = rng.integers(0, photos.shape[2] - height, n), rng.integers(0, photos.shape[3] - width, n)
        return torch.tensor(
            np.stack(
                [photos[i % 2, :channels, y : y + height, x : x + width] for i, (y, x) in enumerate(zip(tops, lefts))]
            )
        )

    return cut
