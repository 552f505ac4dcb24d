"""The offline tasks of the study: images whose background tells the label in training and not in the test."""

from __future__ import annotations

import colorsys
import functools
import gzip
import os
import zlib
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2.functional import pil_to_tensor

from cim_plugin.data.digits_on_photos import CROP, SIDE, compose, load_photos
from cim_plugin.errors import InputError

N_VALIDATION, N_TEST = 4000, 4000
PACS_CLASSES = 7
#: elephant, person: of all pairs of PACS's classes the one whose crops an encoder tells apart best in photos that it
#: has not seen (95%)
GROUND_CLASSES = (1, 6)
PACS_SIDE = 96  #: of its pictures, which are 227x227
SATURATION, VALUE = 0.8, 0.7  #: of the ten background colours; a white digit shows on all of them


class Folders(NamedTuple):
    """Where the data is."""

    mnist: Path  #: of MNIST's four .gz files
    pacs: Path  #: of PACS's domains


class Images(NamedTuple):
    """A split."""

    images: Tensor  #: (N, C, H, W) uint8
    labels: Tensor  #: (N,) int64
    groups: Tensor  #: (N,) int64: what worst-group accuracy is the minimum over
    #: (N,) int64: the nuisance that the label is tied to; only group DRO looks at it in training
    environments: Tensor
    figure: Tensor  #: (N, H, W) bool: where the digit is


class Task(NamedTuple):
    """Training, validation and test; the validation split is drawn as the training split is, so it favours the spurious
    feature as well.
    """

    n_classes: int
    splits: dict[str, Images]
    group_names: list[str]
    name: str = ""  #: in TASKS

    def figure_only(self) -> Task:
        """The task with black grounds."""
        return self._replace(
            splits={
                name: split._replace(images=split.images * split.figure[:, None]) for name, split in self.splits.items()
            }
        )


