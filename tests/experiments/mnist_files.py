"""A stand-in for MNIST's files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from cim_plugin.data.digits_on_photos import load_digits


def write_idx(path: Path, values: np.ndarray) -> None:
    """A gzipped idx file of bytes, as MNIST has them."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape))
        file.write(values.astype(np.uint8).tobytes())


def write_mnist(folder: Path, n_train: int, n_test: int) -> Path:
    """The four files of MNIST, made of scikit-learn's digits, each several times."""
    digits, classes = load_digits()
    images = (F.interpolate(digits, size=(28, 28), mode="bilinear") * 255).round()[:, 0]
    for stem, count in (("train", n_train), ("t10k", n_test)):
        rows = torch.arange(count) % len(classes)
        write_idx(folder / f"{stem}-images-idx3-ubyte.gz", images[rows].numpy())
        write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", classes[rows].numpy())
    return folder
