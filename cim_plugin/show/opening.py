"""From a folder or a file to an opened run, whichever host made it."""

from __future__ import annotations

import os

from .. import retired
from ..errors import InputError
from ..runs.layout import RESULTS
from .domainbed import open_domainbed
from .opened_run import OpenedRun
from .subpopbench import is_run, open_subpopbench
from .train import open_train

MODEL = "model.pkl"  #: what marks a folder of DomainBed


def open_run(path: str, split: str, rule: str, data: str | None) -> OpenedRun:
    """Open a run folder of ``cim-plugin train``, an output folder of DomainBed or SubpopBench, or a file of
    DomainBed's.

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
    with retired.allowed():
        learnt = _open(path, split, rule, data)
    if not all(weight.isfinite().all() for weight in learnt.model.parameters()):
        raise InputError(
            f"the model of {path} ({learnt.chosen}) holds weights that are not finite: its training diverged; choose "
            f"another --rule or run"
        )
    return learnt


def _open(path: str, split: str, rule: str, data: str | None) -> OpenedRun:
    if is_run(path):  # its results have the name of those of 'cim-plugin train'
        return open_subpopbench(path, split, data)
    if os.path.isfile(os.path.join(path, RESULTS)):
        return open_train(path, split, rule, data)
    file = os.path.join(path, MODEL) if os.path.isdir(path) else path
    if os.path.isfile(file):
        return open_domainbed(file, split, data)
    if not os.path.exists(path):
        raise InputError(
            f"{path} does not exist; name a folder of 'cim-plugin train', or one of DomainBed or SubpopBench with "
            f"{MODEL}"
        )
    raise InputError(
        f"{path} holds neither {RESULTS} of 'cim-plugin train' nor {MODEL} of DomainBed or SubpopBench (a run with "
        f"--skip_model_save has none)"
    )
