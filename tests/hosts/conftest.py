"""A WILDS checkout's examples, and a release that they train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hosts.wilds_run_expt import TRANSFORMERS
from PIL import Image


@pytest.fixture(scope="session")
def checkout(wilds_checkout) -> Path:
    """The ``examples`` folder of a real checkout; skips with the reason where there is none."""
    return wilds_checkout / "examples"


@pytest.fixture(scope="session")
def shims(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shims")
    (folder / "transformers.py").write_text(TRANSFORMERS)
    return folder


@pytest.fixture(scope="session")
def release(tmp_path_factory) -> Path:
    """A root with a Waterbirds release of 44 images of noise that the real WaterbirdsDataset reads."""
    root = tmp_path_factory.mktemp("noise")
    folder = root / "waterbirds_v1.0"
    folder.mkdir()
    (folder / "RELEASE_v1.0.txt").write_text("noise")
    rng = np.random.default_rng(0)
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for split, n_images in enumerate((20, 12, 12)):
        for number in range(n_images):
            name = f"{len(lines)}.png"
            Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(folder / name)
            lines.append(f"{len(lines)},{name},{number % 2},{split},{number // 2 % 2},none")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root
