"""The poster's first experiment: ten digits, in training each on a background colour of its own, in the test on others;
and DomainBed's ColoredMNIST.
"""

from __future__ import annotations

import argparse
import colorsys
import struct
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cim_plugin.data.digits_on_photos import SIDE, load_digits
from cim_plugin.errors import InputError
from cim_plugin.runs import defaults
from cim_plugin.runs.cluster.launcher import runner
from cim_plugin.runs.configuration import Configuration
from cim_plugin.wilds_runner import preparing

from ..experiments.tasks import SATURATION, VALUE, mnist, mnist_folder
from . import options, sweep
from .showing import show
from .trainings import configurations, train
from .variants import FIELD, Variants, as_dataset

ALGORITHMS = ("ERM", "VIB", "SCL_E2E", "CIM", "CIM_VIB")
RULES = ("average", "last")
BACKGROUNDS = ("own", "other_class", "new")  #: the class' own colour, another class', one that was not in training
N_CLASSES = 10
PART = 4096  #: digits that are coloured at a time
EVERY = 6  #: one of so many training digits is for validation, on the colour of its class
STAND_IN = "colored_digits_of_scikit-learn"  #: what the tables call the data set where there is no MNIST

DEFAULTS = {
    "split_scheme": "official",
    "val_metric": "acc_avg",
    "val_metric_decreasing": False,
    "groupby_fields": [FIELD],
    "model": "small_cnn",
    "transform": "image_base",
    "batch_size": 128,
    "optimizer": "AdamW",
    "lr": 1e-3,
    "weight_decay": 1e-4,
    "n_epochs": 20,
    "loader_kwargs": {"num_workers": 0},
}
QUICK = "--n_epochs 1 --batch_size 32".split()
QUICK_DIGITS = 300  #: of training and of test digits

Digits = dict[str, tuple[Tensor, Tensor]]  #: "train" and "test" -> strength (N, 1, 28, 28) in [0, 1] and digit (N,)


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        default=mnist_folder(),
        help="folder of MNIST's four idx .gz files; without them scikit-learn's digits stand in",
    )
    options.add_algorithms(parser, ALGORITHMS)
    options.add_seeds(parser)
    options.add_sweep(parser)


def run(args: argparse.Namespace, name: str, words: list[str]) -> int:
    """Train and print.

    Raises:
        InputError: files of MNIST are missing, a flag is wrong, or a job of DomainBed's sweep failed.
    """
    if not is_mnist(args.data) and args.data != mnist_folder():
        raise InputError(
            f"--data {args.data} has no file of MNIST, e.g. train-images-idx3-ubyte.gz; without --data scikit-learn's "
            f"digits can stand in"
        )
    folder = options.folder(args, name)
    most = QUICK_DIGITS if args.quick else None
    digits = read_digits(args.data, most)
    dataset = name if is_mnist(args.data) else STAND_IN
    defaults.DATASETS[dataset] = DEFAULTS
    given = [*(QUICK if args.quick else []), *words]
    configs = configurations(
        dataset, args.data.absolute(), folder / dataset, args.algorithms, [0] if args.quick else args.seeds, given
    )
    status = train(configs, partial(prepare, source=args.data, most=most), runner(args, folder))
    without = _why_without_domainbed(args)
    tables = partial(show, folder, (*RULES, *sweep.RULES), None, columns)
    if without:
        tables(failed=bool(status))
    else:
        write_raw(digits, folder / "data" / "MNIST" / "raw")
        sweep.sweep("ColoredMNIST", 3, folder / "data", folder / "DomainBed", args, tables)
    print(
        f"\n{FIELD}s of the test: {', '.join(BACKGROUNDS)}. The poster shows this experiment as a figure, without "
        f"numbers."
    )
    if not is_mnist(args.data):
        print(f"scikit-learn's digits stand in: there is no MNIST in {args.data}.")
    if without:
        print(f"DomainBed's ColoredMNIST was left out: {without}.")
    return status


