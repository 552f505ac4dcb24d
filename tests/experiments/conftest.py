"""The study's modules, which are scripts and no package, and a stand-in for MNIST's files."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cim_plugin.data.digits_on_photos import load_digits

EXPERIMENTS = Path(__file__).resolve().parents[2] / "scripts" / "experiments"
sys.path.insert(0, str(EXPERIMENTS))


def write_idx(path: Path, values: torch.Tensor) -> None:
    """A gzipped idx file of bytes, as MNIST has them."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(struct.pack(f">HBB{values.dim()}I", 0, 8, values.dim(), *values.shape))
        file.write(values.byte().numpy().tobytes())


@pytest.fixture(scope="session")
def mnist(tmp_path_factory) -> Path:
    """A folder with the four files of MNIST, made of scikit-learn's digits, each several times: 22,000 and 4,000 images."""
    folder = tmp_path_factory.mktemp("mnist")
    digits, classes = load_digits()
    images = (F.interpolate(digits, size=(28, 28), mode="bilinear") * 255).round()[:, 0]
    for stem, count in (("train", 22_000), ("t10k", 4_000)):
        rows = torch.arange(count) % len(classes)
        write_idx(folder / f"{stem}-images-idx3-ubyte.gz", images[rows])
        write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", classes[rows])
    return folder


@pytest.fixture(scope="session")
def photos(mnist):
    """The task of digits on photographs, seed 0, of the stand-in."""
    from tasks import Folders, make_task

    return make_task("photos_95", 0, Folders(mnist, mnist))
