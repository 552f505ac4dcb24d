"""Tiny releases of camelyon17 and iWildCam in the real layout on the disk, which the loaders of the wilds package
read.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

CAMELYON17 = {"id_val": 7, "test": 9, "val": 8}  #: images per evaluated split, in the order of the wilds package
IWILDCAM = {"val": 8, "test": 9, "id_val": 6, "id_test": 7}
IWILDCAM_CLASSES = 3


def _image(path: Path, rng: np.random.Generator, label: int, side: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 150, (side, side, 3), dtype=np.uint8)
    pixels[..., label] += 80
    Image.fromarray(pixels).save(path)


def _write_table(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_camelyon17(root: Path) -> None:
    """40 patches of 96x96 pixels. Hospital 1 is val, 2 is test; the others are train and id_val; rows are mixed."""
    folder = root / "camelyon17_v1.0"
    rng = np.random.default_rng(0)
    centers = (
        ["train"] * 16 + ["id_val"] * CAMELYON17["id_val"] + ["test"] * CAMELYON17["test"] + ["val"] * CAMELYON17["val"]
    )
    rows = []
    for number, split in enumerate(rng.permutation(centers)):
        center = {"val": 1, "test": 2}.get(split, (0, 3, 4)[number % 3])
        label = int(rng.integers(2))
        node, x, y = number % 2, 96 * number, 480
        name = f"patches/patient_{center:03}_node_{node}/patch_patient_{center:03}_node_{node}_x_{x}_y_{y}.png"
        _image(folder / name, rng, label, 96)
        row = {
            "patient": f"{center:03}",
            "node": node,
            "x_coord": x,
            "y_coord": y,
            "tumor": label,
            "slide": 2 * center + node,
            "center": center,
        }
        rows.append({"": number, **row, "split": int(split == "id_val")})
    _write_table(folder / "metadata.csv", rows)
    (folder / "RELEASE_v1.0.txt").write_text("a small one, for tests\n")


def write_iwildcam(root: Path) -> None:
    """46 images of 28x28 pixels at two locations, of three classes."""
    folder = root / "iwildcam_v2.0"
    rng = np.random.default_rng(1)
    splits = ["train"] * 16 + [split for split, count in IWILDCAM.items() for _ in range(count)]
    rows = []
    for number, split in enumerate(rng.permutation(splits)):
        label = number % IWILDCAM_CLASSES
        _image(folder / "train" / f"{number}.jpg", rng, label, 28)
        place = {"location_remapped": number % 2, "sequence_remapped": number}
        rows.append(
            {"split": split, "filename": f"{number}.jpg", "y": label, **place, "datetime": "2013-06-05 05:44:19.000"}
        )
    _write_table(folder / "metadata.csv", rows)
    (folder / "RELEASE_v2.0.txt").write_text("a small one, for tests\n")
