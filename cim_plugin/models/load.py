"""A trained model out of what a run has left, without its data and without its host."""

from __future__ import annotations

import os
from typing import NamedTuple

from torch import Tensor, nn

from .. import retired
from ..errors import InputError
from ..runs import subpopbench
from ..runs.layout import MODELS, RESULTS
from . import domainbed_files, pretrained, subpopbench_files, train_files, wilds_files
from .assembly import assemble, load_weights
from .model import Model
from .recipe import Recipe

MODEL = "model.pkl"  #: of DomainBed and of SubpopBench
HUB = "hf://"


class Saved(NamedTuple):
    """What a file holds of a model."""

    recipe: Recipe
    weights: dict[str, Tensor]  #: as the classifier names them


def load(path: str | os.PathLike, *, rule: str = "best", encoder: nn.Module | None = None) -> Model:
    """A trained model with its transform and the names of its classes, in evaluation mode, on the CPU.

    Neither the data nor the host that trained it are needed, and nothing of the files is executed.

    Args:
        path: a folder of ``cim-plugin train``, of DomainBed's or SubpopBench's train script, of a WILDS checkout's
            ``run_expt.py``, or of ``model.save_pretrained``; one of their model files; or
            "hf://owner/name" on the Hugging Face Hub.
        rule: of a folder of ``cim-plugin train``: the selection rule whose model is wanted, such as "worst_group",
            "average" or "last"; of a WILDS checkout "best", "last" or the number of an epoch.
        encoder: of the same kind, where the model was built with a module of yours.

    Raises:
        InputError: there is no model, a file is damaged or holds more than tensors and plain values, or a package that
            has its network is missing.
    """
    path = os.fspath(path)
    if path.startswith(HUB):
        path = pretrained.pull(path.removeprefix(HUB))
    file = find_file(path, rule)
    saved = read(file)
    model = Model(assemble(saved.recipe, encoder), saved.recipe)
    load_weights(model.classifier, saved.weights, file)
    return model.eval()


def find_file(path: str, rule: str = "best") -> str:
    """The file of the model that a path and a rule name.

    Raises:
        InputError: there is none.
    """
    if os.path.isfile(path):
        return path
    if not os.path.isdir(path):
        raise InputError(f"{path} does not exist; name the folder or the file of a trained model")
    files = set(os.listdir(path))
    if RESULTS in files and not subpopbench.is_run(files):
        return train_files.model_of_rule(path, rule)
    for name in (MODEL, pretrained.WEIGHTS):
        if name in files:
            return os.path.join(path, name)
    if any(name.endswith(MODELS) for name in files):
        return wilds_files.model_of_epoch(path, rule)
    raise InputError(
        f"{path} holds neither {RESULTS} of 'cim-plugin train', nor {MODEL} of DomainBed or SubpopBench (a run with "
        f"--skip_model_save has none), nor a model of WILDS' run_expt (*{MODELS}), nor {pretrained.WEIGHTS}"
    )


def read(file: str) -> Saved:
    """What a file holds of a model, whoever wrote it.

    Raises:
        InputError: it is damaged, or holds no model that can be rebuilt.
    """
    with retired.allowed():
        if file.endswith(pretrained.SUFFIX):
            return Saved(*pretrained.read(file))
        with subpopbench_files.object_ignored():
            saved = domainbed_files.read_checkpoint_with_numbers(file)
        if subpopbench_files.is_one(saved):
            return Saved(*subpopbench_files.recipe_and_weights(saved, file))
        if domainbed_files.is_one(saved):
            return Saved(*domainbed_files.recipe_and_weights(saved, file))
        if wilds_files.is_one(saved):
            return Saved(*wilds_files.recipe_and_weights(saved, file))
        return Saved(*train_files.recipe_and_weights(saved, file))
