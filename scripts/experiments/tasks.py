"""The offline tasks of the study: images whose background tells the label in training and not in the test, and drawings
of another kind.
"""

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
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms.v2.functional import pil_to_tensor

from cim_plugin.data.digits_on_photos import CROP, SIDE, compose, load_photos
from cim_plugin.errors import InputError

from .encoder import FrozenSqueezeNet, StudyEncoder

N_VALIDATION, N_TEST = 4000, 4000
PACS_CLASSES = 7
GROUND_CLASSES = (
    1,
    6,
    #: elephant, person: of all pairs of PACS's classes the one whose crops an encoder tells apart best in photos that
    #: it
    #: has not seen (95%)
)
PACS_SIDE = 96  #: the pictures are 227x227; a frozen network takes a fifth of the time at this size
SATURATION, VALUE = 0.8, 0.7  #: of the ten background colours; a white digit shows on all of them


class Folders(NamedTuple):
    """Where the data is."""

    mnist: Path  #: of MNIST's four .gz files
    pacs: Path  #: of PACS's domains; the weights of a SqueezeNet are in ``../weights``


class Images(NamedTuple):
    """A split."""

    images: Tensor  #: (N, C, H, W) uint8
    labels: Tensor  #: (N,) int64
    groups: Tensor  #: (N,) int64: what worst-group accuracy is the minimum over
    #: (N,) int64: the nuisance that the label is tied to; only group DRO and the oracle rows look at it in training
    environments: Tensor
    figure: Tensor | None = None  #: (N, H, W) bool: where the digit is; only looked at to describe masks


class Task(NamedTuple):
    """Training, validation and test; the validation split is drawn as the training split is, so it favours the spurious
    feature as well.
    """

    n_classes: int
    splits: dict[str, Images]
    group_names: list[str]
    make_encoder: Callable[[], nn.Module]  #: (N, C, H, W) in [-1, 1] -> (N, n_features)
    n_features: int = StudyEncoder.n_features
    steps: float = 1.0  #: times the number of steps of all tasks
    tied: bool = True  #: environments are numbered as the classes that they are tied to
    name: str = ""  #: in TASKS

    def figure_only(self) -> Task:
        """The task with black grounds.

        Raises:
            InputError: its images have no figures.
        """
        if any(split.figure is None for split in self.splits.values()):
            raise InputError(
                f"where the figures of {self.name} are is not known; leave the task or the rows with figures only out"
            )
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
    digits: dict[str, tuple[Tensor, Tensor]], rng: np.random.Generator, n_training: int, n_test: int = N_TEST
) -> dict[str, tuple[Tensor, Tensor]]:
    """Training and validation from MNIST's training images, the test from its test images; no image twice."""
    rows = rng.permutation(len(digits["train"][1]))
    parts = {"train": ("train", rows[:n_training]), "val": ("train", rows[n_training : n_training + N_VALIDATION])}
    parts["test"] = ("test", rng.permutation(len(digits["test"][1]))[:n_test])
    return {split: (digits[source][0][chosen], digits[source][1][chosen]) for split, (source, chosen) in parts.items()}


def _to_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().byte()


def colours(digits, rng: np.random.Generator, tied: float, n_test: int = N_TEST) -> Task:
    """Ten classes on ten background colours: the class' own with probability ``tied``, else any other; in the test all
    colours alike.
    """
    palette = torch.tensor([colorsys.hsv_to_rgb(k / 10, SATURATION, VALUE) for k in range(10)])
    splits = {}
    for split, (ink, labels) in _shares(digits, rng, 20_000, n_test).items():
        own = rng.random(len(labels)) < (tied if split != "test" else 0.1)
        colour = torch.where(
            torch.from_numpy(own), labels, (labels + torch.from_numpy(rng.integers(1, 10, len(labels)))) % 10
        )
        images = ink + (1 - ink) * palette[colour][:, :, None, None]
        splits[split] = Images(_to_bytes(images), labels, 2 * labels + (colour == labels), colour, ink[:, 0] > 0.5)
    return Task(
        10, splits, [f"digit:{k}_colour:{c}" for k in range(10) for c in ("other", "own")], lambda: StudyEncoder(3)
    )


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
    return Task(2, splits, [f"below5:{y}_photo:{p}" for y in (0, 1) for p in (0, 1)], lambda: StudyEncoder(3))


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