def mnist(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Real MNIST from its gzipped idx files: "train" and "test" -> strength (N, 1, 28, 28) float32 in [0, 1] and digit
    (N,) int64.
    """
    found = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        images, labels = folder / f"{stem}-images-idx3-ubyte.gz", folder / f"{stem}-labels-idx1-ubyte.gz"
        pixels, digits = _idx(images, 16), _idx(labels, 8)
        if not len(digits) or len(pixels) != len(digits) * SIDE * SIDE:
            raise InputError(
                f"{images} holds {len(pixels)} bytes of pixels and {labels.name} {len(digits)} labels, which do not "
                f"fit; replace the files"
            )
        found[split] = (
            torch.from_numpy(pixels.reshape(-1, 1, SIDE, SIDE)).float() / 255,
            torch.from_numpy(digits).long(),
        )
    return found


def _idx(path: Path, header: int) -> np.ndarray:
    if not path.exists():
        raise InputError(f"{path} is not there; name the folder of MNIST's four .gz files")
    try:
        with gzip.open(path) as file:
            return np.frombuffer(file.read()[header:], dtype=np.uint8).copy()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); replace the file") from error


def _shares(
    digits: dict[str, tuple[Tensor, Tensor]], rng: np.random.Generator, n_training: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Training and validation from MNIST's training images, the test from its test images; no image twice."""
    rows = rng.permutation(len(digits["train"][1]))
    parts = {"train": ("train", rows[:n_training]), "val": ("train", rows[n_training : n_training + N_VALIDATION])}
    parts["test"] = ("test", rng.permutation(len(digits["test"][1]))[:N_TEST])
    return {split: (digits[source][0][chosen], digits[source][1][chosen]) for split, (source, chosen) in parts.items()}


def _to_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().byte()


def colours(digits, rng: np.random.Generator, tied: float) -> Task:
    """Ten classes on ten background colours: the class' own with probability ``tied``, else any other; in the test all
    colours alike.
    """
    palette = torch.tensor([colorsys.hsv_to_rgb(k / 10, SATURATION, VALUE) for k in range(10)])
    splits = {}
    for split, (ink, labels) in _shares(digits, rng, 20_000).items():
        own = rng.random(len(labels)) < (tied if split != "test" else 0.1)
        colour = torch.where(
            torch.from_numpy(own), labels, (labels + torch.from_numpy(rng.integers(1, 10, len(labels)))) % 10
        )
        images = ink + (1 - ink) * palette[colour][:, :, None, None]
        splits[split] = Images(_to_bytes(images), labels, 2 * labels + (colour == labels), colour, ink[:, 0] > 0.5)
    return Task(10, splits, [f"digit:{k}_colour:{c}" for k in range(10) for c in ("other", "own")])


#: (split, which of two kinds of ground each image has (N,) int64) -> grounds (N, 3, H, W) in [0, 1]
Grounds = Callable[[str, Tensor], Tensor]


def _on_grounds(digits, rng: np.random.Generator, tied: float, grounds: Grounds, inks: bool = False) -> Task:
    """Digits below 5 or not, on two kinds of ground tied to the label; balanced in the test.

    Args:
        inks: every digit has a hue of its own, which says nothing, instead of white.
    """
    splits = {}
    for split, (ink, classes) in _shares(digits, rng, 4_000).items():
        labels = (classes < 5).long()
        agrees = torch.from_numpy(rng.random(len(labels)) < (tied if split != "test" else 0.5))
        kind = torch.where(agrees, labels, 1 - labels)
        images = compose(ink, grounds(split, kind))
        if inks:
            hues = torch.tensor([colorsys.hsv_to_rgb(hue, SATURATION, 1.0) for hue in rng.random(len(labels))])
            images = images - ink * (1 - hues[:, :, None, None])
        splits[split] = Images(_to_bytes(images), labels, 2 * labels + kind, kind, ink[:, 0] > 0.5)
    return Task(2, splits, [f"below5:{y}_photo:{p}" for y in (0, 1) for p in (0, 1)])


def photos(digits, rng: np.random.Generator, tied: float, inks: bool = False) -> Task:
    """On crops of two photographs. The test has its own columns of the photographs."""
    pictures = load_photos()
    seen, held_out = np.split(np.arange(pictures.shape[-1]), [2 * pictures.shape[-1] // 3])
    strips = {"train": seen, "val": seen, "test": held_out}

    def grounds(split: str, photo: Tensor) -> Tensor:
        top = rng.integers(0, pictures.shape[-2] - CROP + 1, len(photo))
        left = rng.integers(strips[split][0], strips[split][-1] + 2 - CROP, len(photo))
        return F.avg_pool2d(crops(pictures, photo, top, left, CROP), 2)

    return _on_grounds(digits, rng, tied, grounds, inks)


def many_photos(digits, rng: np.random.Generator, tied: float, folder: Path) -> Task:
    """On crops of PACS's photos of elephants or of people, as many of each; a third of them is only in the test."""
    pictures, classes = read_pictures(folder / "photo")
    kinds = [rng.permutation(np.flatnonzero(classes == number)) for number in GROUND_CLASSES]
    count = min(map(len, kinds))
    photos_of = torch.from_numpy(np.stack([rows[:count] for rows in kinds]))
    seen, held_out = photos_of[:, : 2 * count // 3], photos_of[:, 2 * count // 3 :]

    def grounds(split: str, kind: Tensor) -> Tensor:
        of_split = held_out if split == "test" else seen
        photo = of_split[kind, torch.from_numpy(rng.integers(0, of_split.shape[1], len(kind)))]
        top, left = rng.integers(0, PACS_SIDE - SIDE + 1, (2, len(kind)))
        return crops(pictures, photo, top, left, SIDE).float() / 255

    return _on_grounds(digits, rng, tied, grounds)


def crops(pictures: Tensor, which: Tensor, top: np.ndarray, left: np.ndarray, side: int) -> Tensor:
    return torch.stack([pictures[p, :, y : y + side, x : x + side] for p, y, x in zip(which, top, left)])


@functools.lru_cache
def read_pictures(folder: Path) -> tuple[Tensor, Tensor]:
    """Every picture of ``folder/<class>``: (N, 3, 96, 96) uint8 and (N,) int64."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not there; name the folder of PACS's domains, or leave the task out")
    try:
        found = ImageFolder(str(folder), lambda picture: pil_to_tensor(picture.resize((PACS_SIDE, PACS_SIDE))))
        if len(found.classes) != PACS_CLASSES:
            raise InputError(
                f"{folder} holds {len(found.classes)} classes where PACS has {PACS_CLASSES}; name the folder of PACS's "
                f"domains"
            )
        images, labels = zip(*found)
    except OSError as error:
        raise InputError(f"a picture of {folder} cannot be read ({error}); replace it") from error
    return torch.stack(images), torch.tensor(labels)


#: name -> (number of its stream of random draws, (folders, generator) -> task)
TASKS: dict[str, tuple[int, Callable[[Folders, np.random.Generator], Task]]] = {
    "photos_95": (2, lambda folders, rng: photos(mnist(folders.mnist), rng, 0.95)),
    "photos_95_inks": (7, lambda folders, rng: photos(mnist(folders.mnist), rng, 0.95, inks=True)),
    "photos_98_many": (9, lambda folders, rng: many_photos(mnist(folders.mnist), rng, 0.98, folders.pacs)),
    "colours_95": (1, lambda folders, rng: colours(mnist(folders.mnist), rng, 0.95)),
}
TABLE_TASKS = ["photos_95", "photos_95_inks", "colours_95"]


def make_task(name: str, seed: int, folders: Folders) -> Task:
    """The task of a seed: which images, which backgrounds."""
    stream, make = TASKS[name]
    return make(folders, np.random.default_rng([seed, stream]))._replace(name=name)


def beside(name: str) -> Path:
    """Data beside the checkout."""
    return Path(__file__).resolve().parents[2].parent / "shared" / "data" / name


def mnist_folder() -> Path:
    """Where the files of MNIST are looked for: MNIST_HOME, or beside the checkout."""
    return Path(os.environ.get("MNIST_HOME", beside("MNIST")))
