"""Waterbirds, or what ``cim-plugin data demo`` makes in its place, as a data set of torch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Callable

from PIL import Image
from torch.utils.data import Dataset

CLASSES = ["landbird", "waterbird"]


class Waterbirds(Dataset):
    """One split: (image, class, place) with 0 and 1 for land and water, both of the bird and of the place.

    Args:
        root: the folder that ``cim-plugin data demo --root`` was given.
        split: "train", "val" or "test".
        transform: of the PIL image.
    """

    def __init__(self, root: str, split: str, transform: Callable):
        self.folder, self.transform = Path(root, "waterbirds_v1.0"), transform
        with open(self.folder / "metadata.csv", newline="") as file:
            number = str(("train", "val", "test").index(split))
            self.rows = [row for row in csv.DictReader(file) if row["split"] == number]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        row = self.rows[index]
        with Image.open(self.folder / row["img_filename"]) as image:
            return self.transform(image.convert("RGB")), int(row["y"]), int(row["place"])
