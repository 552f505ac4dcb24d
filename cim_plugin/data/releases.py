"""The data sets that this package knows: their folder, what it must hold, what was published about them, how to train
on them; `sources` says where they come from.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_bytes
from .sources import PLACES, SOURCES

SYNTHETIC = "SYNTHETIC"  #: how the RELEASE file of what 'cim-plugin data demo' makes begins
SUBSET = "SUBSET"  #: how the RELEASE file of what 'cim-plugin data get --subset' makes begins
OWN = "OWN"  #: how the text of what 'cim-plugin data folder' makes begins
OWN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  #: what such a folder may be called
ORIGIN = "ORIGIN.txt"  #: the file of that text where the host's layout has no RELEASE file
DEMOS = ("waterbirds", "celebA")  #: 'cim-plugin data demo' makes them
_DEMO = "; for a first try, 'cim-plugin data demo' makes a synthetic one"
SPLITS = ("train", "val", "test")  #: in the order of their numbers in the metadata of Waterbirds and CelebA


@dataclass(frozen=True)
class Release:
    """A data set in the layout that its host reads."""

    name: str  #: as wilds.get_dataset and DomainBed call it
    folder: str  #: inside the root folder of all data sets
    needs: tuple[str, ...]  #: files and folders inside it, besides the RELEASE file
    counts: dict[str, int]  #: published number of images per split, for DomainBed's sets per environment
    train: str  #: the command that trains on it, {root} to be filled in
    groups: dict[str, int] = field(
        default_factory=dict
    )  #: group in wilds' order and words -> published number of training images
    image: str = "{}"  #: path of an image in the folder, by its entry in the loader's attribute below
    image_names: str = "_input_array"

    @property
    def release_file(self) -> str | None:
        """The file without which wilds takes the data set for absent; None for DomainBed, which needs none."""
        _, mark, version = self.folder.partition("_v")
        return f"RELEASE_v{version}.txt" if mark else None

    def path(self, root: str | os.PathLike) -> Path:
        """Where it lies under the folder ``root``."""
        return Path(root) / self.folder

    def differences(self, counts: dict[str, int]) -> str:
        """Which of ``counts`` are not the published ones, in words; empty if all are."""
        return ", ".join(
            f"{part} {count:,} (published {self.counts[part]:,})"
            for part, count in counts.items()
            if count != self.counts[part]
        )

    def image_path(self, dataset: Any, row: int) -> str:
        """The file of an image of ``dataset``, an object of the wilds package."""
        return os.path.join(dataset.data_dir, self.image.format(getattr(dataset, self.image_names)[row]))

    def image_paths(self, dataset: Any) -> list[str]:
        """The file of every image, in the order of the data set."""
        return [self.image_path(dataset, row) for row in range(len(getattr(dataset, self.image_names)))]

    @property
    def mark_file(self) -> str:
        """The file that says where the release comes from, and that it is not the whole one where it is not."""
        return self.release_file or ORIGIN


def _wilds(name: str, version: str, needs: tuple[str, ...], counts: dict[str, int], **more: Any) -> Release:
    train = f"cim-plugin train -d {name} --root_dir {{root}} --algorithm CIM --log_dir logs/{name}"
    return Release(name, f"{name}_v{version}", needs, counts, train, **more)


def _domainbed(name: str, folder: str, counts: dict[str, int]) -> Release:
    train = f"python -m domainbed.scripts.train --data_dir {{root}} --dataset {name} --algorithm CIM --test_envs 0"
    return Release(name, folder, tuple(counts), counts, train)


#: Counts: Sagawa et al. 2020 (arXiv:1911.08731), Koh et al. 2021 (arXiv:2012.07421), DomainBed's list of VLCS' files
#: and what its own copies of the other sets hold, Xiao et al. 2021 (arXiv:2006.09994).
RELEASES = {
    release.name: release
    for release in (
        _wilds(
            "waterbirds",
            "1.0",
            ("metadata.csv",),
            {"train": 4795, "val": 1199, "test": 5794},
            groups={
                "y:landbird_background:land": 3498,
                "y:landbird_background:water": 184,
                "y:waterbird_background:land": 56,
                "y:waterbird_background:water": 1057,
            },
        ),
        _wilds(
            "celebA",
            "1.0",
            ("list_attr_celeba.csv", "list_eval_partition.csv", "img_align_celeba"),
            {"train": 162770, "val": 19867, "test": 19962},
            groups={
                "y:notblond_male:0": 71629,
                "y:notblond_male:1": 66874,
                "y:blond_male:0": 22880,
                "y:blond_male:1": 1387,
            },
            image=os.path.join("img_align_celeba", "{}"),
        ),
        _wilds(
            "iwildcam",
            "2.0",
            ("metadata.csv", "train"),
            {"train": 129809, "val": 14961, "test": 42791, "id_val": 7314, "id_test": 8154},
            image=os.path.join("train", "{}"),
        ),
        _wilds(
            "camelyon17",
            "1.0",
            ("metadata.csv", "patches"),
            {"train": 302436, "id_val": 33560, "test": 85054, "val": 34904},
        ),
        _wilds(
            "rxrx1", "1.0", ("metadata.csv", "images"), {"train": 40612, "val": 9854, "test": 34432, "id_test": 40612}
        ),
        _wilds(
            "fmow",
            "1.1",
            ("rgb_metadata.csv", "country_code_mapping.csv", "images"),
            {"train": 76863, "id_val": 11483, "id_test": 11327, "val": 19915, "test": 22108},
            image=os.path.join("images", "rgb_img_{}.png"),
            image_names="full_idxs",
        ),
        _domainbed("VLCS", "VLCS", {"Caltech101": 1415, "LabelMe": 2656, "SUN09": 3282, "VOC2007": 3376}),
        _domainbed("PACS", "PACS", {"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929}),
        _domainbed("OfficeHome", "office_home", {"Art": 2427, "Clipart": 4365, "Product": 4439, "Real World": 4357}),
        _domainbed(
            "DomainNet",
            "domain_net",
            {
                "clipart": 48129,
                "infograph": 51605,
                "painting": 72266,
                "quickdraw": 172500,
                "real": 172947,
                "sketch": 69128,
            },
        ),
        _domainbed(
            "TerraIncognita",
            "terra_incognita",
            {"location_100": 4741, "location_38": 9736, "location_43": 3970, "location_46": 5883},
        ),
        Release(
            "imagenet9",
            "imagenet9",
            ("original/train", "original/val", "mixed_same/val", "mixed_rand/val"),
            {"original/train": 45405, "original/val": 4050, "mixed_same/val": 4050, "mixed_rand/val": 4050},
            "scripts/reproduce/background_challenge --data {root}/imagenet9",
        ),
    )
}


def how_to_get(name: str, root: str | os.PathLike = "data") -> str:
    """The end of a sentence: the command that gets the data set into ``root``, or why there is none.

    Raises:
        InputError: there is no such data set.
    """
    if name not in RELEASES:
        raise InputError(f"unknown data set {name!r}; known: {', '.join(RELEASES)}")
    entry, folder = SOURCES[name], shlex.quote(str(root))
    if not entry.mirrors:
        return f"it cannot be got by a command: {entry.without}"
    mirror = entry.mirrors[0]
    extra = PLACES[mirror.place][1]
    return (
        f"get it with: cim-plugin data get {name} --root {folder} ({mirror.size / 1e9:.1f} GB from "
        f"{mirror.repository}, needs 'cim_plugin[{extra}]'{_DEMO if name in DEMOS else ''})"
    )


def how_to_train(name: str, root: str | os.PathLike) -> str:
    """The command that trains on a data set in ``root``."""
    return RELEASES[name].train.format(root=shlex.quote(str(root)))


def folder_of(name: str, root: str | os.PathLike) -> Path:
    """Where a data set lies under the folder ``root``: a known one, or own data."""
    return RELEASES[name].path(root) if name in RELEASES else Path(root, name)


def is_synthetic(data_dir: str | os.PathLike) -> bool:
    """Whether the release in this folder was made by ``cim-plugin data demo``: its RELEASE file says so first."""
    return _marked(data_dir, SYNTHETIC)


def is_subset(data_dir: str | os.PathLike) -> bool:
    """Whether the release in this folder is a part of the data set that ``cim-plugin data get --subset`` took."""
    return _marked(data_dir, SUBSET)


def is_own(data_dir: str | os.PathLike) -> bool:
    """Whether the release in this folder was made by ``cim-plugin data folder``."""
    return _marked(data_dir, OWN)


def _marked(data_dir: str | os.PathLike, mark: str) -> bool:
    files = [*Path(data_dir).glob("RELEASE_v*.txt"), *Path(data_dir).glob(ORIGIN)]
    return any(path.is_file() and read_bytes(path).startswith(mark.encode()) for path in files)