def _why_without_domainbed(args: argparse.Namespace) -> str:
    """Empty where its ColoredMNIST can be trained on."""
    if args.n_trials == 0:
        return "--n_trials 0"
    if not is_mnist(args.data):
        return "it needs MNIST"
    return (
        ""
        if sweep.has_domainbed()
        else "'cim-plugin get-domainbed' fetches DomainBed, or set DOMAINBED_HOME to a checkout"
    )


def is_mnist(folder: Path) -> bool:
    """Whether files of MNIST are there."""
    return any(folder.glob("*-ubyte.gz"))


def read_digits(folder: Path, most: int | None) -> Digits:
    """MNIST, or scikit-learn's digits, enlarged, the last third of them for the test."""
    if is_mnist(folder):
        found = mnist(folder)
    else:
        small, classes = load_digits()
        ink = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        cut = 2 * len(classes) // 3
        found = {"train": (ink[:cut], classes[:cut]), "test": (ink[cut:], classes[cut:])}
    return {split: (ink[:most], classes[:most]) for split, (ink, classes) in found.items()}


def prepare(config: Configuration, fabric, source: Path, most: int | None):
    """The loop of a run over the coloured digits of a seed, all of them in memory."""
    images, labels, backgrounds, splits = colour(read_digits(source, most), np.random.default_rng(config.seed))
    names = [str(digit) for digit in range(N_CLASSES)]
    wilds = Variants(
        config.dataset,
        Path(__file__).parent,
        partial(_image, images),
        labels,
        backgrounds,
        splits,
        names,
        list(BACKGROUNDS),
        SIDE,
    )

    def cache(config, data, transform, *words):
        return images if transform.size == (SIDE, SIDE) else None

    return preparing.prepare(config, fabric, lambda config: as_dataset(wilds, config, synthetic=False), cache)


def _image(images: np.ndarray, row: int) -> Image.Image:
    return Image.fromarray(images[row])


def colour(digits: Digits, rng: np.random.Generator) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    """White digits on colours.

    Twenty hues around the circle: the even ones belong to the classes, the odd ones between them are new. Of the test
    digits a third each lies on
    its own colour, on one of another class and on a new one.

    Returns:
        Images (N, 28, 28, 3) uint8, labels, backgrounds (numbers of ``BACKGROUNDS``) and splits (N,) int64.
    """
    palette = torch.tensor([colorsys.hsv_to_rgb(k / (2 * N_CLASSES), SATURATION, VALUE) for k in range(2 * N_CLASSES)])
    ink, labels = (torch.cat([digits[split][part] for split in ("train", "test")]) for part in (0, 1))
    n_training = len(digits["train"][1])
    rows = torch.arange(len(labels))
    splits = torch.where(rows >= n_training, 2, (rows % EVERY == EVERY - 1).long())
    backgrounds = torch.where(rows >= n_training, rows % len(BACKGROUNDS), 0)
    other = (labels + torch.from_numpy(rng.integers(1, N_CLASSES, len(labels)))) % N_CLASSES
    new = torch.from_numpy(rng.integers(0, N_CLASSES, len(labels)))
    hues = torch.stack([2 * labels, 2 * other, 2 * new + 1])[backgrounds, rows]
    images = np.empty((len(labels), SIDE, SIDE, 3), dtype=np.uint8)
    for part in rows.split(PART):
        behind = palette[hues[part]][:, :, None, None]
        images[part] = (255 * (ink[part] + (1 - ink[part]) * behind)).round().byte().permute(0, 2, 3, 1).numpy()
    return images, labels, backgrounds, splits


def columns(values: dict[str, float], parts: dict[str, float]) -> dict[str, float]:
    """With the accuracy per kind of background."""
    return values | {name.removeprefix(f"{FIELD}:"): value for name, value in parts.items()}


def write_raw(digits: Digits, folder: Path) -> None:
    """MNIST as torchvision keeps it, which DomainBed reads."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, stem in (("train", "train"), ("test", "t10k")):
        ink, classes = digits[split]
        pixels = (ink * 255).round().byte().numpy()
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(
            struct.pack(">iiii", 2051, len(classes), SIDE, SIDE) + pixels.tobytes()
        )
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(
            struct.pack(">ii", 2049, len(classes)) + classes.byte().numpy().tobytes()
        )
