"""The ways to fit a head again: what of the validation data each looks at, and what it gives."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable, NamedTuple

import numpy as np

from ..errors import InputError
from ..wilds_runner import pseudo
from ..wilds_runner.datasets import Dataset
from . import heads
from .heads import Choice, Head
from .split import fit_split

if TYPE_CHECKING:
    from ..show.train import OpenedModel


class Material(NamedTuple):
    """What a method may look at."""

    opened: OpenedModel
    features: np.ndarray  #: (N, F) float32, of the validation images
    head: Head  #: the run's own
    split_weight: float

    @property
    def data(self) -> Dataset:
        return self.opened.data

    @property
    def seed(self) -> int:
        return self.opened.config.seed


class Method(NamedTuple):
    """One way."""

    fit: Callable[[Material], Choice]
    meaning: str
    needs: str  #: what it looks at that a user may not have


def _dfr(material: Material) -> Choice:
    return _balanced(material, material.data.splits["val"].groups.numpy())


def _pseudo(material: Material) -> Choice:
    _check_pseudo(material, "pseudo")
    return _balanced(material, pseudo.read(material.opened.folder, material.data).groups["val"].numpy())


def _check_pseudo(material: Material, method: str) -> None:
    folder = material.opened.folder
    if pseudo.file_in(folder) is None:
        path = os.path.join(folder, pseudo.PREDICTED)
        raise InputError(
            f"--method {method}: {path} does not exist, the run was trained without pseudo-environments; train one "
            f"with --cross_fit, or take --method afr"
        )


def _split(material: Material) -> Choice:
    _check_pseudo(material, "split")
    fitted = fit_split(material.opened, material.split_weight, masked=True)
    return Choice(fitted.head, {"split_weight": material.split_weight}, fitted.score, fitted)


def _maps(material: Material) -> Choice:
    _check_pseudo(material, "maps")
    fitted = fit_split(material.opened, 0.0, masked=False)
    return Choice(fitted.head, {}, fitted.score, fitted)


def _balanced(material: Material, groups: np.ndarray) -> Choice:
    labels = material.data.splits["val"].labels.numpy()
    each = np.unique(np.stack([labels, groups], 1), axis=0, return_inverse=True)[1].reshape(-1)  # groups without the
    return heads.balanced(material.features, labels, each, material.data.n_classes, material.seed)  # label are split


def _afr(material: Material) -> Choice:
    return heads.reweighted(material.features, material.data.splits["val"].labels.numpy(), material.head, material.seed)


_NO_GROUPS = "labels of validation data, none of groups"
METHODS = {
    "dfr": Method(
        _dfr,
        "deep feature reweighting (Kirichenko et al., 2023), on equally many validation images of every group",
        "group labels of validation data",
    ),
    "pseudo": Method(
        _pseudo,
        "deep feature reweighting on equally many validation images of every pseudo-group of the run",
        _NO_GROUPS,
    ),
    "afr": Method(
        _afr,
        "automatic feature reweighting (Qiu et al., 2023), on the validation images that the network doubts",
        _NO_GROUPS,
    ),
    "split": Method(
        _split,
        "a mask over the encoder's maps, which keeps what tells the class and takes away what tells the "
        "pseudo-environment, and a head on what it keeps",
        _NO_GROUPS,
    ),
    "maps": Method(_maps, "a head on the encoder's maps, without a mask", _NO_GROUPS),
}
