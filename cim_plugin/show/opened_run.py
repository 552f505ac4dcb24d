"""A trained run with a transformation network, opened so that its images can be looked at: whichever host trained
it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from .. import catalog
from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ..algorithms.classifier import RobustClassifier

RESULTS, MODEL = "results.json", "model.pkl"  #: what marks a folder of 'cim-plugin train', and one of DomainBed


class Learnt(NamedTuple):
    """A run's model, and the images of one of its splits."""

    run: str
    algorithm: str
    dataset: str
    split: str
    chosen: str  #: which of the run's models this is, in words
    synthetic: bool
    model: RobustClassifier  #: in evaluation mode, on the CPU
    labels: Tensor  #: (N,) int64
    groups: Tensor  #: (N,) int64
    environments: Tensor  #: (N,) int64, what 'cross_environment' pairs go by
    unit: str  #: "group", or "environment" for DomainBed
    group_names: list[str]
    class_names: list[str]
    read: Callable[[list[int]], Tensor]  #: rows of the split -> images (n, C, H, W) as the model takes them
    figure: (
        Callable[[list[int]], Tensor] | None
    )  #: rows -> how much of a pixel is the digit, (n, 1, H, W) in [0, 1]; None where nobody knows
    data: str | None = None  #: the folder of the images and who named it, where that was not the user

    def facts(self) -> dict[str, Any]:
        """What a reader must know of it, in plain values."""
        return {
            name: getattr(self, name) for name in ("run", "algorithm", "dataset", "split", "chosen", "synthetic")
        } | {"images_in_split": len(self.labels)}


def open_run(path: str, split: str, rule: str, data: str | None) -> Learnt:
    """Open a run folder of ``cim-plugin train``, a DomainBed output folder, or a file of DomainBed's.

    Args:
        path: the folder or file.
        split: of the data set; for DomainBed "train", "val" (held out of the training environments) or "test" (the test
            environments).
        rule: the selection rule whose model is wanted; for runs of ``cim-plugin train``.
        data: the folder of the data sets where it is not the one that the run was trained with.

    Raises:
        InputError: there is no such run, it has no transformation network or broken weights, or its data are not to be
            had.
    """
    with catalog.retired_allowed():
        learnt = _open(path, split, rule, data)
    if not all(weight.isfinite().all() for weight in learnt.model.parameters()):
        raise InputError(
            f"the model of {path} ({learnt.chosen}) holds weights that are not finite: its training diverged; choose "
            f"another --rule or run"
        )
    return learnt


def _open(path: str, split: str, rule: str, data: str | None) -> Learnt:
    if os.path.isfile(os.path.join(path, RESULTS)):
        from .train import open_train

        return open_train(path, split, rule, data)
    file = os.path.join(path, MODEL) if os.path.isdir(path) else path
    if os.path.isfile(file):
        from .domainbed import open_domainbed

        return open_domainbed(file, split, data)
    if not os.path.exists(path):
        raise InputError(
            f"{path} does not exist; name a folder of 'cim-plugin train', or one of DomainBed with {MODEL}"
        )
    raise InputError(
        f"{path} holds neither {RESULTS} of 'cim-plugin train' nor {MODEL} of DomainBed (a run with --skip_model_save "
        f"has none)"
    )


def check_algorithm(algorithm: Any, path: str) -> None:
    """Raise InputError unless this algorithm has a transformation network that can be shown."""
    if catalog.owner(algorithm) not in (None, algorithm):
        raise InputError(
            f"{path} is a run of {algorithm}; of DomainBed's compositions none but CIM+ERM, which is CIM, can be shown "
            f"yet"
        )
    with_morphing = [name for name, (parts, _) in catalog.TRAINABLE.items() if "morphing" in parts]
    if algorithm not in with_morphing:
        raise InputError(
            f"{path} is a run of {algorithm}, which has no transformation network to show; name a run of "
            f"{' or '.join(with_morphing)}"
        )
