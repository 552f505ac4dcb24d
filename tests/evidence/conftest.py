"""A release in Waterbirds' layout with masks, and weights that any encoder of this kind could have."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import timm
import torch
from PIL import Image

SIZE = (40, 36)  #: width and height, other than the ones of Waterbirds


class Inputs(NamedTuple):
    """What the command is given."""

    root: Path
    weights: Path


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Inputs:
    root = tmp_path_factory.mktemp("data")
    release = root / "waterbirds_v1.0"
    rng = np.random.default_rng(0)
    rows = []
    for split, count in enumerate((24, 12, 12)):
        for number in range(count):
            y, place = number % 2, number // 2 % 2
            name = f"species/{split}_{number}.jpg"
            image = rng.integers(0, 120, (SIZE[1], SIZE[0], 3), dtype=np.uint8) + np.uint8(100 * place)
            mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
            mask[10:20, 5 : 15 + 10 * y] = 255
            image[mask > 0] = (255, 100 * y, 0)
            for folder, pixels, suffix in ((release, image, ".jpg"), (release / "masks", mask, ".png")):
                path = (folder / name).with_suffix(suffix)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
            rows.append([len(rows) + 1, name, y, split, place, "none"])
    (release / "RELEASE_v1.0.txt").write_text("SYNTHETIC: noise and rectangles\n")
    with open(release / "metadata.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [["img_id", "img_filename", "y", "split", "place", "place_filename"], *rows]
        )
    torch.manual_seed(0)
    weights = root / "weights.pt"
    torch.save(timm.create_model("mobilenetv2_100", pad_type="same", num_classes=10).state_dict(), weights)
    return Inputs(root, weights)
