"""The Background Challenge (Xiao et al., 2020, arXiv:2006.09994): trained on ImageNet-9, tested with its own, with
other and without backgrounds.

Folders: <data>/original/train/<class>/* and <data>/<variant>/val/<class>/*, as the releases of
github.com/MadryLab/backgrounds_challenge unpack.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from cim_plugin.data.images import SUFFIXES
from cim_plugin.data.releases import RELEASES, Release
from cim_plugin.errors import InputError
from cim_plugin.runs import defaults
from cim_plugin.runs.cluster.launcher import runner
from cim_plugin.runs.configuration import Configuration
from cim_plugin.wilds_runner import preparing
from cim_plugin.wilds_runner.image_cache import open_cache

from . import options
from .showing import show
from .trainings import configurations, train
from .variants import FIELD, Variants, as_dataset

ALGORITHMS = ("ERM", "VIB", "CIM", "CIM_VIB")
RULES = ("average", "last")
NEEDED = {"OR": "original", "MS": "mixed_same", "MR": "mixed_rand"}  #: column of the poster -> variant
GET = (
    "'cim-plugin data get imagenet9 --root DATA' makes DATA/imagenet9 with the training set 'original'; or get the "
    "variants from the release of github.com/MadryLab/backgrounds_challenge and a training set that its README names; "
    "unpack the release so that DATA/<variant>/val/<class>/ hold images, of a training set only its train/, so that "
    "DATA/original/train/<class>/ hold images, and pass --data DATA"
)
EVERY = 20  #: one of so many training images is for validation

#: of 'cim-plugin train'; the poster says of its training that it is a ResNet-50
DEFAULTS = {
    "split_scheme": "official",
    "val_metric": "acc_avg",
    "val_metric_decreasing": False,
    "groupby_fields": [FIELD],
    "model": "resnet50",
    "model_kwargs": {"pretrained": False},
    "transform": "image_base",
    "target_resolution": [224, 224],
    "additional_train_transform": "resized_crop",
    "batch_size": 128,
    "optimizer": "SGD",
    "optimizer_kwargs": {"momentum": 0.9},
    "scheduler": "cosine_schedule_with_warmup",
    "lr": 0.05,
    "weight_decay": 1e-4,
    "n_epochs": 60,
    "loader_kwargs": {"num_workers": min(16, os.cpu_count() or 1), "pin_memory": True},
}
QUICK = (
    "--model small_cnn --target_resolution 48 --batch_size 16 --optimizer AdamW --lr 1e-3 --n_epochs 1 "
    "--loader_kwargs num_workers=0 --cache false"
).split()
QUICK_IMAGES = 8  #: of every class, in training and in every variant


@dataclass(frozen=True, kw_only=True)
class Listed(Configuration):
    images: str  #: of :meth:`Listing.digest`: a run goes on with its own only


class Listing(NamedTuple):
    """The images that a run reads, in the order of their paths."""

    paths: list[Path]
    labels: list[int]
    variants: list[int]
    splits: list[int]
    classes: list[str]
    variant_names: list[str]

    def digest(self) -> str:
        """Of which images of --data they are."""
        return hashlib.sha256("\n".join("/".join(path.parts[-4:]) for path in self.paths).encode()).hexdigest()[:16]


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        "--data", type=Path, default=Path("data/imagenet9"), help="folder of the variants, original among them"
    )
    parser.add_argument(
        "--training_set",
        default="original",
        metavar="NAME",
        help="folder in it whose train/ is trained on; the poster's first row is of in9l",
    )
    options.add_algorithms(parser, ALGORITHMS)
    options.add_seeds(parser)


def run(args: argparse.Namespace, name: str, words: list[str]) -> int:
    """Train and print.

    Raises:
        InputError: variants are missing, or a flag is wrong.
    """
    defaults.DATASETS[name] = DEFAULTS
    listing = list_images(args.data.absolute(), args.training_set, QUICK_IMAGES if args.quick else None)
    folder = options.folder(args, name)
    given = [*(QUICK if args.quick else []), *words, "--split_scheme", args.training_set]
    configs = configurations(
        name, args.data.absolute(), folder, args.algorithms, [0] if args.quick else args.seeds, given
    )
    configs = [Listed(**vars(config), images=listing.digest()) for config in configs]
    options.announce(args.quick)
    status = train(configs, partial(prepare, listing=listing), runner(args, folder))
    show(folder, RULES, "Background Challenge", columns, ("OR", "MR", "BG-gap"), failed=bool(status))
    print(
        f"\nTrained on {args.training_set}. The published Res50 is of in9l; the poster does not say what its own rows "
        f"were trained on, nor for how long."
    )
    return status


def list_images(root: Path, training_set: str, most: int | None) -> Listing:
    """Every variant that is there, ``most`` images of a class or all. A folder without images, as the release's fg_mask
    of .npy files, is none.

    Raises:
        InputError: a needed one is missing, or classes differ.
    """
    folders = [root / training_set / "train", *(root / name / "val" for name in NEEDED.values())]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise InputError(f"{', '.join(missing)}: not there; {GET}")
    others = {folder.parent.name for folder in root.glob("*/val") if _images(folder, "*")} - {
        training_set,
        *NEEDED.values(),
    }
    listing = Listing(
        [],
        [],
        [],
        [],
        sorted(path.name for path in folders[0].iterdir() if path.is_dir()),
        [*NEEDED.values(), *sorted(others)],
    )
    for number, image in enumerate(_add(listing, folders[0], most)):
        listing.splits.append(int(number % EVERY == EVERY - 1))
        listing.variants.append(0)
        listing.paths.append(image)
    for variant, name in enumerate(listing.variant_names):
        for image in _add(listing, root / name / "val", most):
            listing.splits.append(2)
            listing.variants.append(variant)
            listing.paths.append(image)
    _warn_of_other_images(listing)
    return listing


def _warn_of_other_images(listing: Listing) -> None:
    """The archives of training sets have a val/ as well, not cleaned by hand; unpacked over the release's it spoils a
    column.
    """
    counts = Counter(variant for variant, split in zip(listing.variants, listing.splits) if split == 2)
    if len({counts[variant] for variant in range(len(NEEDED))}) > 1:
        found = ", ".join(f"{name} {counts[variant]:,}" for variant, name in enumerate(NEEDED.values()))
        print(
            f"warning: the release has as many test images in each, here are {found}; val/ of a training archive is "
            f"not the test",
            file=sys.stderr,
        )


def _images(folder: Path, name: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"{name}/*") if path.suffix.lower() in SUFFIXES)


def _add(listing: Listing, folder: Path, most: int | None) -> list[Path]:
    """The images of a folder of classes; their labels go to the listing."""
    found: list[Path] = []
    for label, name in enumerate(listing.classes):
        images = _images(folder, name)[:most]
        if not images:
            raise InputError(
                f"{folder / name} holds no images; every variant needs the classes of the training set, "
                f"{', '.join(listing.classes)}"
            )
        found += images
        listing.labels.extend([label] * len(images))
    unknown = sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(listing.classes))
    if unknown:
        raise InputError(
            f"{folder / unknown[0]} is a class that the training set does not have; it has {', '.join(listing.classes)}"
        )
    return found


def prepare(config: Configuration, fabric, listing: Listing):
    """The loop of a run over the listed images."""
    name = config.dataset
    RELEASES[name] = Release(
        name, "", (), {}, "", image_names="paths"
    )  # where a run looks up the file of an image that it cannot read
    labels, variants, splits = (torch.tensor(values) for values in (listing.labels, listing.variants, listing.splits))
    wilds = Variants(
        name,
        Path(config.root_dir),
        partial(_read, listing.paths),
        labels,
        variants,
        splits,
        listing.classes,
        listing.variant_names,
    )
    wilds.paths = listing.paths

    def cache(config, *words):
        """Its file goes by the files of --data; here also by which of them are read, as another training set reads
        others.
        """
        return open_cache(replace(config, dataset=f"{name}-{listing.digest()}"), *words)

    return preparing.prepare(config, fabric, lambda config: as_dataset(wilds, config, synthetic=False), cache)


def _read(paths: list[Path], row: int) -> Image.Image:
    with Image.open(paths[row]) as image:
        return image.convert("RGB")


def columns(values: dict[str, float], parts: dict[str, float]) -> dict[str, float]:
    """The poster's columns, then every further variant. No average over them: where only the background is left, a
    lower accuracy is the better one.
    """
    accuracies = {name.removeprefix(f"{FIELD}:"): value for name, value in parts.items()}
    found = {column: accuracies.pop(name) for column, name in NEEDED.items()}
    return {**found, "BG-gap": found["MS"] - found["MR"], **accuracies}
