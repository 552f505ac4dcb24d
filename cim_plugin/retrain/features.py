"""What the last layer of a run is given for every image, computed once and kept beside the model."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Any, Sequence

import numpy as np
import torch

from ..algorithms.classifier import RobustClassifier
from ..errors import InputError
from ..models.encoders import read_checkpoint
from ..models.transforms import Transform
from ..progress import progress
from ..runs.layout import MODELS
from ..wilds_runner import checkpoint
from ..wilds_runner.datasets import Dataset, fingerprint
from ..wilds_runner.loading import Images, Loader, evaluation_order, to_pixels

BATCH = 128
FILES = "_features.pth"  #: how the name of the file ends, that of the model but for this


def features_of(
    model_file: str, model: RobustClassifier, data: Dataset, transform: Transform, splits: Sequence[str]
) -> dict[str, np.ndarray]:
    """Split -> (N, F) float32 in dataset order, of images that are not augmented; psi and a bottleneck are part of it.

    What was computed before is taken from the file beside the model's, where model and data are still the same.

    Raises:
        InputError: an image cannot be read.
    """
    path = f"{model_file.removesuffix(MODELS)}{FILES}"
    origin = {"model": _digest(model_file), "data": fingerprint(data)}
    found = _kept(path, origin)
    missing = [key for key in splits if key not in found]
    if missing:
        found |= computed(model, data, transform, missing)
        kept = {key: torch.from_numpy(values) for key, values in found.items()}
        with contextlib.suppress(InputError):  # a folder that may not be written to: computed again the next time
            checkpoint.save(path, {**origin, "features": kept})
    return {key: found[key] for key in splits}


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _kept(path: str, origin: dict[str, Any]) -> dict[str, np.ndarray]:
    if not os.path.isfile(path):
        return {}
    try:
        state = read_checkpoint(path, "retrain")
    except InputError:  # damaged
        return {}
    if {name: state.get(name) for name in origin} != origin:
        return {}
    return {key: values.numpy() for key, values in state["features"].items()}


@torch.no_grad()
def computed(
    model: RobustClassifier, data: Dataset, transform: Transform, splits: Sequence[str]
) -> dict[str, np.ndarray]:
    """As :func:`features_of`, without any file."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().to(device)
    orders = {key: evaluation_order(len(data.splits[key].labels), BATCH) for key in splits}
    found = {}
    with progress(total=sum(map(len, orders.values())), unit="batch", desc="features", leave=False) as bar:
        for key, order in orders.items():
            parts = []
            for batch in Loader(Images(data.wilds, data.splits[key].indices, transform, augment=False), {})(order):
                parts.append(model.features(to_pixels(batch.images, device)).float().cpu())
                bar.update()
            found[key] = torch.cat(parts).numpy()
    return found