def domainbed_colours(digits, rng: np.random.Generator) -> Task:
    """DomainBed's ColoredMNIST: two classes with a quarter of the labels flipped, red or green digits; environments of
    +90% and +80%, tested at -90%.
    """
    splits = {}
    for split, (ink, classes) in _shares(digits, rng, 20_000).items():
        labels = (classes < 5).long() ^ torch.from_numpy(rng.random(len(classes)) < 0.25).long()
        agreement = np.where(rng.random(len(classes)) < 0.5, 0.9, 0.8) if split != "test" else 0.1
        colour = torch.where(torch.from_numpy(rng.random(len(classes)) < agreement), labels, 1 - labels)
        images = torch.zeros(len(ink), 2, SIDE, SIDE)
        images[torch.arange(len(ink)), colour] = ink[:, 0]
        splits[split] = Images(_to_bytes(images), labels, torch.zeros_like(labels), colour, ink[:, 0] > 0.5)
    return Task(2, splits, ["all"], lambda: StudyEncoder(2))


def pacs(folder: Path, rng: np.random.Generator, held_out: str) -> Task:
    """PACS, its seven classes in ``folder/<domain>/<class>``: a fifth of every other domain for validation, the
    held-out one as test; a frozen SqueezeNet and a head on it.
    """
    domains = [*sorted({path.name for path in folder.glob("*") if path.is_dir()} - {held_out}), held_out]
    weights = folder.parent / "weights" / "squeezenet1_0_caffe_bgr255_fp16.pt"
    if not weights.exists():
        raise InputError(f"{weights} is not there; put it beside {folder.name}, or leave the task out")
    parts: dict[str, list[Images]] = {"train": [], "val": [], "test": []}
    for number, domain in enumerate(domains):
        images, labels = read_pictures(folder / domain)
        order = torch.from_numpy(rng.permutation(len(labels)))
        cuts = (
            {"test": order}
            if domain == held_out
            else {"val": order[: len(order) // 5], "train": order[len(order) // 5 :]}
        )
        for split, rows in cuts.items():
            parts[split].append(
                Images(images[rows], labels[rows], torch.full_like(rows, number), torch.full_like(rows, number))
            )
    splits = {
        split: Images(*(torch.cat(values) for values in list(zip(*of_split))[:4])) for split, of_split in parts.items()
    }
    return Task(
        int(splits["train"].labels.max()) + 1,
        splits,
        domains,
        functools.partial(FrozenSqueezeNet, weights),
        FrozenSqueezeNet.n_features,
        0.1,
        tied=False,
    )


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


#: name -> (folders, generator) -> task
TASKS: dict[str, Callable[[Folders, np.random.Generator], Task]] = {
    "colours_85": lambda folders, rng: colours(mnist(folders.mnist), rng, 0.85),
    "colours_95": lambda folders, rng: colours(mnist(folders.mnist), rng, 0.95),
    "photos_95": lambda folders, rng: photos(mnist(folders.mnist), rng, 0.95),
    "domainbed_colours": lambda folders, rng: domainbed_colours(mnist(folders.mnist), rng),
    "pacs_sketch": lambda folders, rng: pacs(folders.pacs, rng, "sketch"),
    "colours_98": lambda folders, rng: colours(mnist(folders.mnist), rng, 0.98, n_test=10_000),
    "photos_85": lambda folders, rng: photos(mnist(folders.mnist), rng, 0.85),
    "photos_95_inks": lambda folders, rng: photos(mnist(folders.mnist), rng, 0.95, inks=True),
    "photos_95_many": lambda folders, rng: many_photos(mnist(folders.mnist), rng, 0.95, folders.pacs),
    "photos_98_many": lambda folders, rng: many_photos(mnist(folders.mnist), rng, 0.98, folders.pacs),
}
TABLE_TASKS = ["photos_95", "photos_95_inks", "colours_95"]


def make_task(name: str, seed: int, folders: Folders) -> Task:
    """The task of a seed: which images, which backgrounds."""
    return TASKS[name](folders, np.random.default_rng([seed, list(TASKS).index(name)]))._replace(name=name)


def beside(name: str) -> Path:
    """Data beside the checkout."""
    return Path(__file__).resolve().parents[2].parent / "shared" / "data" / name


def mnist_folder() -> Path:
    """Where the files of MNIST are looked for: MNIST_HOME, or beside the checkout."""
    return Path(os.environ.get("MNIST_HOME", beside("MNIST")))
