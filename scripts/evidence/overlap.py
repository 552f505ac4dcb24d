"""Whether m finds the bird: overlap of a trained mask with the masks of a release, on its validation images."""

from __future__ import annotations

import json
import math
import os
from typing import Any, Callable

import numpy as np
import torch
from PIL import Image
from scipy.stats import rankdata

import cim_plugin
from cim_plugin.files import write_whole

from .figures_only import RELEASE, mask_of, read_table
from .kept import OVERLAP
from .settings import RULE

BATCH = 64
VALIDATION = "1"


def of_image(m: np.ndarray, bird: np.ndarray) -> tuple[float, float, float]:
    """The mean of m on the bird, that off it, pixels weighted by how much of them is either, and the area under the ROC
    curve of m for pixels that are more than half bird. NaN where an image has no bird, or no ground.

    Args:
        m: (H, W) in [0, 1].
        bird: (H, W) in [0, 1], how much of a pixel is the bird.
    """
    weights = (bird.sum(), (1 - bird).sum())
    on, off = ((m * part).sum() / total if total else math.nan for part, total in zip((bird, 1 - bird), weights))
    positive = (bird > 0.5).ravel()
    n, others = int(positive.sum()), int((~positive).sum())
    if not n or not others:
        return float(on), float(off), math.nan
    ranks = rankdata(m.ravel())[positive].sum()
    return float(on), float(off), float((ranks - n * (n + 1) / 2) / (n * others))


@torch.no_grad()
def measure(model: Any, root: str) -> dict[str, Any]:
    """The means of :func:`of_image` over the validation images of a release.

    Args:
        model: with ``transform``, and ``morph`` that gives m, as :func:`cim_plugin.load` gives it.
        root: holds the release and its masks.
    """
    release = os.path.join(root, RELEASE)
    names = [row["img_filename"] for row in read_table(release) if row["split"] == VALIDATION]
    values = []
    for start in range(0, len(names), BATCH):
        part = names[start : start + BATCH]
        images = torch.stack([model.transform(open_image(release, name)) for name in part])
        for m, name in zip(model.morph(images).m[:, 0].double().numpy(), part):
            values.append(of_image(m, bird(release, name, model.transform.steps)))
    on, off, area = np.nanmean(values, axis=0).tolist()
    return {"on_bird": on, "off_bird": off, "auc": area, "images": len(names)}


def bird(release: str, name: str, resize: Callable) -> np.ndarray:
    """(H, W) in [0, 1], how much of each pixel of an image is the bird, as a network's transform resizes it."""
    return np.asarray(resize(open_image(release, "masks", mask_of(name)).convert("L"))) / 255


def open_image(*parts: str) -> Image.Image:
    """An image by the parts of its path, read whole."""
    with Image.open(os.path.join(*parts)) as image:
        image.load()
    return image


def write(run: str, root: str) -> None:
    """:data:`.kept.OVERLAP` in the folder of a run whose algorithm has a mask, of the model that the headline's rule
    chose.
    """
    found = measure(cim_plugin.load(run, rule=RULE), root)
    write_whole(os.path.join(run, OVERLAP), json.dumps({**found, "rule": RULE}).encode())
