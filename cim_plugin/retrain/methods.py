"""The ways to fit a head again: what of the validation data each looks at, and what it gives."""

from __future__ import annotations

import os
from typing import Callable, NamedTuple

import numpy as np

from ..errors import InputError
from ..wilds_runner import pseudo
from ..wilds_runner.datasets import Dataset
from . import heads
from .heads import Choice, Head


class Material(NamedTuple):
    """What a method may look at."""

    folder: str  #: of the run
    data: Dataset
    features: np.ndarray  #: (N, F) float32, of the validation images
    head: Head  #: the run's own
    seed: int


class Method(NamedTuple):
    """One way."""

    fit: Callable[[Material], Choice]
    meaning: str
    needs: str  #: what it looks at that a user may not have


def _dfr(material: Material) -> Choice:
    return _balanced(material, material.data.splits["val"].groups.numpy())


def _pseudo(material: Material) -> Choice:
    if pseudo.file_in(material.folder) is None:
        path = os.path.join(material.folder, pseudo.PREDICTED)
        raise InputError(
            f"--method pseudo: {path} does not exist, the run was trained without pseudo-environments; train one with "
            f"--cross_fit, or take --method afr"
        )
    return _balanced(material, pseudo.read(material.folder, material.data).groups["val"].numpy())


def _balanced(material: Material, groups: np.ndarray) -> Choice:
    labels = material.data.splits["val"].labels.numpy()
    each = np.unique(np.stack([labels, groups], 1), axis=0, return_inverse=True)[1].reshape(-1)  # groups without the
    return heads.balanced(material.features, labels, each, material.data.n_classes, material.seed)  # label are split


def _afr(material: Material) -> Choice:
    return heads.reweighted(material.features, material.data.splits["val"].labels.numpy(), material.head, material.seed)


METHODS = {
    "dfr": Method(
        _dfr,
        "deep feature reweighting (Kirichenko et al., 2023), on equally many validation images of every group",
        "group labels of validation data",
    ),
    "pseudo": Method(
        _pseudo, "the same on the pseudo-groups of the run's --cross_fit", "no group labels, labels of validation data"
    ),
    "afr": Method(
        _afr,
        "automatic feature reweighting (Qiu et al., 2023), on the validation images that the network doubts",
        "no group labels, labels of validation data",
    ),
}
