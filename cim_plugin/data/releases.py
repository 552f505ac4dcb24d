"""The data sets that this package knows: their folder, what it must hold, what was published about them, how to get
them.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_bytes

SYNTHETIC = "SYNTHETIC"  #: how the RELEASE file of what 'cim-plugin data demo' makes begins
SPLITS = ("train", "val", "test")  #: in the order of their numbers in the metadata of Waterbirds and CelebA

_DOWN = "its server has been down since April 2026, WILDS issues 173 to 175: a copy may have to come from elsewhere"
_DEMO = "for a first try, 'cim-plugin data demo' makes a synthetic one"


@dataclass(frozen=True)
class Release:
    """A data set in the layout that its host reads."""

    name: str  #: as wilds.get_dataset and DomainBed call it
    folder: str  #: inside the root folder of all data sets
    needs: tuple[str, ...]  #: files and folders inside it, besides the RELEASE file
    counts: dict[str, int]  #: published number of images per split, for VLCS per environment
    get: str  #: the command that gets it, {root} to be filled in
    note: str  #: where the data come from
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


def _wilds(name: str, version: str, needs: tuple[str, ...], counts: dict[str, int], **more: str) -> Release:
    get = f"python -m wilds.download_datasets --root_dir {{root}} --datasets {name}"
    return Release(name, f"{name}_v{version}", needs, counts, get, _DOWN, **more)


#: Counts: Sagawa et al. 2020 (arXiv:1911.08731), Koh et al. 2021 (arXiv:2012.07421), and DomainBed's list of VLCS'
#: files.
RELEASES = {
    release.name: release
    for release in (
        Release(
            "waterbirds",
            "waterbirds_v1.0",
            ("metadata.csv",),
            {"train": 4795, "val": 1199, "test": 5794},
            "cim-plugin data waterbirds --from waterbird_complete95_forest2water2.tar.gz --root {root}",
            f"the archive is at https://nlp.stanford.edu/data/dro/waterbird_complete95_forest2water2.tar.gz; {_DEMO}",
            {
                "y:landbird_background:land": 3498,
                "y:landbird_background:water": 184,
                "y:waterbird_background:land": 56,
                "y:waterbird_background:water": 1057,
            },
        ),
        Release(
            "celebA",
            "celebA_v1.0",
            ("list_attr_celeba.csv", "list_eval_partition.csv", "img_align_celeba"),
            {"train": 162770, "val": 19867, "test": 19962},
            "cim-plugin data celebA --from FOLDER --root {root}",
            f"FOLDER holds the files of https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html or of Kaggle's "
            f"jessicali9530/celeba-dataset; {_DEMO}",
            {"y:notblond_male:0": 71629, "y:notblond_male:1": 66874, "y:blond_male:0": 22880, "y:blond_male:1": 1387},
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
        Release(
            "VLCS",
            "VLCS",
            ("Caltech101", "LabelMe", "SUN09", "VOC2007"),
            {"Caltech101": 1415, "LabelMe": 2656, "SUN09": 3282, "VOC2007": 3376},
            "cim-plugin data vlcs --from VLCS.tar.gz --root {root}",
            "DomainBed's domainbed/scripts/download.py names the archive's address",
        ),
    )
}


def how_to_get(name: str, root: str | os.PathLike = "data") -> str:
    """The end of a sentence: the command that gets the data set into ``root``.

    Raises:
        InputError: there is no such data set.
    """
    if name not in RELEASES:
        raise InputError(f"unknown data set {name!r}; known: {', '.join(RELEASES)}")
    release = RELEASES[name]
    return f"get it with: {release.get.format(root=shlex.quote(str(root)))} ({release.note})"


def is_synthetic(data_dir: str | os.PathLike) -> bool:
    """Whether the release in this folder was made by ``cim-plugin data demo``: its RELEASE file says so first."""
    texts = [read_bytes(path) for path in Path(data_dir).glob("RELEASE_v*.txt") if path.is_file()]
    return any(text.startswith(SYNTHETIC.encode()) for text in texts)
